"""Rules for Claude that Anthropic and Bedrock share: schemas, thinking budgets, stop sequences, unsupported features.

The facts about single models are in the catalogue.

Source: anthropic 2.10.0 (transform_schema, MessageCreateParams), platform.claude.com on thinking, effort and
structured outputs; read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from providers.adapter import Target
from providers.chat import ChatRequest, NamedTool, Tool
from providers.failures import UnsupportedFeature
from providers.formats.request_options import nearest_effort
from providers.formats.tool_calls import SimpleToolChoice
from providers.json_values import as_map, dumps_text

_SUPPORTED = frozenset({"type", "description", "title", "enum", "const", "required", "$ref", "default"})
_MAPS = frozenset({"properties", "$defs", "definitions"})
_LISTS = frozenset({"anyOf", "oneOf", "allOf"})
_IGNORED = frozenset({"$schema", "$id", "additionalProperties", "examples"})
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"})
_MAX_DEPTH = 64
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 24576, "max": 32000}
_MIN_BUDGET_TOKENS = 1024
ANY_EFFORT = ("none", "low", "medium", "high")


def strict_schema(schema: Mapping[str, object], feature: str) -> dict[str, object]:
    """Return the schema in the subset that structured outputs support. Other keywords move to the description.

    Raises UnsupportedFeature for this `feature` if an object allows members of any name, or if the schema is nested too
    deeply.
    """
    return _closed(schema, feature, 0)


def _closed(schema: object, feature: str, depth: int) -> dict[str, object]:
    if depth > _MAX_DEPTH:
        raise UnsupportedFeature(
            feature, f"the provider's structured outputs support at most {_MAX_DEPTH} levels of nesting in a schema"
        )
    closed: dict[str, object] = {}
    unsupported: dict[str, object] = {}
    for name, value in as_map(schema).items():
        if name in _SUPPORTED:
            closed[name] = value
        elif name in _MAPS:
            closed[name] = {key: _closed(inner, feature, depth + 1) for key, inner in as_map(value).items()}
        elif name in _LISTS and isinstance(value, list):
            closed["allOf" if name == "allOf" else "anyOf"] = [_closed(one, feature, depth + 1) for one in value]
        elif name == "items":
            closed[name] = _closed(value, feature, depth + 1)
        elif (name == "minItems" and value in (0, 1)) or (name == "format" and value in _FORMATS):
            closed[name] = value
        elif name not in _IGNORED:
            unsupported[name] = value
    if _is_object(closed):
        given = as_map(schema)
        others = given.get("additionalProperties")
        is_open = others is not False and (others is not None or "properties" not in given)
        if is_open or "patternProperties" in given:
            message = "the provider's structured outputs support only objects whose properties are all named"
            raise UnsupportedFeature(feature, message)
        closed["additionalProperties"] = False
    if unsupported:
        # The model can still follow these keywords if it reads them in the description.
        keywords = dumps_text(unsupported)
        text = closed.get("description")
        closed["description"] = f"{text}\n\n{keywords}" if isinstance(text, str) and text else keywords
    return closed


def _is_object(schema: Mapping[str, object]) -> bool:
    kind = schema.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in schema


def check_features(request: ChatRequest) -> None:
    """Raise UnsupportedFeature if the request needs a feature that Claude has on no platform."""
    if request.n is not None and request.n > 1:
        raise UnsupportedFeature("n", "the provider returns only one choice")
    if request.logprobs:
        raise UnsupportedFeature("logprobs", "the provider returns no log probabilities")


def stops_of(stops: Sequence[str]) -> list[str]:
    """Return the stop sequences. Raises UnsupportedFeature if one consists of white space only."""
    if any(not stop.strip() for stop in stops):
        raise UnsupportedFeature("stop", "the provider does not accept a `stop` sequence of white space only")
    return list(stops)


def arguments_schema(tool: Tool) -> Mapping[str, object]:
    """Return the schema of a tool's arguments. Claude requires its type to be `object`, so a missing one is added."""
    schema: Mapping[str, object] = tool.parameters or {"type": "object", "properties": {}}
    return schema if schema.get("type") == "object" else {**schema, "type": "object"}


def thinking_of(
    request: ChatRequest, target: Target, choice: SimpleToolChoice, max_tokens: int, *, lacks_thoughts: bool
) -> dict[str, object]:
    """Return the value of the `thinking` field, or an empty object for the model's default.

    The thoughts are shown only if the client set an effort. A thinking budget must be smaller than `max_tokens`.
    Without the thoughts of tool calls in the history (`lacks_thoughts`), a model with a budget refuses to continue, so
    thinking stays off.
    """
    flags = target.facts.flags
    by_default = "thinking_default" in flags
    if "thinking_calls_freely" in flags and (choice == "required" or isinstance(choice, NamedTool)):
        return {"type": "disabled"} if by_default else {}
    if request.reasoning_effort is None:
        return {}
    effort = nearest_effort(request.reasoning_effort, target.facts.efforts or ANY_EFFORT, request.reasoning_budget)
    if effort == "none":
        if "thinking_between_tools" in flags:
            return {"type": "between_tools"}
        return {"type": "disabled"} if by_default else {}
    if "thinking_budget" not in flags:
        return {"type": "adaptive", "display": "summarized"}
    budget = _budget_tokens(request.reasoning_budget or _BUDGETS[effort], max_tokens)
    return {"type": "enabled", "budget_tokens": budget} if budget and not lacks_thoughts else {}


def thinking_tokens(request: ChatRequest, target: Target) -> int:
    if request.reasoning_effort is None or "thinking_budget" not in target.facts.flags:
        return 0
    effort = nearest_effort(request.reasoning_effort, target.facts.efforts or ANY_EFFORT, request.reasoning_budget)
    return 0 if effort == "none" else max(request.reasoning_budget or _BUDGETS[effort], _MIN_BUDGET_TOKENS)


def _budget_tokens(wanted: int, max_tokens: int) -> int:
    """Return a thinking budget at or above the minimum and below `max_tokens`, or 0 if there is none."""
    budget = min(max(wanted, _MIN_BUDGET_TOKENS), max_tokens - 1)
    return budget if budget >= _MIN_BUDGET_TOKENS else 0
