"""Write the body of Bedrock's Converse: fields for all models, and additional fields for some.

Source: botocore 1.44.5 (the service model of bedrock-runtime), docs.aws.amazon.com on Converse; read 2026-11-20. The
facts about single models are in the catalogue.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any, assert_never

from providers import chat
from providers.adapter import Target
from providers.chat.messages import is_data_uri, split_data_uri
from providers.failures import UnsupportedFeature
from providers.formats import tool_calls
from providers.formats.claude import arguments_schema, check_features, stops_of, strict_schema, thinking_of
from providers.formats.reasoning_state import Thought, blocks_of
from providers.formats.request_options import nearest_effort
from providers.formats.tool_results import FAILED_PREFIX
from providers.json_values import as_map, dumps
from providers.matching.requirements import CACHE_CONTROL
from providers.reading.json_object import with_json_instruction

_IMAGE_FORMATS = {"image/png": "png", "image/jpeg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
_DOCUMENT_FORMATS = {
    "application/pdf": "pdf",
    "application/msword": "doc",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "text/csv": "csv",
    "text/html": "html",
    "text/markdown": "md",
    "text/plain": "txt",
}
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9 ()\[\]-]+")
_MAX_NAME_CHARACTERS = 200
_MODEL_FIELDS = "additionalModelRequestFields"
_ANY_EFFORT = ("none", "low", "medium", "high")
_DEFAULT_MAX_TOKENS = 4096

_Block = dict[str, object]


class _Marks:
    """Writes the marks for a cache. Converse refuses them for a model without a cache, so an unknown one gets none.

    Source: docs.aws.amazon.com, CachePointBlock and prompt caching (Claude: system, tools and messages; Nova: system
    and messages, five minutes), as strands-agents/sdk-python#2121 quotes it; read 2026-11-26.
    """

    def __init__(self, target: Target) -> None:
        self._known = target.facts.known
        self.is_claude = "anthropic." in target.model
        self.lost = False

    def after(self, time: chat.CacheTime | None, *, of_tool: bool = False) -> list[_Block]:
        """Return the block that marks what stands before it; none without a mark, or if it is `lost`."""
        if time is None or not self._known or (of_tool and not self.is_claude):
            self.lost = self.lost or time is not None
            return []
        return [{"cachePoint": {"type": "default", **({"ttl": time} if time == "1h" and self.is_claude else {})}}]


def encode_body(request: chat.ChatRequest, target: Target) -> tuple[dict[str, object], bool]:
    """Return the body, and whether a mark for a cache is not in it. Raises UnsupportedFeature.

    Values that the site pins are written last.

    Fields that Converse does not have are passed to the model in `additionalModelRequestFields`.
    """
    check_features(request)
    request = with_json_instruction(request)
    tools, choice = tool_calls.tools_of(request)
    if choice == "none":
        # Converse can't express that no tool may be called, and accepts calls in the history only next to tools.
        tools = ()
    marks = _Marks(target)
    turns = _turns(request.messages if tools else tool_calls.calls_as_text(request.messages), target.model, marks)
    if request.extra.get(CACHE_CONTROL) is not None:
        # The mark of a whole request means its last block.
        turns[-1]["content"] += marks.after("5m")
    body: dict[str, object] = {"messages": turns}
    systems = [one.content for one in request.messages if isinstance(one, chat.SystemMessage)]
    if systems:
        body["system"] = [block for content in systems for block in _parts(content, count(1), marks)]
    max_tokens = _max_tokens(request, target)
    without_thoughts = _lacks_thoughts(turns)
    thinking = thinking_of(request, target, choice, max_tokens or _DEFAULT_MAX_TOKENS, lacks_thoughts=without_thoughts)
    if max_tokens is None and thinking.get("type") == "enabled":
        max_tokens = target.facts.output_tokens or _DEFAULT_MAX_TOKENS
    stops = stops_of(request.stop) if "blank_stop" in target.facts.without else list(request.stop)
    inference: dict[str, object] = {
        "maxTokens": max_tokens,
        "temperature": None if request.temperature is None else min(request.temperature, 1),
        "topP": request.top_p,
        "stopSequences": stops or None,
    }
    if config := {name: value for name, value in inference.items() if value is not None}:
        body["inferenceConfig"] = config
    if tools:
        blocks = [block for tool in tools for block in (_tool(tool), *marks.after(tool.cache, of_tool=True))]
        body["toolConfig"] = {"tools": blocks, **_tool_choice(choice)}
    if output := _output_config(request, target, thinking):
        body["outputConfig"] = output
    named = (_MODEL_FIELDS, CACHE_CONTROL, *target.pins)
    own = {name: value for name, value in request.extra.items() if name not in named}
    own |= as_map(request.extra.get(_MODEL_FIELDS))
    if thinking:
        own["thinking"] = thinking
    if own:
        body[_MODEL_FIELDS] = own
    return {**body, **target.pins}, marks.lost


def _max_tokens(request: chat.ChatRequest, target: Target) -> int | None:
    most = target.facts.output_tokens
    if request.max_tokens is None:
        # A model with a thinking budget needs both limits. For others, the model's own limit applies.
        return most if "thinking_budget" in target.facts.flags and request.reasoning_effort is not None else None
    return min(request.max_tokens, most) if most else request.max_tokens


def _tool(tool: chat.Tool) -> _Block:
    schema = arguments_schema(tool)
    spec: _Block = {"name": tool.name}
    if tool.description:
        spec["description"] = tool.description
    if tool.strict:
        schema = strict_schema(schema, "strict_tools")
        spec["strict"] = True
    spec["inputSchema"] = {"json": schema}
    return {"toolSpec": spec}


def _tool_choice(choice: tool_calls.SimpleToolChoice) -> _Block:
    match choice:
        case None | "none":
            return {}
        case "auto":
            return {"toolChoice": {"auto": {}}}
        case "required":
            return {"toolChoice": {"any": {}}}
        case chat.NamedTool(name):
            return {"toolChoice": {"tool": {"name": name}}}
        case _:
            assert_never(choice)


def _output_config(request: chat.ChatRequest, target: Target, thinking: Mapping[str, object]) -> _Block:
    config: _Block = {}
    if request.reasoning_effort is not None and thinking.get("type") == "adaptive":
        config["effort"] = nearest_effort(
            request.reasoning_effort, target.facts.efforts or _ANY_EFFORT, request.reasoning_budget
        )
    if isinstance(form := request.response_format, chat.JsonSchemaFormat):
        # In Converse, the schema is a text and has a name.
        schema = {"schema": dumps(strict_schema(form.schema, "json_schema")).decode(), "name": form.name}
        if form.description:
            schema["description"] = form.description
        config["textFormat"] = {"type": "json_schema", "structure": {"jsonSchema": schema}}
    return config


def _turns(messages: Sequence[chat.Message], model: str, marks: _Marks) -> list[dict[str, Any]]:
    """Return the turns of user and assistant, the user's first, each role in turn and without blank texts."""
    turns: list[tuple[str, list[_Block]]] = []
    numbers = count(1)

    def append(role: str, content: list[_Block]) -> None:
        if content and turns and turns[-1][0] == role:
            turns[-1][1].extend(content)
        elif content:
            turns.append((role, content))

    for message, results in tool_calls.turns_with_whole_results(messages):
        match message:
            case chat.SystemMessage():
                pass
            case chat.UserMessage(content):
                append("user", _parts(content, numbers, marks))
            case chat.AssistantMessage():
                append("assistant", _answer_blocks(message, model, marks))
                for call, result in results:
                    append("user", [_result(call, result, numbers), *marks.after(_time_of(result))])
            case _:
                assert_never(message)
    before, after = tool_calls.needs_filler_turns([role for role, _ in turns], messages)
    filler: list[tuple[str, list[_Block]]] = [("user", [{"text": tool_calls.FILLER_TEXT}])]
    turns = [*(filler if before else []), *turns, *(filler if after else [])]
    role, last = turns[-1]
    if role == "assistant" and isinstance(text := last[-1].get("text"), str):
        last[-1] = {"text": text.rstrip()}
    for _, blocks in turns:
        if any("document" in block for block in blocks) and not any("text" in block for block in blocks):
            # A turn with a document must also contain a text.
            blocks.append({"text": tool_calls.FILLER_TEXT})
    return [{"role": role, "content": content} for role, content in turns]


