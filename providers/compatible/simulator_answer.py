"""Write the answers, streams and errors of a simulated compatible vendor, and define the schema of `[simulator]`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from providers.chat import ChatCompletion, Choice, ToolCall, Usage, text_of
from providers.compatible.dialect import DialectError
from providers.failures import FailureKind
from providers.json_values import dumps, loads_text
from providers.openai_json import encode_usage
from providers.testkit.answer_pieces import cut, cut_in_two

_WORDS = {
    "tools": ("fragments", "whole", "repeated", "same_index", "no_index"),
    "usage": ("last", "finish", "each", "choice"),
    "reasoning": ("reasoning_content", "reasoning", "tags", "parts", "details"),
    "role": ("first", "each", "empty"),
}
_OPENAI_ERROR: Mapping[str, Any] = {"error": {"message": "$message", "type": "$type", "param": "", "code": "$code"}}
END = b"data: [DONE]\n\n"
_PIECES_OF_TAGS = 5


@dataclass(frozen=True, slots=True)
class SimulatorFormat:
    """The form of a vendor's answers and errors. The defaults are OpenAI's."""

    error: Mapping[str, Any] = field(default_factory=lambda: _OPENAI_ERROR)
    """The body of an error. `$code`, `$number` (the code as a number), `$type` and `$message` are filled in."""
    errors: Mapping[FailureKind, tuple[str, str]] = field(default_factory=dict)
    """The code and type for each failure kind. Without `quota`, a spent quota is shown by status 402. Without
    `content_filter`, a filtered answer is shown by its finish reason."""
    messages: Mapping[FailureKind, str] = field(default_factory=dict)
    """The message for a failure kind. Without one, it is the first sentence of `[dialect.errors.messages]` for the
    kind."""
    refused: tuple[str, str, int] = ("invalid_parameter", "invalid_request_error", 400)
    """The code, type and status for an invalid request."""
    tools: str = "fragments"
    """How a stream sends tool calls."""
    objects: bool = False
    """Whether a call's arguments are an object."""
    usage: str = "last"
    """Where a stream sends usage."""
    separate_reasoning: bool = False
    """Whether `completion_tokens` leaves out the reasoning tokens, which the total has."""
    reasoning: str = "reasoning_content"
    """Where reasoning is sent."""
    role: str = "first"
    """Which deltas have the role."""
    finish: Mapping[str, str] = field(default_factory=dict)
    """The vendor's finish reason for each of ours."""
    answer: Mapping[str, Any] = field(default_factory=dict)
    """Members that every body has."""
    choice: Mapping[str, Any] = field(default_factory=dict)
    """Members that every choice has."""
    message: Mapping[str, Any] = field(default_factory=dict)
    """Members that every message has, and the first piece of one."""
    filtered: Mapping[str, Any] = field(default_factory=dict)
    """Members of a choice that the vendor's safety system blocked."""
    opening: Mapping[str, Any] = field(default_factory=dict)
    """The first chunk of a stream."""
    comment: str = ""
    """A comment between the events of a stream."""
    blank: str = ""
    """White space before a whole answer."""
    space: bool = True
    """Whether a space follows `data:`."""
    whole_at_end: bool = False
    """Whether a stream ends with the whole message."""
    message_is_delta: bool = False
    """Whether a stream's choices have `message` instead of `delta`."""


def read_simulator_format(data: Mapping[str, Any]) -> SimulatorFormat:
    """Return the format of a parsed `[simulator]` table. Raises DialectError."""
    known = {one.name for one in fields(SimulatorFormat)}
    for name in data:
        if name not in known:
            raise DialectError(f"simulator: {name!r} is not known; expected one of {', '.join(sorted(known))}")
    for name, words in _WORDS.items():
        if data.get(name, words[0]) not in words:
            raise DialectError(f"simulator.{name}: {data[name]!r} is not known; expected one of {', '.join(words)}")
    values: dict[str, Any] = dict(data)
    errors: Mapping[str, Any] = data.get("errors", {})
    values["errors"] = {FailureKind(kind): (str(code), str(type)) for kind, (code, type) in errors.items()}
    values["messages"] = {FailureKind(kind): str(text) for kind, text in data.get("messages", {}).items()}
    if "refused" in data:
        code, error_type, status = data["refused"]
        values["refused"] = (str(code), str(error_type), int(status))
    return SimulatorFormat(**values)


