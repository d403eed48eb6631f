"""What a request needs, what a deployment can do, and what becomes of the difference.

A *feature* is something without which the answer would be wrong (tools, an image): a deployment that lacks one is
passed over. A *parameter* only tunes: one that can't be expressed is dropped and named, or the request is refused,
as the deployment says. A field that *moves data* is refused, unless the site's facts allow it.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace
from functools import cache
from operator import attrgetter
from typing import Any

from providers.adapter import Capabilities
from providers.catalogue import read
from providers.catalogue.models import ModelFacts
from providers.chat import (
    AssistantMessage,
    AudioPart,
    ChatRequest,
    FilePart,
    ImagePart,
    JsonObjectFormat,
    JsonSchemaFormat,
    Message,
    NamedTool,
    Part,
    SystemMessage,
    TextPart,
    ToolMessage,
    UserMessage,
)
from providers.values import quick

__all__ = [
    "FEATURES",
    "IDENTITY",
    "PARAMETERS",
    "THINKS_BY_RESPONSES",
    "Fit",
    "Needs",
    "fit",
    "has_effects",
    "moves_data",
    "needs_of",
    "thinks_unseen",
    "without_parameters",
]

FEATURES = frozenset(
    {
        "tools",  # function tools, also in the history
        "tool_choice_named",  # one certain tool must be called
        "tool_choice_required",  # some tool must be called
        "vision",  # an image in the request itself
        "image_url",  # an image that the provider fetches
        "audio",
        "file",
        "json_object",
        "json_schema",
        "n",  # more than one choice
        "logprobs",
        "prefill",  # the last message is the beginning of the assistant's answer
        "reasoning",  # thinks before it answers; no request needs it
    }
)
PARAMETERS = frozenset(
    {
        "temperature",
        "top_p",
        "presence_penalty",
        "frequency_penalty",
        "seed",
        "stop",
        "logit_bias",
        "parallel_tool_calls",
        "reasoning_effort",
        "user",
        "max_tokens",
        "strict_tools",  # `strict` of a tool
        "message_name",  # `name` of a message: who of several people speaks
        "image_detail",  # `detail` of an image, other than `auto`
    }
)
IDENTITY = frozenset({"user", "safety_identifier", "prompt_cache_key", "metadata"})
"""Fields in which clients say who asks, or by which a provider could tell one person's requests from another's."""
_NO_REASONING_BESIDE: dict[str, frozenset[str]] = {
    "thinking": frozenset({"tool_choice_named"}),
    "thinking_calls_freely": frozenset({"tool_choice_named", "tool_choice_required"}),
    "json_without_thinking": frozenset({"json_object", "json_schema"}),
    "sampling_without_thinking": frozenset({"temperature", "top_p", "top_k"}),
}
"""Flags of models (catalogue data) and the features or parameters beside which they can't reason."""
THINKS_BY_RESPONSES = "tools_think_by_responses"
"""The flag of models that reason about tools in OpenAI's Responses API alone."""
_NOT_BY_RESPONSES = frozenset(
    "n logprobs audio prefill stop seed logit_bias presence_penalty frequency_penalty message_name prediction".split()
)
"""Features and parameters of chat completions for which that API has no field."""
# No empty object is among them: `web_search_options: {}` is how OpenAI's search is switched on.
_HARMLESS_VALUES: tuple[object, ...] = (False, [], "")
# Parameters that are no field of `ChatRequest`, but stand inside its tools and messages.
_INNER_PARAMETERS = frozenset({"strict_tools", "message_name", "image_detail"})


@quick
@dataclass(frozen=True, slots=True)
class Needs:
    """What one request asks of whoever answers it: features, tuning parameters, and data-moving fields.

    unthinking: whether it asks for an answer without reasoning by name.
    """

    features: frozenset[str]
    parameters: frozenset[str]
    moving: frozenset[str]
    unthinking: bool = False


@dataclass(frozen=True, slots=True)
class Fit:
    """How a request fits a deployment: features that are missing, parameters that can't be expressed, and
    data-moving fields that nothing allows. It fits where the first and the last are empty."""

    missing: frozenset[str]
    unsupported: frozenset[str]
    moving: frozenset[str]


_PLAIN_PARAMETERS = PARAMETERS - _INNER_PARAMETERS
_SAID = tuple(sorted(_PLAIN_PARAMETERS))
_said_of = attrgetter(*_SAID)
_FITS = Fit(frozenset(), frozenset(), frozenset())


@cache
def moves_data() -> frozenset[str]:
    """The names of request fields that move or keep data."""
    data: Any = read("fields")
    return frozenset(data["moves_data"])


# Messages that need nothing where their content is text.
_TALK = (SystemMessage, UserMessage)


def needs_of(request: ChatRequest) -> Needs:
    """What the request needs; computed once a request, whatever the number of deployments."""
    features, parameters = frozenset(_features(request)), frozenset(_parameters(request))
    return Needs(features, parameters, _moving(request), request.reasoning_effort == "none")


def _features(request: ChatRequest) -> set[str]:
    features: set[str] = set()
    for message in request.messages:
        if type(message.content) is str and type(message) in _TALK:
            continue
        if isinstance(message, ToolMessage) or (isinstance(message, AssistantMessage) and message.tool_calls):
            features.add("tools")
        elif isinstance(message, UserMessage) and not isinstance(message.content, str):
            for part in message.content:
                features.update(_part_features(part))
    if request.tools:
        features.add("tools")
    if request.tool_choice is not None:
        if isinstance(request.tool_choice, NamedTool):
            features.add("tool_choice_named")
        elif request.tool_choice == "required" or getattr(request.tool_choice, "mode", None) == "required":
            features.add("tool_choice_required")
    if request.response_format is not None:
        if isinstance(request.response_format, JsonObjectFormat):
            features.add("json_object")
        elif isinstance(request.response_format, JsonSchemaFormat):
            features.add("json_schema")
    if request.n is not None and request.n > 1:
        features.add("n")
    if request.logprobs:
        features.add("logprobs")
    if isinstance(request.messages[-1], AssistantMessage):
        features.add("prefill")
    return features


