"""Check and read a request as DashScope's native API does.

Source: Alibaba Cloud Model Studio API reference (DashScope) and error codes, dashscope 2.0.2, captured 400 bodies of
2025 and 2026; read 2026-11-20. It is stricter than the vendor in one point: unknown fields are always refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from providers.catalogue.models import ModelFacts
from providers.json_values import as_list, as_map, read_list, read_map, read_str
from providers.value import Value

_AS_AT_OPENAI = (
    "temperature",
    "top_p",
    "presence_penalty",
    "max_tokens",
    "seed",
    "n",
    "stop",
    "logprobs",
    "top_logprobs",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
)
_OWN = ("top_k", "repetition_penalty", "enable_search", "search_options", "vl_high_resolution_images")
_CONSUMED = ("result_format", "incremental_output", "stream", "enable_thinking", "thinking_budget")
_PARAMETERS = frozenset((*_AS_AT_OPENAI, *_OWN, *_CONSUMED))
_MESSAGE_FIELDS = {
    "system": frozenset({"role", "content"}),
    "user": frozenset({"role", "content"}),
    "assistant": frozenset({"role", "content", "tool_calls"}),
    "tool": frozenset({"role", "content", "tool_call_id"}),
}
_FUNCTION_FIELDS = frozenset({"name", "description", "parameters"})
_JSON_FORMATS = ("json_object", "json_schema")
_KNOB = frozenset({"thinking", "thinking_default"})
_NO_THINKING = "InvalidParameter.NotSupportEnableThinking"
_IN_ONE_PIECE = "parameter.enable_thinking must be set to false for non-streaming calls"
# The effort for a budget: the first entry that is not smaller than the budget.
_EFFORTS = ((512, "minimal"), (2048, "low"), (8192, "medium"), (24576, "high"))


class NativeError(Value, frozen=True):
    """The reason for a refusal: the message and code of a native error."""

    message: str
    code: str = "InvalidParameter"


class _Range(Value, frozen=True):
    """The range of a parameter. `above` and `below` exclude the bound itself."""

    low: float
    high: float = math.inf
    whole: bool = False
    above: bool = False
    below: bool = False

    def holds(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        return (self.low < value if self.above else self.low <= value) and (
            value < self.high if self.below else value <= self.high
        )


_RANGES = {
    "temperature": _Range(0, 2, below=True),
    "top_p": _Range(0, 1, above=True),
    "top_k": _Range(0, whole=True),
    "repetition_penalty": _Range(0, above=True),
    "presence_penalty": _Range(-2, 2),
    "max_tokens": _Range(1, whole=True),
    "seed": _Range(0, 2**63 - 1, whole=True),
    "n": _Range(1, 4, whole=True),
    "thinking_budget": _Range(1, 32768, whole=True),
}


def thinks(parameters: Mapping[str, object], facts: ModelFacts) -> bool:
    """Whether the model thinks before this answer."""
    if "thinking_only" in facts.flags:
        return True
    enabled = parameters.get("enable_thinking")
    return enabled is True or (enabled is None and "thinking_default" in facts.flags)


def objections(body: Mapping[str, object], facts: ModelFacts, streams: bool) -> Iterator[NativeError]:
    """Yield an error for each rule of the model's path that a body breaks, in the order of the checks."""
    parameters = read_map(body, "parameters")
    yield from _unknown(body, frozenset({"model", "input", "parameters"}), "")
    yield from _unknown(read_map(body, "input"), frozenset({"messages"}), "input.")
    yield from _unknown(parameters, _PARAMETERS, "parameters.")
    yield from _in_messages(read_list(read_map(body, "input"), "messages"), facts)
    for name, numbers in _RANGES.items():
        if name in parameters and not numbers.holds(parameters[name]):
            yield NativeError(f"Range of {name} is wrong: parameters.{name}")
    if parameters.get("result_format") != "message":
        yield NativeError("parameters.result_format must be 'message': the simulator knows no other")
    if streams and parameters.get("incremental_output") is not True:
        yield NativeError("The incremental_output parameter of this model cannot be set to False.")
    yield from _in_thinking(parameters, facts, streams)
    yield from _in_tools(parameters, facts)
    yield from _in_format(body, parameters, facts)


def _unknown(source: Mapping[str, object], known: frozenset[str], path: str) -> Iterator[NativeError]:
    return (NativeError(f"Unknown field: {path}{name}") for name in source if name not in known)


def _in_messages(messages: object, facts: ModelFacts) -> Iterator[NativeError]:
    entries = [as_map(entry) for entry in as_list(messages)]
    for position, message in enumerate(entries):
        role, path = read_str(message, "role") or "", f"input.messages[{position}]"
        if role not in _MESSAGE_FIELDS:
            yield NativeError(f"Role must be one of system, user, assistant, tool: {path}.role")
        yield from _unknown(message, _MESSAGE_FIELDS.get(role, frozenset()), f"{path}.")
        if role == "system" and position:
            yield NativeError(f"System message must be at the beginning: {path}")
        yield from _in_content(message.get("content"), facts, f"{path}.content")
    if not entries or entries[-1].get("role") not in ("user", "tool"):
        yield NativeError("The last message must be of the role user or tool: input.messages")


