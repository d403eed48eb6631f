"""Remove keys and quoted parts of the request from provider errors, so that errors can be logged.

Some providers quote the value that they refuse, the key that they received, or one of their own. All are removed before
an error is logged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from html import unescape
from urllib.parse import unquote_plus

from gateway.model.deployment import Deployment
from gateway.model.served import ServedRequest
from providers import chat
from providers.auth import Secret
from providers.failures import Failure
from providers.matching.requirements import IDENTITY
from providers.reading.errors import MESSAGES
from providers.value import replace

_QUOTE = "[from the request]"
_TOO_MUCH = "[left out: it might repeat the request]"
_MOST_SEARCHED = 64 * 1024
_MAX_TEXT_CHARACTERS = 2000
# A run of this many letters that is in both is a quote. A letter beyond ASCII counts twice: it may be half a word.
_CERTAIN = 16
_LEAST = 2
_RUN = 8
"""The shortest text that can be a quote, in letters beyond ASCII."""
_LITTLE = 200
_OURS = frozenset(MESSAGES.values())
_MOST_ESCAPED = 2
_JOINED = re.compile(r"[-_.]")
_ESCAPE = re.compile(r"\\(u([0-9A-Fa-f]{4})|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
# The keys of a schema that hold names and types, which help to find a mistake. All others have prose.
_STRUCTURE = frozenset("type required $ref $id $schema $anchor format pattern".split())
_INSTANCES = frozenset("default const enum examples example".split())
_KEY = "[redacted]"
_SHORTEST = 8
"""A shorter part of a credential is a common word, such as `id`."""
_LEAST_OF_KEY = 4
# A secret that its form shows: it is in no config, because it was made for one request or belongs to the provider.
_SECRET = re.compile(
    r"(?<![\w-])eyJ[\w-]{8,}(?:\.[\w-]*)+"  # a JSON Web Token (RFC 7519)
    r"|(?<![\w-])(?:sk|pk|rk|gk|xai|glpat|xox[abprs])-[\w-]{12,}"
    r"|(?<![\w-])(?:agw_|gsk_|hf_|gh[oprsu]_|r8_|nvapi-)[\w-]{12,}"
    r"|(?<![\w-])(?:AKIA|ASIA|AKID|LTAI)[0-9A-Za-z]{12,}|(?<![\w-])AIza[\w-]{20,}|(?<![\w-])ya29\.[\w.-]{8,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*(?:-----END [A-Z ]*PRIVATE KEY-----)?"
    r"|(?i:(?<=bearer )|(?<=basic ))[\w.~+/=-]{12,}"
    r"|(?<=://)[^\s/@:]+:[^\s/@]+(?=@)"
)
_NAMED_SECRET = re.compile(
    r"(?i)((?<![a-z])(?:(?:x-)?(?:api|access|secret|private|client|account|subscription|goog|amz|auth)[-_ ]?){0,4}"
    r"(?:key|token|secret|password|passwd|sig|signature|credential)[\"']?\s?(?:=|:\s?[\"'])\s?[\"']?)[^\s\"'&,;}]{8,}"
)
"""A value after a name that states its kind: in a URL, a header or JSON. A sentence such as `key: missing` has none."""
_ID = re.compile(r"[!-~]{1,200}")
_OPEN_ACCOUNT_FIELDS = frozenset(
    "type project_id universe_domain auth_uri token_uri auth_provider_x509_cert_url".split()
)


def redacted(failure: Failure, deployment: Deployment, request: ServedRequest) -> Failure:
    """Return the failure without keys and quotes, fit for the log."""
    return _without(failure, deployment, lambda: _searched(request))


def redacting(deployment: Deployment, request: ServedRequest) -> Callable[[Failure], Failure]:
    """Return `redacted` as a function that holds only the searched texts of a large request."""
    texts = _searched(request)
    return lambda failure: _without(failure, deployment, lambda: texts)


def _searched(request: ServedRequest) -> tuple[str, ...] | None:
    """Return the texts that no failure may quote.

    None if they are too long to search without delaying other requests.
    """
    texts: list[str] = []
    left = _MOST_SEARCHED
    for text in _texts(request):
        left -= len(text)
        if left < 0:
            return None
        texts.append(text)
    return tuple(texts)


def _without(failure: Failure, deployment: Deployment, searched: Callable[[], tuple[str, ...] | None]) -> Failure:
    if failure.request_id is not None and is_no_id(failure.request_id, deployment):
        failure = replace(failure, request_id=None)
    details = failure.detail, failure.code, failure.param
    if failure.request_id is not None:
        texts = searched()
        quotes = Quotes(texts) if texts is not None else None
        # An id may contain text of the request, also with `-`, `_` or `.` in place of its spaces.
        ids = failure.request_id, _JOINED.sub(" ", failure.request_id)
        if quotes is None or any(_clean(text, deployment, quotes) != text for text in ids):
            failure = replace(failure, request_id=None)
    # An adapter's message should not contain parts of the request; our own messages do not.
    is_ours = failure.message in _OURS
    if is_ours and not any(details):
        return failure
    message = failure.message if is_ours else without_secrets(without_keys(failure.message, deployment))
    texts = searched()
    if texts is None:
        return replace(failure, message=message, detail=_TOO_MUCH if failure.detail else "", code=None, param=None)
    quotes = Quotes(texts)
    if not is_ours:
        message = quotes.remove_parts_from(message)
    detail, code, param = (_clean(text, deployment, quotes) if text else text for text in details)
    if (message, detail, code, param) == (failure.message, *details):
        return failure
    return replace(failure, message=message, detail=detail or "", code=code, param=param)


def _clean(text: str, deployment: Deployment, quotes: Quotes) -> str:
    def clean(dirty: str) -> str:
        return without_secrets(quotes.remove_from(without_keys(dirty, deployment)))

    text = clean(text[:_MAX_TEXT_CHARACTERS])
    for marks, unescape_text in _ESCAPINGS:
        text = _without_escaped(text, marks, unescape_text, clean)
    return text


def _texts(request: ServedRequest) -> Iterator[str]:
    """Yield every text of a person in the request.

    The messages come first, because they often exceed the limit already.
    """
    if not isinstance(request, chat.ChatRequest):
        # Errors quote only the beginning of a long input.
        yield from (text[:_MAX_TEXT_CHARACTERS] if text[:5] == "data:" else text for text in request.texts())
        yield request.user or ""
        yield from (text for value in request.extra.values() for text in (*texts_in(value), *names_in(value)))
        return
    for message in request.messages:
        yield chat.text_of(message.content)
        yield from _other_texts(message)
    yield request.user or ""
    for name, value in request.extra.items():
        yield from texts_in(value) if name in IDENTITY else _personal_texts(texts_in(value))
        # The client makes up the names in an object, such as those of `metadata`.
        yield from names_in(value) if name in IDENTITY else _personal_texts(names_in(value))
    yield from _personal_texts(request.logit_bias or ())
    yield from _personal_texts(request.stop)
    for tool in request.tools:
        yield tool.description or ""
        yield from _personal_texts(_prose_in(tool.parameters))
    if isinstance(request.response_format, chat.JsonSchemaFormat):
        yield request.response_format.description or ""
        yield from _personal_texts(_prose_in(request.response_format.schema))


def _personal_texts(texts: Iterable[str]) -> Iterator[str]:
    """Yield the texts that a person may have written. One short word, such as `auto`, is a setting."""
    return (text for text in texts if len(text) >= _CERTAIN or not text.isascii() or len(text.split()) > 1)


def _prose_in(schema: object) -> list[str]:
    """Return the texts of a JSON Schema but those that name types, properties and other schemas."""
    prose: list[str] = []
    left: list[tuple[object, str, bool]] = [(schema, "", False)]
    while left:
        value, key, is_data = left.pop()
        if isinstance(value, str):
            if is_data or key not in _STRUCTURE:
                prose.append(value)
        elif type(value) is dict or isinstance(value, Mapping):
            left += [(each, name, is_data or name in _INSTANCES) for name, each in value.items()]
        elif isinstance(value, list | tuple):
            left += [(each, key, is_data) for each in value]
    return prose


def _other_texts(message: chat.Message) -> Iterator[str]:
    match message:
        case chat.AssistantMessage():
            yield from (message.name or "", message.refusal or "", message.reasoning or "")
            yield from (call.arguments for call in message.tool_calls)
        case chat.UserMessage():
            yield message.name or ""
            yield from _data_in(message.content)
        case chat.SystemMessage():
            yield message.name or ""
        case chat.ToolMessage():
            yield from _data_in(message.content)


def _data_in(content: str | tuple[chat.Part, ...]) -> Iterator[str]:
    for part in content if not isinstance(content, str) else ():
        # Errors quote only the beginning of long data, such as an image within the request.
        match part:
            case chat.ImagePart(url):
                yield url[:_MAX_TEXT_CHARACTERS]
            case chat.AudioPart(data):
                yield data[:_MAX_TEXT_CHARACTERS]
            case chat.FilePart(data, filename):
                yield from (data[:_MAX_TEXT_CHARACTERS], filename or "")


class Quotes:
    """Finds what a text quotes of these texts: a whole one, or a long part of one."""

    def __init__(self, texts: tuple[str, ...]) -> None:
        self._whole_texts = [whole for text in texts if len(whole := text.strip()) >= _LEAST]
        self._text = "\n".join(texts)

    @cached_property
    def _runs(self) -> frozenset[str]:
        return frozenset(self._text[place : place + _RUN] for place in range(len(self._text) - _RUN + 1))

    def remove_from(self, text: str) -> str:
        """Return the text without the quotes."""
        for whole_text in self._whole_texts:
            if whole_text in text:
                text = re.sub(rf"(?<!\w){re.escape(whole_text)}(?!\w)", _QUOTE, text)
        return self.remove_parts_from(text)

    def remove_parts_from(self, text: str) -> str:
        """Return the text without quoted parts. A short match is not a quote."""
        kept: list[str] = []
        done = place = 0
        # A short text is searched for in the request. For a long one, the request is cut into runs first.
        runs = self._text if len(text) <= _LITTLE else self._runs
        while place + _RUN <= len(text):
            start = place
            while place + _RUN <= len(text) and text[place : place + _RUN] in runs:
                place += 1
            end = place + _RUN - 1
            if place > start and _weight(text[start:end]) >= _CERTAIN:
                kept += [text[done:start], _QUOTE]
                done = place = end
            else:
                place += 1
        return "".join([*kept, text[done:]])


def _without_escaped(
    text: str, marks: re.Pattern[str], unescape_text: Callable[[str], str], clean: Callable[[str], str]
) -> str:
    """Return the text without what `clean` removes, also where it is escaped within another format."""
    plain = text
    for _ in range(_MOST_ESCAPED):
        if marks.search(plain) is None:
            break
        plain = unescape_text(plain)
        cleaned = clean(plain)
        if cleaned != plain:
            text = plain = cleaned
    return text


def _unescaped(text: str) -> str:
    plain = _ESCAPE.sub(
        lambda escape: _ESCAPED.get(escape[1], escape[1]) if not escape[2] else chr(int(escape[2], 16)), text
    )
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


_ESCAPINGS: tuple[tuple[re.Pattern[str], Callable[[str], str]], ...] = (
    (re.compile(r"\\"), _unescaped),
    (re.compile(r"%[0-9A-Fa-f]{2}|\w\+\w"), unquote_plus),
    (re.compile(r"&#?\w+;"), unescape),
)
"""The escaping of JSON, URLs and HTML: how it is recognized, and how it is undone."""


def _weight(text: str) -> int:
    return sum(1 if letter.isascii() else 2 for letter in text if not letter.isspace())


def without_keys(text: str, deployment: Deployment) -> str:
    """Return the text without any key of the deployment, whole or in part."""
    for part in _keys(deployment):
        text = _without_cut(_without_key(text, part), part)
    return _without_key_starts(text, deployment)


def _without_key(text: str, key: str) -> str:
    """Return the text without the key.

    A short key, such as the `x` of a local server, is removed only as a whole word.
    """
    if key not in text or len(key) >= _SHORTEST:
        return text.replace(key, _KEY)
    # Only these letters are written with spaces around words: in Chinese text a key may touch other characters.
    return re.sub(rf"(?<![0-9A-Za-z]){re.escape(key)}(?![0-9A-Za-z])", _KEY, text)


def _keys(deployment: Deployment) -> Iterator[str]:
    for secret in (*deployment.credentials, *(value for _, value in deployment.headers)):
        yield from parts_of(secret)


def is_no_id(text: str, deployment: Deployment) -> bool:
    """Return whether a provider's request id is not one word, or contains a key."""
    if _ID.fullmatch(text) is None or without_secrets(_without_key_starts(text, deployment)) != text:
        return True
    return any(_without_key(text, part) != text for part in _keys(deployment))


