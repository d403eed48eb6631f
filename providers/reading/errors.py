"""Classify an error of any provider: rules as data, and one function that reads them.

The rules of all vendors have one form (`ErrorRules`), which a vendor's TOML file states in a table. `errors.toml`
next to this module has the words that many servers share. The first of these that is known gives the kind:

1. a mark, the vendor's before a shared one
2. the vendor's status
3. the vendor's code
4. the vendor's type
5. the shared code
6. the shared code that the type is
7. the shared type, if the status is a success (an error in a stream, or in a body with status 200)
8. the HTTP status, or the number in the body that looks like one if the status is a success; without any: unavailable

Of several codes, the first one that the vendor's or the shared table knows counts. A kind that blames the request, of
1 to 7, does not count if the status is 500 or more (`blames_itself`): 8 does. Then a known sentence, the vendor's
before a shared one, may refine an inexact kind. Without one, words of an account, of a content policy or of a
refusal decide (`providers.reading.error_words`), at every vendor.

A kind by a table or by words is stated. A status alone cannot distinguish a refused request from a refused key or a
broken server, so it is only a guess, unless the HTTP standard defines it (`CERTAIN`, `_MAY_PASS`). An error of
the server by a code of its own is a guess, too, because many servers answer so to a request that they can't read.
"""

from __future__ import annotations

import json
import re
from ast import literal_eval
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import Any

from providers.catalogue import CatalogueError, FactsFile
from providers.catalogue.toml_schema import LISTS, TABLE, TEXT, TEXTS, Shape, check_table
from providers.failures import About, Failure, FailureKind, ProviderFailed
from providers.json_values import JsonError, as_list, as_map, loads, read_str, repair_surrogates
from providers.reading.error_words import RULE_OF_A_REFUSAL, RULE_OF_THE_OPERATOR, judged_by_words
from providers.reading.rate_limits import LimitHeaders, moment_in, read_limits, reset_s, retry_after_s, wait_s
from providers.value import replace
from providers.wire import WireResponse

