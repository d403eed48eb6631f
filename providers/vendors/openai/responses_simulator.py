"""Read a request of OpenAI's Responses API leniently, as an equivalent request of chat completions.

`extra["responses"]` states the form of the answer. Unknown fields, and state that the API keeps between requests, are
ignored. The tests check the adapter's requests against the types of OpenAI's own client.

Source: openai 3.51.0 (ResponseCreateParams, ResponseInputItem), read 2026-11-20.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from typing import Any

from providers.chat import ChatRequest
from providers.formats.tool_results import ATTACHMENT
from providers.json_values import as_map, read_list, read_map, read_str
from providers.openai_json import decode_request
from providers.openai_json.fields import BREAKPOINT

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


# --- input ----------------------------------------------------------------------------------------


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
                messages[-1].setdefault("tool_calls", []).append(_call(item))
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


def _call(item: Mapping[str, object]) -> dict[str, Any]:
    function = {"name": item.get("name"), "arguments": item.get("arguments")}
    return {"id": item.get("call_id"), "type": "function", "function": function}


# --- tools and formats ----------------------------------------------------------------------------


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
