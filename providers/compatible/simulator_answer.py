"""The schema of `[simulator]`, and the answers, streams and errors of a simulated compatible vendor."""

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


@dataclass(frozen=True, slots=True)
class SimulatorFormat:
    """What this vendor's bytes look like; the defaults are OpenAI's.

    error: the body of an error, with `$code`, `$number` (the code as a number), `$type` and `$message` to be filled in;
    errors: kind -> (code, type); without one for `quota`, a spent quota is told by status 402, and without one for
    `content_filter` the filter is told by the word for the end. refused: the code, type and status of a request that is
    wrong.
    tools, objects: how calls come in a stream; arguments as an object. usage: where it stands in a stream. reasoning:
    where thoughts stand. role: in which deltas it stands. finish: our word for the end -> theirs. answer, choice:
    members of every body, of every choice; filtered: of a choice that the safety system stopped; opening: the first
    chunk. comment: sent between events; blank: sent before a whole answer. space: whether one stands behind `data:`.
    whole_at_end: a stream ends with the whole message; message_is_delta: a stream's choices have `message`.
    """

    error: Mapping[str, Any] = field(default_factory=lambda: _OPENAI_ERROR)
    errors: Mapping[FailureKind, tuple[str, str]] = field(default_factory=dict)
    refused: tuple[str, str, int] = ("invalid_parameter", "invalid_request_error", 400)
    tools: str = "fragments"
    objects: bool = False
    usage: str = "last"
    reasoning: str = "reasoning_content"
    role: str = "first"
    finish: Mapping[str, str] = field(default_factory=dict)
    answer: Mapping[str, Any] = field(default_factory=dict)
    choice: Mapping[str, Any] = field(default_factory=dict)
    filtered: Mapping[str, Any] = field(default_factory=dict)
    opening: Mapping[str, Any] = field(default_factory=dict)
    comment: str = ""
    blank: str = ""
    space: bool = True
    whole_at_end: bool = False
    message_is_delta: bool = False


_OPENAI_ERROR: Mapping[str, Any] = {"error": {"message": "$message", "type": "$type", "param": "", "code": "$code"}}


def read_simulator_format(data: Mapping[str, Any]) -> SimulatorFormat:
    """The side of a parsed `[simulator]` table; raises RowError."""
    known = {one.name for one in fields(SimulatorFormat)}
    for name in data:
        if name not in known:
            raise DialectError(f"simulator: {name!r} is not known; expected one of {', '.join(sorted(known))}")
    for name, words in _WORDS.items():
        if data.get(name, words[0]) not in words:
            raise DialectError(f"simulator.{name}: {data[name]!r} is not known; expected one of {', '.join(words)}")
    values: dict[str, Any] = dict(data)
    values["errors"] = {FailureKind(kind): (str(code), str(word)) for kind, (code, word) in _errors(data).items()}
    if "refused" in data:
        code, word, status = data["refused"]
        values["refused"] = (str(code), str(word), int(status))
    return SimulatorFormat(**values)


def _errors(data: Mapping[str, Any]) -> Mapping[str, Any]:
    errors: Mapping[str, Any] = data.get("errors", {})
    return errors


END = b"data: [DONE]\n\n"


_PIECES_OF_TAGS = 5


def whole_of(completion: ChatCompletion, side: SimulatorFormat, streams: bool = False) -> dict[str, object]:
    """The body of a whole answer; `streams`: as the last chunk of a stream repeats it."""
    return {
        **_frame(completion, "chat.completion"),
        **side.answer,
        "choices": [_choice(choice, side) for choice in completion.choices],
        **({} if completion.usage is None else {"usage": _usage(completion.usage)}),
    }


def _frame(completion: ChatCompletion, kind: str) -> dict[str, object]:
    return {"id": completion.id, "object": kind, "created": completion.created, "model": completion.model}


def _usage(usage: Usage) -> dict[str, object]:
    return encode_usage(usage)


def _choice(choice: Choice, side: SimulatorFormat) -> dict[str, object]:
    message = choice.message
    text = None if message.content is None else text_of(message.content)
    body: dict[str, object] = {"role": "assistant", "content": text}
    if message.reasoning is not None:
        body |= _thought(message.reasoning, text or "", side)
    if message.refusal is not None:
        body["refusal"] = message.refusal
    if message.tool_calls:
        body["tool_calls"] = [_call(call, side) for call in message.tool_calls]
    return {"index": choice.index, "message": body, **_logprobs(choice), **_end(choice, side)}


def _thought(thought: str, text: str, side: SimulatorFormat) -> dict[str, object]:
    match side.reasoning:
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


def _end(choice: Choice, side: SimulatorFormat) -> dict[str, object]:
    filtered = side.filtered if choice.finish_reason == "content_filter" else {}
    word = choice.raw_finish_reason or side.finish.get(choice.finish_reason, choice.finish_reason)
    return {**side.choice, "finish_reason": word, **filtered}


def _call(call: ToolCall, side: SimulatorFormat) -> dict[str, object]:
    arguments: object = loads_text(call.arguments) if side.objects else call.arguments
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