Kinds = Mapping[str, FailureKind]
_NO_KINDS: Kinds = {}
_GAP = re.compile(r"\{[a-z]+\}")
_A_WORD = r"[!-~]{1,256}"
"""The pattern of a placeholder for a model or a number: one word of visible ASCII, which can't match a prompt."""
_QUOTING = re.compile(
    r"<\d{3}> [\w.]+: |The model returned the following errors: |litellm\.\w+: (?:\w+: |litellm\.\w+: ){0,4}(?:\w+ - )?"
    r"|[a-z][a-z0-9-]{1,30} error: "
)
"""The beginnings that DashScope, Bedrock, LiteLLM and TrueFoundry write before the sentence of a model's server."""
_INEXACT = frozenset(
    {
        *(FailureKind.INVALID_REQUEST, FailureKind.RATE_LIMITED, FailureKind.MALFORMED),
        *(FailureKind.CREDENTIALS, FailureKind.MODEL_NOT_FOUND, FailureKind.QUOTA, FailureKind.GEO_REFUSED),
        *(FailureKind.UNAVAILABLE, FailureKind.REFUSED_HERE),
    }
)
_VAGUE = frozenset({FailureKind.INVALID_REQUEST, FailureKind.RATE_LIMITED, FailureKind.UNAVAILABLE})
_OF_AN_ACCOUNT = frozenset({FailureKind.CREDENTIALS, FailureKind.QUOTA, FailureKind.GEO_REFUSED})
_DESPITE_500 = frozenset({FailureKind.CREDENTIALS, FailureKind.QUOTA, FailureKind.CONTENT_FILTER})
"""Kinds of a vendor's sentences that count with a status of 500 or more. Shared sentences always count."""
_PLACEHOLDER = re.compile(r"\{[^}]*\}|[{}]")
_KINDS = ", ".join(kind.value for kind in FailureKind)
SHAPES: Mapping[str, Shape] = {
    **dict.fromkeys(("codes", "types", "statuses", "messages", "marks", "about"), LISTS),
    **dict.fromkeys(
        ("code_at", "type_at", "message_at", "request_id_at", "request_id_headers", "wait_at", "quoted_at"), TEXTS
    ),
    **dict.fromkeys(("code_in_message", "wait_in_message", "status_at", "zone"), TEXT),
    **dict.fromkeys(("limits", "sources"), TABLE),
}
_SAID: Mapping[str, str] = json.loads(files("providers.reading").joinpath("messages.json").read_bytes())
MESSAGES: dict[FailureKind, str] = {FailureKind(kind): message for kind, message in _SAID.items()}
"""The message for clients of each kind. The provider's own text is written to the log only.

Clients recognize a context overflow and a content filter by words of OpenAI's messages, not by the code. So these two
contain the words that LiteLLM 1.109, langchain-openai 1.7 and @langchain/openai 1.5 look for in their mapping of
errors, read in November 2026. No message contains words that mean another error there, such as "rate limit".
"""
_BY_STATUS = {
    # A request that is too large for one server or its proxy may be small enough for the next.
    **{400: FailureKind.INVALID_REQUEST, 413: FailureKind.REFUSED_HERE, 422: FailureKind.INVALID_REQUEST},
    **{
        401: FailureKind.CREDENTIALS,
        402: FailureKind.QUOTA,
        403: FailureKind.CREDENTIALS,
        451: FailureKind.GEO_REFUSED,
    },
    **{404: FailureKind.MODEL_NOT_FOUND, 410: FailureKind.MODEL_NOT_FOUND, 429: FailureKind.RATE_LIMITED},
    **dict.fromkeys((408, 409, 424, 425), FailureKind.UNAVAILABLE),
}
_OF_THE_CALL = frozenset({*range(300, 400), 405, 406, 411, 414, 415, 417, 426, 431})
"""Statuses that are about the address or the form of the call (RFC 9110): the same call gets the same answer.

The official SDKs do not retry them either (openai-python 3.51, `_should_retry`).
"""
CERTAIN = frozenset({400, 401, 413, 422}) | _OF_THE_CALL
"""Statuses that mean the same at all vendors. With others some refuse a request, and others a key or a model."""
_MAY_PASS = frozenset({429, 503, 529})
"""Statuses that no request causes, if they come with a time to wait."""
_HTTP_ERROR = re.compile("[45][0-9]{2}")
_SUCCESS = re.compile("2[0-9]{2}|ok|success", re.IGNORECASE)
"""Codes of success. The numbers have the meaning that HTTP gives them."""
_MOST_CODES = 16
_MOST_DETAIL = 2000
_MOST_ITEMS = 64
_MOST_LAYERS = 3
_MOST_MISTAKES = 8
_PARAM = re.compile(r"\S{1,200}")
"""A path has no spaces. A prompt usually has."""
_LENGTH_OF_THE_PROMPT = "input_tokens"
_MOST_SHOWN = 60
_SHORTEST_NAME = 3
"""A shorter name of a model may be a part of any sentence."""
_USUALLY_AT = ("error.code", "error.type", "code", "type")
_USUALLY_SAID = ("error.message", "error", "message", "detail.message", "detail.error", "error.message.message", "msg")
_REQUEST_IDS = (
    *("x-request-id", "request-id", "x-tc-requestid", "apim-request-id", "x-ds-trace-id", "x-siliconcloud-trace-id"),
    "x-amzn-requestid",
)
_SHOULD_RETRY = {"true": True, "false": False}
"""Values of `x-should-retry`. The vendor's SDK gives this header priority over the status (openai-python 3.51,
`_should_retry` in `_base_client.py`, read in November 2026)."""
IN_A_STREAM = WireResponse(200, {}, b"", 0)
"""The response of an error inside a stream, whose status was a success."""
_OUTERMOST = re.compile(r"[.\[]")
_FIELDS = {
    "input": "messages",
    "instructions": "messages",
    "max_output_tokens": "max_completion_tokens",
    "reasoning": "reasoning_effort",
    "text": "response_format",
}


@dataclass(frozen=True, slots=True)
class Phrases:
    """Kinds of failures by the sentence of an error message.

    Examples:
        >>> from providers.contract import FailureKind, Phrases
        >>> phrases = Phrases({"The model {model} is overloaded.": FailureKind.UNAVAILABLE})
        >>> phrases.kind_of(FailureKind.INVALID_REQUEST, "The model parrot-2 is overloaded.").value
        'unavailable'
    """

    kinds: Kinds = field(default_factory=dict)
    """Kinds by sentence. A name in braces, such as `{model}`, matches any one word. White space around a sentence is
    ignored. A sentence with … at its end is the beginning of a message."""
    instead_of: FailureKind = FailureKind.INVALID_REQUEST
    """The kind that the sentences refine. Errors of other kinds keep their kind."""

    def kind_of(self, kind: FailureKind, message: str) -> FailureKind:
        """Return the kind of the matching sentence, or else `kind`, which is that by status and code."""
        return (self.find(message) or kind) if kind is self.instead_of else kind

    def find(self, message: str) -> FailureKind | None:
        """Return the kind of the sentence that the message of an error is, or None."""
        sentence = self.sentence_of(message)
        return self.kinds[sentence] if sentence is not None else None

    def sentence_of(self, message: str) -> str | None:
        """Return the sentence that the message of an error is, or None."""
        message = message.strip()
        message = message[quoting.end() :] if (quoting := _QUOTING.match(message)) else message
        return next((sentence for sentence in self.kinds if _pattern(sentence).fullmatch(message)), None)