def _part_features(part: Part) -> tuple[str, ...]:
    match part:
        case TextPart():
            return ()
        case ImagePart(url):
            return ("vision",) if url[:5].lower() == "data:" else ("vision", "image_url")
        case AudioPart():
            return ("audio",)
        case FilePart():
            return ("file",)


def _parameters(request: ChatRequest) -> set[str]:
    said = _said_of(request)
    parameters = {name for name, value in zip(_SAID, said, strict=True) if value is not None and value != ()}
    if request.tools and any(tool.strict for tool in request.tools):
        parameters.add("strict_tools")
    for message in request.messages:
        if type(message) is not ToolMessage and message.name is not None:
            parameters.add("message_name")
        if type(message) is UserMessage and type(message.content) is tuple and any(map(_has_detail, message.content)):
            parameters.add("image_detail")
    if request.extra or request.unread:
        parameters.update(request.extra, request.unread)
    return parameters


def _has_detail(part: Part) -> bool:
    return isinstance(part, ImagePart) and part.detail not in (None, "auto")


def _moving(request: ChatRequest) -> frozenset[str]:
    """Data-moving fields that are switched on: `store: false` moves nothing and is no more than an unknown field."""
    if not request.extra:
        return frozenset()
    return frozenset(
        name for name in request.extra.keys() & moves_data() if request.extra[name] not in _HARMLESS_VALUES
    )


def has_effects(request: ChatRequest) -> bool:
    """Whether it may leave something behind at the provider, so that asking twice isn't asking once."""
    return bool(_moving(request))


def thinks_unseen(request: ChatRequest, facts: ModelFacts) -> bool:
    """Whether a model that shows nothing of its thoughts will think long: it is asked to, or can't do without."""
    effort = request.reasoning_effort
    if effort is None:
        return "none" not in facts.efforts
    return effort not in ("none", "minimal")


def fit(
    needs: Needs,
    capabilities: Capabilities,
    facts: ModelFacts,
    passthrough: Set[str] = frozenset(),
    allowed_moves: Set[str] = frozenset(),
) -> Fit:
    """What of the needs a model at a site can't meet.

    `passthrough` is what the operator lets through unknown; `allowed_moves` the data-moving fields that the site's
    facts allow.
    """
    if THINKS_BY_RESPONSES in facts.flags and "tools" in needs.features and _thinks(needs, facts):
        capabilities = _by_responses(capabilities)
    if (
        needs.features <= capabilities.features
        and needs.parameters <= capabilities.parameters
        and not needs.moving
        and "reasoning_effort" not in needs.parameters
    ):
        return _FITS
    unsupported = needs.parameters - capabilities.parameters - passthrough - allowed_moves
    if "reasoning_effort" in needs.parameters and not _may_reason(needs, capabilities, facts):
        unsupported |= {"reasoning_effort"}
    return Fit(needs.features - capabilities.features, unsupported, needs.moving - allowed_moves)


def _thinks(needs: Needs, facts: ModelFacts) -> bool:
    """Whether the model will reason: because it is asked to, or because it does unless it is asked not to."""
    return not needs.unthinking and ("reasoning_effort" in needs.parameters or "thinking_default" in facts.flags)


@cache
def _by_responses(capabilities: Capabilities) -> Capabilities:
    return replace(
        capabilities,
        features=capabilities.features - _NOT_BY_RESPONSES,
        parameters=capabilities.parameters - _NOT_BY_RESPONSES,
    )


def _may_reason(needs: Needs, capabilities: Capabilities, facts: ModelFacts) -> bool:
    """Whether an effort that the client asks for can take effect, beside everything else that it asks for."""
    asked = needs.features | needs.parameters
    excluded = (asked & _NO_REASONING_BESIDE.get(flag, frozenset()) for flag in facts.flags)
    return "reasoning" in capabilities.features and not any(excluded)


def without_parameters(request: ChatRequest, dropped: Set[str]) -> ChatRequest:
    """The request as if these parameters had not been said."""
    if not dropped:
        return request
    changes: dict[str, Any] = dict.fromkeys(dropped & (_PLAIN_PARAMETERS - {"stop"}))
    if "stop" in dropped:
        changes["stop"] = ()
    if "strict_tools" in dropped:
        changes["tools"] = tuple(replace(tool, strict=None) for tool in request.tools)
    if dropped & {"message_name", "image_detail"}:
        changes["messages"] = tuple(_without_inner(message, dropped) for message in request.messages)
    if dropped & request.unread:
        changes["unread"] = request.unread - dropped
    if dropped & request.extra.keys():
        changes["extra"] = {name: value for name, value in request.extra.items() if name not in dropped}
    return replace(request, **changes)


def _without_inner(message: Message, dropped: Set[str]) -> Message:
    if isinstance(message, ToolMessage):
        return message
    if "message_name" in dropped and message.name is not None:
        message = replace(message, name=None)
    if "image_detail" in dropped and isinstance(message, UserMessage) and not isinstance(message.content, str):
        parts = (replace(part, detail=None) if isinstance(part, ImagePart) else part for part in message.content)
        message = replace(message, content=tuple(parts))
    return message
