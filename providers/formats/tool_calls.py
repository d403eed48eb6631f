"""Write tools, tool calls and their results for formats that are stricter than OpenAI's."""

from __future__ import annotations

import re
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from providers import chat
from providers.failures import UnsupportedFeature
from providers.formats.tool_results import has_attachments, result_text, results_as_text
from providers.json_values import (
    JsonError,
    dumps_text,
    embed_object,
    is_json_object,
    read_list,
    read_map,
    unquoted_object,
)
from providers.value import replace

_CALL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_-]")
FILLER_TEXT = "."
"""The text of a message without content, for formats that require a text that is not blank."""
_UNSAFE = re.compile(r"[^a-zA-Z0-9_-]")
_MAX_ID_CHARACTERS = 64


def safe_call_name(name: str, most: int = 64) -> str:
    """Return the name of an earlier call in the characters that OpenAI, Claude and others accept.

    The names of tools have only such characters. But a model may call a tool that does not exist
    (`default_api.search`), and the client keeps that call in its history. Without this change, a strict provider would
    refuse every later request of that conversation.

    Other characters become `_`, and the name is cut after `most`. A valid name is not changed.
    """
    return name if _CALL_NAME.fullmatch(name) else _NOT_IN_A_NAME.sub("_", name)[:most]


SimpleToolChoice = chat.NamedTool | Literal["auto", "none", "required"] | None
"""A tool choice without `AllowedTools`, for formats that cannot express it: the other tools are left out instead."""


def tools_of(request: chat.ChatRequest, most: int = 64) -> tuple[tuple[chat.Tool, ...], SimpleToolChoice]:
    """Return the tools that may be called, and the choice among them.

    If the history contains calls but the request has no tools, the called tools are returned with the choice "none".
    Such a request is valid, but Claude refuses calls without tools.

    `most` is the longest name of a tool that the provider accepts. None stands for a request that names no choice.
    """
    if not request.tools:
        names = dict.fromkeys(
            safe_call_name(call.name, most)
            for message in request.messages
            if isinstance(message, chat.AssistantMessage)
            for call in message.tool_calls
        )
        return tuple(chat.Tool(name) for name in names), "none"
    if isinstance(choice := request.tool_choice, chat.AllowedTools):
        return tuple(tool for tool in request.tools if tool.name in choice.names), choice.mode
    return request.tools, choice


def turns_with_results(
    messages: Sequence[chat.Message],
) -> Iterator[tuple[chat.SystemMessage | chat.UserMessage | chat.AssistantMessage, list[tuple[chat.ToolCall, str]]]]:
    """Yield each message except tool results, with its calls and the texts of their results.

    It is for formats that have only user and assistant turns. Call ids become unique in the whole conversation, as
    Claude requires, because some servers number the calls of each answer from the start. Images and files of results
    are in a user message after them, and the text of a failed result states that the call failed. Raises
    UnsupportedFeature if a call has no result, or a result has no call.
    """
    for message, results in turns_with_whole_results(results_as_text(messages)):
        yield message, [(call, result_text(result)) for call, result in results]


def turns_with_whole_results(
    messages: Sequence[chat.Message],
) -> Iterator[
    tuple[chat.SystemMessage | chat.UserMessage | chat.AssistantMessage, list[tuple[chat.ToolCall, chat.ToolMessage]]]
]:
    """Yield the same as `turns_with_results`, with whole results, for formats that take images or failures in them.

    Raises UnsupportedFeature if a call has no result, or a result has no call.
    """
    taken: dict[str, int] = {}
    position = 0
    while position < len(messages):
        message = messages[position]
        position += 1
        if isinstance(message, chat.ToolMessage):
            raise UnsupportedFeature(
                "tools", f"messages[{position - 1}] is a tool message without a call in the message before it"
            )
        results: list[chat.ToolMessage] = []
        if isinstance(message, chat.AssistantMessage) and message.tool_calls:
            while position < len(messages) and isinstance(result := messages[position], chat.ToolMessage):
                results.append(result)
                position += 1
            ordered = _whole_results_in_order(message.tool_calls, results)
            pairs = [(_renamed(call, taken), result) for call, result in ordered]
            yield replace(message, tool_calls=tuple(call for call, _ in pairs)), pairs
        else:
            yield message, []


def _renamed(call: chat.ToolCall, taken: dict[str, int]) -> chat.ToolCall:
    """Return the call with an id that no earlier call has, and add it to `taken`.

    `taken` maps each id to the last number that was appended to it. Counting from 1 for each of two thousand calls with
    the same id would block the process for seconds.
    """
    id, number = call.id, taken.get(call.id, 1)
    while id in taken:
        number += 1
        id = f"{call.id}_{number}"
    taken[call.id] = number
    taken.setdefault(id, 1)
    return call if id == call.id else replace(call, id=id)


