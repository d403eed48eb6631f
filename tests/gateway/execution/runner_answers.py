"""Answers of the two simulated providers of a plan execution."""

from collections.abc import AsyncIterator

import httpx

from gateway.execution.upstream_client import Answer
from providers.chat import ChatCompletion, StreamEvent
from providers.reading.folding import expand

SSE = {"content-type": "text/event-stream"}


def error(status: int, code: str | None = None, **headers: str) -> httpx.Response:
    body = {"error": {"message": "words with sk-first-secret in them", "type": "x", "code": code}}
    return httpx.Response(status, json=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


async def in_pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    """A body that arrives piece by piece, so that its end isn't known at its beginning."""
    for piece in pieces:
        yield piece


async def events_of(answer: Answer) -> list[StreamEvent]:
    """Read a stream to its end."""
    assert answer.stream is not None
    return [event async for batch in answer.stream for event in expand(batch)]


def text_of(completion: ChatCompletion | None) -> object:
    return completion.choices[0].message.content
