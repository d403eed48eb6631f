"""OpenAI's Responses API from the provider's side: its requests, read as strictly as the vendor reads them.

A request becomes one of chat completions, in which `extra["responses"]` says what its answer must look like. Nothing
is kept, so that what refers to something kept is refused.
Source: openai 3.51.0 (ResponseCreateParams, ResponseInputItem) and captured 400 bodies, read 2026-11-20.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from providers.chat import ChatRequest
from providers.failures import InvalidRequest
from providers.json_values import as_list, as_map, read_list, read_map, read_str
from providers.openai_json import decode_request
from providers.vendors.openai.simulator_checks import ErrorObject, beyond, objection_of_model

_FIELDS = frozenset(
    "access_programs background context_management conversation image include input instructions max_output_tokens "
    "max_tool_calls metadata model moderation parallel_tool_calls previous_response_id prompt prompt_cache_key "
    "prompt_cache_options prompt_cache_retention reasoning safety_identifier service_tier store stream stream_options "
    "temperature text tool_choice tools top_logprobs top_p truncation user".split()
)
_KEPT_ELSEWHERE = ("background", "conversation", "previous_response_id", "prompt")
_SAME = ("model", "stream", "temperature", "top_p", "parallel_tool_calls", "user", "store", "metadata", "service_tier")
_ITEM_FIELDS = {
    "message": frozenset({"type", "id", "role", "content", "status", "phase"}),
    "function_call": frozenset({"type", "id", "call_id", "name", "arguments", "status", "caller", "namespace"}),
    "function_call_output": frozenset({"type", "id", "call_id", "output", "status", "caller", "name", "namespace"}),
    "reasoning": frozenset({"type", "id", "summary", "content", "encrypted_content", "status"}),
}
_PART_FIELDS = {
    "input_text": frozenset({"type", "text", "prompt_cache_breakpoint"}),
    "output_text": frozenset({"type", "text", "annotations", "logprobs"}),
    "refusal": frozenset({"type", "refusal"}),
    "input_image": frozenset({"type", "image_url", "file_id", "detail", "prompt_cache_breakpoint"}),
    "input_file": frozenset(
        {"type", "file_data", "file_id", "file_url", "filename", "detail", "prompt_cache_breakpoint"}
    ),
}
_TOOL_FIELDS = frozenset({"type", "name", "description", "parameters", "strict"})
_REASONING_FIELDS = frozenset({"context", "effort", "generate_summary", "mode", "summary"})
_FORMAT_FIELDS = frozenset({"type", "name", "description", "schema", "strict"})
_PHASES = ("commentary", "final_answer")
_LEAST_TOKENS = 16
_MOST_ID_CHARACTERS = 64
_OURS = "simulated thought of "


class Objected(Exception):
    """The vendor refuses the request with this."""

    def __init__(self, objection: ErrorObject) -> None:
        super().__init__(objection.message)
        self.objection = objection


def sealed(model: str, thought_id: str) -> str:
    """The sealed content by which this model knows its thought again."""
    told = f"{_OURS}{model}: {zlib.crc32(thought_id.encode('utf-8', 'replace')):08x}"
    return base64.urlsafe_b64encode(told.encode("utf-8", "replace")).decode()


def read_body(body: Mapping[str, object]) -> ChatRequest:
    """The request; raises Objected, InvalidRequest or UnsupportedFeature."""
    _check_fields(body)
    reasoning, text = read_map(body, "reasoning"), read_map(body, "text")
    chat: dict[str, Any] = {name: body[name] for name in _SAME if name in body}
    chat["messages"] = _messages(body)
    if body.get("tools"):
        chat["tools"] = [_tool(as_map(entry), f"tools[{index}]") for index, entry in enumerate(_list(body, "tools"))]
    if body.get("tool_choice") is not None:
        chat["tool_choice"] = _tool_choice(body["tool_choice"])
    if (most := body.get("max_output_tokens")) is not None:
        if isinstance(most, int) and most < _LEAST_TOKENS:
            message = "Invalid 'max_output_tokens': integer below minimum value."
            raise Objected(ErrorObject(message, "integer_below_min_value", "max_output_tokens"))
        chat["max_completion_tokens"] = most
    if reasoning.get("effort") is not None:
        chat["reasoning_effort"] = reasoning["effort"]
    if text.get("verbosity") is not None:
        chat["verbosity"] = text["verbosity"]
    if form := read_map(text, "format"):
        chat["response_format"] = _format(form)
    told = {name: chat.get(name) for name in ("model", "temperature", "top_p", "reasoning_effort")}
    if objection := objection_of_model(told):
        raise Objected(objection)
    chat["responses"] = {
        "sealed": "reasoning.encrypted_content" in _list(body, "include"),
        "summary": reasoning.get("summary") is not None,
    }
    return decode_request(chat)


def _check_fields(body: Mapping[str, object]) -> None:
    unknown = next(_unknown(body), None)
    if unknown is not None:
        raise Objected(ErrorObject(f"Unknown parameter: '{unknown}'.", "unknown_parameter", unknown))
    for name in _KEPT_ELSEWHERE:
        if body.get(name):
            raise Objected(ErrorObject(f"'{name}': nothing is kept here.", "unsupported_parameter", name))
    if not body.get("tools") and body.get("tool_choice") not in (None, "auto", "none"):
        raise Objected(ErrorObject("Tool choice is only allowed when 'tools' are specified.", None, "tool_choice"))


def _unknown(body: Mapping[str, object]) -> Iterator[str]:
    """The places of fields that the API doesn't have."""
    yield from beyond(body, _FIELDS, "")
    yield from beyond(read_map(body, "reasoning"), _REASONING_FIELDS, "reasoning.")
    yield from beyond(read_map(body, "text"), frozenset({"format", "verbosity"}), "text.")
    yield from beyond(read_map(read_map(body, "text"), "format"), _FORMAT_FIELDS, "text.format.")
    yield from beyond(read_map(body, "stream_options"), frozenset({"include_obfuscation"}), "stream_options.")
    for position, entry in enumerate(read_list(body, "tools")):
        yield from beyond(as_map(entry), _TOOL_FIELDS, f"tools[{position}].")
    for position, entry in enumerate(read_list(body, "input")):
        item, where = as_map(entry), f"input[{position}]."
        yield from beyond(item, _ITEM_FIELDS.get(_kind(item), frozenset({"type"})), where)
        for number, part in enumerate(as_list(item.get("content"))):
            known = _PART_FIELDS.get(str(as_map(part).get("type")), frozenset({"type", "text"}))
            yield from beyond(as_map(part), known, f"{where}content[{number}].")