# --- in pieces ------------------------------------------------------------------------------------


def stream_of(completion: ChatCompletion, side: SimulatorFormat, wants_usage: bool) -> Iterator[bytes]:
    """The events of a stream, with its end mark."""
    frame = {**_frame(completion, "chat.completion.chunk"), **side.answer}
    if side.opening:
        yield event_of(side.opening, side)
    usage = None if completion.usage is None else _usage(completion.usage)
    chunks = list(_deltas(completion, side))
    for position, choice in enumerate(chunks):
        chunk: dict[str, object] = {**frame, "choices": [choice]}
        last = position == len(chunks) - 1
        if usage is not None and (side.usage == "each" or (side.usage == "finish" and last)):
            chunk["usage"] = usage
        if usage is not None and side.usage == "choice" and last:
            choice["usage"] = usage
        yield event_of(chunk, side)
        if side.comment and position == 0:
            yield f": {side.comment}\n\n".encode()
    if side.whole_at_end:
        yield event_of(whole_of(completion, side, streams=True), side)
    if usage is not None and side.usage == "last" and wants_usage:
        yield event_of({**frame, "choices": [], "usage": usage}, side)
    yield END


def event_of(value: Mapping[str, object], side: SimulatorFormat) -> bytes:
    """One event of a stream."""
    return (b"data: " if side.space else b"data:") + dumps(value) + b"\n\n"


def _deltas(completion: ChatCompletion, side: SimulatorFormat) -> Iterator[dict[str, object]]:
    for choice in completion.choices:
        yield _delta(choice.index, {"role": "assistant", "content": ""}, side)
    for choice in completion.choices:
        for delta in _contents(choice, side):
            scored = "content" in delta and choice.logprobs
            yield {**_delta(choice.index, delta, side), **(_logprobs(choice) if scored else {})}
    for choice in completion.choices:
        yield {**_delta(choice.index, {}, side), **_end(choice, side)}


def _contents(choice: Choice, side: SimulatorFormat) -> Iterator[dict[str, object]]:
    message = choice.message
    text = text_of(message.content)
    if message.reasoning:
        yield from _thoughts(message.reasoning, side)
    for piece in (text,) if choice.logprobs else cut(text):
        yield {"content": piece}
    for piece in cut(message.refusal or ""):
        yield {"refusal": piece}
    for position, call in enumerate(message.tool_calls):
        for delta in _calls(call, position, side):
            yield {"content": None, "tool_calls": [delta]}


def _thoughts(thought: str, side: SimulatorFormat) -> Iterator[dict[str, object]]:
    if side.reasoning == "tags":
        whole = f"<think>{thought}</think>\n\n"
        for start in range(0, len(whole), _PIECES_OF_TAGS):
            yield {"content": whole[start : start + _PIECES_OF_TAGS]}
        return
    for piece in cut(thought):
        if side.reasoning == "parts":
            yield {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": piece}]}]}
        elif side.reasoning == "details":
            yield {"reasoning_details": [{"type": "reasoning.text", "text": piece}]}
        else:
            yield {side.reasoning: piece, "content": None}


def _calls(call: ToolCall, position: int, side: SimulatorFormat) -> Iterator[dict[str, object]]:
    whole = _call(call, side)
    if side.tools in ("whole", "same_index", "no_index"):
        index = {} if side.tools == "no_index" else {"index": 0 if side.tools == "same_index" else position}
        yield {**index, **whole}
        return
    yield {"index": position, **whole, "function": {"name": call.name, "arguments": ""}}
    for half in cut_in_two(call.arguments):
        again: dict[str, Any] = {"id": call.id, "type": "function"} if side.tools == "repeated" else {}
        name = {"name": call.name} if side.tools == "repeated" else {}
        yield {"index": position, **again, "function": {**name, "arguments": half}}


def _delta(index: int, delta: dict[str, object], side: SimulatorFormat) -> dict[str, object]:
    if side.role == "each":
        delta = {"role": "assistant", **delta}
    elif side.role == "empty" and "role" not in delta:
        delta = {"role": "", **delta}
    where = "message" if side.message_is_delta else "delta"
    return {"index": index, where: delta, **side.choice, "finish_reason": None}


def error_body(kind: FailureKind, side: SimulatorFormat) -> dict[str, object]:
    """The body of an error of this kind."""
    code, word = side.errors.get(kind, ("", ""))
    return filled(side, code, word, f"Simulated failure: {kind.value}.")


def filled(side: SimulatorFormat, code: str, word: str, message: str) -> dict[str, object]:
    """The vendor's error body with these members."""
    body: dict[str, object] = {name: _fill(value, code, word, message) for name, value in side.error.items()}
    return body


def _fill(value: Any, code: str, word: str, message: str) -> object:
    if isinstance(value, dict):
        return {name: _fill(member, code, word, message) for name, member in value.items()}
    if value == "$number":
        return int(code) if code.isdigit() else 0
    if not isinstance(value, str):
        return value
    return value.replace("$code", code).replace("$type", word).replace("$message", message)
