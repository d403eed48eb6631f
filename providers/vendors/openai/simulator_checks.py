"""What OpenAI refuses beyond the wrong shape: unknown fields anywhere, and what a model family doesn't take.

Source: openai 3.51.0 (the complete list of request fields) and captured 400 bodies of 2025 and 2026, read 2026-11-20.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from providers.json_values import as_list, as_map, read_list, read_map


@dataclass(frozen=True, slots=True)
class ErrorObject:
    """Why a request is refused, in the members of OpenAI's error object."""

    message: str
    code: str | None = None
    param: str | None = None


_FIELD_NAMES = (
    "model messages max_completion_tokens max_tokens temperature top_p frequency_penalty presence_penalty seed "
    "logit_bias n logprobs top_logprobs stop stream stream_options tools tool_choice parallel_tool_calls "
    "response_format reasoning_effort verbosity modalities audio prediction web_search_options store metadata "
    "moderation service_tier prompt_cache_key prompt_cache_options prompt_cache_retention safety_identifier user "
    "functions function_call"
)
_FIELDS = frozenset(_FIELD_NAMES.split())
_MESSAGE_FIELDS = {
    "system": frozenset({"role", "content", "name"}),
    "developer": frozenset({"role", "content", "name"}),
    "user": frozenset({"role", "content", "name"}),
    "assistant": frozenset({"role", "content", "name", "refusal", "tool_calls", "audio", "function_call"}),
    "tool": frozenset({"role", "content", "tool_call_id"}),
}
_PART_FIELDS = {
    "text": frozenset({"type", "text", "prompt_cache_breakpoint"}),
    "refusal": frozenset({"type", "refusal"}),
    "image_url": frozenset({"type", "image_url", "prompt_cache_breakpoint"}),
    "input_audio": frozenset({"type", "input_audio", "prompt_cache_breakpoint"}),
    "file": frozenset({"type", "file", "prompt_cache_breakpoint"}),
}
_INNER_FIELDS = {
    "image_url": frozenset({"url", "detail"}),
    "input_audio": frozenset({"data", "format"}),
    "file": frozenset({"file_data", "file_id", "filename"}),
}
_CALL_FIELDS = frozenset({"id", "type", "function"})
_FUNCTION_FIELDS = frozenset({"name", "description", "parameters", "strict"})
_STREAM_OPTION_FIELDS = frozenset({"include_usage", "include_obfuscation"})
_FORMAT_FIELDS = frozenset({"type", "json_schema"})
_SCHEMA_FIELDS = frozenset({"name", "description", "schema", "strict"})

_REASONS = re.compile(r"(gpt-(?P<major>\d+)(\.(?P<minor>\d+))?|o\d)(?![\w.])")
_TAKES_NO_STOP = re.compile(r"(o3|o4-mini|gpt-5|gpt-5-mini|gpt-5-nano|gpt-5\.2|gpt-6-astra)(?![\w.])")
_EFFORTS = (
    (re.compile(r"o\d"), "low medium high"),
    (re.compile(r"gpt-6-astra"), "low medium high xhigh max"),
    (re.compile(r"gpt-5\.1(?!\d)"), "none low medium high"),
    (re.compile(r"gpt-5\.[2-5](?!\d)"), "none low medium high xhigh"),
    (re.compile(r"gpt-5(?![.\d])"), "minimal low medium high"),
    (re.compile(r"gpt-"), "none low medium high xhigh max"),
)
"""The efforts of a family of models; the first that its name begins with."""
_DEFAULTS: Mapping[str, object] = {
    "temperature": 1,
    "top_p": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logprobs": False,
    "top_logprobs": 0,
    "logit_bias": {},
}


def objection_to(body: Mapping[str, object]) -> ErrorObject | None:
    """The first objection to a parsed body; None where there is none, or its shape is somebody else's to judge."""
    unknown = next(_unknown(body), None)
    if unknown is not None:
        return ErrorObject(f"Unknown parameter: '{unknown}'.", "unknown_parameter", unknown)
    if not body.get("tools"):
        for name in ("tool_choice", "parallel_tool_calls"):
            if body.get(name) is not None:
                return ErrorObject(f"'{name}' is only allowed when 'tools' are specified.", None, name)
    return objection_of_model(body)


