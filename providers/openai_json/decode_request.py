"""Read a client's request strictly, including OpenAI's fields that have no canonical form.

Source: the official Python SDK 3.51 (`CompletionCreateParams`), read 2026-11-20.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from providers import chat
from providers.failures import InvalidRequest, UnsupportedFeature
from providers.openai_json.decode_messages import USE_A_FUNCTION, decode_messages
from providers.openai_json.fields import (
    belongs_elsewhere,
    boolean,
    cache_mark,
    check_cache_options,
    choice,
    integer,
    items,
    mapping,
    number,
    present,
    text,
)
from providers.openai_json.misspelled_fields import refuse_misspelled
from providers.openai_json.plain_request import plain_request
from providers.openai_json.unread_fields import unread_fields

MOST_WITHIN = 10_000
"""The limit of objects and lists in all unknown fields. Each is searched for data-moving fields."""
_CONTAINERS = (dict, list)
_Source = Mapping[str, object]
_Check = Callable[[_Source, str], bool]
MAX_MESSAGES = 2048
MAX_TOOLS = 512
_MAX_BIASES = 1024
_MAX_STOPS = 4
_MOST_UNKNOWN = 128
_LONGEST_NAME = 128
TOOL_NAME = re.compile(r"[A-Za-z0-9_./:-]{1,128}")
"""A tool's name as MCP servers write it. `providers.formats.fitting` makes it fit a vendor that takes less."""
NAME_RULE = "must be 1 to 128 letters, digits, '_', '-', '.', '/' or ':'"
_SCHEMA_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_KNOWN = frozenset("model messages stream stream_options max_tokens max_completion_tokens tools tool_choice".split())
_INT64 = 2**63 - 1


def _text(source: _Source, name: str) -> bool:
    text(source, name, name)
    return True


def _object(source: _Source, name: str) -> bool:
    mapping(source[name], name)
    return True


def _verbosity(source: _Source, name: str) -> bool:
    choice(source[name], name, ("low", "medium", "high"))
    return True


def _modalities(source: _Source, name: str) -> bool:
    for position, entry in enumerate(items(source[name], name)):
        place = f"{name}[{position}]"
        if choice(entry, place, ("text", "audio")) == "audio":
            raise UnsupportedFeature("audio_output", f"`{place}`: answers are text here; ask for ['text']", place)
    return False


CHECKS: dict[str, _Check] = {
    # `store: false` is dropped: sites pin it, and elsewhere it is the default.
    "store": lambda source, name: bool(boolean(source, name, name)),
    "modalities": _modalities,
    "verbosity": _verbosity,
    "service_tier": _text,
    "prompt_cache_key": _text,
    "prompt_cache_retention": _text,
    "safety_identifier": _text,
    "metadata": _object,
    "prediction": _object,
    "audio": _object,
    "moderation": _object,
    "prompt_cache_options": check_cache_options,
    "web_search_options": _object,
}
"""Checks by field name. Each raises for a wrong type and returns whether the field is kept. Null never occurs here."""


def holds_too_much(fields: _Source) -> bool:
    """Return whether the fields contain more objects and lists than are searched."""
    waiting: list[object] = [fields]
    seen = 0
    while waiting and seen <= MOST_WITHIN:
        item = waiting.pop()
        seen += 1
        inside = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        waiting += [inner for inner in inside if isinstance(inner, _CONTAINERS)]
    return seen > MOST_WITHIN


_Reader = Callable[[Mapping[str, object], str], object]


def decode_request(body: object) -> chat.ChatRequest:
    """Return the request in a parsed JSON body, which may be any JSON value.

    `functions` and `function_call`, which OpenAI deprecated in 2023, are refused by name. Raises InvalidRequest if the
    body breaks a rule of the API; the message names the field. Raises UnsupportedFeature if a field is valid at OpenAI,
    but has no canonical form.
    """
    return plain_request(body, MAX_MESSAGES) or decode_any_request(body)