@cache
def _pattern(sentence: str) -> re.Pattern[str]:
    words = _A_WORD.join(map(re.escape, _GAP.split(sentence.removesuffix("…"))))
    return re.compile(words + ".*" if sentence.endswith("…") else words, re.DOTALL)


@dataclass(frozen=True, slots=True)
class ErrorRules:
    """How to read the errors of a vendor. Of several paths, the first one with a value counts."""

    codes: Kinds = field(default_factory=dict)
    """The failure kind for each code. An entry covers its sub-codes (`Throttling` also `Throttling.Rate`)."""
    types: Kinds = field(default_factory=dict)
    """The failure kind for each error type."""
    statuses: Kinds = field(default_factory=dict)
    """The failure kind for each HTTP status that has a meaning only at this vendor."""
    messages: Phrases = field(default_factory=Phrases)
    """The failure kind for each sentence. `{model}` stands for one word, and … for any rest."""
    marks: Kinds = field(default_factory=dict)
    """The failure kind for each member that decides, as a dotted path. After `=` stands the form of its text."""
    code_at: tuple[str, ...] = ("error.code", "code")
    """The dotted paths of the code."""
    type_at: tuple[str, ...] = ("error.type", "type")
    """The dotted paths of the type."""
    message_at: tuple[str, ...] = ("error.message", "error", "message")
    """The dotted paths of the message."""
    code_in_message: str = ""
    """A regular expression for a code inside the message."""
    request_id_at: tuple[str, ...] = ("request_id",)
    """The dotted paths of the request id."""
    request_id_headers: tuple[str, ...] = ("x-request-id",)
    """The response headers that contain the request id."""
    status_at: str = ""
    """The dotted path of a number that means an error unless it is 0."""
    wait_at: tuple[str, ...] = ()
    """The dotted paths of a time to wait, such as `30s`."""
    wait_in_message: str = ""
    """A regular expression for a time to wait inside the message."""
    zone: str = "+00:00"
    """The time zone of moments without one in a message, as an offset."""
    quoted_at: tuple[str, ...] = ()
    """The dotted paths of the error of another server. It counts where it is about the request."""
    limits: LimitHeaders = field(default_factory=LimitHeaders)
    """The headers with rate limits. In `form`, {part} stands for `remaining` and `reset`, and {of} for each entry of
    `of`."""
    about: Mapping[str, About] = field(default_factory=dict)
    """The subject of a failure by these words, where it differs from that of its kind."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """The source of each word and its date. `*` in a word stands for anything; `*` alone is all others."""
    vendor: str = ""
    """The provider's name."""


def kinds_of(table: Mapping[str, Iterable[object]]) -> dict[str, FailureKind]:
    """Return kinds by word, from lists of words by kind."""
    return {str(word): FailureKind(kind) for kind, words in table.items() for word in words}


def rules_of(data: object, place: str, vendor: str = "") -> ErrorRules:
    """Return the rules of a parsed table, which lists the words of each kind. Raises CatalogueError."""
    table = check_table(place, data, SHAPES)
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in table.items()}
    for name in ("codes", "types", "statuses", "messages", "marks"):
        if unknown := table.get(name, {}).keys() - set(FailureKind):
            raise CatalogueError(f"{place}.{name}: {min(unknown)!r} is not a failure kind; expected one of {_KINDS}")
        values[name] = kinds_of(table.get(name, {}))
    if unknown := table.get("about", {}).keys() - set(About):
        raise CatalogueError(f"{place}.about: {min(unknown)!r} is not one of {', '.join(About)}")
    values["about"] = {str(word): About(about) for about, words in table.get("about", {}).items() for word in words}
    values["vendor"] = vendor
    for name in ("code_in_message", "wait_in_message"):
        try:
            re.compile(table.get(name, ""))
        except re.error as error:
            raise CatalogueError(f"{place}.{name}: is not a regular expression ({error})") from None
    values["messages"] = Phrases(values["messages"])
    if "limits" in table:
        limits = check_table(f"{place}.limits", table["limits"], {"form": TEXT, "of": TEXTS})
        usual = LimitHeaders()
        form = limits.get("form", usual.form)
        if set(_PLACEHOLDER.findall(form)) != {"{part}", "{of}"} or form != form.lower():
            problem = f"{form!r} must contain {{part}} and {{of}}, and be in lower case"
            raise CatalogueError(f"{place}.limits.form: {problem}")
        values["limits"] = LimitHeaders(form, tuple(limits.get("of", usual.of)))
    return ErrorRules(**values)


