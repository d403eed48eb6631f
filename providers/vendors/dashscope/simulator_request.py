"""Check and read a request as DashScope's native API does, by the rules of its compatible mode and by its own.

Source: Alibaba Cloud Model Studio API reference (DashScope) and error codes, dashscope 2.0.2, captured 400 bodies of
2025 and 2026; read 2026-11-20. It is stricter than the vendor in one point: unknown fields are always refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from providers.catalogue import FactsFile
from providers.catalogue.models import ModelFacts
from providers.compatible import simulator_request as compatible
from providers.compatible.dialect import CompatibleDialect, read_dialect
from providers.json_values import as_list, as_map, read_int, read_list, read_map, read_str
from providers.value import Value

_COMPATIBLE = FactsFile("providers.compatible", "dashscope-compatible")
_JSON_FORMATS = ("json_object", "json_schema")
_NO_THINKING = "InvalidParameter.NotSupportEnableThinking"
# The effort for a budget: the first entry that is not smaller than the budget.
_EFFORTS = ((512, "minimal"), (2048, "low"), (8192, "medium"), (24576, "high"))


class NativeError(Value, frozen=True):
    """The message and code of a native error that states why a request is refused."""

    message: str
    code: str = "InvalidParameter"


def _dialect() -> CompatibleDialect:
    return read_dialect(as_map(_COMPATIBLE.read()["dialect"]))


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
    yield from _in_messages(read_list(read_map(body, "input"), "messages"), facts)
    for name, lowest in (("top_k", 0), ("thinking_budget", 1)):
        if name in parameters and (type(value := parameters[name]) is not int or value < lowest):
            yield NativeError(f"Range of {name} is wrong: parameters.{name}")
    if parameters.get("result_format") != "message":
        yield NativeError("parameters.result_format must be 'message': the simulator knows no other")
    if streams and parameters.get("incremental_output") is not True:
        yield NativeError("The incremental_output parameter of this model cannot be set to False.")
    yield from _in_thinking(parameters, facts, streams)
    yield from _in_tools(parameters, facts)
    yield from map(NativeError, compatible.objections(_as_compatible(body, streams), _dialect(), facts, ""))


def _unknown(source: Mapping[str, object], known: frozenset[str], path: str) -> Iterator[NativeError]:
    return (NativeError(f"Unknown field: {path}{name}") for name in source if name not in known)


def _in_messages(messages: object, facts: ModelFacts) -> Iterator[NativeError]:
    entries = [as_map(entry) for entry in as_list(messages)]
    for position, message in enumerate(entries):
        content, path = message.get("content"), f"input.messages[{position}].content"
        if not isinstance(content, str) and (facts.api != "multimodal" or not isinstance(content, list)):
            yield NativeError(f"input content must be a string: {path}")
        for part in as_list(content):
            kinds = list(as_map(part))
            if len(kinds) != 1 or kinds[0] not in ("text", "image", "audio"):
                yield NativeError(f"The item of content should be a message of a certain modal: {path}")
            elif not isinstance(as_map(part)[kinds[0]], str):
                yield NativeError(f"A part's value must be a string: {path}")
    if not entries or entries[-1].get("role") not in ("user", "tool"):
        yield NativeError("The last message must be of the role user or tool: input.messages")


def _in_thinking(parameters: Mapping[str, object], facts: ModelFacts, streams: bool) -> Iterator[NativeError]:
    enabled = parameters.get("enable_thinking")
    if enabled is not None:
        if not isinstance(enabled, bool):
            yield NativeError("parameters.enable_thinking must be a boolean")
        if enabled is False and "thinking_only" in facts.flags:
            yield NativeError("The value of the enable_thinking parameter is restricted to True.")
        if not facts.flags & {"thinking", "thinking_default", "thinking_only"}:
            yield NativeError("enable_thinking is not supported by this model", _NO_THINKING)
    if not streams and "stream_only" in facts.flags:
        yield NativeError(
            "This model only support stream mode, please enable the stream parameter to access the model."
        )
    if isinstance(parameters.get("tool_choice"), dict) and thinks(parameters, facts):
        yield NativeError(
            "The tool_choice parameter does not support being set to required or object in thinking mode",
            "InternalError.Algo.InvalidParameter",
        )
    kind = read_map(parameters, "response_format").get("type")
    if kind in _JSON_FORMATS and "json_without_thinking" in facts.flags and thinks(parameters, facts):
        yield NativeError("Json mode response is not supported when enable_thinking is true")


def _in_tools(parameters: Mapping[str, object], facts: ModelFacts) -> Iterator[NativeError]:
    tools = [read_map(as_map(tool), "function") for tool in read_list(parameters, "tools")]
    if any(function.get("name") == "search" for function in tools):
        yield NativeError("Tool names are not allowed to be [search]")
    if tools and "tools" not in facts.features:
        yield NativeError("tools are not supported by this model")


def as_openai(body: Mapping[str, object], facts: ModelFacts, streams: bool) -> dict[str, object]:
    """Return the request in OpenAI's format, for the shared decoder. DashScope's own parameters stay unchanged."""
    parameters = read_map(body, "parameters")
    plain = {**_as_compatible(body, streams), "enable_thinking": None, "thinking_budget": None}
    request = compatible.as_openai(plain, _dialect(), facts)
    if thinks(parameters, facts):
        budget = read_int(parameters, "thinking_budget")
        bounds = [effort for most, effort in _EFFORTS if budget is not None and budget <= most]
        request["reasoning_effort"] = bounds[0] if bounds else "max"
    elif parameters.get("enable_thinking") is False:
        request["reasoning_effort"] = "none"
    return {name: value for name, value in request.items() if value is not None}


def _as_compatible(body: Mapping[str, object], streams: bool) -> dict[str, object]:
    """Return the request in the form of the compatible mode."""
    own = ("result_format", "incremental_output")
    request = {name: value for name, value in read_map(body, "parameters").items() if name not in own}
    messages = [_message(as_map(entry)) for entry in read_list(read_map(body, "input"), "messages")]
    stream: dict[str, object] = {"stream": True} if streams else {}
    return {**request, **stream, "model": body.get("model"), "messages": messages}


def _message(source: Mapping[str, object]) -> dict[str, object]:
    content = source.get("content")
    if isinstance(content, list):
        parts = [_part(as_map(part)) for part in content]
        is_text = all(part["type"] == "text" for part in parts)
        content = "".join(str(part["text"]) for part in parts) if is_text else parts
    return {**source, "content": None if source.get("tool_calls") and not content else content}


def _part(source: Mapping[str, object]) -> dict[str, object]:
    if "image" in source:
        return {"type": "image_url", "image_url": {"url": source["image"]}}
    if "audio" in source:
        head, _, data = str(source["audio"]).partition(",")
        sound = head.removeprefix("data:audio/").partition(";")[0]
        return {"type": "input_audio", "input_audio": {"data": f"data:;base64,{data}", "format": sound}}
    return {"type": "text", "text": read_str(source, "text") or ""}