def decode_any_request(body: object) -> chat.ChatRequest:
    """Decode a request of any form."""
    source = mapping(body, "")
    for old, new in (("functions", "tools"), ("function_call", "tool_choice")):
        if source.get(old) is not None:
            raise InvalidRequest(f"`{old}` is no longer supported; use `{new}`", old)
    if source.get("model") is None or source.get("messages") is None:
        # A misspelled name of a required field is the better message.
        if source.get("messages") is None and belongs_elsewhere(source, "messages"):
            present(source, "messages", "messages")
        refuse_misspelled(name for name, value in source.items() if value is not None)
    model = text(source, "model", "model")
    if not model:
        raise InvalidRequest("`model` is required: the name of an assistant", "model")
    stream, include_usage = _stream(source)
    tools = _tools(source)
    fields: dict[str, Any] = {}
    extra: dict[str, object] = {}
    # Only present fields are checked: most requests have few of the two dozen fields.
    for name, value in source.items():
        if value is None:
            continue
        if name in READERS:
            fields[name] = READERS[name](source, name)
        elif name not in _KNOWN and (name not in CHECKS or CHECKS[name](source, name)):
            extra[name] = value
    if not tools:
        # Without tools the field has no meaning and OpenAI refuses it, but frameworks send it.
        fields.pop("parallel_tool_calls", None)
    messages = decode_messages(items(present(source, "messages", "messages"), "messages", at_most=MAX_MESSAGES))
    tool_choice = _tool_choice(source, tools)
    unread = unread_fields(source)
    if extra or unread:
        check_unknown(extra, unread)
    return chat.ChatRequest(
        model=model,
        messages=messages,
        stream=stream,
        include_usage=include_usage,
        max_tokens=_max_tokens(source),
        tools=tools,
        tool_choice=tool_choice,
        extra=extra,
        unread=unread,
        **fields,
    )


def check_unknown(extra: Mapping[str, object], unread: Collection[str]) -> None:
    """Raise InvalidRequest for more or larger unknown fields than any API has. See `ChatRequest` for both arguments."""
    _bound_unknown(extra)
    _bound_unknown(unread)
    if holds_too_much(extra):
        raise InvalidRequest(
            f"the fields that are not part of the API contain more than {MOST_WITHIN} objects and lists"
        )


def _bound_unknown(names: Collection[str]) -> None:
    """Raise InvalidRequest for more unknown fields, or longer names, than any API has.

    Each is named to the client, in a header of the answer.
    """
    if len(names) > _MOST_UNKNOWN:
        raise InvalidRequest(
            f"{len(names)} fields of the request are not part of the API; at most {_MOST_UNKNOWN} are accepted"
        )
    for name in names:
        if len(name) > _LONGEST_NAME:
            shown = name[:_LONGEST_NAME]
            raise InvalidRequest(
                f"`{shown}…` is not part of the API, and its name is longer than {_LONGEST_NAME} characters",
                shown,
                log_message=f"the name of an unknown field is longer than {_LONGEST_NAME} characters",
            )


def _stream(source: Mapping[str, object]) -> tuple[bool, bool]:
    stream = boolean(source, "stream", "stream") or False
    value = source.get("stream_options")
    if value is None:
        return stream, False
    options = mapping(value, "stream_options")
    if not stream:
        raise InvalidRequest("`stream_options` is only allowed when `stream` is true", "stream_options")
    boolean(options, "include_obfuscation", "stream_options.include_obfuscation")
    wanted = boolean(options, "include_usage", "stream_options.include_usage")
    return stream, wanted or False


def _max_tokens(source: Mapping[str, object]) -> int | None:
    new = integer(source, "max_completion_tokens", "max_completion_tokens", 1, 2**31 - 1)
    old = integer(source, "max_tokens", "max_tokens", 1, 2**31 - 1)
    if new is not None and old is not None and new != old:
        raise InvalidRequest("`max_tokens` and `max_completion_tokens` disagree; send only the latter", "max_tokens")
    return new if new is not None else old


