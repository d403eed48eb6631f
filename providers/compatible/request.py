"""Write the request of a compatible vendor: its body, its path and the fields that switch thinking."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from providers import chat
from providers.adapter import STREAM_OPTIONS, Target
from providers.catalogue.models import ModelFacts
from providers.compatible.dialect import CompatibleDialect, Requests, Thinking
from providers.compatible.messages import cache_control, encode_messages
from providers.failures import UnsupportedFeature
from providers.formats.fitting import fit
from providers.formats.request_options import azure_path, with_end_user_in_user
from providers.formats.schemas import NO_ARGUMENTS
from providers.json_values import as_map
from providers.matching.capability_matching import ANSWERS_ITSELF
from providers.matching.requirements import CACHE_CONTROL, requirements_of
from providers.openai_json.encode_request import encode_request, encode_tool, encode_tool_choice
from providers.reading.json_object import JSON_OBJECT, with_json_instruction
from providers.value import replace

_LADDER = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""The latest dated version that is generally available (Microsoft's API version page, 2026-11-20)."""
_STRUCTURE = ("model", "messages", "tools", "tool_choice", "response_format")
_OF_FEATURES = {"n": "n", "logprobs": "logprobs", "top_logprobs": "logprobs"}


def thinking_fields(
    request: chat.ChatRequest, dialect: CompatibleDialect, facts: ModelFacts
) -> tuple[Mapping[str, object], Mapping[str, object]]:
    """Return two parts of the body: fields that the client cannot override, and fields that its own parameters can.

    Without an effort in the request, nothing is sent and the provider's default applies. Thinking is switched off if:

    - The model thinks only in streams, and one JSON body is wanted.
    - The model cannot be forced to call a tool while it thinks, and the request forces a call.
    - The model accepts no tools, or no response format, while it thinks.
    """
    form = dialect.thinking.get(facts.thinking or "default")
    always = "thinking_only" in facts.flags
    if form is None or (always and not (form.effort or form.budget)):
        return {}, {}
    if "tools_without_thinking" in facts.flags and request.tools:
        return form.off or _effort_field(form, "none"), {}
    is_forced = form.forced_off and _must_call(request)
    if always and is_forced:
        problem = "this model always thinks, and cannot be forced to call a tool while it thinks"
        raise UnsupportedFeature("tool_choice_named", problem)
    wants_json = request.response_format is not None and "json_without_thinking" in facts.flags
    if (is_forced or wants_json) and not always:
        return (form.off if "reasoning" in facts.features else {}), {}
    if request.reasoning_effort is None:
        switch_off = form.streamed and (request.folded or not request.stream) and "thinking_default" in facts.flags
        return {}, form.off if switch_off else {}
    return {}, _fields_of_effort(request, request.reasoning_effort, form, facts)


def _fields_of_effort(
    request: chat.ChatRequest, effort: str, form: Thinking, facts: ModelFacts
) -> Mapping[str, object]:
    effort = _known(effort, form, facts, request.reasoning_budget)
    if "thinking_only" in facts.flags and not form.effort:
        # The model has no switch. The smallest budget is the nearest to none.
        return _budget(form, effort if effort != "none" else "minimal", facts, request.max_tokens)
    if effort == "none":
        return form.off or _effort_field(form, effort)
    return {**form.on, **_effort_field(form, effort), **_budget(form, effort, facts, request.max_tokens)}


def _must_call(request: chat.ChatRequest) -> bool:
    choice = request.tool_choice
    return (
        isinstance(choice, chat.NamedTool)
        or choice == "required"
        or (isinstance(choice, chat.AllowedTools) and choice.mode == "required")
    )


def _known(effort: str, form: Thinking, facts: ModelFacts, budget: int | None) -> str:
    """Return an effort that the model knows: `effort`, its replacement in the ladder, the next lower, or the lowest."""
    known = facts.efforts or form.efforts
    if not known or effort in known:
        return effort
    if (replaced := form.ladder.get(effort)) in known and (replaced != "none" or budget is None):
        return form.ladder[effort]
    rank = _LADDER.index(effort) if effort in _LADDER else 0
    below = [word for word in known if _LADDER.index(word) <= rank]
    # "none" becomes the lowest effort that exists. Any other effort must not become "none".
    if below and (below[-1] != "none" or len(known) == 1):
        return below[-1]
    return next((word for word in known if word != "none"), known[0])


def _effort_field(form: Thinking, effort: str) -> Mapping[str, object]:
    outer, _, name = form.effort.rpartition(".")
    if not outer:
        return {name: effort} if name else {}
    return {outer: {**as_map(form.on.get(outer)), name: effort}}