def calls_as_text(messages: Sequence[chat.Message]) -> tuple[chat.Message, ...]:
    """Return the messages with tool calls and their results as texts.

    It is for formats that accept calls in the history only if the request has tools. Raises UnsupportedFeature if a
    call has no result, or a result has no call.
    """
    rewritten: list[chat.Message] = []
    for message, results in turns_with_results(messages):
        if not results or not isinstance(message, chat.AssistantMessage):
            rewritten.append(message)
            continue
        calls = [f"[Called {call.name}: {call.arguments.strip() or '{}'}]" for call, _ in results]
        texts = [text] if (text := chat.said_in(message)).strip() else []
        rewritten.append(chat.AssistantMessage("\n".join([*texts, *calls])))
        rewritten.append(chat.UserMessage("\n".join(f"[Result of {call.name}: {text}]" for call, text in results)))
    return tuple(rewritten)


def needs_filler_turns(roles: Sequence[str], messages: Sequence[chat.Message]) -> tuple[bool, bool]:
    """Return whether a filler turn of the user is needed before the turns, and after them.

    The first turn must be the user's. The last one may be the model's only if the last message is the assistant's.
    System messages are not in `roles`, and may be the only messages.
    """
    if not roles:
        return True, False
    needed_at_end = roles[-1] == "assistant" and not isinstance(messages[-1], chat.AssistantMessage)
    return roles[0] == "assistant", needed_at_end


def arguments_of(call: chat.ToolCall) -> object:
    """Return a call's arguments as an object, for formats that do not accept text.

    A text that is not a JSON object, which another provider's model or a client may have written, is sent as the member
    `_raw`. An empty list is PHP's empty object.
    """
    text = unquoted_object(call.arguments.strip())
    arguments = embed_object("{}" if text in ("", "[]") else text)
    return {"_raw": call.arguments} if arguments is None else arguments


def with_object(call: chat.ToolCall) -> chat.ToolCall:
    """Return a call whose arguments are a JSON object, for servers that parse them for a chat template."""
    return call if is_json_object(call.arguments) else replace(call, arguments=dumps_text(arguments_of(call)))


def arguments_text(value: object) -> str | None:
    """Return the arguments of an answer's call as JSON text, also if they arrived as an object.

    An empty object becomes "", because some servers send it first, and the pieces of the text after it. None: the
    object is nested too deeply.
    """
    if isinstance(value, str):
        return value
    try:
        return dumps_text(value) if value else ""
    except JsonError:
        return None


def calls_in(delta: Mapping[str, object]) -> Sequence[object]:
    """Return the tool calls of a message or delta in OpenAI's dialect.

    Some servers still send `function_call`, which OpenAI replaced in 2023: one call without an id.
    """
    former = read_map(delta, "function_call")
    return read_list(delta, "tool_calls") or ([{"index": 0, "function": former}] if former else [])


def results_in_order(
    calls: Sequence[chat.ToolCall], results: Sequence[chat.ToolMessage]
) -> list[tuple[chat.ToolCall, str]]:
    """Return each call of one assistant message with the text of its result, in the order of the calls.

    The tool messages may be in any order. Raises UnsupportedFeature if a call has no result, a result has no call, or a
    result has an image or a file.
    """
    if any(map(has_attachments, results)):
        raise UnsupportedFeature("vision", "the provider accepts only text in the result of a tool call")
    return [(call, result_text(result)) for call, result in _whole_results_in_order(calls, results)]


def _whole_results_in_order(
    calls: Sequence[chat.ToolCall], results: Sequence[chat.ToolMessage]
) -> list[tuple[chat.ToolCall, chat.ToolMessage]]:
    waiting: dict[str, deque[chat.ToolMessage]] = {}
    for result in results:
        waiting.setdefault(result.tool_call_id, deque()).append(result)
    pairs: list[tuple[chat.ToolCall, chat.ToolMessage]] = []
    for call in calls:
        if not (own := waiting.get(call.id)):
            message = f"the call of {call.name!r} has no result: add a tool message for each call"
            raise UnsupportedFeature("tools", message)
        pairs.append((call, own.popleft()))
    if len(pairs) < len(results):
        raise UnsupportedFeature("tools", "a tool message has no call in the assistant message before it")
    return pairs


def safe_call_id(call_id: str) -> str:
    """Return the id in the characters that Claude accepts. Ids of other vendors may have more (`functions.get:0`).

    A valid id is not changed, and the same id becomes the same one.
    """
    if len(call_id) <= _MAX_ID_CHARACTERS and not _UNSAFE.search(call_id):
        return call_id
    return f"{_UNSAFE.sub('_', call_id)[:48]}_{zlib.crc32(call_id.encode('utf-8', 'replace')):08x}"
