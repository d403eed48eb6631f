"""The schema of `[dialect]`: every difference from OpenAI's dialect that data can express."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from providers.adapter import Capabilities
from providers.auth import AuthScheme, Bearer, HeaderKey, NoAuth
from providers.catalogue import CatalogueError
from providers.catalogue.toml_schema import (
    DAY,
    FLAG,
    LISTS,
    NUMBERS,
    RANGES,
    TABLE,
    TEXT,
    TEXT_TABLE,
    TEXTS,
    WHOLE,
    Shape,
    check_table,
)
from providers.chat import FinishReason
from providers.failures import FailureKind
from providers.formats.request_options import SAFETY_IDENTIFIER
from providers.matching.requirements import FEATURES
from providers.reading.error_classification import Phrases
from providers.reading.rate_limits import LimitHeaders


class DialectError(ValueError):
    """The data is no row; the message names the place and what was expected."""


DIALECT: Mapping[str, Shape] = {
    **{"source": TEXT, "as_of": DAY, "auth": TEXT, "features": TEXTS, "parameters": TEXTS},
    **{"request": TABLE, "thinking": TABLE, "answer": TABLE, "errors": TABLE},
}


_BY_TYPE: Mapping[str, Shape] = {
    "str": TEXT,
    "bool": FLAG,
    "int | None": WHOLE,
    "tuple[str, ...]": TEXTS,
    "frozenset[str]": TEXTS,
    "Mapping[str, object]": TABLE,
    "Mapping[str, str]": TEXT_TABLE,
    "Mapping[str, int]": NUMBERS,
    "Mapping[str, tuple[float, float]]": RANGES,
    "Prefill | None": TABLE,
    "Mapping[str, Ending]": TEXT_TABLE,
    "Mapping[str, FailureKind]": LISTS,
    "Phrases": LISTS,
    "LimitHeaders": TABLE,
}
"""How TOML writes what a class holds, by the type that stands there."""


def check_words(data: object, place: str, known: type | Mapping[str, Shape]) -> Mapping[str, Any]:
    """The table, if it has nothing but what the class (or these words) may hold; raises RowError."""
    shapes = {one.name: _BY_TYPE[str(one.type)] for one in fields(known)} if isinstance(known, type) else known
    try:
        return check_table(place, data, shapes)
    except CatalogueError as error:
        raise DialectError(str(error)) from None


Ending = FinishReason | FailureKind
"""What a word for the end means: how a choice ended, or that it failed."""


_FINISHES: tuple[FinishReason, ...] = ("stop", "length", "tool_calls", "content_filter", "other")


_CLOSED = {
    "reasoning_back": ("", "kept", "required"),
    "system": ("any", "first"),
    "turns": ("", "alternate", "spoken"),
    "call_ids": ("", "nine"),
    "path_by": ("", "azure"),
}


_OR_BEARER = "|bearer"


_PLACEHOLDER = re.compile(r"\{[^}]*\}|[{}]")


@dataclass(frozen=True, slots=True)
class Prefill:
    """How the beginning of the assistant's answer is handed over, where the vendor has a way of its own.

    message: fields of that last message; body: fields of the request; path: where it must be sent instead.
    """

    message: Mapping[str, object] = field(default_factory=dict)
    body: Mapping[str, object] = field(default_factory=dict)
    path: str = ""


@dataclass(frozen=True, slots=True)
class Thinking:
    """One way to switch thinking. Some vendors have several, by model (`thinking` of the model names it).

    on, off: parts of the body. effort: the field that takes an effort's word, in the words of the model's `efforts`;
    efforts: those of a model of which none are known; ladder: an effort that the model doesn't know -> one that it has.
    budget: the field that takes a number of tokens, by `budgets`. forced_off: thinking and a tool that must be called
    exclude each other. streamed: who thinks streams.
    """

    on: Mapping[str, object] = field(default_factory=dict)
    off: Mapping[str, object] = field(default_factory=dict)
    effort: str = ""
    efforts: tuple[str, ...] = ()
    ladder: Mapping[str, str] = field(default_factory=dict)
    budget: str = ""
    budgets: Mapping[str, int] = field(default_factory=dict)
    forced_off: bool = False
    streamed: bool = False


@dataclass(frozen=True, slots=True)
class Requests:
    """How a request differs from OpenAI's.

    max_tokens: the field of the limit; bounded_tokens: whether more than the model gives is refused there. rename: our
    parameter -> the vendor's. bounds: the numbers that are taken; what lies beyond is brought to the nearest, but for
    `n`: who asks for more answers than there are gets none. constants, streaming, streaming_tools: fields that are
    always sent, with a stream, with tools in a stream. with_tools: fields that are sent with tools where the request
    says nothing of them. stream_options: whether usage in a stream must be, and can be, asked for. system: `first`
    joins all instructions in one message at the beginning. turns: `alternate` makes people (or tools) and the assistant
    speak in turn: no turn is blank, one stands between a tool's result and the user, and the last turn is a user's, a
    tool's, or an answer to be continued; `spoken` only leaves nothing blank. details: the words for an image's detail,
    where `image_detail` is among the parameters. sound_uri: whether sound is a `data:` URI, and not base64 alone.
    most_messages: after that. most_tools: of those that are sent. n_beside_tools: whether both can be asked for.
    choices: `tool_choice` -> the vendor's word; `omit` leaves the tools out, `leave` the choice itself, `only` sends
    the one tool and asks for some call. call_ids: the form of a call's id (`nine`: nine letters and digits).
    reasoning_back: whether reasoning text goes back in a turn with calls: `kept` if there is any, `required` also if
    there is none. user_bytes: of `user`; a longer one is told by its SHA-256. json_word: a JSON format needs the word
    in a message. most_stops, stop_characters: bounds of stop.
    base_path: where the API lies at a host that is written without a path, if not where it does at the first site.
    query: of the URL. path_by: a function that builds path and query from the target (`azure`).
    """

    base_path: str = ""
    path: str = "/chat/completions"
    path_by: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    max_tokens: str = "max_tokens"
    bounded_tokens: bool = False
    rename: Mapping[str, str] = field(default_factory=dict)
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    constants: Mapping[str, object] = field(default_factory=dict)
    streaming: Mapping[str, object] = field(default_factory=dict)
    streaming_tools: Mapping[str, object] = field(default_factory=dict)
    with_tools: Mapping[str, object] = field(default_factory=dict)
    stream_options: bool = True
    developer: bool = False
    system: str = "any"
    turns: str = ""
    sound_uri: bool = False
    most_messages: int | None = None
    most_tools: int | None = None
    n_beside_tools: bool = True
    details: frozenset[str] = frozenset({"low", "high"})
    choices: Mapping[str, str] = field(default_factory=dict)
    call_ids: str = ""
    reasoning_back: str = ""
    json_word: bool = False
    most_stops: int | None = None
    stop_characters: int | None = None
    user_bytes: int | None = None
    prefill: Prefill | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """Where requests are sent, below the base: `path`, and another for the beginning of an answer if it has one."""
        beside = self.prefill.path if self.prefill is not None else ""
        return (self.path, beside) if beside else (self.path,)


@dataclass(frozen=True, slots=True)
class Answers:
    """How an answer differs from OpenAI's.

    finish: words for the end beyond the usual ones; one may mean a failure. safety: fields of a choice, or of the
    answer, that are set where the safety system stepped in. cached: further places in `usage` of the cached tokens,
    dotted. usage_in_choices: usage may stand in a choice. inline_thoughts: thoughts stand in the text, within <think>
    tags. message_is_delta: a stream's choices have `message` for `delta`. stop_left_in: the text ends with the words of
    `stop` that ended it. events: the name of an event -> what it means.
    """

    finish: Mapping[str, Ending] = field(default_factory=dict)
    safety: tuple[str, ...] = ()
    cached: tuple[str, ...] = ()
    usage_in_choices: bool = False
    inline_thoughts: bool = False
    message_is_delta: bool = False
    stop_left_in: bool = False
    events: Mapping[str, Ending] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Errors:
    """How errors look: by which code, type, or number that stands where nothing should.

    codes, types: -> kind; an entry covers its own sub-codes (`Throttling` also `Throttling.Rate`). messages: whole
    sentences -> kind, `{model}` for a model's name, where a fault has the code of a wrong request. code_at, type_at,
    message_at, request_id_at: the places, dotted, the first one that holds something counts. status_at: the place of a
    number that is an error unless it is 0, whatever else the body has. limits: the headers that tell of limits: `form`,
    with {part} for remaining and reset, and {of} for each word of `of`.
    """

    codes: Mapping[str, FailureKind] = field(default_factory=dict)
    types: Mapping[str, FailureKind] = field(default_factory=dict)
    messages: Phrases = field(default_factory=Phrases)
    code_at: tuple[str, ...] = ("error.code", "code")
    type_at: tuple[str, ...] = ("error.type", "type")
    message_at: tuple[str, ...] = ("error.message", "error", "message")
    request_id_at: tuple[str, ...] = ("request_id",)
    request_id_headers: tuple[str, ...] = ("x-request-id",)
    status_at: str = ""
    limits: LimitHeaders = field(default_factory=LimitHeaders)


@dataclass(frozen=True, slots=True)
class CompatibleDialect:
    """One vendor's dialect. capabilities: the most that it can express; a model may do less.

    auth: `bearer`, `none`, `header:NAME`, or `header:NAME|bearer` where a token may stand in the key's place.
    """

    auth: AuthScheme
    capabilities: Capabilities
    requests: Requests
    thinking: Mapping[str, Thinking]
    answers: Answers
    errors: Errors
    source: str = ""


def read_dialect(data: Mapping[str, Any]) -> CompatibleDialect:
    """The row of a parsed `[dialect]` table; raises RowError."""
    check_words(data, "dialect", DIALECT)
    features = frozenset(data.get("features", ()))
    if unknown := features - FEATURES:
        raise DialectError(f"dialect.features: {min(unknown)!r} is not known; expected {', '.join(sorted(FEATURES))}")
    requests = _requests(data.get("request", {}))
    if ("prefill" in features) != (requests.prefill is not None):
        raise DialectError("dialect.request.prefill: stands where, and only where, `features` has 'prefill'")
    return CompatibleDialect(
        auth=_auth(str(data.get("auth", "bearer"))),
        capabilities=Capabilities(features, _parameters(data.get("parameters", ()))),
        requests=requests,
        thinking={name: _thinking(one, name) for name, one in data.get("thinking", {}).items()},
        answers=_answers(data.get("answer", {})),
        errors=_errors(data.get("errors", {})),
        source=str(data.get("source", "")),
    )


def _parameters(words: Iterable[str]) -> frozenset[str]:
    """The parameters; who has a field for who asks understands both of OpenAI's words for it."""
    known = frozenset(words)
    return known | {SAFETY_IDENTIFIER} if "user" in known else known


