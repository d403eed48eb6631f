"""What a provider says of a failure, without our keys, and without the words of the request that it repeats.

Some providers quote the value that they refuse, or the key that they were sent. Their words go into the log, where
neither may stand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace

from gateway.model.deployment import Deployment
from providers.auth import Secret
from providers.chat import (
    AssistantMessage,
    AudioPart,
    ChatRequest,
    FilePart,
    ImagePart,
    Message,
    SystemMessage,
    ToolMessage,
    UserMessage,
    text_of,
)
from providers.failures import Failure
from providers.fitting import IDENTITY

__all__ = ["parts_of", "redacted", "without_quotes"]

_KEY = "[redacted]"
_QUOTE = "[from the request]"
_TOO_MUCH = "[left out: it might repeat the request]"
_MOST_SEARCHED = 64 * 1024
_MOST_TOLD = 2000
_WINDOW = 4
# So many letters in a row that are in both are a quote. A letter beyond ASCII counts twice: it may be half a word.
_CERTAIN = 16
_LEAST = 2
_SHORTEST = 8
"""A part of a credential that is shorter is a word like another, such as `id`."""
_LEAST_OF_KEY = 4
_MOST_ESCAPED = 2
_ESCAPE = re.compile(r"\\(u([0-9A-Fa-f]{4})|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
_ID = re.compile(r"[!-~]{1,200}")
_OPEN_ACCOUNT_FIELDS = frozenset(
    "type project_id universe_domain auth_uri token_uri auth_provider_x509_cert_url".split()
)


def redacted(failure: Failure, deployment: Deployment, request: ChatRequest) -> Failure:
    """The failure, fit for the log."""
    if failure.request_id is not None and _is_no_id(failure.request_id, deployment):
        failure = replace(failure, request_id=None)
    told = failure.detail, failure.code, failure.param
    if not any(told):
        return failure
    texts = tuple(_texts(request))
    if sum(map(len, texts)) > _MOST_SEARCHED:
        # To look through it all would hold up everybody else.
        return replace(failure, detail=_TOO_MUCH if failure.detail else "", code=None, param=None)
    detail, code, param = (_clean(text, deployment, texts) if text else text for text in told)
    return failure if (detail, code, param) == told else replace(failure, detail=detail or "", code=code, param=param)


def _clean(text: str, deployment: Deployment, texts: tuple[str, ...]) -> str:
    text = text[:_MOST_TOLD]
    for part in _keys(deployment):
        text = _without_cut(text.replace(part, _KEY), part)
    return _without_escaped(without_quotes(text, texts), texts)


def _keys(deployment: Deployment) -> Iterator[str]:
    for secret in (*deployment.credentials, *(value for _, value in deployment.headers)):
        yield from parts_of(secret)


def _is_no_id(text: str, deployment: Deployment) -> bool:
    """Whether what a provider calls its id of the call is not one word, or has a key in it."""
    return _ID.fullmatch(text) is None or any(part in text for part in _keys(deployment))


def _without_cut(text: str, key: str) -> str:
    """The text without the beginning of a key on which it was cut off."""
    for size in range(len(key) - 1, _LEAST_OF_KEY - 1, -1):
        if text.endswith(key[:size]):
            return f"{text[:-size]}{_KEY}"
    return text


def parts_of(secret: Secret) -> Iterator[str]:
    """The secret, and each part of it that would be of use to a thief: of a pair, of a file in JSON, of a PEM block."""
    whole = secret.reveal()
    yield whole
    try:
        fields = json.loads(whole)
    except ValueError:
        fields = None
    if isinstance(fields, dict):
        values = [value for name, value in fields.items() if name not in _OPEN_ACCOUNT_FIELDS]
        parts = [line for value in _texts_in(values) for line in (value, *value.splitlines())]
    else:
        parts = whole.split(":")
    yield from (part for part in parts if len(part) >= _SHORTEST)


def _texts_in(value: object) -> Iterator[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inner:
        yield from _texts_in(one)


def _texts(request: ChatRequest) -> Iterator[str]:
    """What a person may have said, or may be called."""
    yield request.user or ""
    yield from (value for name in IDENTITY & request.extra.keys() for value in _texts_in(request.extra[name]))
    for message in request.messages:
        yield text_of(message.content)
        yield from _beside_the_text(message)


def _beside_the_text(message: Message) -> Iterator[str]:
    match message:
        case AssistantMessage():
            yield from (message.name or "", message.refusal or "", message.reasoning or "")
            yield from (call.arguments for call in message.tool_calls)
        case UserMessage():
            yield message.name or ""
            for part in message.content if not isinstance(message.content, str) else ():
                # Of what is long, such as an image in the request itself, no error says more than how it begins.
                match part:
                    case ImagePart(url):
                        yield url[:_MOST_TOLD]
                    case AudioPart(data):
                        yield data[:_MOST_TOLD]
                    case FilePart(data, filename):
                        yield from (data[:_MOST_TOLD], filename or "")
        case SystemMessage():
            yield message.name or ""
        case ToolMessage():
            pass


def without_quotes(told: str, texts: tuple[str, ...]) -> str:
    """The text without what it repeats of these: one of them as a whole, or a good part of it."""
    for text in texts:
        whole = text.strip()
        if len(whole) >= _LEAST and whole in told:
            told = re.sub(rf"(?<!\w){re.escape(whole)}(?!\w)", _QUOTE, told)
    return _without_parts(told, "\n".join(texts))


def _without_escaped(told: str, texts: tuple[str, ...]) -> str:
    """The text without quotes that are escaped, as where JSON stands in a text of JSON, by whoever handed it on."""
    plain = told
    for _ in range(_MOST_ESCAPED):
        if "\\" not in plain:
            break
        plain = _unescaped(plain)
        kept = without_quotes(plain, texts)
        if kept != plain:
            told = plain = kept
    return told


def _unescaped(text: str) -> str:
    plain = _ESCAPE.sub(
        lambda escape: _ESCAPED.get(escape[1], escape[1]) if not escape[2] else chr(int(escape[2], 16)), text
    )
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _without_parts(told: str, text: str) -> str:
    kept: list[str] = []
    done = place = 0
    while place + _WINDOW <= len(told):
        start, end = place, place + _WINDOW
        if told[start:end] not in text:
            place += _WINDOW
            continue
        while end < len(told) and told[start : end + 1] in text:
            end += 1
        while start > done and told[start - 1 : end] in text:
            start -= 1
        if _weight(told[start:end]) >= _CERTAIN:
            kept += [told[done:start], _QUOTE]
            done = end
        place = max(end, place + 1) if done == end else place + _WINDOW
    return "".join([*kept, told[done:]])


def _weight(text: str) -> int:
    return sum(1 if letter.isascii() else 2 for letter in text if not letter.isspace())
