"""Responses without a web framework: JSON, errors and probes, and an application that is built on first use.

Probes and metrics are requested all the time. They need no framework, so a process that serves nothing else saves its
memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson

from gateway.api.caller.request_headers import headers_of, request_id_of
from gateway.api.dialects.paths import RESPONSES_PATH, encode_error_at
from gateway.api.errors import ApiError, blocking_link, from_domain, whole_seconds
from gateway.model.config_version import ConfigVersion
from gateway.policy.region_text import sentence_for
from providers.value import Value, replace

Send = Callable[[Any], Any]
Application = Callable[[Any, Callable[[], Any], Callable[[Any], Any]], Coroutine[Any, Any, None]]


class RawResponse(Value, frozen=True):
    """A complete response. `content-length` is added when it is sent."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = {}
    kind: str = "application/json"


def json_response(document: object, status: int = 200) -> RawResponse:
    """Return a response with this document as JSON."""
    return RawResponse(orjson.dumps(document), status)


def error_response(scope: Any, error: Exception, config: ConfigVersion | None = None) -> RawResponse:
    """Return the response for an error, with the id of its request. The state of the scope may have a location.

    For errors of the public API, the active version `config` has the sentences for end users, and the page of the
    authority that refuses by law or policy, for a status 451.
    """
    shown = from_domain(error, [])
    blocked_by = None
    if config is not None:
        blocked_by = config.blocked_by
        location = scope.get("state", {}).get("location")
        language = headers_of(scope).one(b"accept-language")
        shown = replace(shown, sentence=sentence_for(config, location, language, shown.code))
    known: Mapping[str, str] = scope.get("state", {}).get("response_headers", {})
    request_id = known.get("x-request-id") or request_id_of(headers_of(scope))
    headers = {"x-request-id": request_id, **shown.headers, **blocking_link(shown, blocked_by)}
    if shown.retry_after_s is not None:
        headers["retry-after"] = whole_seconds(shown.retry_after_s)
    present = {name: value for name, value in headers.items() if value}
    body = encode_error_at(scope.get("path", ""), shown, request_id, scope.get("headers", ()))
    return RawResponse(body, shown.status, present)


def method_not_allowed(method: str, allowed: str) -> ApiError:
    """Return the error for a method that a path does not have. `allowed` is the value of the `allow` header."""
    message = f"{method} is not allowed here" + (f"; use {allowed}" if allowed else "")
    return ApiError("method_not_allowed", message, headers={"allow": allowed})


async def send_response(send: Send, response: RawResponse) -> None:
    """Send a response through ASGI."""
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers.items()]
    framing = [(b"content-length", b"%d" % len(response.body)), (b"content-type", response.kind.encode("latin-1"))]
    await send_bytes(send, response.status, [*headers, *framing], response.body)


async def send_bytes(send: Send, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
    """Send a response through ASGI with exactly these headers."""
    await send({"type": "http.response.start", "status": status, "headers": [*headers]})
    await send({"type": "http.response.body", "body": body, "more_body": False})


_ALIVE = json_response({"status": "ok"})
_READY = json_response({"status": "ready"})
_DRAINING = json_response({"status": "draining"}, 503)


@asynccontextmanager
async def answering_faults(scope: Any, send: Send) -> AsyncIterator[None]:
    """Answer a request with an error if the block has a fault of ours, and let it go on, so that the server logs it."""
    try:
        yield
    except ApiError:
        raise
    except Exception as error:  # at the edge: whatever happened, the client gets an answer
        if scope["type"] == "http":
            await send_response(send, error_response(scope, error))
        raise


def asks_for_websocket(scope: Any) -> bool:
    """Return whether a request would open a WebSocket at the path of the Responses API.

    A proxy removes `upgrade`, which concerns one connection only, but passes `sec-websocket-key` on.
    """
    return scope["method"] == "GET" and scope["path"] == RESPONSES_PATH and any(map(_offers, scope["headers"]))


def _offers(header: tuple[bytes, bytes]) -> bool:
    name, value = header
    if name == b"upgrade":
        return any(protocol.strip().lower() == b"websocket" for protocol in value.split(b","))
    return name == b"sec-websocket-key"


class Probe:
    """One endpoint without a framework, as an ASGI application."""

    def __init__(self, respond: Callable[[Any], Awaitable[RawResponse]], *, takes_head: bool = True) -> None:
        """Create a probe. `respond` returns the response for a scope, or raises ApiError. HEAD may be allowed too."""
        self._respond = respond
        self._methods = ("GET", "HEAD") if takes_head else ("GET",)

    async def __call__(self, scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        """Answer one request."""
        try:
            async with answering_faults(scope, send):
                if scope["method"] not in self._methods:
                    raise method_not_allowed(scope["method"], "GET")
                response = await self._respond(scope)
        except ApiError as error:
            response = error_response(scope, error)
        await send_response(send, response)


class ProbesFirst:
    """An ASGI application that answers probes by their exact path, and passes everything else on.

    The other application has the probes too, for a path that is written differently and means the same.
    """

    def __init__(self, probes: Mapping[str, Probe], rest: Application) -> None:
        self._probes = probes
        self._rest = rest

    def __call__(self, scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> Coroutine[Any, Any, None]:
        """Answer one request."""
        probe = self._probes.get(scope["path"]) if scope["type"] == "http" and not scope.get("root_path") else None
        return (probe or self._rest)(scope, receive, send)


async def alive(_: object) -> RawResponse:
    """Respond that the process runs."""
    return _ALIVE


def health_probes(is_draining: Callable[[], bool]) -> dict[str, Probe]:
    """Return the probes of the public listener by path."""

    async def ready(_: object) -> RawResponse:
        return _DRAINING if is_draining() else _READY

    # Operators of other gateways expect `/health`.
    return {"/healthz": Probe(alive), "/health": Probe(alive), "/readyz": Probe(ready)}


class LazyApplication:
    """An ASGI application that is built when it gets its first request.

    All requests that arrive before it is there wait for one build. A build that failed is tried again for the next
    request. The end of the loop waits for a build as for any other thread of its executor.
    """

    def __init__(self, build: Callable[[], Application]) -> None:
        """Create it with `build`, which imports and makes the application in a thread, so that the loop goes on."""
        self._build = build
        self._application: Application | None = None
        self._building: asyncio.Task[Application] | None = None

    async def __call__(self, scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        """Answer one request."""
        application = self._application
        if application is None:
            async with answering_faults(scope, send):
                application = await self._built()
        await application(scope, receive, send)

    async def _built(self) -> Application:
        building = self._building
        if building is None or building.done() or building.get_loop() is not asyncio.get_running_loop():
            building = self._building = asyncio.create_task(asyncio.to_thread(self._build))
        # A request that is cancelled must not cancel the build for the others.
        self._application = await asyncio.shield(building)
        self._building = None
        return self._application