def encode_answer(completion: ChatCompletion, wire_format: SimulatorFormat) -> dict[str, object]:
    """Return the body of a whole answer. Some streams repeat it as their last chunk."""
    return {
        **_frame(completion, "chat.completion"),
        **wire_format.answer,
        "choices": [_choice(choice, wire_format) for choice in completion.choices],
        **({} if completion.usage is None else {"usage": _usage(completion.usage, wire_format)}),
    }


def _frame(completion: ChatCompletion, kind: str) -> dict[str, object]:
    return {"id": completion.id, "object": kind, "created": completion.created, "model": completion.model}


def _usage(usage: Usage, wire_format: SimulatorFormat) -> dict[str, object]:
    counts = encode_usage(usage)
    if wire_format.separate_reasoning:
        counts["completion_tokens"] = usage.completion_tokens - usage.reasoning_tokens
    return counts


def _choice(choice: Choice, wire_format: SimulatorFormat) -> dict[str, object]:
    message = choice.message
    text = None if message.content is None else text_of(message.content)
    body: dict[str, object] = {"role": "assistant", "content": text, **wire_format.message}
    if message.reasoning is not None:
        body |= _thought(message.reasoning, text or "", wire_format)
    if message.refusal is not None:
        body["refusal"] = message.refusal
    if message.tool_calls:
        body["tool_calls"] = [_call(call, wire_format) for call in message.tool_calls]
    return {"index": choice.index, "message": body, **_end(choice, wire_format), **_logprobs(choice)}


def _thought(thought: str, text: str, wire_format: SimulatorFormat) -> dict[str, object]:
    match wire_format.reasoning:
        case "tags":
            return {"content": f"<think>{thought}</think>\n\n{text}"}
        case "parts":
            thinking = {"type": "thinking", "thinking": [{"type": "text", "text": thought}]}
            return {"content": [thinking, {"type": "text", "text": text}]}
        case "details":
            return {"reasoning_details": [{"type": "reasoning.text", "text": thought}]}
        case name:
            return {name: thought}


def _logprobs(choice: Choice) -> dict[str, object]:
    return {"logprobs": choice.logprobs} if choice.logprobs else {}


def _end(choice: Choice, wire_format: SimulatorFormat) -> dict[str, object]:
    filtered = wire_format.filtered if choice.finish_reason == "content_filter" else {}
    raw_reason = choice.raw_finish_reason or wire_format.finish.get(choice.finish_reason, choice.finish_reason)
    return {**wire_format.choice, "finish_reason": raw_reason, **filtered}


def _call(call: ToolCall, wire_format: SimulatorFormat) -> dict[str, object]:
    arguments: object = loads_text(call.arguments) if wire_format.objects else call.arguments
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def encode_stream(completion: ChatCompletion, wire_format: SimulatorFormat, wants_usage: bool) -> Iterator[bytes]:
    """Yield the events of a stream, including its end mark."""
    if wire_format.opening:
        yield encode_event(wire_format.opening, wire_format)
    for position, chunk in enumerate(encode_chunks(completion, wire_format, wants_usage)):
        yield encode_event(chunk, wire_format)
        if wire_format.comment and position == 0:
            yield f": {wire_format.comment}\n\n".encode()
    yield END


def encode_chunks(
    completion: ChatCompletion, wire_format: SimulatorFormat, wants_usage: bool = False
) -> Iterator[dict[str, object]]:
    frame = {**_frame(completion, "chat.completion.chunk"), **wire_format.answer}
    usage = None if completion.usage is None else _usage(completion.usage, wire_format)
    chunks = list(_deltas(completion, wire_format))
    for position, choice in enumerate(chunks):
        chunk: dict[str, object] = {**frame, "choices": [choice]}
        last = position == len(chunks) - 1
        if usage is not None and (wire_format.usage == "each" or (wire_format.usage == "finish" and last)):
            chunk["usage"] = usage
        if usage is not None and wire_format.usage == "choice" and last:
            choice["usage"] = usage
        yield chunk
    if wire_format.whole_at_end:
        yield encode_answer(completion, wire_format)
    if usage is not None and wire_format.usage == "last" and wants_usage:
        yield {**frame, "choices": [], "usage": usage}


