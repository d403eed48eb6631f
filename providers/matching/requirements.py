"""The features, parameters and data-moving fields that a request requires, and their names.

Without a *feature* (tools, an image) the answer would be wrong. A *parameter* only tunes the answer. A *data-moving*
field makes a provider store data, fetch it or send it on. `capability_matching` decides what is sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from functools import cache, lru_cache
from typing import Any

from providers import chat
from providers.catalogue import FactsFile
from providers.territories import Places, territory_data
from providers.value import Value, replace

FEATURES = frozenset(
    "tools tool_choice_named tool_choice_required vision image_url audio file json_object json_schema n logprobs "
    "prefill reasoning".split()
)
"""The names of all features.

`tools` are function tools, also in earlier messages. With `tool_choice_required`, any of them must be called. `vision`
is an image in the request, and `image_url` one that the provider fetches. `n` is more than one choice. With `prefill`,
the last message is the beginning of the answer. A model with `reasoning` reasons before it answers; no request requires
it.
"""
TOOL_FEATURES = frozenset({"tools", "tool_choice_named", "tool_choice_required"})
FEATURE_PARAMS: Mapping[str, str] = {
    **{name: name for name in ("messages", "tools", "n", "logprobs", "stop", "reasoning_effort")},
    **dict.fromkeys(("vision", "image_url", "audio", "file", "prefill"), "messages"),
    **dict.fromkeys(("tool_choice_named", "tool_choice_required"), "tool_choice"),
    **dict.fromkeys(("json_object", "json_schema"), "response_format"),
    "reasoning": "reasoning_effort",
    "token_input": "input",
    "voice": "voice",
    "input_length": "input",
    "file_size": "file",
    "translation": "model",
    "dimensions": "dimensions",
}
"""The request field of each feature, and of other things that an adapter may be unable to express. See `param_of`."""
PARAMETERS = frozenset(
    "temperature top_p presence_penalty frequency_penalty seed stop logit_bias parallel_tool_calls reasoning_effort "
    "user max_tokens strict_tools message_name image_detail".split()
)
"""The names of all parameters. A wire format may have more, which clients send as fields of their own.

`strict_tools` is `strict` of a tool, `message_name` the `name` of a message, which is one of several participants, and
`image_detail` the `detail` of an image, other than `auto`.
"""
IMPLIED = {"blank_stop": "stop"}
"""Parameters that a wire format supports if it supports the other one, unless the model's facts exclude them.

