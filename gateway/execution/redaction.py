"""What a provider says of a failure, without our keys, and without the words of the request that it repeats.

Some providers quote the value that they refuse, or the key that they were sent. Their words go into the log, where
neither may stand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from html import unescape
from urllib.parse import unquote_plus

from gateway.execution.keys import is_no_id, texts_in, without_keys
from gateway.model.deployment import Deployment
from providers.chat import (
    AssistantMessage,
    AudioPart,
    ChatRequest,
    FilePart,
    ImagePart,
    JsonSchemaFormat,
    Message,
    SystemMessage,
    ToolMessage,
    UserMessage,
    text_of,
)
from providers.classify import MESSAGES
from providers.failures import Failure
from providers.needs import IDENTITY

_QUOTE = "[from the request]"
_TOO_MUCH = "[left out: it might repeat the request]"
_MOST_SEARCHED = 64 * 1024
_MOST_TOLD = 2000
# So many letters in a row that are in both are a quote. A letter beyond ASCII counts twice: it may be half a word.
_CERTAIN = 16
_LEAST = 2
_RUN = 8
"""The shortest text that can be a quote: so many letters beyond ASCII."""
_LITTLE = 200
_OURS = frozenset(MESSAGES.values())
_MOST_ESCAPED = 2
_ESCAPE = re.compile(r"\\(u([0-9A-Fa-f]{4})|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
# What a schema says in words; what else stands in one is a name or a type, by which a mistake is found.
_PROSE = frozenset("description title default const enum examples".split())


def redacted(failure: Failure, deployment: Deployment, request: ChatRequest) -> Failure:
    """The failure, fit for the log."""
    return _without(failure, deployment, lambda: _searched(request))


def redacting(deployment: Deployment, request: ChatRequest) -> Callable[[Failure], Failure]:
    """`redacted`, for later: of a large request no more is held than is searched for."""
    texts = _searched(request)
    return lambda failure: _without(failure, deployment, lambda: texts)


def _searched(request: ChatRequest) -> tuple[str, ...] | None:
    """What no failure may quote; None where it is too much: to look through it all would hold up everybody else."""
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
    told = failure.detail, failure.code, failure.param
    # The message is the adapter's, which should hold nothing of the request; one of ours is known to.
    is_ours = failure.message in _OURS
    if is_ours and not any(told):
        return failure
    message = failure.message if is_ours else without_keys(failure.message, deployment)
    texts = searched()
    if texts is None:
        left_out = _TOO_MUCH if failure.detail else ""
        return replace(failure, message=message, detail=left_out, code=None, param=None)
    quotes = Quotes(texts)
    if not is_ours:
        message = quotes.parts_struck_from(message)
    detail, code, param = (_clean(text, deployment, quotes) if text else text for text in told)
    if (message, detail, code, param) == (failure.message, *told):
        return failure
    return replace(failure, message=message, detail=detail or "", code=code, param=param)


def _clean(text: str, deployment: Deployment, quotes: Quotes) -> str:
    def struck(told: str) -> str:
        return quotes.struck_from(without_keys(told, deployment))

    text = struck(text[:_MOST_TOLD])
    for marks, plainer in _PLAINER:
        text = _without_escaped(text, marks, plainer, struck)
    return text


def _texts(request: ChatRequest) -> Iterator[str]:
    """What a person may have said, or may be called; first what is quickly found, and often is too much already."""
    for message in request.messages:
        yield text_of(message.content)
        yield from _beside_the_text(message)
    yield request.user or ""
    for name, value in request.extra.items():
        yield from texts_in(value) if name in IDENTITY else _worded(texts_in(value))
    yield from _worded(request.stop)
    for tool in request.tools:
        yield tool.description or ""
        yield from _worded(_prose_in(tool.parameters))
    if isinstance(request.response_format, JsonSchemaFormat):
        yield request.response_format.description or ""
        yield from _worded(_prose_in(request.response_format.schema))


def _worded(texts: Iterable[str]) -> Iterator[str]:
    """Those that somebody may have written; one short word, such as `auto`, is a setting."""
    return (text for text in texts if len(text) >= _CERTAIN or not text.isascii() or len(text.split()) > 1)


def _prose_in(schema: object) -> list[str]:
    """What a JSON Schema says in words, and the values that it names."""
    prose: list[str] = []
    left: list[tuple[object, bool]] = [(schema, False)]
    while left:
        value, worded = left.pop()
        if isinstance(value, str):
            if worded:
                prose.append(value)
        elif type(value) is dict or isinstance(value, Mapping):
            left += [(each, worded or name in _PROSE) for name, each in value.items()]
        elif isinstance(value, list | tuple):
            left += [(each, worded) for each in value]
    return prose


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


class Quotes:
    """Finds what a text repeats of these: one of them as a whole, or a good part of it."""

    def __init__(self, texts: tuple[str, ...]) -> None:
        self._wholes = [whole for text in texts if len(whole := text.strip()) >= _LEAST]
        self._text = "\n".join(texts)

    @cached_property
    def _runs(self) -> frozenset[str]:
        return frozenset(self._text[place : place + _RUN] for place in range(len(self._text) - _RUN + 1))

    def struck_from(self, told: str) -> str:
        """The text without them."""
        for whole in self._wholes:
            if whole in told:
                told = re.sub(rf"(?<!\w){re.escape(whole)}(?!\w)", _QUOTE, told)
        return self.parts_struck_from(told)

    def parts_struck_from(self, told: str) -> str:
        """The text without the good parts alone: a short one is a word like another."""
        kept: list[str] = []
        done = place = 0
        # A request may be long: little is searched for in it, and to look much up it is cut first.
        runs = self._text if len(told) <= _LITTLE else self._runs
        while place + _RUN <= len(told):
            start = place
            while place + _RUN <= len(told) and told[place : place + _RUN] in runs:
                place += 1
            end = place + _RUN - 1
            if place > start and _weight(told[start:end]) >= _CERTAIN:
                kept += [told[done:start], _QUOTE]
                done = place = end
            else:
                place += 1
        return "".join([*kept, told[done:]])


def _without_escaped(
    told: str, marks: re.Pattern[str], plainer: Callable[[str], str], struck: Callable[[str], str]
) -> str:
    """The text without what is to be struck out, where it is written as another text writes what it holds."""
    plain = told
    for _ in range(_MOST_ESCAPED):
        if marks.search(plain) is None:
            break
        plain = plainer(plain)
        kept = struck(plain)
        if kept != plain:
            told = plain = kept
    return told


def _unescaped(text: str) -> str:
    plain = _ESCAPE.sub(
        lambda escape: _ESCAPED.get(escape[1], escape[1]) if not escape[2] else chr(int(escape[2], 16)), text
    )
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


_PLAINER: tuple[tuple[re.Pattern[str], Callable[[str], str]], ...] = (
    (re.compile(r"\\"), _unescaped),
    (re.compile(r"%[0-9A-Fa-f]{2}|\w\+\w"), unquote_plus),
    (re.compile(r"&#?\w+;"), unescape),
)
"""How a text is written within another one, and by which letters that is seen: in JSON, in a URL, in HTML."""


def _weight(text: str) -> int:
    return sum(1 if letter.isascii() else 2 for letter in text if not letter.isspace())
