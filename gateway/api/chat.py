"""The endpoint of all chat dialects: one plain ASGI callable, from the socket to the socket.

`ChatEndpoint` makes an `Inbound` for each request, passes it to `ChatService.handle`, and sends the errors that this
raises to the client.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from gateway.api.body import (
    LARGE_BODY_BYTES,
    MOST_REQUESTS,
    BodyLease,
    BodyLimits,
    ClientGone,
    LargeBodyTurns,
    StreamLimit,
    check_body_size,
    check_content_headers,
    is_little,
    read_body,
)
from gateway.api.caller.authentication import FailedKeyLimiter
from gateway.api.caller.request_headers import (
    KnownCaller,
    headers_of,
    known_caller,
    read_caller,
    read_context,
    remember_caller,
)
from gateway.api.dialects.dialect import CountingDialect, Dialect
from gateway.api.dialects.openai_chat import OPENAI_CHAT
from gateway.api.errors import ApiError
from gateway.api.responder import Receive, Responder, Send
from gateway.execution.deadline import Deadline, Sweep
from gateway.execution.upstream_client import Answer
from gateway.model.caller import Caller, RequestContext, RequestHeaders
from gateway.model.config_version import ConfigVersion
from gateway.model.input_requests import ServedRequest
from gateway.model.record import Record
from gateway.model.resilience import Resilience
from gateway.policy.caller import timeout_s
from gateway.service.chat_service import ChatService
from gateway.service.inbound import PLAIN_ERRORS, AnswerStyle, HeldBody
from gateway.undo import undone_on_failure

_MOST_BETAS = 16


class ChatEndpoint:
    """The chat endpoint, with the limits that all its requests share.

    Attributes:
        service: Answers the requests.
        in_flight: The requests that have begun and not ended.
        most_requests: With more in flight, a request is refused unread.
        limiter: Counts failed keys, here and at the other paths.
        body_limits: Counts the bytes of bodies.
        large_bodies: Lets one large body at a time be parsed.
        streams: Counts open streams.
        sweep: Watches over the deadlines of requests.
    """

    def __init__(
        self, service: ChatService, observe: Callable[[Record], None], most_requests: int = MOST_REQUESTS
    ) -> None:
        """Create the endpoint for one event loop.

        Args:
            service: Answers the requests.
            observe: Gets the record of each request that has ended, in whatever way.
            most_requests: With more in flight, a request is refused unread.
        """
        self.service = service
        self.in_flight = 0
        self.limiter = FailedKeyLimiter()
        self.body_limits = BodyLimits()
        self.large_bodies = LargeBodyTurns()
        self.streams = StreamLimit()
        self.sweep = Sweep()
        self._observe = observe
        self.most_requests = most_requests

    def __call__(self, scope: Any, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Answer one chat completions request, as an ASGI application."""
        return self.answer(scope, receive, send, OPENAI_CHAT)

    async def answer(
        self,
        scope: Any,
        receive: Receive,
        send: Send,
        dialect: Dialect,
        handle: Callable[[InboundChat], Awaitable[None]] | None = None,
    ) -> None:
        """Answer one request in this dialect. Never raises on what a client or a provider does.

        Args:
            scope: The ASGI scope.
            receive: ASGI's `receive`.
            send: ASGI's `send`.
            dialect: The dialect of this request.
            handle: Answers the request. None: the service answers it as a chat.
        """
        started_at = time.monotonic()
        self.in_flight += 1
        record = Record("", started_at, "")
        inbound = InboundChat(self, scope, receive, send, record, dialect)
        try:
            await (self.service.handle if handle is None else handle)(inbound)
        except ClientGone:
            record.outcome = "cancelled"
        except asyncio.CancelledError:
            record.outcome = "cancelled"
            if not inbound.client_left:
                await inbound.stop()
                raise
        except Exception as error:  # the outermost border: whatever happened, the client gets an answer
            await inbound.fail(error)
        finally:
            inbound.end()
            record.total_s = time.monotonic() - started_at
            self.in_flight -= 1
            self._observe(record)

    async def count_tokens(self, scope: Any, receive: Receive, send: Send, dialect: CountingDialect) -> None:
        """Answer how many tokens the prompt of one request has, by an estimate."""

        async def count(inbound: InboundChat) -> None:
            tokens = await self.service.count_tokens(inbound)
            await inbound.respond_plain(dialect.encode_count(tokens), {"x-gateway-estimated": "true"})

        await self.answer(scope, receive, send, dialect, count)

    @property
    def open_streams(self) -> int:
        """How many of the requests in flight are streams."""
        return self.streams.open