def _kind(item: Mapping[str, object]) -> str:
    return str(item.get("type") or "message")


def _list(body: Mapping[str, object], name: str) -> Sequence[object]:
    value = body.get(name)
    if value is not None and not isinstance(value, list):
        raise InvalidRequest(f"Invalid type for '{name}': expected an array.", name)
    return value or ()


# --- input ----------------------------------------------------------------------------------------


def _messages(body: Mapping[str, object]) -> list[dict[str, Any]]:
    """The items as messages: an assistant's text and the calls behind it are one."""
    messages: list[dict[str, Any]] = []
    if isinstance(instructions := body.get("instructions"), str):
        messages.append({"role": "system", "content": instructions})
    if isinstance(told := body.get("input"), str):
        return [*messages, {"role": "user", "content": told}]
    items = [as_map(entry) for entry in _list(body, "input")]
    _check_thoughts(items, str(body.get("model")))
    waiting, answered = set[str](), set[str]()
    for position, item in enumerate(items):
        match _kind(item):
            case "message":
                messages.append(_message(item, f"input[{position}]"))
            case "function_call":
                if not messages or messages[-1]["role"] != "assistant":
                    messages.append({"role": "assistant", "content": None})
                call = _call(item, position)
                messages[-1].setdefault("tool_calls", []).append(call)
                waiting.add(call["id"])
            case "function_call_output":
                messages.append(_output(item, waiting, answered))
            case "reasoning":
                pass
            case other:
                raise Objected(ErrorObject(f"Invalid value: '{other[:60]}'.", "invalid_value", f"input[{position}]"))
    if waiting:
        raise Objected(ErrorObject(f"No tool output found for function call {min(waiting)}.", None, "input"))
    return messages


def _check_thoughts(items: Sequence[Mapping[str, object]], model: str) -> None:
    """A thought comes back sealed, as this model sealed it, and before what it led to."""
    for item, after in zip(items, [*items[1:], {}], strict=True):
        if item.get("type") != "reasoning":
            continue
        name, seal = read_str(item, "id") or "", read_str(item, "encrypted_content")
        if not name.startswith("rs_") or not isinstance(item.get("summary"), list):
            raise Objected(ErrorObject("Missing required parameter: 'input[].summary'.", "missing_required_parameter"))
        if not seal:
            message = f"Item with id '{name[:80]}' not found. Items are not persisted when `store` is set to false."
            raise Objected(ErrorObject(message, None, "input"))
        try:
            told = base64.b64decode(seal, altchars=b"-_", validate=True)
        except ValueError:
            told = b""
        # One of before the simulation is believed.
        if not told or (told.startswith(_OURS.encode()) and seal != sealed(model, name)):
            message = f"The encrypted content for item {name[:80]} could not be verified."
            raise Objected(ErrorObject(message, "invalid_encrypted_content"))
        leads = after.get("type") in ("reasoning", "function_call") or after.get("role") == "assistant"
        if not leads:
            message = f"Item '{name[:80]}' of type 'reasoning' was provided without its required following item."
            raise Objected(ErrorObject(message, None, "input"))


