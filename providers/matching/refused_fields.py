"""Recognise that a provider refused what the client has not sent, or what the gateway can leave out.

One rule decides whom a refusal blames: the parameter that it names, in `param` or in its sentence, is looked up in the
request. If the client has not sent it, the operator's side has: a relay that adds it, a model with a default of its
own, or the gateway, which adds some fields to every request (`own_field`), such as the one that asks for a stream's
usage. A refusal that names no parameter, or one that the client has sent, blames the client.

The gateway can leave out a field of its own, and the reasoning of earlier answers, which an answer does not need.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files

from providers.adapter import Adapter, Target
from providers.chat import AssistantMessage, ChatRequest, Tool, UserMessage
from providers.failures import Failure, UnsupportedFeature
from providers.json_values import JsonError, as_map, loads
from providers.value import replace

_Path = tuple[str, ...]

_PLACE = r"[A-Za-z_][\w.\[\]-]{0,127}"
_NAME = rf"(?P<path>{_PLACE})"
# Cerebras writes the path in front of a sentence that names it too.
_PLACE_FIRST = rf"(?:(?P<place>{_PLACE}): (?=.*'(?P=place)'))?"
# Messages of servers for an unknown field, if the error has no separate `param`; {} stands for its name. The whole
# message must match, so that a prompt that is repeated in an error can't match. source: OpenAI's and Azure's API,
# Groq's, pydantic 1 and 2 (vLLM before 0.6, FastAPI, Mistral, Anthropic, Fireworks), Go's encoding/json, jsonschema,
# Google's API, transformers serve; as_of 2026-11-26.
_STATED: Sequence[str] = json.loads(files("providers.matching").joinpath("refused_fields.json").read_bytes())
_SENTENCES = tuple(
    re.compile(_PLACE_FIRST + _NAME.join(map(re.escape, sentence.split("{}"))), re.IGNORECASE) for sentence in _STATED
)
_WORD = r"[A-Za-z_]\w{0,127}"
_MARK = r"""["'`]?"""
# A word is the subject of a refusal after "invalid" or "parameter", or before "is" or a value. Others are values, or
# plain English: "invalid temperature: only 1 is allowed", but not "the role must be 'user'".
_SUBJECTS = re.compile(
    rf"(?:\b(?:invalid|unsupported|unknown|unrecognized|parameter|field|argument|option|value (?:for|of))s?[:\s]+"
    rf"{_MARK}({_WORD}){_MARK}(?=\s*(?:[:.,;=]|$|is\b|are\b|in\b|for\b|must\b|not\b|with\b))"
    rf"|(?<![\w/.-]){_MARK}({_WORD}){_MARK}(?=\s*[:=]|\s+(?:-?\d[\d.]* )?"
    rf"(?:is|are|must|should|does|do|cannot|can|may|parameter|field|option)\b)"
    rf"|(?<![\w/.-])([a-z]+(?:_[a-z0-9]+)+)(?![\w/-]))",
    re.IGNORECASE,
)
_QUOTED = re.compile(rf"""["'`]({_WORD})["'`]""")
_CONTENT = frozenset("messages prompt input inputs content contents system instructions reasoning_content".split())
"""The conversation, as APIs call it, and what a server may miss in it. Every request has one."""
_CANONICAL = {"max_completion_tokens": "max_tokens", "functions": "tools", "function_call": "tool_choice"}
_STEPS = re.compile(r"[.\[\]]+")
_MOST_DETAIL = 2000
_STREAM = "stream"
# Two texts, so that fields which contain the text can be recognised. Some models require the word JSON in the prompt.
_ONE, _OTHER = "json?", "json!"
_ASKED = (UserMessage(_ONE),)
_TOOL = Tool("t", None, {"type": "object", "properties": {}})


def own_field(adapter: Adapter, target: Target, request: ChatRequest, failure: Failure) -> str | None:
    """Return the refused field if it is part of every request of this form, or None if the client sent it.

    The client's text, which may be megabytes, is left out: two short requests are built and compared instead.
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
    sent = _fields(adapter, target, replace(request, messages=_ASKED))
    ours = {place for place, value in sent.items() if usual.get(place) == value and value != target.model}
    if not request.folded:
        ours.discard((_STREAM,))
    return named[0][0] if all(_is_ours(place, sent, ours) for place in named) else None


def unsent_parameter(
    adapter: Adapter, target: Target, sent: ChatRequest, asked: ChatRequest, failure: Failure, known: frozenset[str]
) -> str | None:
    """Return the parameter that a refusal names if the client has not sent it, or else None.

    `asked` is the request of the client, and `sent` what the deployment got of it. `known` are the names of parameters,
    which a sentence may mean.
    """
    names, others = _parameters(failure, known | adapter.capabilities.parameters)
    if not names or not _CONTENT.isdisjoint(names):
        return None
    on_the_wire = {step for place in _fields(adapter, target, replace(sent, messages=_ASKED)) for step in place}
    there = on_the_wire | asked.extra.keys() | asked.unread
    is_sent = any(it in there or getattr(asked, _CANONICAL.get(it, it), None) for it in (*names, *others))
    return None if is_sent else names[0]


def _parameters(failure: Failure, known: frozenset[str]) -> tuple[list[str], list[str]]:
    """Return the parameters that a refusal is about, of `param` or of its sentence, and those that it only quotes."""
    detail = failure.detail[:_MOST_DETAIL]
    named = _path(failure.param)[:1] if failure.param else ()
    if named and (named[0] in known or re.search(rf"(?<!\w){re.escape(named[0])}(?!\w)", detail)):
        return list(named), []
    if whole := [path[0] for path in _named_in_words(failure) if path]:
        return whole, []
    known = known - {"model"}  # its name is the deployment's
    subjects = [name for found in _SUBJECTS.finditer(detail) for name in found.groups() if name in known]
    return subjects, [name for name in _QUOTED.findall(detail) if name in known]


def refuses_reasoning(request: ChatRequest, failure: Failure) -> bool:
    """Return whether a provider refused the reasoning of earlier answers as a field that it does not know."""
    # Outside of `messages`, `reasoning` is a setting of a request.
    return has_reasoning(request) and any(
        path[-1:] == ("reasoning_content",) or (path[:1] == ("messages",) and path[-1] == "reasoning")
        for path in (*_named(failure), *_named_in_words(failure))
    )


def has_reasoning(request: ChatRequest) -> bool:
    """Return whether the history has reasoning of earlier answers."""
    return any(isinstance(message, AssistantMessage) and message.reasoning for message in request.messages)


def _named(failure: Failure) -> Iterator[_Path]:
    """Yield the paths in the request that a refusal names, in `param` or in its message."""
    if failure.param:
        yield _path(failure.param)
    else:
        yield from _named_in_words(failure)


def _named_in_words(failure: Failure) -> Iterator[_Path]:
    sentences = [sentence.strip() for sentence in failure.detail[:_MOST_DETAIL].split("; ")]
    matches = [next(filter(None, (form.fullmatch(one) for form in _SENTENCES)), None) for one in sentences]
    for match in matches if all(matches) else ():
        if match is not None:
            yield _path(match["path"])


def _path(text: str) -> _Path:
    steps = tuple(filter(None, _STEPS.split(text)))
    return steps[1:] if steps[:1] == ("body",) and len(steps) > 1 else steps


def _is_ours(place: _Path, sent: Mapping[_Path, object], ours: set[_Path]) -> bool:
    """Return whether a path can only mean fields of the gateway: its deepest sent part, or fields of its name."""
    deepest = next((place[:depth] for depth in range(len(place), 0, -1) if place[:depth] in sent), None)
    meant = {deepest} if deepest else {there for there in sent if _is_at(place, there)}
    return bool(meant) and meant <= ours


def _is_at(place: _Path, there: _Path) -> bool:
    return place[: len(there)] == there or there[-len(place) :] == place


def _fields(adapter: Adapter, target: Target, request: ChatRequest) -> dict[_Path, object]:
    """Return the fields of the body and of each object in it, or none if the request cannot be expressed."""
    try:
        body = as_map(loads(adapter.build_request(request, target).body))
    except (UnsupportedFeature, JsonError):
        return {}
    fields: dict[_Path, object] = {}
    for name, value in body.items():
        fields[name,] = value
        fields |= {(name, inner): held for inner, held in as_map(value).items()}
    return fields
