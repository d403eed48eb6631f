"""Whether a provider refuses a field that no client has asked for: one that stands in everybody's request.

Servers of an operator's own refuse what they don't know, such as the field that asks for a stream's usage. To tell a
client of it would be to blame it for what it never sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from providers.adapter import Adapter, Target
from providers.chat import ChatRequest, Tool, UserMessage, change_request
from providers.failures import Failure, UnsupportedFeature
from providers.json_values import JsonError, as_map, loads

_Place = tuple[str, ...]

_NAME = r"(?P<place>[A-Za-z_][\w.\[\]-]{0,127})"
# How servers say, without a place beside it, that they don't know a field: as a whole, so that no prompt that an error
# repeats can be taken for it. source: OpenAI's and Azure's API, Groq's, pydantic 1 and 2 (vLLM before 0.6, FastAPI,
# Mistral, Anthropic), Go's encoding/json, jsonschema, Google's API; as_of 2026-11-20.
_SENTENCES = tuple(
    re.compile(_NAME.join(map(re.escape, sentence.split("{}"))))
    for sentence in (
        "Unrecognized request argument supplied: {}",
        "Unknown parameter: '{}'.",
        "Unsupported parameter: '{}' is not supported with this model.",
        "property '{}' is unsupported",
        "{}: Extra inputs are not permitted",
        "{}: extra fields not permitted",
        "[{'type': 'extra_forbidden', 'loc': ('body', '{}'), 'msg': 'Extra inputs are not permitted', "
        "'input': {'include_usage': True}}]",
        'json: unknown field "{}"',
        "Additional properties are not allowed ('{}' was unexpected)",
        'Invalid JSON payload received. Unknown name "{}": Cannot find field.',
    )
)
_STEPS = re.compile(r"[.\[\]]+")
_MOST_SAID = 2000
_STREAM = "stream"
# Two texts, so that what carries one is told apart; a word of JSON, which some must be asked for by its name.
_ONE, _OTHER = "json?", "json!"
_TOOL = Tool("t", None, {"type": "object", "properties": {}})


def own_field(adapter: Adapter, target: Target, request: ChatRequest, failure: Failure) -> str | None:
    """The field that a refusal names, if it is sent whoever asks whatever in this form; None for what a client said.

    The request's own words are left out, which may be megabytes: what the others come to tells enough.
    """
    named = tuple(_named(failure))
    if not named:
        return None
    nothing = ChatRequest(
        request.model,
        (UserMessage(_OTHER),),
        stream=request.stream,
        folded=request.folded,
        tools=(_TOOL,) if request.tools else (),
    )
    usual = _fields(adapter, target, nothing)
    if not all(any(_is_at(place, there) for there in usual) for place in named):
        return None
    sent = _fields(adapter, target, change_request(request, messages=(UserMessage(_ONE),)))
    ours = {place for place, value in sent.items() if usual.get(place) == value and value != target.model}
    if not request.folded:
        ours.discard((_STREAM,))
    return named[0][0] if all(_is_ours(place, sent, ours) for place in named) else None


def _named(failure: Failure) -> Iterator[_Place]:
    """The places in the request that a refusal names, beside its words or in them."""
    if failure.param:
        yield _place(failure.param)
        return
    said = [sentence.strip() for sentence in failure.detail[:_MOST_SAID].split("; ")]
    found = [next(filter(None, (form.fullmatch(one) for form in _SENTENCES)), None) for one in said]
    for match in found if all(found) else ():
        if match is not None:
            yield _place(match["place"])


def _place(text: str) -> _Place:
    steps = tuple(filter(None, _STEPS.split(text)))
    return steps[1:] if steps[:1] == ("body",) and len(steps) > 1 else steps


def _is_ours(place: _Place, sent: Mapping[_Place, object], ours: set[_Place]) -> bool:
    """Whether all that this place can mean is ours: the deepest part of it that was sent, else a field of that name."""
    deepest = next((place[:depth] for depth in range(len(place), 0, -1) if place[:depth] in sent), None)
    meant = {deepest} if deepest else {there for there in sent if _is_at(place, there)}
    return bool(meant) and meant <= ours


def _is_at(place: _Place, there: _Place) -> bool:
    return place[: len(there)] == there or there[-len(place) :] == place


def _fields(adapter: Adapter, target: Target, request: ChatRequest) -> dict[_Place, object]:
    """What the body has, and what each object in it has; nothing where the request can't be said."""
    try:
        body = as_map(loads(adapter.build_request(request, target).body))
    except (UnsupportedFeature, JsonError):
        return {}
    fields: dict[_Place, object] = {}
    for name, value in body.items():
        fields[name,] = value
        fields |= {(name, inner): held for inner, held in as_map(value).items()}
    return fields
