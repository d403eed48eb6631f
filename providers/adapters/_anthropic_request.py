"""`ChatRequest` -> the body of Anthropic's `POST /v1/messages`, and the version of the API that it is written in.

Source: anthropic 2.10.0 (MessageCreateParams), platform.claude.com on thinking, effort and structured outputs; which
model refuses what is the catalogue's; read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import assert_never

from providers.adapter import Target
from providers.adapters._anthropic_messages import continues_unthought, messages_of, system_blocks
from providers.adapters._anthropic_schema import strict_schema
from providers.adapters._efforts import nearest_effort
from providers.adapters._tool_loops import PlainChoice, tools_of
from providers.adapters._who_asks import with_one_name
from providers.chat import ChatRequest, JsonObjectFormat, JsonSchemaFormat, NamedTool, Tool
from providers.failures import UnsupportedFeature
from providers.json_values import as_map

__all__ = ["arguments_schema", "check_features", "encode_body", "stops_of", "thinking_of", "version_of"]

_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 24576, "max": 32000}
_LEAST_BUDGET_TOKENS = 1024
_ANY_EFFORT = ("none", "low", "medium", "high")
# The least that any of the vendor's models gives; one that isn't known may refuse more.
_USUAL_MAX_TOKENS = 4096
_SAMPLING = ("temperature", "top_p", "top_k")
_VERSION, _VERSION_WITH_SAMPLING = "2026-10-21", "2023-06-01"
_OURS = frozenset({"system", "stop_sequences"})
_MERGED = frozenset({"output_config", "metadata", "thinking"})


def version_of(body: Mapping[str, object]) -> str:
    """The `anthropic-version` of a body: the newer one refuses sampling parameters, even at their defaults."""
    return _VERSION_WITH_SAMPLING if any(name in body for name in _SAMPLING) else _VERSION


def encode_body(request: ChatRequest, target: Target) -> dict[str, object]:
    """The body, with what the site pins written last; raises UnsupportedFeature."""
    check_features(request)
    request = with_one_name(request, target)
    if clash := sorted(_OURS & request.extra.keys()):
        message = f"{clash[0]!r} is made of the request's own fields; it can't be sent besides"
        raise UnsupportedFeature(clash[0], message)
    tools, choice = tools_of(request)
    max_tokens = _max_tokens(request, target)
    messages = messages_of(request.messages, target.model)
    body: dict[str, object] = {name: value for name, value in request.extra.items() if name not in _MERGED}
    body["model"] = target.model
    body["max_tokens"] = max_tokens
    if system := system_blocks(request.messages):
        body["system"] = system
    body["messages"] = messages
    if tools:
        body["tools"] = [_tool(tool) for tool in tools]
        if choice is not None or request.parallel_tool_calls is not None:
            body["tool_choice"] = _tool_choice(choice, request.parallel_tool_calls)
    if request.temperature is not None:
        body["temperature"] = min(request.temperature, 1)
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.stop:
        body["stop_sequences"] = stops_of(request.stop)
    if request.stream:
        body["stream"] = True
    thinking = thinking_of(request, target, choice, max_tokens, unthought=continues_unthought(messages))
    merged: dict[str, dict[str, object]] = {
        "output_config": _output_config(request, target, thinking),
        "metadata": {"user_id": request.user} if request.user is not None else {},
        "thinking": thinking,
    }
    for name, value in merged.items():
        if whole := {**as_map(request.extra.get(name)), **value}:
            body[name] = whole
    body.update(target.pins)
    return body


def check_features(request: ChatRequest) -> None:
    """Raise UnsupportedFeature for what no host of Claude's has a field for."""
    if isinstance(request.response_format, JsonObjectFormat):
        raise UnsupportedFeature("json_object", "the provider has no JSON mode without a schema")
    if request.n is not None and request.n > 1:
        raise UnsupportedFeature("n", "the provider gives one choice only")
    if request.logprobs:
        raise UnsupportedFeature("logprobs", "the provider gives no log probabilities")


def _max_tokens(request: ChatRequest, target: Target) -> int:
    """What is asked for, but no more than the model gives; all that it gives where nothing is said."""
    most = target.facts.output_tokens
    if request.max_tokens is None:
        return most or _USUAL_MAX_TOKENS
    return min(request.max_tokens, most) if most else request.max_tokens


def stops_of(stops: Sequence[str]) -> list[str]:
    """The words to stop at; raises UnsupportedFeature for one of blanks alone."""
    if any(not stop.strip() for stop in stops):
        raise UnsupportedFeature("stop", "the provider takes no `stop` of blanks alone")
    return list(stops)


def arguments_schema(tool: Tool) -> Mapping[str, object]:
    """The schema of what a tool takes; no host of Claude's takes one that doesn't say that it is of an object."""
    schema: Mapping[str, object] = tool.parameters or {"type": "object", "properties": {}}
    return schema if schema.get("type") == "object" else {**schema, "type": "object"}


def _tool(tool: Tool) -> dict[str, object]:
    body: dict[str, object] = {"name": tool.name}
    if tool.description:
        body["description"] = tool.description
    schema = arguments_schema(tool)
    if tool.strict:
        return {**body, "input_schema": strict_schema(schema, "strict_tools"), "strict": True}
    return {**body, "input_schema": schema}


def _tool_choice(choice: PlainChoice, parallel: bool | None) -> dict[str, object]:
    body: dict[str, object]
    match choice:
        case "none":
            return {"type": "none"}
        case None | "auto":
            body = {"type": "auto"}
        case "required":
            body = {"type": "any"}
        case NamedTool(name):
            body = {"type": "tool", "name": name}
        case _:
            assert_never(choice)
    if parallel is not None:
        body["disable_parallel_tool_use"] = not parallel
    return body


def _output_config(request: ChatRequest, target: Target, thinking: Mapping[str, object]) -> dict[str, object]:
    config: dict[str, object] = {}
    if request.reasoning_effort is not None and thinking.get("type") == "adaptive":
        config["effort"] = nearest_effort(request.reasoning_effort, target.facts.efforts or _ANY_EFFORT)
    if isinstance(request.response_format, JsonSchemaFormat):
        config["format"] = {
            "type": "json_schema",
            "schema": strict_schema(request.response_format.schema, "json_schema"),
        }
    return config


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
    effort = nearest_effort(request.reasoning_effort, target.facts.efforts or _ANY_EFFORT)
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