def _without_key_starts(text: str, deployment: Deployment) -> str:
    """Return the text without the beginning of a key (as in `sk-abc...`)."""
    for secret in deployment.credentials:
        for part in parts_of(secret):
            key_start = part[:_SHORTEST]
            if len(part) < _SHORTEST or key_start not in text or key_start in _KEY or "://" in part[: _SHORTEST + 1]:
                continue
            before, *others = text.split(key_start)
            text = _KEY.join([before, *(_without_start(other, part[_SHORTEST:]) for other in others)])
    return text


def without_secrets(text: str) -> str:
    """Return the text without each secret that its form shows, of any owner."""
    return _NAMED_SECRET.sub(rf"\g<1>{_KEY}", _SECRET.sub(_KEY, text))


def _without_start(text: str, key: str) -> str:
    """Return the text without as much of the key as it starts with."""
    size = 0
    while size < len(key) and text.startswith(key[size], size):
        size += 1
    return text[size:]


def _without_cut(text: str, key: str) -> str:
    """Return the text without the beginning of a key at its end, where it was cut off."""
    if key[:_LEAST_OF_KEY] not in text:
        return text
    for size in range(len(key) - 1, _LEAST_OF_KEY - 1, -1):
        if text.endswith(key[:size]):
            return f"{text[:-size]}{_KEY}"
    return text


def parts_of(secret: Secret) -> Iterator[str]:
    """Yield the secret, and each part that is secret by itself: of a pair, of a JSON file, of a PEM block."""
    whole = secret.reveal()
    yield whole
    try:
        fields = json.loads(whole)
    except ValueError:
        fields = None
    if isinstance(fields, dict):
        values = [value for name, value in fields.items() if name not in _OPEN_ACCOUNT_FIELDS]
        parts = [line for value in texts_in(values) for line in (value, *value.splitlines())]
    else:
        parts = whole.split(":")
    yield from (part for part in parts if len(part) >= _SHORTEST)


def texts_in(value: object) -> Iterator[str]:
    """Yield every text in a JSON value."""
    if isinstance(value, str):
        yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inner:
        yield from texts_in(one)


def names_in(value: object) -> Iterator[str]:
    """Yield the name of every member of the objects in a JSON value."""
    if isinstance(value, dict):
        yield from value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inner:
        yield from names_in(one)