def _in_content(content: object, facts: ModelFacts, path: str) -> Iterator[NativeError]:
    if not isinstance(content, str) and (facts.api != "multimodal" or not isinstance(content, list)):
        yield NativeError(f"input content must be a string: {path}")
    for part in as_list(content):
        kinds = list(as_map(part))
        if len(kinds) != 1 or kinds[0] not in ("text", "image", "audio"):
            yield NativeError(f"The item of content should be a message of a certain modal: {path}")
        elif not isinstance(as_map(part)[kinds[0]], str):
            yield NativeError(f"A part's value must be a string: {path}")


def _in_thinking(parameters: Mapping[str, object], facts: ModelFacts, streams: bool) -> Iterator[NativeError]:
    enabled = parameters.get("enable_thinking")
    if enabled is not None:
        if not isinstance(enabled, bool):
            yield NativeError("parameters.enable_thinking must be a boolean")
        if enabled is False and "thinking_only" in facts.flags:
            yield NativeError("The value of the enable_thinking parameter is restricted to True.")
        if not facts.flags & (_KNOB | {"thinking_only"}):
            yield NativeError("enable_thinking is not supported by this model", _NO_THINKING)
    for name in sorted(parameters.keys() & facts.without):
        yield NativeError(f"{name} is not supported by this model")
    if not streams and thinks(parameters, facts):
        yield NativeError(_IN_ONE_PIECE)
    if not streams and "stream_only" in facts.flags:
        yield NativeError(
            "This model only support stream mode, please enable the stream parameter to access the model."
        )
    if isinstance(parameters.get("tool_choice"), dict) and thinks(parameters, facts):
        yield NativeError(
            "The tool_choice parameter does not support being set to required or object in thinking mode",
            "InternalError.Algo.InvalidParameter",
        )


def _in_tools(parameters: Mapping[str, object], facts: ModelFacts) -> Iterator[NativeError]:
    tools = [read_map(as_map(tool), "function") for tool in read_list(parameters, "tools")]
    for position, function in enumerate(tools):
        yield from _unknown(function, _FUNCTION_FIELDS, f"parameters.tools[{position}].function.")
        if function.get("name") == "search":
            yield NativeError("Tool names are not allowed to be [search]")
    if tools and "tools" not in facts.features:
        yield NativeError("tools are not supported by this model")
    choice = parameters.get("tool_choice")
    if choice not in (None, "auto", "none") and as_map(choice).get("type") != "function":
        yield NativeError("tool_choice is one of auto, none and an object of the type function")
    if tools and parameters.get("n", 1) != 1:
        yield NativeError("n must be 1 when tools are given")


def _in_format(
    body: Mapping[str, object], parameters: Mapping[str, object], facts: ModelFacts
) -> Iterator[NativeError]:
    kind = read_map(parameters, "response_format").get("type")
    if kind in _JSON_FORMATS and "json_without_thinking" in facts.flags and thinks(parameters, facts):
        yield NativeError("Json mode response is not supported when enable_thinking is true")
    if kind in _JSON_FORMATS and kind not in facts.features:
        yield NativeError(f"response_format {kind} is not supported by this model")
    messages = [as_map(entry) for entry in read_list(read_map(body, "input"), "messages")]
    texts = [str(message.get("content")) for message in messages if message.get("role") in ("system", "user")]
    if kind == "json_object" and not any("json" in text.lower() for text in texts):
        yield NativeError(
            "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
        )


def as_openai(body: Mapping[str, object], facts: ModelFacts, streams: bool) -> dict[str, object]:
    """Return the request in OpenAI's format, for the shared decoder. DashScope's own parameters stay unchanged."""
    parameters = read_map(body, "parameters")
    request: dict[str, object] = {name: parameters[name] for name in (*_AS_AT_OPENAI, *_OWN) if name in parameters}
    request["model"] = body.get("model")
    request["messages"] = [_message(as_map(entry)) for entry in read_list(read_map(body, "input"), "messages")]
    request["stream"] = streams
    if thinks(parameters, facts):
        budget = parameters.get("thinking_budget")
        bounds = [effort for most, effort in _EFFORTS if isinstance(budget, int) and budget <= most]
        request["reasoning_effort"] = bounds[0] if bounds else "max"
    elif parameters.get("enable_thinking") is False:
        request["reasoning_effort"] = "none"
    return request


def _message(source: Mapping[str, object]) -> dict[str, object]:
    message = dict(source)
    content = source.get("content")
    if isinstance(content, list):
        # An empty list is the form of a blank answer.
        message["content"] = [_part(as_map(part)) for part in content] or ""
    if source.get("tool_calls") and not content:
        message["content"] = None
    return message


def _part(source: Mapping[str, object]) -> dict[str, object]:
    if "image" in source:
        return {"type": "image_url", "image_url": {"url": source["image"]}}
    if "audio" in source:
        head, _, data = str(source["audio"]).partition(",")
        sound = head.removeprefix("data:audio/").partition(";")[0]
        return {"type": "input_audio", "input_audio": {"data": data, "format": sound}}
    return {"type": "text", "text": source.get("text")}
