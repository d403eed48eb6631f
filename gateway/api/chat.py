"""`POST /v1/chat/completions`: one plain ASGI callable, from the socket to the socket.

The order is the order of trust: the key and the place are judged from headers alone; only then is a body read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson

from gateway.api.body import BodyLimits, ClientGone, StreamLimit, check_content_headers, drain, parse_json, read_body
from gateway.api.door import (
    Visitor,
    address_of,
    authenticate,
    claims_of,
    headers_of,
    request_id_of,
    sighting_of,
    timeout_s_of,
)
from gateway.api.errors import ApiError, encode_error, from_domain, whole_seconds
from gateway.api.headers import response_headers
from gateway.api.keep_alive import KeepAlive
from gateway.api.ledger import Taken
from gateway.api.limits import ClientLimits
from gateway.api.line import LINE, Line
from gateway.api.stream import ChunkEncoder, encode_stream_error
from gateway.api.trace_context import begin_trace, trace_of
from gateway.execution.deadline import Deadline
from gateway.execution.stream import LiveStream
from gateway.model.location import Location
from gateway.model.record import Record
from gateway.model.table import Client, Table
from gateway.policy.location import Sighting, resolve
from gateway.policy.routing import refuse_location
from gateway.service.journey import Journeys, Refused
from providers.chat import ChatCompletion, ChatRequest
from providers.codec import decode_request, encode_completion

__all__ = ["ChatEndpoint"]

Receive = Callable[[], Any]
Send = Callable[[Any], Any]
# What a client gets beyond the request's time to take the last of its answer, such as the error that says so.
_LAST_WORD_S = 1.0
_STREAM_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


class ChatEndpoint:
    """The chat endpoint. `observe` gets the record of each request when it has ended, however it ended.

    in_flight: how many requests have begun and not ended.
    """

    def __init__(
        self, journeys: Journeys, observe: Callable[[Record], None], client_limits: ClientLimits | None = None
    ) -> None:
        self.in_flight = 0
        self._journeys = journeys
        self._observe = observe
        self._client_limits = client_limits or ClientLimits()
        self._limits = BodyLimits()
        self._streams = StreamLimit()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """One request, as an ASGI application. Never raises on what a client or a provider does."""
        started_at = time.monotonic()
        self.in_flight += 1
        table = self._journeys.current()
        record = Record("", started_at, table.version)
        exchange = _Exchange(scope, receive, send, record)
        try:
            await self._serve(scope, table, exchange)
        except ClientGone:
            record.outcome = "cancelled"
        except asyncio.CancelledError:
            record.outcome = "cancelled"
            if not exchange.client_left:
                raise
        except Exception as error:  # the outermost border: whatever happened, the client gets an answer
            await exchange.fail(error)
        finally:
            exchange.end()
            if exchange.is_counted:
                self._streams.give_back()
            if exchange.taken is not None:
                exchange.taken.give_back()
            record.total_s = time.monotonic() - started_at
            self.in_flight -= 1
            self._observe(record)

    @property
    def open_streams(self) -> int:
        """How many of them are streams."""
        return self._streams.open

    async def _serve(self, scope: Any, table: Table, exchange: _Exchange) -> None:
        record = exchange.record
        visitor, client = self._admit(scope, table, exchange)
        beyond = table.location.beyond_headers
        sighting = await self._look_further(table, visitor) if beyond else sighting_of(table, visitor)
        location = _place(table, client, sighting, record)
        exchange.body_read = not _has_body(visitor)
        check_content_headers(visitor)
        deadline = exchange.deadline = Deadline.start(table.resilience.total_s, table.resilience.commit_s)
        if (timeout_s := timeout_s_of(visitor)) is not None:
            deadline.shorten(timeout_s)
        with self._limits.hold() as held:
            asked_at = time.monotonic()
            body = await read_body(exchange.receive, held, deadline)
            record.upload_s = time.monotonic() - asked_at
            exchange.body_read = True
            while (current := self._journeys.current()) is not table:
                # The config has changed while the body came in: nothing is decided yet, so the new one decides it all.
                # Against its client's limits the request has been counted, by the old one.
                table = current
                record.table = table.version
                client = authenticate(table, visitor)
                location = _place(table, client, await self._look_further(table, visitor), record)
            request = decode_request(parse_json(body))
            del body
            record.stream = request.stream
            if request.stream:
                self._streams.take()
                exchange.is_counted = True
            exchange.watch_for_leaving(deadline.task)
            answer = await self._journeys.answer(table, client, location, request, deadline, record)
        record.first_s = time.monotonic() - record.started_at
        try:
            with deadline.limit(deadline.left_s(committed=True) + _LAST_WORD_S):
                if answer.completion is not None:
                    await exchange.answer_whole(answer.completion)
                elif answer.stream is not None:
                    await exchange.answer_stream(answer.stream, request, table.resilience.keep_alive_s)
        except TimeoutError:
            await exchange.cut_off()

    def _admit(self, scope: Any, table: Table, exchange: _Exchange) -> tuple[Visitor, Client | None]:
        """Who asks, and whether it may ask so much."""
        record = exchange.record
        visitor = headers_of(scope)
        record.request_id = request_id_of(visitor)
        record.trace = trace_of(visitor) or (begin_trace() if table.exporters else None)
        client = authenticate(table, visitor)
        if client is not None:
            record.client = client.name
            if client.limits is not None:
                exchange.taken = self._client_limits.take(client, client.limits, record)
        return visitor, client

    async def _look_further(self, table: Table, visitor: Visitor) -> Sighting:
        """What tells of the caller's place beyond the headers alone: a verified claim, the place of an address."""
        sighting, claims, address = sighting_of(table, visitor), claims_of(visitor), address_of(table, visitor)
        return await self._journeys.signals.complete(table.location, sighting, claims, address)