def encode_event(value: object, wire_format: SimulatorFormat) -> bytes:
    return (b"data: " if wire_format.space else b"data:") + dumps(value) + b"\n\n"


def _deltas(completion: ChatCompletion, wire_format: SimulatorFormat) -> Iterator[dict[str, object]]:
    for choice in completion.choices:
        yield _delta(choice.index, {"role": "assistant", "content": "", **wire_format.message}, wire_format)
    for choice in completion.choices:
        for delta in _contents(choice, wire_format):
            scored = "content" in delta and choice.logprobs
            yield {**_delta(choice.index, delta, wire_format), **(_logprobs(choice) if scored else {})}
    for choice in completion.choices:
        yield {**_delta(choice.index, {}, wire_format), **_end(choice, wire_format)}


def _contents(choice: Choice, wire_format: SimulatorFormat) -> Iterator[dict[str, object]]:
    message = choice.message
    text = text_of(message.content)
    if message.reasoning:
        yield from _thoughts(message.reasoning, wire_format)
    for piece in (text,) if choice.logprobs else cut(text):
        yield {"content": piece}
    for piece in cut(message.refusal or ""):
        yield {"refusal": piece}
    for position, call in enumerate(message.tool_calls):
        for delta in _calls(call, position, wire_format):
            yield {"content": None, "tool_calls": [delta]}


def _thoughts(thought: str, wire_format: SimulatorFormat) -> Iterator[dict[str, object]]:
    if wire_format.reasoning == "tags":
        whole = f"<think>{thought}</think>\n\n"
        for start in range(0, len(whole), _PIECES_OF_TAGS):
            yield {"content": whole[start : start + _PIECES_OF_TAGS]}
        return
    for piece in cut(thought):
        if wire_format.reasoning == "parts":
            yield {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": piece}]}]}
        elif wire_format.reasoning == "details":
            yield {"reasoning_details": [{"type": "reasoning.text", "text": piece}]}
        else:
            yield {wire_format.reasoning: piece, "content": None}


def _calls(call: ToolCall, position: int, wire_format: SimulatorFormat) -> Iterator[dict[str, object]]:
    whole = _call(call, wire_format)
    if wire_format.tools in ("whole", "same_index", "no_index"):
        index = (
            {} if wire_format.tools == "no_index" else {"index": 0 if wire_format.tools == "same_index" else position}
        )
        yield {**index, **whole}
        return
    yield {"index": position, **whole, "function": {"name": call.name, "arguments": ""}}
    for half in cut_in_two(call.arguments):
        again: dict[str, Any] = {"id": call.id, "type": "function"} if wire_format.tools == "repeated" else {}
        name = {"name": call.name} if wire_format.tools == "repeated" else {}
        yield {"index": position, **again, "function": {**name, "arguments": half}}


def _delta(index: int, delta: dict[str, object], wire_format: SimulatorFormat) -> dict[str, object]:
    if wire_format.role == "each":
        delta = {"role": "assistant", **delta}
    elif wire_format.role == "empty" and "role" not in delta:
        delta = {"role": "", **delta}
    where = "message" if wire_format.message_is_delta else "delta"
    return {"index": index, where: delta, **wire_format.choice, "finish_reason": None}


def error_body(kind: FailureKind, wire_format: SimulatorFormat, message: str) -> dict[str, object]:
    """Return the body of an error of this kind."""
    code, error_type = wire_format.errors.get(kind, ("", ""))
    return filled_error(wire_format, code, error_type, message)


def filled_error(wire_format: SimulatorFormat, code: str, error_type: str, message: str) -> dict[str, object]:
    """Return the vendor's error body with this code, type and message."""
    return {name: _fill(value, code, error_type, message) for name, value in wire_format.error.items()}


def _fill(value: Any, code: str, error_type: str, message: str) -> object:
    if isinstance(value, dict):
        return {name: _fill(member, code, error_type, message) for name, member in value.items()}
    if value == "$number":
        return int(code) if code.isdigit() else 0
    if not isinstance(value, str):
        return value
    return value.replace("$code", code).replace("$type", error_type).replace("$message", message)