def _stop(source: Mapping[str, object], _: str) -> tuple[str, ...]:
    value = source["stop"]
    if isinstance(value, str):
        return (value,) if value else ()
    if not isinstance(value, list):
        raise InvalidRequest("`stop` must be a string or an array of strings", "stop")
    stops: list[str] = []
    for position, entry in enumerate(items(value, "stop", at_most=_MAX_STOPS)):
        if not isinstance(entry, str):
            raise InvalidRequest(f"`stop[{position}]` must be a string", f"stop[{position}]")
        if entry:
            stops.append(entry)
    return tuple(stops)


def _top_logprobs(source: Mapping[str, object], _: str) -> int | None:
    value = integer(source, "top_logprobs", "top_logprobs", 0, 20)
    if source.get("logprobs") is not True:
        if not value:
            return None
        raise InvalidRequest("`top_logprobs` needs `logprobs: true`", "top_logprobs")
    return value


def _logit_bias(source: Mapping[str, object], _: str) -> Mapping[str, float]:
    biases = mapping(source["logit_bias"], "logit_bias")
    if len(biases) > _MAX_BIASES:
        raise InvalidRequest(f"`logit_bias` has more than {_MAX_BIASES} entries: send fewer", "logit_bias")
    return {token: _bias(biases, token) for token in biases}


def _bias(biases: Mapping[str, object], token: str) -> float:
    path = f"logit_bias.{token[:_LONGEST_NAME]}"
    try:
        return number(biases, token, path, -100, 100) or 0
    except InvalidRequest as error:
        # The client makes up the names of the entries.
        logged = str(error).replace(path, "logit_bias[…]")
        raise InvalidRequest(str(error), error.param, log_message=logged) from None


def _tools(source: Mapping[str, object]) -> tuple[chat.Tool, ...]:
    value = source.get("tools")
    if value is None:
        return ()
    return tuple(
        _tool(entry, f"tools[{position}]") for position, entry in enumerate(items(value, "tools", at_most=MAX_TOOLS))
    )


def _tool(value: object, path: str) -> chat.Tool:
    entry = mapping(value, path)
    if entry.get("type") == "custom":
        raise UnsupportedFeature("custom_tools", f"`{path}` is a custom tool; {USE_A_FUNCTION}", f"{path}.type")
    if entry.get("type") != "function":
        raise InvalidRequest(
            f"`{path}.type` must be 'function': tools that a provider hosts would send data elsewhere", f"{path}.type"
        )
    function = mapping(present(entry, "function", f"{path}.function"), f"{path}.function")
    name = text(function, "name", f"{path}.function.name")
    if name is None or not TOOL_NAME.fullmatch(name):
        raise InvalidRequest(f"`{path}.function.name` {NAME_RULE}", f"{path}.function.name")
    parameters = function.get("parameters")
    return chat.Tool(
        name=name,
        description=text(function, "description", f"{path}.function.description"),
        parameters=None if parameters is None else mapping(parameters, f"{path}.function.parameters"),
        strict=boolean(function, "strict", f"{path}.function.strict"),
        cache=cache_mark(entry, path) or cache_mark(function, f"{path}.function"),
    )


def _tool_choice(source: Mapping[str, object], tools: tuple[chat.Tool, ...]) -> chat.ToolChoice | None:
    value = source.get("tool_choice")
    if is_choice_without_tools(value, tools):
        return None
    match value:
        case "auto" | "none" | "required":
            return value
        case {"type": "function"}:
            name = _tool_name(mapping(value, "tool_choice").get("function"), "tool_choice.function", tools)
            return chat.NamedTool(name)
        case {"type": "allowed_tools", "allowed_tools": dict(allowed)}:
            mode = choice(allowed.get("mode"), "tool_choice.allowed_tools.mode", ("auto", "required"))
            path = "tool_choice.allowed_tools.tools"
            entries = items(allowed.get("tools"), path)
            names = tuple(
                _tool_name(mapping(entry, f"{path}[{i}]").get("function"), f"{path}[{i}].function", tools)
                for i, entry in enumerate(entries)
            )
            if not names:
                raise InvalidRequest(f"`{path}` must name at least one tool", path)
            return chat.AllowedTools("required" if mode == "required" else "auto", names)
        case {"type": "custom"}:
            raise UnsupportedFeature(
                "custom_tools", f"`tool_choice` names a custom tool; {USE_A_FUNCTION}", "tool_choice.type"
            )
    raise unknown_tool_choice()