def _unknown(body: Mapping[str, object]) -> Iterator[str]:
    """The places of fields that the API doesn't have."""
    yield from beyond(body, _FIELDS, "")
    yield from beyond(read_map(body, "stream_options"), _STREAM_OPTION_FIELDS, "stream_options.")
    form = read_map(body, "response_format")
    yield from beyond(form, _FORMAT_FIELDS, "response_format.")
    yield from beyond(read_map(form, "json_schema"), _SCHEMA_FIELDS, "response_format.json_schema.")
    for position, entry in enumerate(read_list(body, "messages")):
        yield from _unknown_in_message(as_map(entry), f"messages[{position}].")
    for position, entry in enumerate(read_list(body, "tools")):
        yield from beyond(as_map(entry), frozenset({"type", "function", "custom"}), f"tools[{position}].")
        function = read_map(as_map(entry), "function")
        yield from beyond(function, _FUNCTION_FIELDS, f"tools[{position}].function.")


def _unknown_in_message(message: Mapping[str, object], place: str) -> Iterator[str]:
    known = _MESSAGE_FIELDS.get(str(message.get("role")))
    if known is not None:
        yield from beyond(message, known, place)
    for position, entry in enumerate(as_list(message.get("content"))):
        part, where = as_map(entry), f"{place}content[{position}]."
        kind = str(part.get("type"))
        if kind in _PART_FIELDS:
            yield from beyond(part, _PART_FIELDS[kind], where)
            yield from beyond(read_map(part, kind), _INNER_FIELDS.get(kind, frozenset()), f"{where}{kind}.")
    for position, entry in enumerate(as_list(message.get("tool_calls"))):
        call, where = as_map(entry), f"{place}tool_calls[{position}]."
        yield from beyond(call, _CALL_FIELDS, where)
        yield from beyond(read_map(call, "function"), frozenset({"name", "arguments"}), f"{where}function.")


def beyond(source: Mapping[str, object], known: frozenset[str], place: str) -> Iterator[str]:
    """The places of members that an object doesn't have."""
    return (f"{place}{name}" for name in source if name not in known)


def objection_of_model(body: Mapping[str, object]) -> ErrorObject | None:
    """What this family of models refuses, though the API has the field."""
    model = str(body.get("model"))
    family = _REASONS.match(model)
    major, minor = (int(family[name] or 0) for name in ("major", "minor")) if family else (0, 0)
    reasons = family is not None and (major >= 5 or model.startswith("o"))
    effort = body.get("reasoning_effort")
    if not reasons:
        is_of_the_vendor = model.startswith(("gpt-", "chatgpt-"))
        if effort is not None and is_of_the_vendor:
            return _unsupported("reasoning_effort")
        return None
    if body.get("max_tokens") is not None:
        return _unsupported("max_tokens", " Use 'max_completion_tokens' instead.")
    if body.get("stop") is not None and _TAKES_NO_STOP.match(model):
        return _unsupported("stop")
    for name, default in _DEFAULTS.items():
        value = body.get(name)
        if value is not None and value != default:
            if name == "temperature":
                text = f"Unsupported value: '{name}' does not support {value} with this model."
                return ErrorObject(text, "unsupported_value", name)
            return _unsupported(name)
    known = next(words.split() for beginning, words in _EFFORTS if beginning.match(model))
    if effort is not None and effort not in known:
        text = f"Unsupported value: 'reasoning_effort' does not support '{effort}' with this model."
        return ErrorObject(text, "unsupported_value", "reasoning_effort")
    thinks = effort != "none" if (major, minor) >= (5, 6) else effort not in (None, "none")
    if body.get("tools") and (major, minor) >= (5, 4) and thinks:
        text = f"Function tools with reasoning_effort are not supported for {model} in /v1/chat/completions."
        return ErrorObject(text, None, "reasoning_effort")
    return None


def _unsupported(name: str, advice: str = "") -> ErrorObject:
    text = f"Unsupported parameter: '{name}' is not supported with this model.{advice}"
    return ErrorObject(text, "unsupported_parameter", name)
