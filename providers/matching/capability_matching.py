"""Compare the requirements of a request with the capabilities of a deployment.

A deployment that lacks a feature is skipped. A parameter that cannot be expressed is dropped and named, or the request
is refused, as the deployment is configured. A data-moving field is refused, unless the site's facts allow it.
"""

from __future__ import annotations

from collections.abc import Set
from functools import cache
from operator import is_
from typing import Any

from providers import chat
from providers.adapter import Capabilities
from providers.catalogue.models import ModelFacts
from providers.matching.requirements import (
    CACHE_CONTROL,
    CACHE_MARKS,
    IMPLIED,
    INNER_PARAMETERS,
    PARAMETERS,
    REASONING,
    Requirements,
)
from providers.value import Value, replace

_CHOICES = frozenset({"tool_choice_named", "tool_choice_required"})
_NO_REASONING_BESIDE: dict[str, frozenset[str]] = {
    "thinking": frozenset({"tool_choice_named"}),
    "tools_without_thinking": frozenset({"tools"}),
    "thinking_calls_freely": frozenset({"tool_choice_named", "tool_choice_required"}),
    "json_without_thinking": frozenset({"json_object", "json_schema"}),
    "sampling_without_thinking": frozenset({"temperature", "top_p", "top_k"}),
    "prefill_without_thinking": frozenset({"prefill"}),
}
"""Features and parameters that exclude reasoning, by flag of a model (catalogue data)."""
_JSON = frozenset({"json_object", "json_schema"})
_NO_JSON_BESIDE = {"json_without_tools": frozenset({"tools"}), "json_without_forced_tools": _CHOICES}
"""Features that exclude an answer in JSON while tools may be called, by flag of a model."""
_ONE_OF_TWO = "temperature_or_top_p"
"""The flag of models that refuse both parameters in one request."""
_BOTH = frozenset({"temperature", "top_p"})
THINKS_BY_RESPONSES = "tools_think_by_responses"
"""The flag of models that reason about tools only in OpenAI's Responses API."""
ANSWERS_ITSELF = "answers_itself"
"""The flag of models that answer a last message of the assistant instead of continuing it."""
_NOT_BY_RESPONSES = frozenset(
    "n logprobs audio prefill stop blank_stop seed logit_bias presence_penalty frequency_penalty message_name "
    "prediction".split()
)
"""Features and parameters of chat completions that the Responses API does not have."""
_NOTHING = frozenset[str]()
_HARDLY = frozenset({"none", "minimal"})
_UNSET_BY_NONE = PARAMETERS - INNER_PARAMETERS - {"stop"}


class CapabilityMatch(Value, frozen=True):
    """The needs that a deployment does not meet: features, parameters that cannot be expressed, and data-moving fields.

    It fits if `missing` and `moving` are empty.
    """

    missing: frozenset[str]
    unsupported: frozenset[str]
    moving: frozenset[str]


_FITS = CapabilityMatch(frozenset(), frozenset(), frozenset())


def reasons_unseen(request: chat.ChatRequest, facts: ModelFacts) -> bool:
    """Return whether a model that hides its reasoning will reason long, on request or because it always does."""
    effort = request.reasoning_effort
    if effort is None:
        return "none" not in facts.efforts
    return effort not in _HARDLY or (bool(facts.efforts) and _HARDLY.isdisjoint(facts.efforts))


def parameters_of(capabilities: Capabilities, facts: ModelFacts) -> frozenset[str]:
    """Return the parameters that a model accepts in a wire format."""
    implied = {name for name, other in IMPLIED.items() if other in capabilities.parameters}
    lacks = {REASONING} if facts.known and "reasoning" not in facts.features else frozenset[str]()
    marks = {CACHE_CONTROL} if CACHE_MARKS in facts.flags else frozenset[str]()
    return (capabilities.parameters | implied | marks) - facts.without - lacks


def match_capabilities(
    needs: Requirements,
    capabilities: Capabilities,
    facts: ModelFacts,
    passthrough: Set[str] = frozenset(),
    allowed_moves: Set[str] = frozenset(),
) -> CapabilityMatch:
    """Return which requirements a model at a site cannot meet.

    The capabilities are those that the wire format and the model both have. The operator allows unknown fields to be
    sent (`passthrough`), and the facts of the site allow data-moving ones.
    """
    if THINKS_BY_RESPONSES in facts.flags and "tools" in needs.features and _thinks(needs, facts):
        capabilities = _by_responses(capabilities)
    elif needs.anew and ANSWERS_ITSELF in facts.flags:
        needs = replace(needs, features=needs.features - {"prefill"})
    if needs.sole_tool and not needs.features <= capabilities.features:
        choices = _CHOICES & capabilities.features
        if len(choices) == 1:
            # The choice of the only tool takes the form that the wire format has.
            needs = replace(needs, features=needs.features - _CHOICES | choices)
    if needs.tools_and_json and any(needs.features & _NO_JSON_BESIDE.get(flag, _NOTHING) for flag in facts.flags):
        capabilities = replace(capabilities, features=capabilities.features - _JSON)
    refuses_both = _ONE_OF_TWO in facts.flags and needs.parameters >= _BOTH
    if (
        needs.features <= capabilities.features
        and needs.parameters <= capabilities.parameters
        and not needs.moving
        and not needs.unread
        and "reasoning_effort" not in needs.parameters
        and not refuses_both
    ):
        return _FITS
    unsupported = (needs.parameters - capabilities.parameters - passthrough - allowed_moves) | needs.unread
    if "reasoning_effort" in needs.parameters and not _may_reason(needs, capabilities, facts):
        unsupported |= {"reasoning_effort"}
    if refuses_both:
        unsupported |= {"top_p"}
    known = capabilities.parameters | passthrough | allowed_moves
    unallowed = (name for name in needs.moving - allowed_moves if name.rpartition(".")[2] not in allowed_moves)
    moving = frozenset(name for name in unallowed if _is_sent(name, known))
    return CapabilityMatch(needs.features - capabilities.features, unsupported, moving)