def _auth(word: str) -> AuthScheme:
    name, _, header = word.partition(":")
    if name == "header" and header:
        return HeaderKey(header.removesuffix(_OR_BEARER), header.endswith(_OR_BEARER))
    if word not in ("bearer", "none"):
        known = f"'bearer', 'none', 'header:NAME' or 'header:NAME{_OR_BEARER}'"
        raise DialectError(f"dialect.auth: {word!r} is not known; expected {known}")
    return Bearer() if word == "bearer" else NoAuth()


def _requests(data: Mapping[str, Any]) -> Requests:
    place = "dialect.request"
    check_words(data, place, Requests)
    values: dict[str, Any] = dict(data)
    if "max_tokens" in data.get("rename", {}):
        raise DialectError(f"{place}.rename: the field of the limit is named by {place}.max_tokens")
    if "bounds" in data:
        values["bounds"] = {name: (float(low), float(high)) for name, (low, high) in data["bounds"].items()}
    if "details" in data:
        values["details"] = frozenset(data["details"])
    if "prefill" in data:
        check_words(data["prefill"], f"{place}.prefill", Prefill)
        values["prefill"] = Prefill(**data["prefill"])
    for name, words in _CLOSED.items():
        if data.get(name, words[0]) not in words:
            raise DialectError(f"{place}.{name}: {data[name]!r} is not known; expected one of {', '.join(words)}")
    return Requests(**values)