def is_choice_without_tools(value: object, tools: tuple[chat.Tool, ...]) -> bool:
    """Return whether a `tool_choice` is left out, or has no effect without tools. Raises InvalidRequest."""
    if value is None:
        return True
    # OpenAI refuses the field without tools, but several SDKs send "none" or "auto" with an empty list.
    if not tools and value not in ("none", "auto"):
        raise InvalidRequest("`tool_choice` is only allowed when `tools` are given", "tool_choice")
    return not tools


def unknown_tool_choice() -> InvalidRequest:
    """Return the error for a `tool_choice` that has none of the known forms."""
    return InvalidRequest(
        "`tool_choice` must be 'auto', 'none', 'required', or an object of type 'function' or 'allowed_tools'",
        "tool_choice",
    )


def _tool_name(value: object, path: str, tools: tuple[chat.Tool, ...]) -> str:
    name = text(mapping(value, path), "name", f"{path}.name")
    if name is None or all(tool.name != name for tool in tools):
        raise InvalidRequest(f"`{path}.name` is not one of the `tools`", f"{path}.name")
    return name


def _response_format(source: Mapping[str, object], _: str) -> chat.ResponseFormat | None:
    entry = mapping(source["response_format"], "response_format")
    kind = choice(entry.get("type"), "response_format.type", ("text", "json_object", "json_schema"))
    if kind == "text":
        return None
    if kind == "json_object":
        return chat.JsonObjectFormat()
    path = "response_format.json_schema"
    return decode_schema_format(mapping(present(entry, "json_schema", path), path), path)


def decode_schema_format(schema: Mapping[str, object], path: str) -> chat.JsonSchemaFormat:
    """Return the format of the object at `path`, which has the name, the schema and its options."""
    name = text(schema, "name", f"{path}.name")
    if name is None or not _SCHEMA_NAME.fullmatch(name):
        raise InvalidRequest(f"`{path}.name` must be 1 to 64 letters, digits, '_' or '-'", f"{path}.name")
    return chat.JsonSchemaFormat(
        name=name,
        schema={} if schema.get("schema") is None else mapping(schema["schema"], f"{path}.schema"),
        description=text(schema, "description", f"{path}.description"),
        strict=boolean(schema, "strict", f"{path}.strict"),
    )


def _effort(source: Mapping[str, object], _: str) -> str:
    return choice(source["reasoning_effort"], "reasoning_effort", EFFORTS)


def _number_between(low: float, high: float) -> _Reader:
    return lambda source, name: number(source, name, name, low, high)


def _integer_between(low: int, high: int) -> _Reader:
    return lambda source, name: integer(source, name, name, low, high)


READERS: dict[str, _Reader] = {
    "temperature": _number_between(0, 2),
    "top_p": _number_between(0, 1),
    "presence_penalty": _number_between(-2, 2),
    "frequency_penalty": _number_between(-2, 2),
    "seed": _integer_between(-_INT64 - 1, _INT64),
    "stop": _stop,
    "n": _integer_between(1, 128),
    "logprobs": lambda source, name: boolean(source, name, name),
    "top_logprobs": _top_logprobs,
    "logit_bias": _logit_bias,
    "parallel_tool_calls": lambda source, name: boolean(source, name, name),
    "response_format": _response_format,
    "reasoning_effort": _effort,
    "user": lambda source, name: text(source, name, name),
}
"""Functions that read one field each, by its name in `ChatRequest`. They are called for fields that are not null."""


CANONICAL_FIELDS = _KNOWN | READERS.keys()
"""The fields of a request that have a canonical form. All other fields are `extra`."""
