"""An answer without a framework: a status, a few headers and a body, or an error in the usual envelope."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.api.door import headers_of, request_id_of
from gateway.api.errors import ApiError, blocking_link, encode_error, from_domain, whole_seconds

Send = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole one; its length is told when it is sent."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    kind: str = "application/json"


def answer_json(document: object, status: int = 200) -> Answer:
    """A document."""
    return Answer(orjson.dumps(document), status)


def error_answer(scope: Any, error: Exception, blocked_by: str | None = None) -> Answer:
    """What a client is told of an error, with the id of its request.

    blocked_by: the page of who refuses by law or policy.
    """
    told = from_domain(error, [])
    request_id = scope.get("state", {}).get("told", {}).get("x-request-id") or request_id_of(headers_of(scope))
    headers = {"x-request-id": request_id, **told.headers, **blocking_link(told, blocked_by)}
    if told.retry_after_s is not None:
        headers["retry-after"] = whole_seconds(told.retry_after_s)
    shown = {name: value for name, value in headers.items() if value}
    return Answer(orjson.dumps(encode_error(told)), told.status, shown)


def method_refused(method: str, allowed: str) -> ApiError:
    """The error of a method that a path doesn't have. allowed: those that it has, as in `allow`."""
    message = f"{method} is not allowed here" + (f"; use {allowed}" if allowed else "")
    return ApiError("method_not_allowed", message, headers={"allow": allowed})


async def send_answer(send: Send, answer: Answer) -> None:
    """By ASGI."""
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items()]
    framing = [(b"content-length", b"%d" % len(answer.body)), (b"content-type", answer.kind.encode("latin-1"))]
    await send_whole(send, answer.status, [*headers, *framing], answer.body)


async def send_whole(send: Send, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
    """By ASGI, with no headers but these."""
    await send({"type": "http.response.start", "status": status, "headers": [*headers]})
    await send({"type": "http.response.body", "body": body, "more_body": False})