def _budget(form: Thinking, effort: str, facts: ModelFacts, most: int | None) -> Mapping[str, object]:
    budget = form.budgets.get(effort)
    if budget is not None and most is not None:
        # The limit is that of the whole answer at OpenAI, and that of its visible text here.
        budget = max(min(budget, most), form.least_budget)
    return {form.budget: budget} if form.budget not in ("", *facts.without) and budget is not None else {}


def path_and_query(
    request: chat.ChatRequest, target: Target, dialect: CompatibleDialect
) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return the path and the query of the request's URL."""
    rule = dialect.requests
    if rule.path_by:
        return _PATHS[rule.path_by](target)
    base, path = target.base_path, rule.path
    if rule.prefill is not None and rule.prefill.path and isinstance(request.messages[-1], chat.AssistantMessage):
        # This path replaces the version in the base path; it is not below it.
        base, path = base.removesuffix("/v1"), rule.prefill.path
    return base + path, tuple(rule.query.items())


def encode_body(
    request: chat.ChatRequest, target: Target, dialect: CompatibleDialect
) -> tuple[dict[str, object], frozenset[str]]:
    """Return the request's body, and what was changed to fit (`WireRequest.changed`). Raises UnsupportedFeature."""
    rule = dialect.requests
    if JSON_OBJECT in dialect.emulated:
        request = with_json_instruction(request)
    request, changed = fit(request, rule.takes)
    _check_features(request, dialect, target)
    request = _in_bounds(with_end_user_in_user(request, target), rule, target.facts.output_tokens)
    tools, choice = _tools(request, rule, strict="strict_tools" in dialect.capabilities.parameters)
    plain = encode_request(
        # `logprobs: false` is the default of all vendors, and some models refuse the field.
        replace(
            request,
            messages=(),
            tools=tools,
            tool_choice=None,
            reasoning_effort=None,
            logprobs=request.logprobs or None,
        ),
        target.model,
        max_tokens_field=rule.max_tokens,
    )
    body = {rule.rename.get(name, name): value for name, value in plain.items() if _is_sent(name, dialect, target)}
    body["messages"] = encode_messages(request, dialect, target.facts, target.model)
    if rule.cache_marks and any(tool.cache for tool in tools):
        body["tools"] = [{**encode_tool(tool), **cache_control(tool.cache)} for tool in tools]
    for name, value in rule.with_tools.items() if tools else ():
        body.setdefault(name, value)
    if choice is not None:
        body["tool_choice"] = choice
    forced, thinking = thinking_fields(request, dialect, target.facts)
    body.update(rule.constants)
    body.update(thinking)
    body.update(request.extra)
    body.update(forced)
    if rule.prefill is not None and isinstance(request.messages[-1], chat.AssistantMessage):
        body.update(rule.prefill.body)
    if _must_stream(body, request, dialect, target):
        body["stream"] = True
        if rule.stream_options and STREAM_OPTIONS not in target.facts.without:
            body[STREAM_OPTIONS] = {"include_usage": True}
        body.update(rule.streaming)
        body.update(rule.streaming_tools if tools else {})
    body.update(target.pins)
    if rule.cache_marks and any(call.cache for it in request.messages for call in getattr(it, "tool_calls", ())):
        changed |= {CACHE_CONTROL}  # a call has no place for a mark here
    return body, changed


def _is_sent(name: str, dialect: CompatibleDialect, target: Target) -> bool:
    """Return whether the model has this field of OpenAI's. Fields that it lacks were dropped and reported before."""
    if name in ("stream", "stream_options"):
        return False
    if name == dialect.requests.max_tokens:
        return "max_tokens" in dialect.capabilities.parameters
    if name in _OF_FEATURES:
        # A vendor without the feature has no such field, and the request needs only its default.
        return _OF_FEATURES[name] in dialect.capabilities.features & target.facts.features
    return name in _STRUCTURE or name in dialect.capabilities.parameters


def _must_stream(
    body: Mapping[str, object], request: chat.ChatRequest, dialect: CompatibleDialect, target: Target
) -> bool:
    """Return whether to ask for a stream. A whole answer of some models would lack or repeat something."""
    if "schema_without_stream" in target.facts.flags and isinstance(request.response_format, chat.JsonSchemaFormat):
        return False
    if request.stream or "stream_only" in target.facts.flags:
        return True
    prefill = dialect.requests.prefill
    if prefill is not None and prefill.streamed and isinstance(request.messages[-1], chat.AssistantMessage):
        return True
    form = dialect.thinking.get(target.facts.thinking or "default")
    if form is None or not form.streamed:
        return False
    return "thinking_only" in target.facts.flags or all(body.get(name) == value for name, value in form.on.items())