def _is_sent(name: str, known: Set[str]) -> bool:
    """Return whether an allowed data-moving field is sent. One inside an unknown field is dropped together with it."""
    outer = name.rpartition(".")[0]
    return not outer or outer in known


def has_effects_there(
    needs: Requirements,
    capabilities: Capabilities,
    passthrough: Set[str] = frozenset(),
    allowed_moves: Set[str] = frozenset(),
) -> bool:
    """Return whether a data-moving field is sent to a deployment that fits."""
    known = capabilities.parameters | passthrough | allowed_moves
    return any(_is_sent(name, known) for name in needs.moving)


def with_supported_choice(request: chat.ChatRequest, capabilities: Capabilities) -> chat.ChatRequest:
    """Return the request with the `tool_choice` that `match_capabilities` assumed."""
    if len(request.tools) != 1:
        return request
    if request.tool_choice == "required" and "tool_choice_required" not in capabilities.features:
        return replace(request, tool_choice=chat.NamedTool(request.tools[0].name))
    if isinstance(request.tool_choice, chat.NamedTool) and "tool_choice_named" not in capabilities.features:
        return replace(request, tool_choice="required")
    return request


def with_files_as_text(request: chat.ChatRequest, capabilities: Capabilities) -> chat.ChatRequest:
    """Return the request with the text of each text file in its place, where the deployment takes no files."""
    if "file" in capabilities.features or type(request.messages) is chat.Texts:
        return request
    messages = tuple(map(_with_text, request.messages))
    is_same = all(map(is_, messages, request.messages))
    return request if is_same else replace(request, messages=messages)


def _with_text(message: chat.Message) -> chat.Message:
    if not isinstance(message, chat.UserMessage | chat.ToolMessage) or isinstance(message.content, str):
        return message
    parts = tuple(map(_text_or_part, message.content))
    return message if parts == message.content else replace(message, content=parts)


def _text_or_part(part: chat.Part) -> chat.Part:
    if isinstance(part, chat.FilePart) and (text := part.as_text()) is not None:
        return chat.TextPart(text, part.cache)
    return part


def _thinks(needs: Requirements, facts: ModelFacts) -> bool:
    """Return whether the model will reason, on request, by default or because it always does."""
    if needs.unthinking and (not facts.efforts or "none" in facts.efforts):
        return False
    return "reasoning_effort" in needs.parameters or "thinking_default" in facts.flags


@cache
def _by_responses(capabilities: Capabilities) -> Capabilities:
    return replace(
        capabilities,
        features=capabilities.features - _NOT_BY_RESPONSES,
        parameters=capabilities.parameters - _NOT_BY_RESPONSES,
    )


def _may_reason(needs: Requirements, capabilities: Capabilities, facts: ModelFacts) -> bool:
    """Return whether the requested reasoning effort can take effect together with the rest of the request."""
    if needs.unthinking and "none" in facts.efforts:
        return "reasoning" in capabilities.features
    asked = needs.features | needs.parameters
    excluded = (asked & _NO_REASONING_BESIDE.get(flag, _NOTHING) for flag in facts.flags)
    return "reasoning" in capabilities.features and not any(excluded)


def without_parameters(request: chat.ChatRequest, dropped: Set[str]) -> chat.ChatRequest:
    if not dropped:
        return request
    changes: dict[str, Any] = dict.fromkeys(dropped & _UNSET_BY_NONE)
    if "stop" in dropped:
        changes["stop"] = ()
    elif "blank_stop" in dropped:
        changes["stop"] = tuple(filter(str.strip, request.stop))
    if "strict_tools" in dropped:
        changes["tools"] = tuple(replace(tool, strict=None) for tool in request.tools)
    if dropped & {"message_name", "image_detail", REASONING}:
        changes["messages"] = tuple(_without_inner(message, dropped) for message in request.messages)
    if request.unread:
        changes["unread"] = request.unread - dropped
    if request.extra:
        changes["extra"] = {name: value for name, value in request.extra.items() if name not in dropped}
    return replace(request, **changes)


def _without_inner(message: chat.Message, dropped: Set[str]) -> chat.Message:
    if "message_name" in dropped and not isinstance(message, chat.ToolMessage) and message.name is not None:
        message = replace(message, name=None)
    if REASONING in dropped and isinstance(message, chat.AssistantMessage) and message.reasoning is not None:
        message = replace(message, reasoning=None)
    if "image_detail" not in dropped or not isinstance(message, chat.UserMessage | chat.ToolMessage):
        return message
    if isinstance(message.content, str):
        return message
    parts = (replace(part, detail=None) if isinstance(part, chat.ImagePart) else part for part in message.content)
    return replace(message, content=tuple(parts))
