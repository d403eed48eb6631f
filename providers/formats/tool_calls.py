"""Tools that may be called, calls with their results, and safe names and ids of calls."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from providers.chat import (
    AllowedTools,
    AssistantMessage,
    ChatRequest,
    Message,
    NamedTool,
    SystemMessage,
    Tool,
    ToolCall,
    ToolMessage,
    UserMessage,
    said_in,
    text_of,
)
from providers.failures import UnsupportedFeature
from providers.json_values import JsonError, dumps_text, embed_object, read_list, read_map

_CALL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_-]")


def safe_call_name(name: str) -> str:
    """The name of an earlier call in the characters that OpenAI, Claude's hosts and others take.

    A tool has no other name, but a model may have called one that isn't there (`default_api.search`), which a client
    keeps in its history and tells it of. Whoever takes no such name would refuse that conversation for ever.
    """
    return name if _CALL_NAME.fullmatch(name) else _NOT_IN_A_NAME.sub("_", name)[:64]


PlainChoice = NamedTool | Literal["auto", "none", "required"] | None
"""A choice of tools where a format has no word for some of them: those are left out of the list instead."""


SILENT = "."
"""What somebody says who says nothing, where a format wants a text that isn't blank."""


_UNSAFE = re.compile(r"[^a-zA-Z0-9_-]")


_MOST_CHARACTERS = 64


def tools_of(request: ChatRequest) -> tuple[tuple[Tool, ...], PlainChoice]:
    """What may be called, and the choice among it.

    A history of calls without any tool names those that were called, and none may be called again: such a history is
    a valid chat, and Claude's hosts refuse calls without tools.
    """
    if not request.tools:
        names = dict.fromkeys(
            safe_call_name(call.name)
            for message in request.messages
            if isinstance(message, AssistantMessage)
            for call in message.tool_calls
        )
        return tuple(Tool(name) for name in names), "none"
    if isinstance(choice := request.tool_choice, AllowedTools):
        return tuple(tool for tool in request.tools if tool.name in choice.names), choice.mode
    return request.tools, choice


def spoken(
    messages: Sequence[Message],
) -> Iterator[tuple[SystemMessage | UserMessage | AssistantMessage, list[tuple[ToolCall, str]]]]:
    """Each message that somebody said, with its calls and their results, for formats whose turns are two people's.

    Ids are unique in all of the conversation, as Claude wants them: some servers count calls anew in each answer.
    Raises UnsupportedFeature where calls and results don't fit together.
    """
    taken: dict[str, int] = {}
    position = 0
    while position < len(messages):
        message = messages[position]
        position += 1
        if isinstance(message, ToolMessage):
            raise UnsupportedFeature("tools", f"messages[{position - 1}] answers no call of the message before it")
        results: list[ToolMessage] = []
        if isinstance(message, AssistantMessage) and message.tool_calls:
            while position < len(messages) and isinstance(result := messages[position], ToolMessage):
                results.append(result)
                position += 1
            pairs = [(_renamed(call, taken), text) for call, text in results_in_order(message.tool_calls, results)]
            yield replace(message, tool_calls=tuple(call for call, _ in pairs)), pairs
        else:
            yield message, []


def _renamed(call: ToolCall, taken: dict[str, int]) -> ToolCall:
    """The call under an id that none before it has; `taken` gets it.

    Each id there has the last number that it came under: two thousand calls of one id, counted from the beginning each
    time, would keep everybody waiting for seconds.
    """
    id, number = call.id, taken.get(call.id, 1)
    while id in taken:
        number += 1
        id = f"{call.id}_{number}"
    taken[call.id] = number
    taken.setdefault(id, 1)
    return call if id == call.id else replace(call, id=id)


def retold(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages with each call and its result as texts, for formats that take calls only beside tools that may be
    called again; raises as `spoken` does."""
    told: list[Message] = []
    for message, results in spoken(messages):
        if not results or not isinstance(message, AssistantMessage):
            told.append(message)
            continue
        calls = [f"[Called {call.name}: {call.arguments.strip() or '{}'}]" for call, _ in results]
        said = [text] if (text := said_in(message)).strip() else []
        told.append(AssistantMessage("\n".join([*said, *calls])))
        told.append(UserMessage("\n".join(f"[Result of {call.name}: {text}]" for call, text in results)))
    return tuple(told)


def silences(roles: Sequence[str], messages: Sequence[Message]) -> tuple[bool, bool]:
    """Whether a user who says nothing must stand before the turns, and behind them.

    The first turn is a user's, and the last one the model's only where the last message is: instructions stand
    elsewhere, and may have been all that was said.
    """
    if not roles:
        return True, False
    behind = roles[-1] == "assistant" and not isinstance(messages[-1], AssistantMessage)
    return roles[0] == "assistant", behind


def arguments_of(call: ToolCall) -> object:
    """A call's arguments as the object that formats want that take no text. What the model of another provider wrote
    wrongly is still told, as `_raw`."""
    arguments = embed_object(call.arguments.strip() or "{}")
    return {"_raw": call.arguments} if arguments is None else arguments


def arguments_text(value: object) -> str | None:
    """The arguments of an answer's call as JSON text, also where they came as an object; None if that is nested beyond
    reason. Of an empty one nothing: with some servers the arguments begin so, and their pieces follow."""
    if isinstance(value, str):
        return value
    try:
        return dumps_text(value) if value else ""
    except JsonError:
        return None


def calls_in(delta: Mapping[str, object]) -> Sequence[object]:
    """The calls in a message, or a piece of one, of OpenAI's dialect. Some servers still write the form that it gave up
    in 2023: one call without an id."""
    former = read_map(delta, "function_call")
    return read_list(delta, "tool_calls") or ([{"index": 0, "function": former}] if former else [])


def results_in_order(calls: Sequence[ToolCall], results: Sequence[ToolMessage]) -> list[tuple[ToolCall, str]]:
    """Each call with the text of its result; raises UnsupportedFeature where one is missing or too many."""
    waiting = list(results)
    pairs: list[tuple[ToolCall, str]] = []
    for call in calls:
        position = next((i for i, one in enumerate(waiting) if one.tool_call_id == call.id), None)
        if position is None:
            message = f"the call of {call.name!r} has no result; the provider wants one for each call"
            raise UnsupportedFeature("tools", message)
        pairs.append((call, text_of(waiting.pop(position).content)))
    if waiting:
        raise UnsupportedFeature("tools", "a tool message answers no call of the assistant message before it")
    return pairs


def safe_call_id(call_id: str) -> str:
    """The id in the characters that Claude's hosts take; another vendor's may have more (`functions.get:0`)."""
    if len(call_id) <= _MOST_CHARACTERS and not _UNSAFE.search(call_id):
        return call_id
    return f"{_UNSAFE.sub('_', call_id)[:48]}_{zlib.crc32(call_id.encode('utf-8', 'replace')):08x}"
