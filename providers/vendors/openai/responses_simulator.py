"""Read a request of OpenAI's Responses API leniently, as an equivalent request of chat completions.

`extra["responses"]` states the form of the answer. Unknown fields, and state that the API keeps between requests, are
ignored. The tests check the adapter's requests against the types of OpenAI's own client.

Source: openai 3.51.0 (ResponseCreateParams, ResponseInputItem), read 2026-11-20.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from providers.chat import ChatCompletion, ChatRequest, Choice, Usage, text_of
from providers.formats.tool_results import ATTACHMENT
from providers.json_values import as_map, dumps, read_list, read_map, read_str
from providers.openai_json import decode_request, encode_usage
from providers.openai_json.fields import BREAKPOINT
from providers.testkit.answer_pieces import cut, cut_in_two

_SAME = ("model", "stream", "temperature", "top_p", "parallel_tool_calls", "user", "store", "metadata", "service_tier")


def sealed(model: str, thought_id: str) -> str:
    """Return the encrypted content that this model gives to its thought."""
    checksum = zlib.crc32(thought_id.encode("utf-8", "replace"))
    content = f"simulated thought of {model}: {checksum:08x}"
    return base64.urlsafe_b64encode(content.encode("utf-8", "replace")).decode()


def read_body(body: Mapping[str, object]) -> ChatRequest:
    """Return the request. Raises InvalidRequest or UnsupportedFeature, as the reader of chat completions does."""
    reasoning, text = read_map(body, "reasoning"), read_map(body, "text")
    chat: dict[str, Any] = {name: body[name] for name in _SAME if name in body}
    chat["messages"] = _messages(body)
    if tools := read_list(body, "tools"):
        chat["tools"] = [_tool(as_map(entry)) for entry in tools]
    optional = {
        "tool_choice": _tool_choice(body.get("tool_choice")),
        "max_completion_tokens": body.get("max_output_tokens"),
        "reasoning_effort": reasoning.get("effort"),
        "verbosity": text.get("verbosity"),
        "response_format": _format(read_map(text, "format")),
    }
    chat |= {name: value for name, value in optional.items() if value is not None}
    chat["responses"] = {
        "sealed": "reasoning.encrypted_content" in read_list(body, "include"),
        "summary": reasoning.get("summary") is not None,
    }
    return decode_request(chat)


def _messages(body: Mapping[str, object]) -> list[dict[str, Any]]:
    """Return the items as messages. An assistant's text and the calls after it are one message."""
    messages: list[dict[str, Any]] = []
    attached: list[object] = []
    if (instructions := read_str(body, "instructions")) is not None:
        messages.append({"role": "system", "content": instructions})
    if (text := read_str(body, "input")) is not None:
        return [*messages, {"role": "user", "content": text}]
    for entry in read_list(body, "input"):
        item = as_map(entry)
        if attached and item.get("type") != "function_call_output":
            messages.append({"role": "user", "content": attached})
            attached = []
        match item.get("type"):
            case "function_call":
                if not messages or messages[-1]["role"] != "assistant":
                    messages.append({"role": "assistant", "content": None})
                function = {"name": item.get("name"), "arguments": item.get("arguments")}
                call = {"id": item.get("call_id"), "type": "function", "function": function}
                messages[-1].setdefault("tool_calls", []).append(call)
            case "function_call_output":
                content = _content(item.get("output"))
                if isinstance(content, list) and any(part.get("type") != "text" for part in content):
                    # Chat completions have only text in a result, so images and files follow it.
                    for part in content:
                        if part.get("type") != "text":
                            number = len(attached) // 2 + 1
                            kind = "image" if part.get("type") == "image_url" else "file"
                            attached += [{"type": "text", "text": ATTACHMENT.format(kind, number)}, part]
                    content = "".join(str(part.get("text")) for part in content if part.get("type") == "text")
                messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": content})
            case "message" | None:
                messages.append({"role": item.get("role"), "content": _content(item.get("content"))})
    return [*messages, {"role": "user", "content": attached}] if attached else messages


def _content(content: object) -> object:
    return [_part(as_map(part)) for part in content] if isinstance(content, list) else content


def _part(part: Mapping[str, object]) -> dict[str, Any]:
    marked = {BREAKPOINT: part[BREAKPOINT]} if BREAKPOINT in part else {}
    match part.get("type"):
        case "input_text" | "output_text":
            return {"type": "text", "text": part.get("text"), **marked}
        case "input_image":
            image = {"url": part.get("image_url"), "detail": part.get("detail")}
            shown = {k: v for k, v in image.items() if v not in (None, "auto")}
            return {"type": "image_url", "image_url": shown, **marked}
        case "input_file":
            file = {name: part[name] for name in ("file_data", "file_id", "filename") if name in part}
            return {"type": "file", "file": file, **marked}
        case _:
            return dict(part)


def _tool(tool: Mapping[str, object]) -> dict[str, Any]:
    # In this API, `strict` is true by default.
    function = {name: value for name, value in tool.items() if name != "type"}
    return {"type": tool.get("type"), "function": {**function, "strict": tool.get("strict") is not False}}


def _tool_choice(choice: object) -> object:
    match as_map(choice):
        case {"type": "function", "name": str(name)}:
            return {"type": "function", "function": {"name": name}}
        case {"type": "allowed_tools", "mode": mode, "tools": list(tools)}:
            named = [{"type": "function", "function": {"name": as_map(tool).get("name")}} for tool in tools]
            return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": named}}
        case _:
            return choice


def _format(form: Mapping[str, object]) -> dict[str, Any] | None:
    if form.get("type") != "json_schema":
        return {"type": form.get("type")} if form else None
    return {"type": "json_schema", "json_schema": {name: value for name, value in form.items() if name != "type"}}


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
