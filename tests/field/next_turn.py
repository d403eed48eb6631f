"""The next turn of a conversation, as a simple client of each dialect sends it: what it had, the answer, and results."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_HISTORY = {"chat": "messages", "messages": "messages", "responses": "input", "gemini": "contents"}
_RESULT = "done"


def next_body(dialect: str, body: Mapping[str, Any], answer: str, events: Sequence[Any]) -> dict[str, Any]:
    """Return the body of the next request.

    Args:
        dialect: The dialect of both requests.
        body: The body of the request that was answered.
        answer: The body of the answer, which the client keeps unchanged.
        events: The same, parsed: the events of a stream, or one answer.
    """
    history = body.get(_HISTORY[dialect], "Hi")
    before = [{"role": "user", "content": history}] if isinstance(history, str) else history
    is_stream = not answer.startswith(("{", "["))
    return {**body, _HISTORY[dialect]: [*before, *_TURNS[dialect](events, is_stream)]}


def _chat(events: Sequence[Any], _: bool) -> Iterator[Any]:
    message: dict[str, Any] = {"role": "assistant", "content": None}
    calls: dict[int, dict[str, Any]] = {}
    for choice in (choice for event in events for choice in event.get("choices") or ()):
        piece = choice.get("message") or choice.get("delta") or {}
        message["content"] = ((message["content"] or "") + (piece.get("content") or "")) or None
        for position, call in enumerate(piece.get("tool_calls") or ()):
            known = calls.setdefault(call.get("index", position), {"function": {"arguments": ""}})
            known |= {name: value for name, value in call.items() if name in ("id", "type") and value}
            function = call.get("function") or {}
            known["function"] |= {name: value for name, value in function.items() if name == "name" and value}
            known["function"]["arguments"] += function.get("arguments") or ""
    if not calls:
        yield from (message, {"role": "user", "content": "And?"})
        return
    yield {**message, "tool_calls": [*calls.values()]}
    yield from ({"role": "tool", "tool_call_id": call["id"], "content": _RESULT} for call in calls.values())


def _messages(events: Sequence[Any], is_stream: bool) -> Iterator[Any]:
    blocks: list[Any] = [] if is_stream else events[0]["content"]
    for event in events:
        if event.get("type") == "content_block_start":
            blocks.append({**event["content_block"], "json": ""})
        elif event.get("type") == "content_block_delta":
            delta, block = event["delta"], blocks[event["index"]]
            for name, member in (("text", "text"), ("thinking", "thinking"), ("partial_json", "json")):
                block[member] = block.get(member, "") + delta[name] if name in delta else block.get(member)
            block |= {"signature": delta["signature"]} if "signature" in delta else {}
    blocks = [{name: value for name, value in block.items() if value is not None} for block in blocks]
    for block in blocks:
        written = block.pop("json", "")
        if block["type"] == "tool_use":
            block["input"] = json.loads(written) if written else block["input"]
    uses = [block["id"] for block in blocks if block["type"] == "tool_use"]
    results = [{"type": "tool_result", "tool_use_id": id, "content": _RESULT} for id in uses]
    yield from ({"role": "assistant", "content": blocks}, {"role": "user", "content": results or "And?"})


def _responses(events: Sequence[Any], _: bool) -> Iterator[Any]:
    items = (events[-1].get("response") or events[-1])["output"]
    yield from items
    calls = [item["call_id"] for item in items if item["type"] == "function_call"]
    yield from ({"type": "function_call_output", "call_id": id, "output": _RESULT} for id in calls)
    if not calls:
        yield {"role": "user", "content": "And?"}


def _gemini(events: Sequence[Any], _: bool) -> Iterator[Any]:
    parts = [part for event in events for one in event.get("candidates") or () for part in one["content"]["parts"]]
    calls = [part["functionCall"] for part in parts if "functionCall" in part]
    results = [{"functionResponse": {**call, "response": {"output": _RESULT}}} for call in calls]
    for result in results:
        del result["functionResponse"]["args"]
    yield {"role": "model", "parts": parts}
    yield {"role": "user", "parts": results or [{"text": "And?"}]}


_TURNS = {"chat": _chat, "messages": _messages, "responses": _responses, "gemini": _gemini}
