"""What a request needs of whoever answers it, and the words for it.

A *feature* is something without which the answer would be wrong (tools, an image). A *parameter* only tunes. A field
that *moves data* makes a provider keep something, fetch it or send it on. `capability_matching` decides what is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

from providers.catalogue import FactsFile
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
from providers.value import Value

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
PLACES: Mapping[str, str] = {
    **{name: name for name in ("messages", "tools", "n", "logprobs", "stop", "reasoning_effort")},
    **dict.fromkeys(("vision", "image_url", "audio", "file", "prefill"), "messages"),
    **dict.fromkeys(("tool_choice_named", "tool_choice_required"), "tool_choice"),
    **dict.fromkeys(("json_object", "json_schema"), "response_format"),
    "reasoning": "reasoning_effort",
}
"""Where in a request each feature is asked for, and what else an adapter may be unable to say."""
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
# What stands in these are the client's words, and no fields.
_OWN_WORDS = IDENTITY | {"prediction"}
_HOLDERS = (dict, list, tuple)
_NAMES_IN_SCHEMAS = frozenset({"properties", "patternProperties", "$defs", "definitions"})
# No empty object is among them: `web_search_options: {}` is how OpenAI's search is switched on.
_HARMLESS_VALUES: tuple[object, ...] = (False, [], "")
_UNTHINKING, _SOLE_TOOL = "unthinking", "sole_tool"
# Parameters that are no field of `ChatRequest`, but stand inside its tools and messages.
INNER_PARAMETERS = frozenset({"strict_tools", "message_name", "image_detail"})


class Requirements(Value, frozen=True):
    """What one request asks of whoever answers it: features, tuning parameters, and data-moving fields.

    unthinking: whether it asks for an answer without reasoning by name. sole_tool: whether the tool that must be called
    is the only one there is, so that to name it and to require a call are the same. anew: whether a last message of the
    assistant's need not be gone on with (`prefill`): an answer to it is enough.
    """

    features: frozenset[str]
    parameters: frozenset[str]
    moving: frozenset[str]
    unthinking: bool = False
    sole_tool: bool = False
    anew: bool = False


_FIELDS = FactsFile("providers.matching", "fields")


@cache
def moves_data() -> frozenset[str]:
    """The names of request fields that move or keep data."""
    return frozenset(_moves())


def why_it_moves(name: str) -> str:
    """What such a field does with data: `store` "keeps the conversation at the provider", by itself or in another."""
    return _moves()[name.rpartition(".")[2]]


@cache
def _moves() -> Mapping[str, str]:
    data: Any = _FIELDS.read()
    return dict(data["moves_data"])


def requirements_of(request: ChatRequest) -> Requirements:
    """What the request needs; computed once a request, whatever the number of deployments."""
    # By name, features beside parameters: no word is both.
    asked = request.settings()
    if request.max_tokens is not None:
        asked["max_tokens"] = True
    if type(request.messages) is not Texts:
        _add_messages(request, asked)
    if type(request.messages[-1]) is AssistantMessage:
        asked["prefill"] = True
    if request.tools or request.tool_choice is not None:
        _add_tools(request, asked)
    if request.response_format is not None:
        asked["json_object" if isinstance(request.response_format, JsonObjectFormat) else "json_schema"] = True
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
    if not request.extra and not request.unread:
        return needs
    # Names that the caller has made up, as long as a body may be: nothing is remembered by them.
    named = frozenset((*needs.parameters, *request.extra, *request.unread))
    return Requirements(needs.features, named, _moving(request), needs.unthinking, needs.sole_tool)


# Few kinds of needs are all that callers have. One object for each kind is its own proof of equality, so that what is
# remembered by its needs is found without comparing them.
@lru_cache(maxsize=256)
def _requirements(asked: tuple[str, ...]) -> Requirements:
    names = frozenset(asked)
    parameters = names - FEATURES - {_UNTHINKING, _SOLE_TOOL}
    return Requirements(names & FEATURES, parameters, frozenset(), _UNTHINKING in names, _SOLE_TOOL in names)


def _add_messages(request: ChatRequest, asked: dict[str, object]) -> None:
    for message in request.messages:
        if isinstance(message, ToolMessage):
            asked["tools"] = True
            continue
        if message.name is not None:
            asked["message_name"] = True
        if isinstance(message, AssistantMessage) and message.tool_calls:
            asked["tools"] = True
        elif isinstance(message, UserMessage) and not isinstance(message.content, str):
            _add_parts(message.content, asked)


def _add_parts(parts: tuple[Part, ...], asked: dict[str, object]) -> None:
    for part in parts:
        asked.update(dict.fromkeys(_part_features(part)))
        if isinstance(part, ImagePart) and part.detail not in (None, "auto"):
            asked["image_detail"] = True


def _add_tools(request: ChatRequest, asked: dict[str, object]) -> None:
    if request.tools:
        asked["tools"] = True
        if any(tool.strict for tool in request.tools):
            asked["strict_tools"] = True
    choice = request.tool_choice
    if isinstance(choice, NamedTool):
        asked["tool_choice_named"] = True
    elif choice == "required" or getattr(choice, "mode", None) == "required":
        asked["tool_choice_required"] = True
    if len(request.tools) == 1 and (choice == "required" or isinstance(choice, NamedTool)):
        asked[_SOLE_TOOL] = True


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
    """Data-moving fields that are switched on: `store: false` moves nothing and is no more than an unknown field.

    One that stands in another field, such as `additionalModelRequestFields.mcp_servers`, moves where that one is known.
    However deep it stands, it is named behind the outermost: the names between may be the client's own words.
    """
    if not request.extra:
        return frozenset()
    found = _switched_on(request.extra)
    for name, value in request.extra.items():
        if name not in _OWN_WORDS and isinstance(value, _HOLDERS):
            found |= {f"{name}.{inner}" for inner in _switched_on_within(value)}
    return frozenset(found)


def _switched_on_within(value: object) -> set[str]:
    """The data-moving fields at any depth. What a JSON Schema calls its properties are no fields."""
    found: set[str] = set()
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            found |= _switched_on(one)
            for name in _NAMES_IN_SCHEMAS & one.keys():
                if isinstance(named := one[name], dict):
                    one = {**one, name: list(named.values())}
            waiting += [inner for inner in one.values() if isinstance(inner, _HOLDERS)]
        elif isinstance(one, list | tuple):
            waiting += [inner for inner in one if isinstance(inner, _HOLDERS)]
    return found


def _switched_on(fields: Mapping[str, object]) -> set[str]:
    return {name for name in fields.keys() & moves_data() if fields[name] not in _HARMLESS_VALUES}


def has_effects(request: ChatRequest) -> bool:
    """Whether it may leave something behind at the provider, so that asking twice isn't asking once."""
    return bool(_moving(request))