`blank_stop` is a stop sequence that consists of white space.
"""
IDENTITY = frozenset({"user", "safety_identifier", "prompt_cache_key", "metadata"})
"""Fields that identify the user, or by which a provider could link the requests of one user."""
# The contents of these fields are the client's data, so no field names are searched in them.
_CLIENT_DATA = IDENTITY | {"prediction"}
_CONTAINERS = (dict, list, tuple)
_NAMES_IN_SCHEMAS = frozenset({"properties", "patternProperties", "$defs", "definitions"})
# The empty object is not harmless: `web_search_options: {}` switches OpenAI's search on.
_HARMLESS_VALUES: tuple[object, ...] = (False, [], "")
# A mark up to which the prompt may be cached. It is not one of `PARAMETERS`, because few vendors have it.
CACHE_CONTROL = "cache_control"
CACHE_MARKS = "cache_marks"
"""The flag of models that take such marks where others of their adapter do not."""
# Requests with the same key and the same beginning may share a provider's cache.
CACHE_KEY = "prompt_cache_key"
# Requests with different values share no part of a server's prefix cache.
CACHE_SALT = "cache_salt"
# The line by which Claude Code identifies itself to Anthropic. It is not a part of the prompt.
ATTRIBUTION = "system.attribution"
ATTRIBUTION_BEGIN = "x-anthropic-billing-header:"
_ATTRIBUTION = re.compile(ATTRIBUTION_BEGIN + r"(?: ?[a-z_]{1,32}=[A-Za-z0-9._+-]{0,64};){1,16}")
# The reasoning of an earlier answer, as text. Reasoning that a call carries as a vendor's state is another thing.
REASONING = "reasoning_content"
_MARKS = _UNTHINKING, _SOLE_TOOL, _TOOLS_AND_JSON = "unthinking", "sole_tool", "tools_and_json"
# Parameters that are not fields of `ChatRequest` but are inside its tools and messages.
INNER_PARAMETERS = frozenset({"strict_tools", "message_name", "image_detail"})
_FIELDS = FactsFile("providers.matching", "fields")


def param_of(feature: str) -> str | None:
    """Return the request field of a feature, which may be one value of this field: `response_format.srt`."""
    field, dot, _ = feature.rpartition(".")
    return field if dot else FEATURE_PARAMS.get(feature)


class Requirements(Value, frozen=True):
    """The features, parameters and data-moving fields that a request requires."""

    features: frozenset[str]
    """Members of `FEATURES`."""
    parameters: frozenset[str]
    """Members of `PARAMETERS`, and names of unknown fields."""
    moving: frozenset[str]
    """Names of data-moving fields that are switched on."""
    unthinking: bool = False
    """Whether the request asks explicitly for an answer without reasoning."""
    sole_tool: bool = False
    """Whether the tool that must be called is the only one, so that naming it equals requiring a call."""
    tools_and_json: bool = False
    """Whether the request has tools that may be called, and wants JSON if none is."""
    anew: bool = False
    """Whether a last message of the assistant may be answered instead of being continued (`prefill`)."""
    use: str = "chat"
    """Which abilities of a deployment count: `chat`, `embeddings` or `moderations`."""
    place: Places | None = None
    """The territories inside of which the answer must be computed, or None if it may be computed anywhere."""
    unread: frozenset[str] = frozenset()
    """Names of fields that are not sent, also if a provider has a parameter of the same name."""


@cache
def moves_data() -> frozenset[str]:
    """Return the names of request fields that move or store data."""
    return frozenset(_moves())


def why_it_moves(name: str) -> str:
    """Return what a data-moving field does: `store` "keeps the conversation at the provider".

    The name may be dotted. Only its last part counts.
    """
    return _moves()[name.rpartition(".")[2]]


@cache
def _moves() -> Mapping[str, str]:
    data: Any = _FIELDS.read()
    return dict(data["moves_data"])


def requirements_of(request: chat.ChatRequest) -> Requirements:
    """Return what a request requires. It is computed once for each request, not once for each deployment.

    Examples:
        >>> from providers.contract import ChatRequest, Tool, UserMessage, requirements_of
        >>> request = ChatRequest("assistant", (UserMessage("Weather?"),), tools=(Tool("weather"),), seed=1)
        >>> sorted(requirements_of(request).features)
        ['tools']
        >>> sorted(requirements_of(request).parameters)
        ['seed']
    """
    # Features and parameters share one dict: no name is both.
    asked = request.settings()
    if request.max_tokens is not None:
        asked["max_tokens"] = True
    if type(request.messages) is not chat.Texts:
        _add_messages(request, asked)
    if type(request.messages[-1]) is chat.AssistantMessage:
        asked["prefill"] = True
    if request.tools or request.tool_choice is not None:
        _add_tools(request, asked)
    if request.response_format is not None:
        asked["json_object" if isinstance(request.response_format, chat.JsonObjectFormat) else "json_schema"] = True
        if request.tools and request.tool_choice != "none":
            asked[_TOOLS_AND_JSON] = True
    if request.n is not None and request.n > 1:
        asked["n"] = True
    if request.logprobs:
        asked["logprobs"] = True
    if request.stop:
        asked["stop"] = True
        if not all(map(str.strip, request.stop)):
            asked["blank_stop"] = True
    if request.reasoning_effort == "none":
        asked[_UNTHINKING] = True
    needs = _requirements(tuple(asked))
    if request.place is not None:
        # A name that is a group of territories stands for them.
        groups, names = territory_data().groups, request.place.upper().split("-")
        places = Places(frozenset().union(*(groups.get(f"@{name}", {name}) for name in names)))
        needs = replace(needs, place=places)
    if not request.extra and not request.unread:
        return needs
    # Not cached: a client can invent any names, as long as a body may be.
    named = frozenset((*needs.parameters, *request.extra))
    return replace(needs, parameters=named, moving=moving_fields(request.extra), unread=request.unread)


# Clients have few combinations of requirements. One object for each combination makes lookups in caches that are keyed
# by requirements fast, because identical objects need no comparison.
@lru_cache(maxsize=256)
def _requirements(asked: tuple[str, ...]) -> Requirements:
    names = frozenset(asked)
    unthinking, sole_tool, tools_and_json = (mark in names for mark in _MARKS)
    parameters = names - FEATURES - {*_MARKS}
    return Requirements(names & FEATURES, parameters, frozenset(), unthinking, sole_tool, tools_and_json)


def _add_messages(request: chat.ChatRequest, asked: dict[str, object]) -> None:
    for message in request.messages:
        if isinstance(message, chat.ToolMessage):
            asked["tools"] = True
            if message.cache is not None:
                asked[CACHE_CONTROL] = True
            if not isinstance(message.content, str):
                _add_parts(message.content, asked)
            continue
        if message.name is not None:
            asked["message_name"] = True
        if isinstance(message, chat.AssistantMessage):
            if message.tool_calls:
                asked["tools"] = True
                if any(call.cache is not None for call in message.tool_calls):
                    asked[CACHE_CONTROL] = True
            if message.reasoning and not any(call.signature for call in message.tool_calls):
                asked[REASONING] = True
        if message.content is not None and not isinstance(message.content, str):
            _add_parts(message.content, asked)


def _add_parts(parts: tuple[chat.Part, ...], asked: dict[str, object]) -> None:
    for part in parts:
        asked.update(dict.fromkeys(_part_features(part)))
        if not isinstance(part, chat.AudioPart) and part.cache is not None:
            asked[CACHE_CONTROL] = True
        if isinstance(part, chat.ImagePart) and part.detail not in (None, "auto"):
            asked["image_detail"] = True


def _add_tools(request: chat.ChatRequest, asked: dict[str, object]) -> None:
    if request.tools:
        asked["tools"] = True
        if any(tool.strict for tool in request.tools):
            asked["strict_tools"] = True
        if any(tool.cache is not None for tool in request.tools):
            asked[CACHE_CONTROL] = True
    choice = request.tool_choice
    if isinstance(choice, chat.NamedTool):
        asked["tool_choice_named"] = True
    elif choice == "required" or getattr(choice, "mode", None) == "required":
        asked["tool_choice_required"] = True
    if len(request.tools) == 1 and (choice == "required" or isinstance(choice, chat.NamedTool)):
        asked[_SOLE_TOOL] = True


def is_attribution(line: str) -> bool:
    """Return whether a text is the line of `ATTRIBUTION` in its own form, which is a few short pairs."""
    return _ATTRIBUTION.fullmatch(f"{line.strip().removesuffix(';')};") is not None


def part_with(request: chat.ChatRequest, features: Set[str]) -> str | None:
    """Return the path of the first part of a chat that requires one of the features, or None."""
    for place, message in enumerate(request.messages):
        for at, part in enumerate(message.content if isinstance(message.content, tuple) else ()):
            if not features.isdisjoint(_part_features(part)):
                return f"messages[{place}].content[{at}]"
    return None


def _part_features(part: chat.Part) -> tuple[str, ...]:
    match part:
        case chat.TextPart():
            return ()
        case chat.ImagePart(url):
            return ("vision",) if url[:5].lower() == "data:" else ("vision", "image_url")
        case chat.AudioPart():
            return ("audio",)
        case chat.FilePart():
            return ("file",) if part.as_text() is None else ()


def moving_fields(extra: Mapping[str, object]) -> frozenset[str]:
    """Return the data-moving fields that are switched on. `store: false` moves nothing and is just an unknown field.

    A field inside another one, such as `additionalModelRequestFields.mcp_servers`, moves data if the outer field is
    sent. At any depth, its name is joined to that of the outermost field: names in between may be the client's data.
    """
    if not extra:
        return frozenset()
    moving = _switched_on(extra)
    for name, value in extra.items():
        if name not in _CLIENT_DATA and isinstance(value, _CONTAINERS):
            moving |= {f"{name}.{inner}" for inner in _switched_on_within(value)}
    return frozenset(moving)


def _switched_on_within(value: object) -> set[str]:
    """Return the data-moving fields at any depth. Names of properties in a JSON Schema are not fields."""
    moving: set[str] = set()
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            moving |= _switched_on(item)
            for name in _NAMES_IN_SCHEMAS & item.keys():
                if isinstance(named := item[name], dict):
                    item = {**item, name: list(named.values())}
            waiting += [inner for inner in item.values() if isinstance(inner, _CONTAINERS)]
        elif isinstance(item, list | tuple):
            waiting += [inner for inner in item if isinstance(inner, _CONTAINERS)]
    return moving


def _switched_on(fields: Mapping[str, object]) -> set[str]:
    return {name for name in fields.keys() & moves_data() if fields[name] not in _HARMLESS_VALUES}


def has_effects(request: chat.ChatRequest) -> bool:
    """Return whether the request may change something at the provider, so that it must not be sent twice."""
    return bool(moving_fields(request.extra))
