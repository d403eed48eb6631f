"""The chat endpoint of all dialects: read a request's headers and body, and write its answer or its error.

`ChatEndpoint` makes an `HttpExchange` for each request. `HttpExchange.answer` has the order of all steps, from the
headers to the answer; the errors that they raise are sent to the client.

The dialect of the request decodes what is read and encodes what is written. The steps of reading are here, those of
writing in `WrittenExchange`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, cast

from gateway.api import body as bodies
from gateway.api.body_room import SMALL_BODY_BYTES, BodyLimits, BodyRoom
from gateway.api.caller.authentication import FailedKeyLimiter, TokenUnverified, token_error, verify_token
from gateway.api.caller.request_headers import (
    KnownCaller,
    headers_of,
    known_caller,
    read_caller,
    read_context,
    remember_caller,
)
from gateway.api.compressed_body import coding_of, decompress
from gateway.api.connection import CONNECTION, HEAD, SameHead
from gateway.api.dialects.dialect import JSON_MEDIA, CountingDialect, Dialect, FormDialect
from gateway.api.dialects.openai_chat import OPENAI_CHAT
from gateway.api.errors import ApiError
from gateway.api.written_exchange import Receive, Send, WrittenExchange
from gateway.execution.deadline import Deadline, Sweep
from gateway.execution.upstream_client import Answer, OwnAnswer
from gateway.inputs.answers import answer_input
from gateway.model.caller import Caller, RequestContext, VerifiesTokens
from gateway.model.config_version import Client, ConfigVersion
from gateway.model.location import ClaimRefused
from gateway.model.record import Record
from gateway.model.served import ServedRequest
from gateway.policy.caller import timeout_s
from gateway.service.chat_service import ChatService
from gateway.service.token_counting import count_prompt
from gateway.tasks import run_apart
from gateway.undo import undone_on_failure
from providers.chat import ChatRequest

_NO_EXTENSIONS: Mapping[str, Any] = {}


class ChatEndpoint:
    """The chat endpoint, with the limits that all its requests share.

    Attributes:
        in_flight: The requests that have begun and not ended.
        most_requests: With more in flight, a request is refused unread.
        limiter: Counts failed keys, here and at the other paths.
        large_bodies: Lets one large body at a time be parsed.
    """

    def __init__(
        self,
        service: ChatService,
        observe: Callable[[Record], None],
        most_requests: int = bodies.MOST_REQUESTS,
        tokens: VerifiesTokens | None = None,
    ) -> None:
        """Create the endpoint for one event loop. `observe` gets the record of each request that has ended."""
        self.service = service
        self.in_flight = 0
        self.limiter = FailedKeyLimiter(tokens=tokens)
        self.body_limits = BodyLimits()
        self.large_bodies = bodies.LargeBodyTurns()
        self.streams = bodies.StreamLimit()
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
        counting: CountingDialect | None = None,
        exchange_kind: type[HttpExchange] | None = None,
    ) -> None:
        """Answer one request in this dialect. Never raises on what a client or a provider does.

        With `counting`, the same dialect, the tokens of the request are counted. `exchange_kind` is the class of its
        exchange, or None for a request of HTTP.
        """
        started_at = time.monotonic()
        self.in_flight += 1
        record = Record("", started_at, "", route=dialect.route)
        exchange = (exchange_kind or HttpExchange)(self, scope, receive, send, record, dialect)
        try:
            await exchange.answer(self.service, counting)
        except bodies.ClientGone:
            record.outcome = record.outcome_if_left
        except asyncio.CancelledError:
            record.outcome = record.outcome_if_left
            if not exchange.client_left:
                await exchange.stop()
                raise
        except Exception as error:  # the outermost border: whatever happened, the client gets an answer
            await exchange.fail(error)
        finally:
            exchange.end()
            record.total_s = time.monotonic() - started_at
            self.in_flight -= 1
            self._observe(record)
            if record.duties:
                # The client left before it got what counts, or while it did.
                await exchange.count_duties()

    async def count_tokens(self, scope: Any, receive: Receive, send: Send, dialect: CountingDialect) -> None:
        """Answer how many tokens a prompt has: as a server of one's own counts, or by an estimate."""
        await self.answer(scope, receive, send, dialect, dialect)

    @property
    def open_streams(self) -> int:
        """How many of the requests in flight are streams."""
        return self.streams.open