def _message(item: Mapping[str, object], place: str) -> dict[str, Any]:
    role, content = item.get("role"), item.get("content")
    if role not in ("system", "developer", "user", "assistant"):
        raise Objected(ErrorObject(f"Invalid value: '{str(role)[:60]}'.", "invalid_value", f"{place}.role"))
    _check_phase(item, place)
    if isinstance(content, list):
        content = [_part(as_map(part), role == "assistant", place) for part in content]
    return {"role": role, "content": content}


def _check_phase(item: Mapping[str, object], place: str) -> None:
    """The models of this API tell commentary from the answer, and want to be told it back."""
    said = item.get("role") == "assistant"
    if item.get("phase") not in ((*_PHASES,) if said else (None,)):
        message = f"Invalid value: '{str(item.get('phase'))[:60]}'. An assistant's message has a phase, and no other."
        raise Objected(ErrorObject(message, "invalid_value", f"{place}.phase"))


def _part(part: Mapping[str, object], is_said: bool, place: str) -> dict[str, Any]:
    kind = part.get("type")
    if is_said != (kind in ("output_text", "refusal")):
        message = f"Invalid value: '{str(kind)[:60]}'. Supported values depend on the role."
        raise Objected(ErrorObject(message, "invalid_value", f"{place}.content"))
    match kind:
        case "input_text" | "output_text":
            return {"type": "text", "text": part.get("text")}
        case "refusal":
            return {"type": "refusal", "refusal": part.get("refusal")}
        case "input_image":
            image = {"url": part.get("image_url"), "detail": part.get("detail")}
            return {"type": "image_url", "image_url": {k: v for k, v in image.items() if v not in (None, "auto")}}
        case "input_file":
            file = {name: part[name] for name in ("file_data", "file_id", "filename") if name in part}
            return {"type": "file", "file": file}
        case _:
            raise Objected(ErrorObject(f"Invalid value: '{str(kind)[:60]}'.", "invalid_value", f"{place}.content"))


def _call(item: Mapping[str, object], position: int) -> dict[str, Any]:
    call_id, name, arguments = (read_str(item, member) for member in ("call_id", "name", "arguments"))
    if not call_id or not name or arguments is None:
        message = "Missing required parameter of a function call."
        raise Objected(ErrorObject(message, "missing_required_parameter", f"input[{position}]"))
    if len(call_id) > _MOST_ID_CHARACTERS:
        message = f"Invalid 'input[{position}].call_id': string too long."
        raise Objected(ErrorObject(message, "string_above_max_length", f"input[{position}].call_id"))
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _output(item: Mapping[str, object], waiting: set[str], answered: set[str]) -> dict[str, Any]:
    call_id = read_str(item, "call_id") or ""
    if call_id in answered:
        # However far apart they stand, and whatever was called: an output belongs to its call by the id alone.
        message = f"Duplicate function_call_output for call_id '{call_id[:80]}'."
        raise Objected(ErrorObject(message, None, "input"))
    if call_id not in waiting:
        message = f"No tool call found for function call output with call_id {call_id[:80]}."
        raise Objected(ErrorObject(message, None, "input"))
    waiting.remove(call_id)
    answered.add(call_id)
    output = item.get("output")
    content = [_part(as_map(part), False, "input") for part in output] if isinstance(output, list) else output
    return {"role": "tool", "tool_call_id": call_id, "content": content}


# --- tools and formats ----------------------------------------------------------------------------


def _tool(tool: Mapping[str, object], place: str) -> dict[str, Any]:
    if tool.get("type") != "function":
        message = f"Invalid value: '{str(tool.get('type'))[:60]}'. The simulator has no tools of its own."
        raise Objected(ErrorObject(message, "invalid_value", f"{place}.type"))
    if not tool.get("name"):
        raise Objected(ErrorObject(f"Missing required parameter: '{place}.name'.", "missing_required_parameter", place))
    # Strict is what a tool is here unless it says otherwise.
    function = {name: value for name, value in tool.items() if name != "type"}
    return {"type": "function", "function": {**function, "strict": tool.get("strict") is not False}}


def _tool_choice(choice: object) -> object:
    match as_map(choice):
        case {"type": "function", "name": str(name)}:
            return {"type": "function", "function": {"name": name}}
        case {"type": "allowed_tools", "mode": mode, "tools": list(tools)}:
            named = [{"type": "function", "function": {"name": as_map(tool).get("name")}} for tool in tools]
            return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": named}}
        case _:
            return choice


def _format(form: Mapping[str, object]) -> dict[str, Any]:
    if form.get("type") != "json_schema":
        return {"type": form.get("type")}
    return {"type": "json_schema", "json_schema": {name: value for name, value in form.items() if name != "type"}}