@cache
def load_rules(facts: FactsFile) -> ErrorRules:
    """Return the rules in the table `errors` of a facts file."""
    return rules_of(facts.read().get("errors", {}), "errors", facts.name)


@cache
def shared_rules() -> ErrorRules:
    """Return the rules of `errors.toml`."""
    return rules_of(FactsFile("providers.reading", "errors").read(), "errors")


def by_status(status: int) -> FailureKind:
    """Return the kind of a response of which only the status is known.

    A redirect, a 2xx or another 4xx (405, 415, 421, …) is `MALFORMED`: it concerns how the gateway calls the server,
    not the client's request, so another deployment may be tried.
    """
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return FailureKind.UNAVAILABLE if status >= 500 else FailureKind.MALFORMED


def blames_itself(kind: FailureKind, response: WireResponse) -> bool:
    """Return whether a code blames the request but its status blames the server. Another server may then succeed.

    That is `INVALID_REQUEST` with a status of 500 or more.
    """
    return kind is FailureKind.INVALID_REQUEST and response.status >= 500


def by_code(code: str, kinds: Kinds) -> FailureKind | None:
    """Return the kind of an error code, or of its longest prefix that ends at a dot; None for an unknown one.

    `kinds` has them by code, by prefix, or by a pattern with `*`.
    """
    entry = _entry(code, kinds)
    return kinds[entry] if entry is not None else None


def _entry(code: str, kinds: Kinds) -> str | None:
    """Return the word of a table that covers an error code, or None."""
    whole = code
    while code:
        if code in kinds:
            return code
        code = code.rpartition(".")[0]
    return next((word for word in kinds if "*" in word and fnmatchcase(whole, word)), None)


def holds_error(body: Mapping[str, object], rules: ErrorRules) -> bool:
    """Return whether a body with a status of success, or an event of a stream, is an error.

    A message or an unknown type alone is not an error: vendors and relays send keep-alives, positions in a queue and
    other events without choices. Evidence is an error object, a known code, type or sentence, or a code with a message.
    """
    if body.get("error") or body.get("object") == "error" or (rules.status_at and _first(body, (rules.status_at,))):
        return True
    if "choices" in body:
        return False
    shared, error_type, message = shared_rules(), _first(body, rules.type_at), _first(body, rules.message_at)
    codes = [text for path in rules.code_at for text in _texts_at(body, path) if not _SUCCESS.fullmatch(text)]
    return (
        "error" in error_type.lower()
        or bool(by_code(error_type, rules.types) or error_type in shared.types or error_type in shared.codes)
        or bool(codes and message)
        or any(by_code(code, rules.codes) or code in shared.codes or _HTTP_ERROR.fullmatch(code) for code in codes)
        or bool(message and (rules.messages.find(message) or shared.messages.find(message)))
    )


def has_message(body: Mapping[str, object], rules: ErrorRules) -> bool:
    """Return whether a body has a text where an error of this vendor has its message."""
    return bool(_first(body, rules.message_at))


@dataclass(frozen=True, slots=True)
class _Reported:
    """An error body and its response, as all judges read them."""

    body: Mapping[str, object]
    response: WireResponse
    rules: ErrorRules
    layers: list[Mapping[str, object]]
    """The error and the errors inside of it, the innermost first."""
    codes: list[str]
    """All codes of all layers."""
    code: str
    """The first code that a table knows, or else the first one. A known inner code is more exact than an outer one that
    is not known."""
    type: str
    """The type of the innermost layer that has one."""
    detail: str
    """The message."""
    status: int
    """The status of the response, or the number in the body that looks like one if that is a success."""
    status_in_body: str
    """That number as it is written, or "0"."""
    param: str | None
    """The member that is wrong."""