def _answer_blocks(message: chat.AssistantMessage, model: str, marks: _Marks) -> list[_Block]:
    """Return the blocks of an answer. Its mark is after its first text, and the mark of a call is after the call."""
    blocks = blocks_of(message, model, _text, _thought, _call)
    times = [part.cache for part in message.content or () if isinstance(part, chat.TextPart) and part.cache]
    at = next((i + 1 for i, block in enumerate(blocks) if "text" in block), len(blocks))
    blocks[at:at] = marks.after(times[-1] if times and blocks else None)
    calls = iter(message.tool_calls)
    marked: list[_Block] = []
    for block in blocks:
        marked += [block, *(marks.after(next(calls).cache) if "toolUse" in block else ())]
    return marked


def _lacks_thoughts(turns: Sequence[Mapping[str, object]]) -> bool:
    """Return whether the answer continues tool calls without thoughts, which another model made."""
    if len(turns) < 2 or not isinstance(last := turns[-1]["content"], list):
        return False
    before = turns[-2]["content"]
    first = before[0] if isinstance(before, list) else {}
    return "toolResult" in last[0] and "reasoningContent" not in first


def _parts(content: str | tuple[chat.Part, ...], numbers: Iterator[int], marks: _Marks | None = None) -> list[_Block]:
    """Return the blocks of a content, with the blocks that mark it for a cache."""
    blocks: list[_Block] = []
    for part in (chat.TextPart(content),) if isinstance(content, str) else content:
        if not isinstance(part, chat.TextPart) or part.text.strip():
            blocks.append(_part(part, numbers))
            if marks is not None and not isinstance(part, chat.AudioPart):
                blocks += marks.after(part.cache)
        elif marks is not None:
            marks.lost = marks.lost or part.cache is not None
    return blocks


