"""Claude's rules at both vendors that serve it: schemas, thinking budgets, stop words, refused features.

Source: anthropic 2.10.0 (transform_schema), platform.claude.com on structured outputs; read 2026-11-20.
Source: anthropic 2.10.0 (MessageCreateParams), platform.claude.com on thinking, effort and structured outputs; which
model refuses what is the catalogue's; read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from providers.adapter import Target
from providers.chat import ChatRequest, JsonObjectFormat, NamedTool, Tool
from providers.failures import UnsupportedFeature
from providers.formats.request_options import nearest_effort
from providers.formats.tool_calls import PlainChoice
from providers.json_values import as_map, dumps_text

_PLAIN = frozenset({"type", "description", "title", "enum", "const", "required", "$ref", "default"})


_MAPS = frozenset({"properties", "$defs", "definitions"})


_LISTS = frozenset({"anyOf", "oneOf", "allOf"})


_IGNORED = frozenset({"$schema", "$id", "additionalProperties", "examples"})


_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"})


_DEEPEST = 64


def strict_schema(schema: Mapping[str, object], feature: str) -> dict[str, object]:
    """The schema in the vendor's subset; raises UnsupportedFeature for an object with members of any name."""
    return _closed(schema, feature, 0)


def _closed(schema: object, feature: str, depth: int) -> dict[str, object]:
    if depth > _DEEPEST:
        raise UnsupportedFeature(feature, "the provider's structured outputs take no schema that is nested so deeply")
    closed: dict[str, object] = {}
    beyond: dict[str, object] = {}
    for name, value in as_map(schema).items():
        if name in _PLAIN:
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
            beyond[name] = value
    if _is_object(closed):
        _check_named(as_map(schema), feature)
        closed["additionalProperties"] = False
    if beyond:
        told = dumps_text(beyond)
        said = closed.get("description")
        closed["description"] = f"{said}\n\n{told}" if isinstance(said, str) and said else told
    return closed


def _is_object(schema: Mapping[str, object]) -> bool:
    kind = schema.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in schema


def _check_named(schema: Mapping[str, object], feature: str) -> None:
    others = schema.get("additionalProperties")
    is_open = others is not False and (others is not None or "properties" not in schema)
    if is_open or "patternProperties" in schema:
        message = "the provider's structured outputs take only objects whose properties are all named"
        raise UnsupportedFeature(feature, message)


_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 24576, "max": 32000}


_LEAST_BUDGET_TOKENS = 1024


ANY_EFFORT = ("none", "low", "medium", "high")


def check_features(request: ChatRequest) -> None:
    """Raise UnsupportedFeature for what no host of Claude's has a field for."""
    if isinstance(request.response_format, JsonObjectFormat):
        raise UnsupportedFeature("json_object", "the provider has no JSON mode without a schema")
    if request.n is not None and request.n > 1:
        raise UnsupportedFeature("n", "the provider gives one choice only")
    if request.logprobs:
        raise UnsupportedFeature("logprobs", "the provider gives no log probabilities")


def stops_of(stops: Sequence[str]) -> list[str]:
    """The words to stop at; raises UnsupportedFeature for one of blanks alone."""
    if any(not stop.strip() for stop in stops):
        raise UnsupportedFeature("stop", "the provider takes no `stop` of blanks alone")
    return list(stops)


def arguments_schema(tool: Tool) -> Mapping[str, object]:
    """The schema of what a tool takes; no host of Claude's takes one that doesn't say that it is of an object."""
    schema: Mapping[str, object] = tool.parameters or {"type": "object", "properties": {}}
    return schema if schema.get("type") == "object" else {**schema, "type": "object"}


def thinking_of(
    request: ChatRequest, target: Target, choice: PlainChoice, max_tokens: int, *, unthought: bool
) -> dict[str, object]:
    """How the model is to think; empty for as it does by itself. Its thoughts are shown where an effort was asked for.

    unthought: whether it must continue calls that have no thoughts, which a model that thinks by budget refuses.
    """
    flags = target.facts.flags
    by_default = "thinking_default" in flags
    if "thinking_calls_freely" in flags and (choice == "required" or isinstance(choice, NamedTool)):
        return {"type": "disabled"} if by_default else {}
    if request.reasoning_effort is None:
        return {}
    effort = nearest_effort(request.reasoning_effort, target.facts.efforts or ANY_EFFORT)
    if effort == "none":
        if "thinking_between_tools" in flags:
            return {"type": "between_tools"}
        return {"type": "disabled"} if by_default else {}
    if "thinking_budget" not in flags:
        return {"type": "adaptive", "display": "summarized"}
    budget = _budget_tokens(effort, max_tokens)
    return {"type": "enabled", "budget_tokens": budget} if budget and not unthought else {}


def _budget_tokens(effort: str, max_tokens: int) -> int:
    """What an effort may cost in thinking: less than the whole answer, and 0 where that leaves no budget to set."""
    budget = min(_BUDGETS[effort], max_tokens - 1)
    return budget if budget >= _LEAST_BUDGET_TOKENS else 0
