"""Write the answers of the simulated Responses API of OpenAI, whole or as events.

Source: openai 3.51.0 (Response, its output items, ResponseStreamEvent), read 2026-11-20.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from providers.chat import ChatCompletion, ChatRequest, Choice, Usage, text_of
from providers.json_values import as_map, dumps, read_map
from providers.openai_json import encode_usage
from providers.testkit.answer_pieces import cut, cut_in_two
from providers.vendors.openai.responses_simulator import sealed

_USUAL: Mapping[str, object] = json.loads(Path(__file__).with_name("response.json").read_text("utf-8"))
"""The members of an answer, as they are where the request does not set them."""
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def wants_response(request: ChatRequest) -> bool:
    """Return whether the request was sent to this API."""
    return "responses" in request.extra


def write_response(completion: ChatCompletion, request: ChatRequest) -> dict[str, object]:
    """Return the whole answer. It has one choice, whatever `n` is."""
    choice = completion.choices[0]
    whole = choice.finish_reason in ("stop", "tool_calls")
    reason = choice.raw_finish_reason or _INCOMPLETE.get(choice.finish_reason, choice.finish_reason)
    return {
        **_begun(completion, request),
        "status": "completed" if whole else "incomplete",
        "incomplete_details": None if whole else {"reason": reason},
        "output": list(_items(completion, choice, request)),
        "usage": None if completion.usage is None else _usage(completion.usage),
    }


def write_events(completion: ChatCompletion, request: ChatRequest) -> tuple[bytes, ...]:
    """Return the answer as the events of a stream. The last event is the end; there is no end mark."""
    whole = write_response(completion, request)
    begun = {**_begun(completion, request), "status": "in_progress", "output": [], "usage": None}
    events: list[dict[str, object]] = [
        {"type": f"response.{status}", "response": begun} for status in ("created", "in_progress")
    ]
    for position, item in enumerate(_items(completion, completion.choices[0], request)):
        events += _item_events(position, item)
    events.append({"type": f"response.{whole['status']}", "response": whole})
    return tuple(_event(number, event) for number, event in enumerate(events))


def _event(number: int, event: Mapping[str, object]) -> bytes:
    members = {**event, "sequence_number": number}
    if "delta" in event:
        # The vendor pads deltas, so that the length of an event does not reveal the length of the text.
        members["obfuscation"] = hashlib.sha256(str(number).encode()).hexdigest()[:8]
    return f"event: {event['type']}\ndata: ".encode() + dumps(members) + b"\n\n"


def _begun(completion: ChatCompletion, request: ChatRequest) -> dict[str, object]:
    return {
        **_USUAL,
        "id": completion.id,
        "created_at": completion.created,
        "max_output_tokens": request.max_tokens,
        "model": completion.model,
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "reasoning": {"effort": request.reasoning_effort, "summary": None},
    }


def _usage(usage: Usage) -> dict[str, object]:
    counted = encode_usage(usage)
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": counted["total_tokens"],
    }


def _items(completion: ChatCompletion, choice: Choice, request: ChatRequest) -> Iterator[dict[str, object]]:
    message, wanted = choice.message, read_map(request.extra, "responses")
    if message.reasoning:
        thought_id = f"rs_{hashlib.sha256(completion.id.encode('utf-8', 'replace')).hexdigest()[:24]}"
        shown = [{"type": "summary_text", "text": message.reasoning}] if wanted.get("summary") else []
        thought: dict[str, object] = {"id": thought_id, "type": "reasoning", "summary": shown}
        if wanted.get("sealed"):
            thought["encrypted_content"] = sealed(completion.model, thought_id)
        yield thought
    parts: list[dict[str, object]] = []
    if text := text_of(message.content):
        parts.append({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
    if message.refusal:
        parts.append({"type": "refusal", "refusal": message.refusal})
    if parts:
        head = {"id": f"msg_{completion.id}", "type": "message", "role": "assistant", "status": "completed"}
        yield {**head, "content": parts, "phase": "commentary" if message.tool_calls else "final_answer"}
    for position, call in enumerate(message.tool_calls):
        yield {
            "id": f"fc_{completion.id}_{position}",
            "type": "function_call",
            "status": "completed",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments,
        }


def _item_events(position: int, item: dict[str, object]) -> Iterator[dict[str, object]]:
    at: dict[str, object] = {"item_id": item["id"], "output_index": position}
    match item["type"]:
        case "message":
            yield {
                "type": "response.output_item.added",
                **_added(position, {**item, "status": "in_progress", "content": []}),
            }
            parts = item["content"]
            for number, part in enumerate(parts if isinstance(parts, list) else ()):
                yield from _part_events({**at, "content_index": number}, part)
        case "function_call":
            empty = {**item, "status": "in_progress", "arguments": ""}
            yield {"type": "response.output_item.added", **_added(position, empty)}
            kind = "response.function_call_arguments"
            for half in cut_in_two(str(item["arguments"])):
                yield {"type": f"{kind}.delta", **at, "delta": half}
            yield {"type": f"{kind}.done", **at, "name": item["name"], "arguments": item["arguments"]}
        case _:
            yield {
                "type": "response.output_item.added",
                **_added(position, {**item, "summary": [], "encrypted_content": None}),
            }
            shown = item["summary"]
            for number, part in enumerate(shown if isinstance(shown, list) else ()):
                yield from _summary_events({**at, "summary_index": number}, str(as_map(part).get("text")))
    yield {"type": "response.output_item.done", **_added(position, item)}


def _added(position: int, item: Mapping[str, object]) -> dict[str, object]:
    return {"output_index": position, "item": item}


def _part_events(at: Mapping[str, object], part: Mapping[str, object]) -> Iterator[dict[str, object]]:
    name = "text" if part["type"] == "output_text" else "refusal"
    kind = f"response.{part['type']}"
    yield {"type": "response.content_part.added", **at, "part": {**part, name: ""}}
    scored: dict[str, object] = {"logprobs": []} if name == "text" else {}
    for piece in cut(str(part[name])):
        yield {"type": f"{kind}.delta", **at, "delta": piece, **scored}
    yield {"type": f"{kind}.done", **at, name: part[name], **scored}
    yield {"type": "response.content_part.done", **at, "part": part}


def _summary_events(at: Mapping[str, object], text: str) -> Iterator[dict[str, object]]:
    kind = "response.reasoning_summary"
    yield {"type": f"{kind}_part.added", **at, "part": {"type": "summary_text", "text": ""}}
    for piece in cut(text):
        yield {"type": f"{kind}_text.delta", **at, "delta": piece}
    yield {"type": f"{kind}_text.done", **at, "text": text}
    yield {"type": f"{kind}_part.done", **at, "part": {"type": "summary_text", "text": text}}