def _part(part: chat.Part, numbers: Iterator[int]) -> _Block:
    match part:
        case chat.TextPart(text):
            return {"text": text}
        case chat.ImagePart(url):
            mime, data = _split(url, "image_url")
            if mime not in _IMAGE_FORMATS:
                raise UnsupportedFeature(
                    "vision", f"the provider accepts only images of the types {', '.join(_IMAGE_FORMATS)}"
                )
            return {"image": {"format": _IMAGE_FORMATS[mime], "source": {"bytes": data}}}
        case chat.FilePart(uri, filename):
            mime, data = _split(uri, "file")
            if mime not in _DOCUMENT_FORMATS:
                raise UnsupportedFeature(
                    "file", f"the provider accepts only files of the types {', '.join(_DOCUMENT_FORMATS)}"
                )
            # The vendor refuses two documents with the same name in a request, most special characters, and long names.
            name = " ".join(_NOT_IN_A_NAME.sub(" ", filename or "").split()) or "document"
            number = f" {next(numbers)}"
            name = name[: _MAX_NAME_CHARACTERS - len(number)].rstrip() + number
            named = {"format": _DOCUMENT_FORMATS[mime], "name": name}
            return {"document": {**named, "source": {"bytes": data}}}
        case chat.AudioPart():
            raise UnsupportedFeature("audio", "the provider does not accept audio in this format")
        case _:
            assert_never(part)


def _split(uri: str, feature: str) -> tuple[str, str]:
    if not is_data_uri(uri):
        raise UnsupportedFeature(feature, "the provider does not fetch URLs: send the content as a data: URI")
    return split_data_uri(uri)


def _text(text: str) -> _Block:
    return {"text": text}


def _thought(thought: Thought) -> _Block:
    if thought.redacted:
        return {"reasoningContent": {"redactedContent": thought.redacted}}
    return {"reasoningContent": {"reasoningText": {"text": thought.text, "signature": thought.signature}}}


def _call(call: chat.ToolCall) -> _Block:
    return {
        "toolUse": {
            "toolUseId": tool_calls.safe_call_id(call.id),
            "name": tool_calls.safe_call_name(call.name),
            "input": tool_calls.arguments_of(call),
        }
    }


def _time_of(result: chat.ToolMessage) -> chat.CacheTime | None:
    """Return the mark of a result, or else the last one inside it: its blocks have no place for a mark."""
    parts = result.content if isinstance(result.content, tuple) else ()
    marks = [part.cache for part in parts if not isinstance(part, chat.AudioPart) and part.cache]
    return result.cache or (marks[-1] if marks else None)


def _result(call: chat.ToolCall, result: chat.ToolMessage, numbers: Iterator[int]) -> _Block:
    content = _parts(result.content, numbers)
    is_text = all("text" in part for part in content)
    if result.is_error and not (content and is_text):  # Claude takes a failure with text only, as in its own API
        content = [{"text": FAILED_PREFIX.strip()}, *content]
    status = "error" if result.is_error and is_text else "success"
    return {"toolResult": {"toolUseId": tool_calls.safe_call_id(call.id), "content": content, "status": status}}