def _read_error(body: Mapping[str, object], response: WireResponse, rules: ErrorRules) -> _Reported:
    layers = _layers_of(body, rules)
    codes = list(
        islice((text for layer in layers for path in rules.code_at for text in _texts_at(layer, path)), _MOST_CODES)
    )
    error_type = next(filter(None, (_first(layer, rules.type_at) for layer in layers)), "")
    detail = next(filter(None, (_message_in(layer, rules) for layer in layers)), "") or plain_text(response)
    # Some vendors have the reason in the place of the member, which has no spaces.
    reason = next((text for layer in layers if " " in (text := _first(layer, ("error.param",)))), "")
    detail = (f"{detail}: {reason}" if reason else detail)[: 4 * _MOST_DETAIL]
    if rules.code_in_message and (found := re.search(rules.code_in_message, detail)):
        codes.insert(0, found[1])
    known = next((code for code in codes if by_code(code, rules.codes) or code in shared_rules().codes), None)
    in_body = next((word for word in (*codes, error_type) if _HTTP_ERROR.fullmatch(word)), "0")
    return _Reported(
        *(body, response, rules, layers, codes),
        code=known or next(iter(codes), ""),
        type=error_type,
        detail=detail,
        status=response.status if response.status >= 400 else int(in_body),
        status_in_body=in_body,
        param=next((param for layer in layers if _PARAM.fullmatch(param := _param_in(layer))), None),
    )


def classify(
    body: Mapping[str, object], response: WireResponse, rules: ErrorRules | None = None, sites: Iterable[str] = ()
) -> Failure:
    """Return the failure that an error body describes. With several `sites`, a refused key gets a hint at them."""
    rules = rules or ErrorRules()
    error = _read_error(body, response, rules)
    first = _by_table(error) or _by_status(error)
    judged = next(filter(None, (judge(error, first) for judge in _REFINING)), first)
    detail, names = error.detail if judged.detail is None else judged.detail, sorted(sites)
    if judged.kind is FailureKind.CREDENTIALS and len(names) > 1:
        detail = f"this key may belong to another site (each of {', '.join(names)} has its own keys): {detail}"
    headers = (response.headers.get(name) for name in rules.request_id_headers)
    failed = failure(
        response,
        judged.kind,
        code=error.code or (error.type if error.type != error.status_in_body else None),
        detail=detail,
        request_id=_first(body, rules.request_id_at) or next(filter(None, headers), None),
        param=error.param,
        retry_after=_wait_s(error, judged, detail),
    )
    is_stated = judged.is_stated or (error.status in _MAY_PASS and failed.retry_after_s is not None)
    # With any words, this error is about the model.
    is_stated = is_stated or (failed.kind is FailureKind.MODEL_NOT_FOUND and failed.param == "model")
    return replace(failed, is_stated=is_stated, rule=judged.rule, about=rules.about.get(judged.word))


def with_own_model(failed: Failure, model: str) -> Failure:
    """Return a failure in which the name of the deployment's own model counts as the words "the model"."""
    is_open = failed.kind is FailureKind.INVALID_REQUEST and failed.param in (None, "model")
    if not is_open or len(model) < _SHORTEST_NAME or model not in failed.detail:
        return failed
    named = re.compile(rf"""["'`]?(?<![\w.-]){re.escape(model)}(?![\w-])["'`]?""")
    judged = judged_by_words((), named.sub(" the model ", failed.detail), is_unexplained=True)
    if judged is None:
        return failed
    kind, rule = judged
    return replace(failed, kind=kind, message=MESSAGES[kind], is_stated=False, rule=rule)


def _layers_of(body: Mapping[str, object], rules: ErrorRules) -> list[Mapping[str, object]]:
    """Return an error and the errors inside of it, in `error` or as JSON in a message, the innermost first.

    Of a list of errors (Cloudflare, watsonx) the first counts.
    """
    listed = as_list(body.get("error")) or as_list(body.get("errors"))
    first = as_map(listed[0]) if listed else {}
    layers = [{"error": first, **first}, body] if first else [body]
    while len(layers) < _MOST_LAYERS:
        error, text = as_map(layers[0].get("error")), _message_in(layers[0], rules)
        inner = error if error.get("error") else _object_in(text)
        if not inner:
            break
        layers.insert(0, inner if inner.get("error") else {"error": inner, **inner})
    return layers


def _object_in(text: str) -> Mapping[str, object]:
    """Return the object in a message, after a few words and perhaps before a further sentence; or else empty.

    It is JSON, or a dict as Python shows it.
    """
    start, end = text.find("{"), text.rfind("}") + 1
    if not 0 <= start <= _MOST_SHOWN or len(text) > 32 * _MOST_DETAIL or text[end:].lstrip()[:1] not in ("", "."):
        return {}
    try:
        return as_map(loads(text[start:end]))
    except JsonError:
        pass
    try:
        # The text of an exception of OpenAI's and Anthropic's SDKs: `Error code: 400 - {'error': {…}}`.
        is_python = text.startswith("{'", start) and end - start <= _MOST_DETAIL
        return as_map(literal_eval(text[start:end])) if is_python else {}
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return {}


