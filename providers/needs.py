"""What a request needs of whoever answers it, and the words for it.

A *feature* is something without which the answer would be wrong (tools, an image). A *parameter* only tunes. A field
that *moves data* makes a provider keep something, fetch it or send it on. `fitting` says what becomes of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from providers.catalogue import read
from providers.chat import (
    AssistantMessage,
    AudioPart,
    ChatRequest,
    FilePart,
    ImagePart,
    JsonObjectFormat,
    NamedTool,
    Part,
    TextPart,
    Texts,
    ToolMessage,
    UserMessage,
)
from providers.values import quick

__all__ = [
    "FEATURES",
    "IDENTITY",
    "IMPLIED",
    "INNER_PARAMETERS",
    "PARAMETERS",
    "Needs",
    "has_effects",
    "moves_data",
    "needs_of",
    "why_it_moves",
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
IMPLIED = {"blank_stop": "stop"}
"""Parameters that are understood by who has the other one, unless its model is without: a `stop` of blanks alone."""
IDENTITY = frozenset({"user", "safety_identifier", "prompt_cache_key", "metadata"})
"""Fields in which clients say who asks, or by which a provider could tell one person's requests from another's."""
# No empty object is among them: `web_search_options: {}` is how OpenAI's search is switched on.
_HARMLESS_VALUES: tuple[object, ...] = (False, [], "")
# Parameters that are no field of `ChatRequest`, but stand inside its tools and messages.
INNER_PARAMETERS = frozenset({"strict_tools", "message_name", "image_detail"})


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


@cache
def moves_data() -> frozenset[str]:
    """The names of request fields that move or keep data."""
    return frozenset(_moves())


def why_it_moves(name: str) -> str:
    """What such a field does with data: `store` "keeps the conversation at the provider"."""
    return _moves()[name]


@cache
def _moves() -> Mapping[str, str]:
    data: Any = read("fields")
    return dict(data["moves_data"])


def needs_of(request: ChatRequest) -> Needs:
    """What the request needs; computed once a request, whatever the number of deployments."""
    features: set[str] = set()
    parameters = request.settings()
    if request.max_tokens is not None:
        parameters["max_tokens"] = request.max_tokens
    if type(request.messages) is not Texts:
        _add_messages(request, features, parameters)
    if type(request.messages[-1]) is AssistantMessage:
        features.add("prefill")
    if request.tools or request.tool_choice is not None:
        _add_tools(request, features, parameters)
    if request.response_format is not None:
        features.add("json_object" if isinstance(request.response_format, JsonObjectFormat) else "json_schema")
    if request.n is not None and request.n > 1:
        features.add("n")
    if request.logprobs:
        features.add("logprobs")
    if request.stop:
        parameters["stop"] = request.stop
        if not all(map(str.strip, request.stop)):
            parameters["blank_stop"] = request.stop
    if not request.extra and not request.unread:
        return _needs(tuple(features), tuple(parameters), (), request.reasoning_effort == "none")
    # Names that the caller has made up, as long as a body may be: nothing is remembered by them.
    named = frozenset((*parameters, *request.extra, *request.unread))
    return Needs(frozenset(features), named, _moving(request), request.reasoning_effort == "none")


# Few kinds of needs are all that callers have. One object for each kind is its own proof of equality, so that what is
# remembered by its needs is found without comparing them.
@lru_cache(maxsize=256)
def _needs(features: tuple[str, ...], parameters: tuple[str, ...], moving: tuple[str, ...], unthinking: bool) -> Needs:
    return Needs(frozenset(features), frozenset(parameters), frozenset(moving), unthinking)


def _add_messages(request: ChatRequest, features: set[str], parameters: dict[str, object]) -> None:
    for message in request.messages:
        if isinstance(message, ToolMessage):
            features.add("tools")
            continue
        if message.name is not None:
            parameters["message_name"] = message.name
        if isinstance(message, AssistantMessage) and message.tool_calls:
            features.add("tools")
        elif isinstance(message, UserMessage) and not isinstance(message.content, str):
            _add_parts(message.content, features, parameters)


def _add_parts(parts: tuple[Part, ...], features: set[str], parameters: dict[str, object]) -> None:
    for part in parts:
        features.update(_part_features(part))
        if isinstance(part, ImagePart) and part.detail not in (None, "auto"):
            parameters["image_detail"] = part.detail


def _add_tools(request: ChatRequest, features: set[str], parameters: dict[str, object]) -> None:
    if request.tools:
        features.add("tools")
        if any(tool.strict for tool in request.tools):
            parameters["strict_tools"] = True
    if isinstance(request.tool_choice, NamedTool):
        features.add("tool_choice_named")
    elif request.tool_choice == "required" or getattr(request.tool_choice, "mode", None) == "required":
        features.add("tool_choice_required")


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