def _thinking(data: Mapping[str, Any], name: str) -> Thinking:
    check_words(data, f"dialect.thinking.{name}", Thinking)
    return Thinking(**{**data, "efforts": tuple(data.get("efforts", ()))})


def _answers(data: Mapping[str, Any]) -> Answers:
    place = "dialect.answer"
    check_words(data, place, Answers)
    values: dict[str, Any] = dict(data)
    for name in ("finish", "events"):
        values[name] = {word: _ending(f"{place}.{name}.{word}", to) for word, to in data.get(name, {}).items()}
    for name in ("safety", "cached"):
        values[name] = tuple(data.get(name, ()))
    return Answers(**values)


def _ending(place: str, word: str) -> Ending:
    return next((finish for finish in _FINISHES if word == finish), None) or _kind(place, word)


def _errors(data: Mapping[str, Any]) -> Errors:
    place = "dialect.errors"
    check_words(data, place, Errors)
    values: dict[str, Any] = {name: tuple(at) if isinstance(at, list) else at for name, at in data.items()}
    for name in ("codes", "types", "messages"):
        table: Mapping[str, Any] = data.get(name, {})
        # Written by kind, because a kind has many codes: `rate_limited = ["1302", "1305"]`.
        values[name] = {str(code): _kind(f"{place}.{name}", word) for word, codes in table.items() for code in codes}
    values["messages"] = Phrases(values["messages"])
    if "limits" in data:
        values["limits"] = _limits(data["limits"], f"{place}.limits")
    return Errors(**values)


def _limits(data: Mapping[str, Any], place: str) -> LimitHeaders:
    check_words(data, place, LimitHeaders)
    usual = LimitHeaders()
    form, words = str(data.get("form", usual.form)), data.get("of", usual.of)
    if set(_PLACEHOLDER.findall(form)) != {"{part}", "{of}"} or form != form.lower():
        raise DialectError(f"{place}.form: {form!r} must have {{part}} and {{of}}, and small letters beside them")
    return LimitHeaders(form, tuple(words))


def _kind(place: str, word: str) -> FailureKind:
    try:
        return FailureKind(word)
    except ValueError:
        raise DialectError(f"{place}: {word!r} is no kind of failure") from None