def _message_in(body: Mapping[str, object], rules: ErrorRules) -> str:
    return _first(body, rules.message_at) or mistakes_in(body) or _first(body, _USUALLY_SAID)


def _param_in(body: Mapping[str, object]) -> str:
    """Return the member that is wrong: OpenAI's `param`, or the place in the first mistake of FastAPI.

    vLLM puts FastAPI's place into `param`, and its own name for the length of a prompt, which no request has.
    """
    place = as_list(as_map(next(iter(as_list(body.get("detail"))), None)).get("loc"))
    steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in place if step != "body"]
    param = (_first(body, ("error.param", "param")) or "".join(steps).removeprefix(".")).removeprefix("body.")
    return "" if param == _LENGTH_OF_THE_PROMPT else param


def _wait_s(error: _Reported, judged: _Judged, message: str) -> float | None:
    """Return the time to wait: what the body names, the `retry-after` headers, or the headers of the rate limits."""
    headers, received_at = error.response.headers, error.response.received_at
    # A refusal may repeat a part of the prompt, whose words must not choose how long a key rests.
    may_name = judged.rule not in (RULE_OF_A_REFUSAL, RULE_OF_THE_OPERATOR)
    wait = _named_wait_s(error, message, judged.kind) if may_name else None
    if wait is None:
        wait = retry_after_s(headers, received_at)
    if wait is None and judged.kind is FailureKind.RATE_LIMITED:
        wait = wait_s(read_limits(headers, received_at, error.rules.limits))
    return wait


def _named_wait_s(error: _Reported, message: str, kind: FailureKind) -> float | None:
    """Return the time to wait that the body names: a member, a duration in the message, or the moment of a reset.

    A header is more exact than a sentence that no table of the vendor has.
    """
    rules, response = error.rules, error.response
    texts = list(islice((text for path in rules.wait_at for text in _texts_at(error.body, path)), _MOST_CODES))
    if rules.wait_in_message and (found := re.search(rules.wait_in_message, message)):
        texts.append(found[1])
    if not texts and retry_after_s(response.headers, response.received_at) is not None:
        return None
    if found := re.search(shared_rules().wait_in_message, message):
        texts.append(found[1])
    if kind in (FailureKind.QUOTA, FailureKind.RATE_LIMITED):
        texts += [moment] if (moment := moment_in(message, rules.zone)) else []
    waits = (reset_s(text, response.headers, response.received_at) for text in texts)
    return next((wait for wait in waits if wait is not None), None)


@dataclass(frozen=True, slots=True)
class _Judged:
    """The kind of an error, the rule and the entry of a table that decided, and a message other than the body's."""

    kind: FailureKind
    rule: str
    word: str = ""
    is_stated: bool = True
    detail: str | None = None


def _by_table(error: _Reported) -> _Judged | None:
    """Return the judgement of the tables, in the order that the module's docstring states.

    A word that blames the request does not count if the status blames the server.
    """
    rules, shared = error.rules, shared_rules()
    vendor, marks = f"{rules.vendor} " if rules.vendor else "", {**rules.marks, **shared.marks}
    mark = next((mark for mark in marks for layer in error.layers if _is_marked(layer, mark)), None)
    entries = (
        ("member", mark, marks, vendor),
        ("status", str(error.status), rules.statuses, vendor),
        ("code", _entry(error.code, rules.codes), rules.codes, vendor),
        ("type", _entry(error.type, rules.types), rules.types, vendor),
        ("code", error.code, shared.codes, ""),
        ("type", error.type, shared.codes, ""),
        ("type", error.type, shared.types if error.response.status < 400 else _NO_KINDS, ""),
    )
    for what, word, kinds, of in entries:
        if word is not None and (kind := kinds.get(word)):
            is_last = blames_itself(kind, error.response)
            return None if is_last else _Judged(kind, f"{of}{what} {word}", word, is_certain(kind, word))
    return None


def is_certain(kind: FailureKind, word: str) -> bool:
    """Return whether an entry of a table states its kind. A server's word for its own error is a guess."""
    return kind is not FailureKind.UNAVAILABLE or "verload" in word


def _by_status(error: _Reported) -> _Judged:
    status = error.status
    kind = by_status(status) if status else FailureKind.UNAVAILABLE
    return _Judged(kind, f"status {status} alone" if status else "an error without a code", "", status in CERTAIN)