def _place(table: Table, client: Client | None, sighting: Sighting, record: Record) -> Location:
    """Where from; raises Refused for a place that gets no answer, whatever is asked."""
    location = record.location = resolve(table, client, sighting)
    refusal = refuse_location(table, location)
    if refusal is not None:
        raise Refused(refusal)
    return location


def _has_body(visitor: Visitor) -> bool:
    return visitor.one(b"content-length") not in (None, "0") or b"transfer-encoding" in visitor.headers


class _Exchange:
    """One request's two pipes: what was read of it, what was sent, and the watch for the client leaving."""

    def __init__(self, scope: Any, receive: Receive, send: Send, record: Record) -> None:
        self.receive = receive
        self.record = record
        self.body_read = False
        self.client_left = False
        self.is_counted = False
        self.deadline: Deadline | None = None
        self.taken: Taken | None = None
        self._send = send
        self._head_sent = False
        self._line: Line | None = scope.get("extensions", {}).get(LINE)
        self._watcher: asyncio.Task[None] | None = None
        self._journey: asyncio.Task[Any] | None = None

    def watch_for_leaving(self, journey: asyncio.Task[Any]) -> None:
        """From now on, the client going away cancels this request, and with it the upstream call."""
        self._journey = journey
        if self._line is not None:
            self._line.watch(self._leave)
        else:
            self._watcher = asyncio.ensure_future(self._watch())

    def _leave(self) -> None:
        self.client_left = True
        if self._journey is not None:
            self._journey.cancel()

    async def _watch(self) -> None:
        """For a server that doesn't tell of a lost connection by itself: ask for it."""
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def end(self) -> None:
        """The request has ended: nobody is to be cancelled any more."""
        if self.deadline is not None:
            self.deadline.close()
        if self._line is not None:
            self._line.forget(self._leave)
        if self._watcher is not None:
            self._watcher.cancel()
        # No cycle is left behind: what ends here is freed here, without the collector.
        self._journey = self._watcher = None

    async def answer_whole(self, completion: ChatCompletion) -> None:
        """Send a whole answer."""
        self.record.status = 200
        self.record.usage = completion.usage
        if not completion.id:
            completion = replace(completion, id=f"chatcmpl-{self.record.request_id}")
        body = encode_completion(completion, completion.model)
        raw = [choice.raw_finish_reason for choice in completion.choices if choice.finish_reason == "other"]
        if any(raw):
            body["x_gateway"] = {"finish_reason": ", ".join(sorted(word for word in raw if word))}
        await self._respond(200, orjson.dumps(body))

    async def answer_stream(self, stream: LiveStream, request: ChatRequest, keep_alive_s: float) -> None:
        """Send a stream as it comes; the reader's pace is the provider's."""
        self.record.status = 200
        encoder = ChunkEncoder(request.include_usage, f"chatcmpl-{self.record.request_id}")
        keep_alive = KeepAlive(keep_alive_s, self._send)
        try:
            await self._start(200, [*_STREAM_HEADERS, *response_headers(self.record)])
            async for events in stream:
                if data := encoder.encode(events):
                    if encoder.finished or encoder.failed is not None:
                        keep_alive.stop()
                    keep_alive.is_silent = False
                    await self._send({"type": "http.response.body", "body": data, "more_body": True})
        finally:
            keep_alive.stop()
            await stream.close()
        self.record.usage = encoder.usage
        if encoder.failed is not None:
            self.record.outcome, self.record.code = "interrupted", "stream_interrupted"
            self.record.detail = encoder.failed.failure.detail or encoder.failed.failure.message
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def cut_off(self) -> None:
        """The client is there, and takes nothing: its time is over, and nobody can be told."""
        self.record.outcome, self.record.detail = "cancelled", "the client did not take its answer in time"
        if self._line is not None:
            self._line.cut()
            # The connection is lost in the loop's next round.
            await asyncio.sleep(0)

    async def fail(self, error: Exception) -> None:
        """Tell the client what went wrong: as a response, or inside a stream that has begun."""
        shown = from_domain(error, self.record.attempts)
        self._note(shown, error)
        if self._head_sent:
            self.record.outcome = "interrupted"
            data = encode_stream_error(ApiError("stream_interrupted", shown.message))
            await self._send({"type": "http.response.body", "body": data, "more_body": False})
            return
        headers = dict(shown.headers)
        if shown.retry_after_s is not None:
            headers["retry-after"] = whole_seconds(shown.retry_after_s)
        await self._respond(shown.status, orjson.dumps(encode_error(shown)), headers)

    def _note(self, shown: ApiError, error: Exception) -> None:
        record = self.record
        record.status, record.code = shown.status, shown.code
        if shown.code == "internal_error":
            record.outcome, record.detail = "internal_error", f"{type(error).__name__}: {error}"
        else:
            # Nobody asked, because all are benched, is the outage that a failure before it has made.
            record.outcome = "failed" if record.attempts or shown.status >= 500 else "refused"
            record.detail = shown.message

    async def _respond(self, status: int, body: bytes, more: dict[str, str] | None = None) -> None:
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            *response_headers(self.record),
            *((name.encode(), value.encode("latin-1", "replace")) for name, value in (more or {}).items()),
        ]
        if not self.body_read:
            headers.append((b"connection", b"close"))
        await self._start(status, headers)
        if not self.body_read:
            # The answer leaves first; the rest of the body is then read off, so that no reset overtakes it.
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
            await drain(self.receive)
            body = b""
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._head_sent = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
