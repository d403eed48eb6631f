"""Write canonical answers as a row's vendor sends them, whole and in pieces, with the vendor's oddities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from providers.chat import ChatCompletion, Choice, ToolCall, Usage, text_of
from providers.codec import encode_usage
from providers.failures import FailureKind
from providers.json_values import dumps, loads_text
from providers.simulator._row_side import Side
from providers.simulator.pieces import cut, cut_in_two

__all__ = ["END", "error_body", "event_of", "stream_of", "whole_of"]

END = b"data: [DONE]\n\n"
_PIECES_OF_TAGS = 5


def whole_of(completion: ChatCompletion, side: Side, streams: bool = False) -> dict[str, object]:
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


def _choice(choice: Choice, side: Side) -> dict[str, object]:
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


def _thought(thought: str, text: str, side: Side) -> dict[str, object]:
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


def _end(choice: Choice, side: Side) -> dict[str, object]:
    filtered = side.filtered if choice.finish_reason == "content_filter" else {}
    word = choice.raw_finish_reason or side.finish.get(choice.finish_reason, choice.finish_reason)
    return {**side.choice, "finish_reason": word, **filtered}


def _call(call: ToolCall, side: Side) -> dict[str, object]:
    arguments: object = loads_text(call.arguments) if side.objects else call.arguments
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


# --- in pieces ------------------------------------------------------------------------------------


def stream_of(completion: ChatCompletion, side: Side, wants_usage: bool) -> Iterator[bytes]:
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


def event_of(value: Mapping[str, object], side: Side) -> bytes:
    """One event of a stream."""
    return (b"data: " if side.space else b"data:") + dumps(value) + b"\n\n"


def _deltas(completion: ChatCompletion, side: Side) -> Iterator[dict[str, object]]:
    for choice in completion.choices:
        yield _delta(choice.index, {"role": "assistant", "content": ""}, side)
    for choice in completion.choices:
        for delta in _contents(choice, side):
            scored = "content" in delta and choice.logprobs
            yield {**_delta(choice.index, delta, side), **(_logprobs(choice) if scored else {})}
    for choice in completion.choices:
        yield {**_delta(choice.index, {}, side), **_end(choice, side)}


def _contents(choice: Choice, side: Side) -> Iterator[dict[str, object]]:
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


def _thoughts(thought: str, side: Side) -> Iterator[dict[str, object]]:
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


def _calls(call: ToolCall, position: int, side: Side) -> Iterator[dict[str, object]]:
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


def _delta(index: int, delta: dict[str, object], side: Side) -> dict[str, object]:
    if side.role == "each":
        delta = {"role": "assistant", **delta}
    elif side.role == "empty" and "role" not in delta:
        delta = {"role": "", **delta}
    where = "message" if side.message_is_delta else "delta"
    return {"index": index, where: delta, **side.choice, "finish_reason": None}


def error_body(kind: FailureKind, side: Side) -> dict[str, object]:
    """The body of an error of this kind."""
    code, word = side.errors.get(kind, ("", ""))
    return filled(side, code, word, f"Simulated failure: {kind.value}.")


def filled(side: Side, code: str, word: str, message: str) -> dict[str, object]:
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