def _by_quoted(error: _Reported, first: _Judged) -> _Judged | None:
    """Return the judgement of another server's error that this one repeats, where it is about the request.

    Another server's error about its key does not concern the key of this one.
    """
    for text in islice((text for path in error.rules.quoted_at for text in _texts_at(error.body, path)), 1):
        body = error_object(text.encode("utf-8", "replace"))
        quoted = classify(body or {"message": text}, replace(error.response, body=b""))
        # A text alone, such as "ERROR", gives no reason.
        has_reason = quoted.kind is not FailureKind.INVALID_REQUEST or (bool(body) and bool(quoted.detail))
        if quoted.concerns is About.REQUEST and has_reason:
            return _Judged(quoted.kind, f"what it quotes: {quoted.rule}", detail=quoted.detail)
    return None


def _by_sentence(error: _Reported, first: _Judged) -> _Judged | None:
    rules, shared = error.rules, shared_rules().messages
    for phrases, of in ((rules.messages, rules.vendor), (shared, "")) if first.kind in _INEXACT else ():
        sentence = phrases.sentence_of(error.detail)
        if sentence is None:
            continue
        kind = phrases.kinds[sentence]
        if error.response.status < 500 or phrases is shared or kind in _DESPITE_500:
            return _Judged(kind, f"{of} sentence {sentence[:_MOST_SHOWN]!r}".lstrip(), sentence)
    return None


def _by_words(error: _Reported, first: _Judged) -> _Judged | None:
    """Return the judgement of words, unless the first judgement is more exact."""
    usual = (text for layer in error.layers for path in _USUALLY_AT for text in _texts_at(layer, path))
    words = dict.fromkeys((*error.codes, error.type, *islice(usual, _MOST_CODES)))
    words.pop(first.word, None)
    is_guessed_key = first.kind is FailureKind.CREDENTIALS and not first.is_stated
    is_missing = first.kind is FailureKind.MODEL_NOT_FOUND
    is_invalid = first.kind is FailureKind.INVALID_REQUEST
    is_large = first.kind is FailureKind.REFUSED_HERE and not first.word
    by_words = judged_by_words(
        words,
        error.detail,
        is_invalid=is_guessed_key or is_invalid or is_missing or is_large,
        # A member that is named, other than the model and the stream, is what the client sent.
        is_unexplained=is_invalid and error.param in (None, "model", "stream"),
    )
    if by_words is None:
        return None
    kind, rule = by_words
    is_known = first.is_stated and {kind, first.kind} <= _OF_AN_ACCOUNT
    is_exact = bool(first.word) and first.kind not in _VAGUE and error.response.status < 400
    # A model may be missing because the server could not load it. No other refusal is more exact.
    is_named = is_missing and rule == RULE_OF_A_REFUSAL and kind is not FailureKind.UNAVAILABLE
    if is_known or is_exact or is_named:
        return None
    return _Judged(kind, rule, "", kind is not FailureKind.MODEL_NOT_FOUND and rule != RULE_OF_THE_OPERATOR)


_REFINING = (_by_quoted, _by_sentence, _by_words)
"""The judges that may know better than a code or a status. The first that answers counts."""


def _first(body: Mapping[str, object], paths: Iterable[str]) -> str:
    return next((text for path in paths for text in _texts_at(body, path)), "")


def _texts_at(body: object, path: str) -> Iterator[str]:
    """Yield the texts and the numbers at a dotted path, other than "" and 0. A list on the way is each of its items."""
    name, _, rest = path.partition(".")
    value = as_map(body).get(name)
    for one in value[:_MOST_ITEMS] if isinstance(value, list) else (value,):
        if rest:
            yield from _texts_at(one, rest)
        elif isinstance(one, str | int | float) and not isinstance(one, bool) and str(one) not in ("", "0"):
            yield str(int(one)) if isinstance(one, float) and one.is_integer() else str(one)


def _is_marked(body: Mapping[str, object], mark: str) -> bool:
    """Return whether the member at a path has a value. With `=`, whether it is a text like the rest of the mark."""
    path, has_form, form = mark.partition("=")
    if has_form:
        return any(fnmatchcase(text, form) for text in islice(_texts_at(body, path), _MOST_CODES))
    *outer, last = path.split(".")
    for name in outer:
        body = as_map(body.get(name))
    return bool(body.get(last))


def malformed(detail: str, about: About | None = None) -> ProviderFailed:
    """Return the failure for an answer that is not what the API documents. `detail` is for the log.

    `about`: the request, if the answer only lacks what this request asked for beyond the usual form.
    """
    kind = FailureKind.MALFORMED
    return ProviderFailed(Failure(kind, MESSAGES[kind], detail, about=about))