class HttpExchange(WrittenExchange):
    """See `Exchange`. The request is read here. A warm-up is checked like a chat, and no deployment is asked."""

    __slots__ = (
        "_client_bytes",
        "_context",
        "_endpoint",
        "_head",
        "_is_counted",
        "_received_body",
        "_to_remember",
        "_watcher",
        "check_at",
    )
    check_at: float
    is_warm_up = False

    def __init__(
        self, endpoint: ChatEndpoint, scope: Any, receive: Receive, send: Send, record: Record, dialect: Dialect
    ) -> None:
        extensions: Mapping[str, Any] = scope.get("extensions", _NO_EXTENSIONS)
        super().__init__(record, endpoint.service, endpoint.sweep, extensions.get(CONNECTION), receive, send, dialect)
        self._endpoint, self._scope = endpoint, scope
        self._is_counted = False
        self._received_body: bytes | None = None
        # The limit of the client for bodies, if it has one.
        self._client_bytes: int | None = None
        self._context: RequestContext | None = None
        # The caller to remember once its location and its body are accepted. None if it was remembered already.
        self._to_remember: KnownCaller | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._head: SameHead | None = extensions.get(HEAD)

    async def answer(self, service: ChatService, counting: CountingDialect | None = None) -> None:
        """Answer the request. `counting`: its dialect, if it is answered with the number of its tokens.

        Client and location are checked by the headers alone, before any byte of the body is read.
        """
        record = self.record
        try:
            self.identify(service.decider.current())
        except TokenUnverified as token:
            self.identify(self.config, await self._endpoint.limiter.verify(self.config, self._headers, token))
        admission = await service.admitted(self)
        try:
            self.start()
            body = await self.body()
            try:
                if service.decider.current() is not self.config:
                    await service.decider.begin_again(self)
                if body.size_bytes > bodies.FEW_OBJECTS_BYTES and bodies.is_wide(body.body):
                    self.is_wide = True
                    await self.decode_apart(body)
                else:
                    self.decode(body)
                if counting is not None or self.is_warm_up:
                    await self.answer_apart(service, counting)
                    return
                request = self.request
                answer: Answer | OwnAnswer
                if not isinstance(request, ChatRequest):
                    answer = await answer_input(service, self, request)
                    record.first_s = time.monotonic() - record.started_at
                    if answer.stream is not None:
                        body.release()
                    del request, self.request
                    if (sending := self.respond(answer)) is not None:
                        await sending
                    return
                answer = await service.answer_chat(self, request)
                record.first_s = time.monotonic() - record.started_at
                watched = None
                if self.assistant.route_parts:
                    answer, watched = service.watched(self, request, answer)
                if watched is None and not self.assistant.resume:
                    # Nothing holds the request below this line, and its answer may take minutes.
                    body.release()
                del request, self.request
                sending = self.respond(answer)
                # Its texts take up to four times the memory of their bytes.
                del answer
                if sending is not None:
                    await sending
                if watched is not None:
                    record.total_s = time.monotonic() - record.started_at
                    watched.ended(body.size_bytes)
            finally:
                body.release()
        finally:
            if admission is not None:
                admission.release()

    async def read_caller(self, config: ConfigVersion) -> Caller:
        """See Exchange. A failed key is counted, and the request gets its id, only once.

        A token must have been valid when the request arrived.
        """
        try:
            return read_caller(config, self._headers)
        except TokenUnverified as token:
            arrived_s = time.time() - (time.monotonic() - self.record.started_at)
            try:
                client = await verify_token(config, self._endpoint.limiter.tokens, token, arrived_s)
            except ClaimRefused as refused:
                raise token_error(refused.problem) from None
            return read_caller(config, self._headers, verified=client)

    def identify(self, config: ConfigVersion, verified: Client | None = None) -> None:
        """Set `caller` from the headers. The caller of a head that came before on this connection is known already.

        Raises ApiError, or TokenUnverified. `verified`: the client of its token, which has just been verified.
        """
        self.config = config
        self.record.config_version = config.version
        known = known_caller(self._head, config, self._endpoint.limiter.tokens)
        # Only with the body at hand: the known headers have the length of another body.
        body = self._take_received_body() if known is not None else None
        self._received_body = body
        if known is not None and body is not None:
            headers = known.headers
        else:
            self._body_begun = False
            known, headers = None, headers_of(self._scope)
        record, endpoint = self.record, self._endpoint
        self._headers = headers
        context = self._context = read_context(config, headers)
        record.request_id = context.request_id
        if endpoint.in_flight > endpoint.most_requests:
            message = "the gateway has reached its limit of concurrent requests: repeat the request later"
            raise ApiError("overloaded", message, retry_after_s=1)
        record.trace = context.trace
        if known is None:
            known = KnownCaller(config, headers, read_caller(config, headers, endpoint.limiter, verified))
            self._to_remember = known
        self.caller = known.caller
        client = known.caller.client
        if client is not None and client.limits is not None:
            self._client_bytes = client.limits.body_bytes

    def start(self) -> None:
        """Check the headers of the body, and start the deadline, which the client may shorten. Raises ApiError."""
        if self._to_remember is not None:
            bodies.check_content_headers(self._headers, self._client_bytes, self._dialect.media)
            if b"content-encoding" in self._headers.headers:
                coding_of(self._headers)  # one that is not read is refused before the body
            remember_caller(self._head, self._to_remember)
        if self._dialect.media is not JSON_MEDIA:
            cast("FormDialect", self._dialect).read_head(self._headers)
        bounds, task = self.config.resilience, self.cycle.task if self.cycle is not None else None
        self.deadline = Deadline.start(bounds.total_s, bounds.commit_s, sweep=self._endpoint.sweep, task=task)
        if self._context is not None and self._context.timeout:
            self.deadline.shorten(timeout_s(self._context.timeout))

    async def body(self) -> bodies.BodyLease:
        """Read the whole body. Raises ApiError."""
        limits = self._endpoint.body_limits
        body, self._received_body = self._received_body, None
        if body is None:
            body = self._take_received_body()
        coding = coding_of(self._headers) if b"content-encoding" in self._headers.headers else None
        if body is not None and coding is None and len(body) <= SMALL_BODY_BYTES:
            if self._client_bytes is not None:
                bodies.check_body_size(len(body), self._client_bytes)
            limits.take(len(body))
            lease = bodies.BodyLease(body, limits)
        else:
            lease = await self._read_into_room(body, coding)
        if lease.size_bytes > bodies.LARGE_BODY_BYTES:
            del body
            with undone_on_failure(lease.release):
                await lease.wait_for_turn(self._endpoint.large_bodies, self.deadline)
                if self._dialect.media is not JSON_MEDIA:
                    await cast("FormDialect", self._dialect).read_large(lease.body)
        return lease

    async def _read_into_room(self, body: bodies.Body | None, coding: str | None) -> bodies.BodyLease:
        """Return the plain body. `body`: all of it, if it has arrived."""
        most = bodies.MAX_BODY_BYTES if self._client_bytes is None else self._client_bytes
        announced = bodies.announced_bytes(self._headers) if body is None else len(body)
        room = BodyRoom(
            self._endpoint.body_limits,
            "" if self.caller.client is None else self.caller.client.name,
            (most if announced is None else announced) + (most if coding is not None else 0),
        )
        with undone_on_failure(room.release):
            if body is not None:
                bodies.check_body_size(len(body), self._client_bytes)
            asked_at = time.monotonic()
            # Nothing of a body that has no room is read: the rest of it stays with the client.
            if announced is not None and (body is not None or announced > SMALL_BODY_BYTES):
                await room.hold(announced, self.deadline)
            if body is None:
                is_json = self._dialect.media is JSON_MEDIA
                body = await bodies.read_body(self._receive, room, self.deadline, self._client_bytes, copies=is_json)
                self._body_read = True
                self.record.upload_s = time.monotonic() - asked_at
            if coding is not None:
                body = await decompress(bytes(body), coding, room, self.deadline, self._client_bytes)
            room.settle(len(body))
            return bodies.BodyLease(body, room)

    async def decode_apart(self, body: bodies.BodyLease) -> None:
        """Do what `decode` does in a thread, for a body that would hold up all other requests."""
        started_at = time.monotonic()
        request = await run_apart(self._dialect.decode, body.take(keeps_turn=True))
        body.end_turn(started_at)
        self.decode(body, request)

    def decode(self, body: bodies.BodyLease, request: ServedRequest | None = None) -> None:
        """Set `request`. The bytes are released. From now on a disconnect of the client cancels the request.

        A stream is counted against the limit of streams. `request`: the body, if it was decoded. Raises ApiError.
        """
        if request is None:
            request = self._dialect.decode(body.take())
        self.request = request
        self.record.stream = request.stream
        if request.stream:
            self._endpoint.streams.take()
            self._is_counted = True
        task = self._running = (self.cycle.task if self.cycle is not None else None) or self.deadline.task
        if request.stream and (silence_s := self.config.resilience.keep_alive_s) and self._dialect.keep_alive:
            loop = task.get_loop()
            self.check_at = loop.time() + silence_s / 2
            self._endpoint.sweep.watch(self, loop)
        if self.connection is not None:
            self.connection.watch(self._cancel)
        else:
            self._watcher = asyncio.ensure_future(self._watch())

    def end(self) -> None:
        """Release what the request holds. From now on nothing cancels it."""
        if self.record.stream:
            self._stop_waiting()
        if self.connection is not None:
            self.connection.forget(self._cancel)
        elif self._watcher is not None:
            self._watcher.cancel()
        if hasattr(self, "deadline"):
            self.deadline.close()
        # Leave no reference cycle, so that all of it is freed here without the garbage collector.
        self._running = self._watcher = self._encoder = None
        if self._is_counted:
            self._endpoint.streams.give_back()

    def _take_received_body(self) -> bytes | None:
        """Return the body if all of it has arrived. From now on it counts as begun."""
        self._body_begun = True
        body = self.cycle.whole_body() if self.cycle is not None else None
        self._body_read = body is not None
        return body

    async def _watch(self) -> None:
        """Ask for the loss of the connection, for a server that does not report it by itself."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._cancel()

    async def answer_apart(self, service: ChatService, counting: CountingDialect | None) -> None:
        """Answer without a chat, with the number of tokens."""
        if counting is not None:
            tokens, is_estimated = await count_prompt(service, self)
            self.record.shown.status = 200
            headers = {"x-gateway-estimated": "true"} if is_estimated else {}
            await self._write_response(200, counting.encode_count(tokens), headers)
