"""What a provider says of a failure, without our keys, and without the words of the request that it repeats.

Some providers quote the value that they refuse, or the key that they were sent. Their words go into the log, where
neither may stand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from gateway.model.deployment import Deployment
from providers.chat import AssistantMessage, ChatRequest, text_of
from providers.failures import Failure

__all__ = ["redacted", "without_quotes"]

_KEY = "[redacted]"
_QUOTE = "[from the request]"
_TOO_MUCH = "[left out: it might repeat the request]"
_MOST_SEARCHED = 64 * 1024
_MOST_TOLD = 2000
_WINDOW = 4
# So many letters in a row that are in both are a quote. A letter beyond ASCII counts twice: it may be half a word.
_CERTAIN = 16
_LEAST = 2


def redacted(failure: Failure, deployment: Deployment, request: ChatRequest) -> Failure:
    """The failure, fit for the log."""
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
    for secret in (*deployment.credentials, *(value for _, value in deployment.headers)):
        text = text.replace(secret.reveal(), _KEY)
    return without_quotes(text, texts)


def _texts(request: ChatRequest) -> Iterator[str]:
    """What a person may have said, or may be called."""
    yield request.user or ""
    for message in request.messages:
        yield text_of(message.content)
        if isinstance(message, AssistantMessage):
            yield from (call.arguments for call in message.tool_calls)


def without_quotes(told: str, texts: tuple[str, ...]) -> str:
    """The text without what it repeats of these: one of them as a whole, or a good part of it."""
    for text in texts:
        whole = text.strip()
        if len(whole) >= _LEAST and whole in told:
            told = re.sub(rf"(?<!\w){re.escape(whole)}(?!\w)", _QUOTE, told)
    return _without_parts(told, "\n".join(texts))


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