def failure(
    response: WireResponse,
    kind: FailureKind,
    *,
    code: str | None = None,
    detail: str | None = None,
    request_id: str | None = None,
    param: str | None = None,
    retry_after: float | None = None,
) -> Failure:
    """Build the `Failure` of a response, with a message for the client that does not contain the provider's text.

    Args:
        code: The provider's error code. One of more than six words becomes the detail, unless there is one.
        detail: The provider's message, for the log. Without it, a plain text body is used.
        request_id: The provider's id of the call, if the body contains it.
        param: The request field that is wrong.
        retry_after: The time to wait in seconds, if the body contains it. Without it, the `retry-after` headers count.
    """
    if retry_after is None:
        retry_after = retry_after_s(response.headers, response.received_at)
    detail = detail or plain_text(response)
    is_by_status = response.status >= 300 and kind is by_status(response.status) and not code
    is_of_the_call = kind is FailureKind.MALFORMED and response.status in _OF_THE_CALL
    has_wait = response.status in _MAY_PASS and retry_after is not None
    if code is not None and len(code.split(maxsplit=6)) > 6:
        # A sentence, which may repeat a prompt. xAI's codes have five or six words.
        code, detail = None, detail or code
    return Failure(
        kind=kind,
        message=MESSAGES.get(kind, kind.value),
        detail=repair_surrogates((detail or "")[:_MOST_DETAIL]),
        status=response.status,
        code=repair_surrogates(code[:200]) if code else None,
        retry_after_s=retry_after,
        request_id=repair_surrogates(request_id[:200]) if request_id else request_id_of(response.headers),
        param=repair_surrogates(chat_param(param)[:200]) if param else None,
        should_retry=_SHOULD_RETRY.get(
            response.headers.get("x-should-retry", "").strip().lower(), False if is_of_the_call else None
        ),
        is_stated=has_wait or (response.status in CERTAIN if is_by_status else kind is not FailureKind.MALFORMED),
        rule=f"status {response.status} alone" if is_by_status else "",
    )


def chat_param(param: str) -> str:
    """Return the chat field for a parameter of the Responses API, without its inner path. Others are unchanged.

    An inner path is dropped, because an item of `input` is less than a message.
    """
    return _FIELDS.get(_OUTERMOST.split(param, maxsplit=1)[0], param)


def request_id_of(headers: Mapping[str, str]) -> str | None:
    """Return the provider's id of a call: the first known header that is present, or None.

    The names of the headers are in lower case.
    """
    return next(filter(None, (headers.get(name) for name in _REQUEST_IDS)), None)


def plain_text(response: WireResponse) -> str:
    """Return the message of an error whose body is plain text or a JSON string.

    It is empty for a status below 400, HTML and JSON objects.
    """
    if response.status < 400 or is_html(response.headers.get("content-type", "")):
        return ""
    start = response.body[: 4 * _MOST_DETAIL].strip()
    if start.startswith((b"{", b"[", b"<")):
        return ""
    text = start.decode("utf-8", "replace")
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def mistakes_in(body: Mapping[str, object]) -> str:
    """Return the messages in an error body of FastAPI, without the input that it repeats.

    That is `detail` if it is a text, or else the messages with their paths, separated by `; `.
    """
    detail = body.get("detail") or as_map(body.get("message")).get("detail")
    if isinstance(detail, str):
        return detail
    messages: list[str] = []
    for mistake in map(as_map, as_list(detail)[:_MOST_MISTAKES]):
        path = ".".join(
            str(part) for part in as_list(mistake.get("loc")) if isinstance(part, str | int) and part != "body"
        )
        messages.append(": ".join(filter(None, (path, read_str(mistake, "msg")))))
    return "; ".join(filter(None, messages))


def error_object(body: bytes) -> dict[str, object]:
    """Return the JSON object of an error body, also from an array of one or the first event of a stream.

    It is empty if there is none: HTML, plain text, a truncated body.
    """
    text = body.strip()
    if not text.startswith((b"{", b"[")):
        lines = [line.strip() for line in text.splitlines()[:64]]
        text = next((line.partition(b":")[2] for line in lines if line.startswith((b"data:", b"error:"))), b"")
    try:
        value = loads(text)
    except JsonError:
        return {}
    return dict(as_map(value[0] if isinstance(value, list) and value else value))


def is_html(content_type: str) -> bool:
    """Return whether a response with this `content-type` is an HTML page.

    It may be one of a captive portal, a firewall or a load balancer.
    """
    return content_type.lower().startswith("text/html")