def _check_features(request: chat.ChatRequest, dialect: CompatibleDialect, target: Target) -> None:
    """Raise UnsupportedFeature for features that the vendor's API lacks. Without a feature the answer would be another.

    A model that continues a last message of the assistant by itself needs no `prefill`.
    """
    implied = {"prefill"} if ANSWERS_ITSELF in target.facts.flags else set()
    for feature in sorted(requirements_of(request).features - dialect.capabilities.features - implied):
        raise UnsupportedFeature(feature, f"this provider's API does not support {feature}")
    if (
        dialect.requests.json_word
        and isinstance(request.response_format, chat.JsonObjectFormat)
        and not any(
            "json" in chat.text_of(message.content).lower()
            for message in request.messages
            if isinstance(message, chat.SystemMessage | chat.UserMessage)
        )
    ):
        raise UnsupportedFeature(
            "json_object", "a system or user message must contain the word 'json' to use this response format"
        )


def _in_bounds(request: chat.ChatRequest, rule: Requests, output_tokens: int | None) -> chat.ChatRequest:
    """Return the request with its numbers and `user` within the vendor's bounds.

    Raises UnsupportedFeature for `n` or `stop` beyond the bounds, because another value would change the answer.
    """
    changes: dict[str, Any] = {}
    most_choices = int(rule.bounds["n"][1]) if "n" in rule.bounds else None
    if request.n is not None and request.n > 1:
        if most_choices is not None and request.n > most_choices:
            raise UnsupportedFeature("n", f"this provider returns at most {most_choices} choices")
        if request.tools and not rule.n_beside_tools:
            raise UnsupportedFeature("n", "this provider returns only one choice if the request has tools")
    for name, (low, high) in rule.bounds.items():
        value = getattr(request, name, None)
        if value is not None and not low <= value <= high:
            nearest = min(max(value, low), high)
            changes[name] = int(nearest) if nearest.is_integer() else nearest
    if rule.bounded_tokens and request.max_tokens is not None and output_tokens is not None:
        changes["max_tokens"] = min(request.max_tokens, output_tokens)
    if rule.most_stops is not None and len(request.stop) > rule.most_stops:
        raise UnsupportedFeature("stop", f"this provider accepts at most {rule.most_stops} stop sequences")
    if rule.stop_characters is not None and any(len(stop) > rule.stop_characters for stop in request.stop):
        raise UnsupportedFeature(
            "stop", f"this provider accepts stop sequences of at most {rule.stop_characters} characters"
        )
    if rule.user_bytes is not None and request.user is not None:
        user = request.user.encode("utf-8", "surrogatepass")
        if len(user) > rule.user_bytes:
            # A hash still distinguishes end users, which is the only purpose of the field.
            changes["user"] = hashlib.sha256(user).hexdigest()
    return replace(request, **changes) if changes else request


def _tools(request: chat.ChatRequest, rule: Requests, *, strict: bool) -> tuple[tuple[chat.Tool, ...], object]:
    """Return the tools, and the vendor's value of `tool_choice`, or None if the field is not sent."""
    tools, choice = request.tools, request.tool_choice
    if isinstance(choice, chat.AllowedTools):
        # Only OpenAI has this choice. For other vendors, the tools that may not be called are left out.
        tools, choice = tuple(tool for tool in tools if tool.name in choice.names), choice.mode
    vendor_choice = rule.choices.get("named" if isinstance(choice, chat.NamedTool) else str(choice))
    if isinstance(choice, chat.NamedTool) and vendor_choice == "only":
        tools = tuple(tool for tool in tools if tool.name == choice.name)
        choice, vendor_choice = "required", rule.choices.get("required")
    if vendor_choice == "omit":
        return (), None
    if rule.most_tools is not None and len(tools) > rule.most_tools:
        raise UnsupportedFeature("tools", f"this provider accepts at most {rule.most_tools} tools")
    sent = tuple(_tool(tool, strict) for tool in tools)
    if choice is None or vendor_choice == "leave" or not tools:
        return sent, None
    return sent, encode_tool_choice(choice) if vendor_choice is None else vendor_choice


def _tool(tool: chat.Tool, strict: bool) -> chat.Tool:
    parameters = NO_ARGUMENTS if tool.parameters is None else tool.parameters
    return replace(tool, strict=tool.strict if strict else None, parameters=parameters)


_PATHS: Mapping[str, Callable[[Target], tuple[str, tuple[tuple[str, str], ...]]]] = {"azure": azure_path}