class InboundChat:
    """One request for a chat. See `gateway.service.inbound.Inbound`.

    Attributes:
        client_left: The client closed its connection, which has cancelled the request.
    """

    # Slots are read faster than defaults of the class, and every request reads most of these.
    __slots__ = (
        "__weakref__",
        "_body_begun",
        "_body_read",
        "_client_bytes",
        "_context",
        "_deadline_set",
        "_dialect",
        "_endpoint",
        "_head",
        "_headers",
        "_is_counted",
        "_is_known",
        "_limit_s",
        "_receive",
        "_received_body",
        "_responder",
        "_running",
        "_scope",
        "_to_remember",
        "_watcher",
        "client_left",
        "deadline",
        "error_style",
        "record",
    )
    _headers: RequestHeaders
    _limit_s: float
    deadline: Deadline

    def __init__(
        self, endpoint: ChatEndpoint, scope: Any, receive: Receive, send: Send, record: Record, dialect: Dialect
    ) -> None:
        self._dialect = dialect
        self.record = record
        self.error_style = PLAIN_ERRORS
        self.client_left = False
        self._endpoint = endpoint
        self._scope = scope
        self._receive = receive
        self._responder = Responder(scope, receive, send, record, dialect)
        self._head = self._responder.head
        self._deadline_set = self._is_counted = self._is_known = self._body_begun = self._body_read = False
        self._received_body: bytes | None = None
        # The limit of the client for bodies, if it has one.
        self._client_bytes: int | None = None
        self._context: RequestContext | None = None
        self._to_remember: KnownCaller | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._running: asyncio.Task[Any] | None = None

    # The methods of Inbound, in the order in which they are called.

    def caller(self, config: ConfigVersion) -> Caller:
        """See Inbound. The caller of a head that came before on this connection is known already."""
        self._responder.config = config
        if self._context is not None:
            return read_caller(config, self._headers)
        known = known_caller(self._head, config)
        # Only with the body at hand: the known headers have the length of another body.
        if known is not None and (body := self._take_received_body()) is not None:
            self._is_known, self._received_body = True, body
            self._note_context(config, known.headers)
            self._client_bytes = _body_limit_of(known.caller)
            return known.caller
        self._body_begun = False
        self._note_context(config, headers_of(self._scope))
        caller = read_caller(config, self._headers, self._endpoint.limiter)
        self._client_bytes = _body_limit_of(caller)
        self._to_remember = KnownCaller(config, self._headers, caller)
        return caller

    def _note_context(self, config: ConfigVersion, headers: RequestHeaders) -> None:
        """Note the id and the trace of the request; raises ApiError if too many requests are in flight."""
        record, endpoint = self.record, self._endpoint
        self._headers = headers
        if b"accept-language" in headers.headers:
            self._responder.accept_language = headers.one(b"accept-language")
        context = self._context = read_context(config, headers)
        record.request_id = context.request_id
        if endpoint.in_flight > endpoint.most_requests:
            message = "the gateway has reached its limit of concurrent requests: repeat the request later"
            raise ApiError("overloaded", message, retry_after_s=1)
        record.trace = context.trace

    def start(self, bounds: Resilience) -> None:
        """See Inbound. A client may shorten the time of its request."""
        if not self._is_known:
            check_content_headers(self._headers, self._client_bytes)
            if self._to_remember is not None:
                remember_caller(self._head, self._to_remember)
        cycle, endpoint = self._responder.cycle, self._endpoint
        task = cycle.task if cycle is not None else None
        self._limit_s = bounds.total_s
        deadline = self.deadline = Deadline.start(bounds.total_s, bounds.commit_s, sweep=endpoint.sweep, task=task)
        self._deadline_set = True
        if self._context is not None and self._context.timeout:
            deadline.shorten(timeout_s(self._context.timeout))

    async def body(self) -> BodyLease:
        """See Inbound."""
        limits = self._endpoint.body_limits
        body, self._received_body = self._received_body, None
        if body is not None or (body := self._take_received_body()) is not None:
            if self._client_bytes is not None:
                check_body_size(len(body), self._client_bytes)
            limits.take(len(body))
        else:
            asked_at = time.monotonic()
            body = await read_body(self._receive, limits, self.deadline, self._client_bytes)
            self._body_read = True
            self.record.upload_s = time.monotonic() - asked_at
        lease = BodyLease(body, limits)
        if len(body) > LARGE_BODY_BYTES:
            del body
            with undone_on_failure(lease.release):
                await lease.wait_for_turn(self._endpoint.large_bodies, self.deadline)
        return lease

    def decode(self, body: HeldBody) -> ServedRequest:
        """See Inbound."""
        return self._dialect.decode(body.take())

    def begin(self, request: ServedRequest) -> None:
        """See Inbound."""
        if request.stream:
            self._endpoint.streams.take()
            self._is_counted = True
        self._running = self.deadline.task
        connection = self._responder.connection
        if connection is not None:
            connection.watch(self._cancel)
        else:
            self._watcher = asyncio.ensure_future(self._watch())

    def respond(self, answer: Answer, style: AnswerStyle) -> Awaitable[None] | None:
        """See Inbound."""
        names = self._headers.headers
        if b"anthropic-beta" in names:
            # The values switch features of Anthropic's API on, which another provider does not have.
            values = ",".join(self._headers.all(b"anthropic-beta")).split(",")[:_MOST_BETAS]
            self.record.shown.dropped |= {f"anthropic-beta.{value.strip()}" for value in values if value.strip()}
        if answer.completion is not None:
            return self._responder.respond_whole(answer.completion, style, self.deadline, self._limit_s)
        if answer.result is not None:
            return self._responder.respond_result(answer.result, style, self.deadline, self._limit_s)
        return self._responder.respond_stream(answer.stream, style, self.deadline) if answer.stream else None

    # Called by the endpoint.

    async def respond_plain(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Send a whole body that is not an answer of a provider."""
        await self._responder.respond_plain(body, headers)

    async def fail(self, error: Exception) -> None:
        """Report an error to the client."""
        await self._responder.fail(error, self.error_style, can_continue=self._can_continue())

    async def stop(self) -> None:
        """Report to the client that the gateway stops."""
        await self._responder.stop(self.error_style, can_continue=self._can_continue())

    def end(self) -> None:
        """Release what the request holds. From now on nothing cancels it."""
        if self._deadline_set:
            self.deadline.close()
        if self._responder.connection is not None:
            self._responder.connection.forget(self._cancel)
        elif self._watcher is not None:
            self._watcher.cancel()
        # Leave no reference cycle, so that all of it is freed here without the garbage collector.
        self._running = self._watcher = None
        if self._is_counted:
            self._endpoint.streams.give_back()

    def _can_continue(self) -> bool:
        """Whether the connection can serve another request after this one."""
        return self._body_read or (not self._body_begun and is_little(self._headers))

    def _take_received_body(self) -> bytes | None:
        """Return the body if all of it has arrived. From now on it counts as begun."""
        self._body_begun = True
        cycle = self._responder.cycle
        body = cycle.whole_body() if cycle is not None else None
        self._body_read = body is not None
        return body

    def _cancel(self) -> None:
        self.client_left = True
        connection = self._responder.connection
        self.record.detail = connection.why_lost if connection is not None else None
        if self._running is not None:
            self._running.cancel()

    async def _watch(self) -> None:
        """Ask for the loss of the connection, for a server that does not report it by itself."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._cancel()


def _body_limit_of(caller: Caller) -> int | None:
    client = caller.client
    return client.limits.body_bytes if client is not None and client.limits is not None else None
