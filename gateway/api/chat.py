"""`POST /v1/chat/completions`: one plain ASGI callable, from the socket to the socket.

The order is the order of trust: the key and the place are judged from headers alone; only then is a body read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.api.arrival import Arrival, arrived_before, remember_arrival
from gateway.api.body import (
    MOST_REQUESTS,
    BodyLimits,
    ClientGone,
    StreamLimit,
    check_content_headers,
    read_body,
    read_request,
)
from gateway.api.consent import consent_said
from gateway.api.door import Visitor, authenticate, headers_of, request_id_of, timeout_s_of
from gateway.api.errors import ApiError
from gateway.api.exchange import Exchange
from gateway.api.guesses import KeyGuesses
from gateway.api.limits import ClientLimits
from gateway.api.person import user_of
from gateway.api.place import locate, placed, sighted, voice_of
from gateway.api.trace_context import begin_trace, trace_of
from gateway.execution.deadline import Deadline, Sweep
from gateway.model.config_version import Client, ConfigVersion
from gateway.model.consent import NO_STATEMENT
from gateway.model.location import Location
from gateway.model.record import Record
from gateway.policy.labels import labelling_of
from gateway.policy.location import Sighting
from gateway.service.journey import Journeys
from gateway.service.shadows import Shadows
from gateway.service.speaking import spoken
from gateway.service.transcript import transcript
from providers.chat import ChatRequest

CHAT_PATH = "/v1/chat/completions"

Receive = Callable[[], Any]
Send = Callable[[Any], Any]
# What a client gets beyond the request's time to take the last of its answer, such as the error that says so.
_LAST_WORD_S = 1.0


class ChatEndpoint:
    """The chat endpoint. `observe` gets the record of each request when it has ended, however it ended.

    log_prompt: gets the text of a request as well, where its region wants that logged.
    in_flight: how many requests have begun and not ended; beyond `most_requests`, one is refused unread. guesses: the
    wrong keys that have come, here and at the other paths.
    """

    def __init__(
        self,
        journeys: Journeys,
        observe: Callable[[Record], None],
        client_limits: ClientLimits | None = None,
        shadows: Shadows | None = None,
        most_requests: int = MOST_REQUESTS,
        log_prompt: Callable[[Record, str], None] | None = None,
    ) -> None:
        self.in_flight = 0
        self.guesses = KeyGuesses()
        self._most_requests = most_requests
        self._journeys = journeys
        self._observe = observe
        self._client_limits = client_limits or ClientLimits()
        self._shadows = shadows
        self._log_prompt = log_prompt
        self._limits = BodyLimits()
        self._streams = StreamLimit()
        self._sweep = Sweep()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """One request, as an ASGI application. Never raises on what a client or a provider does."""
        started_at = time.monotonic()
        self.in_flight += 1
        table = self._journeys.current()
        record = Record("", started_at, table.version)
        exchange = Exchange(scope, receive, send, record)
        exchange.blocked_by = table.blocked_by
        try:
            await self._serve(scope, table, exchange)
        except ClientGone:
            record.outcome = "cancelled"
        except asyncio.CancelledError:
            record.outcome = "cancelled"
            if not exchange.client_left:
                await exchange.stop()
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

    async def _serve(self, scope: Any, table: ConfigVersion, exchange: Exchange) -> None:
        record, body = exchange.record, None
        arrival = arrived_before(exchange.head, table)
        if arrival is not None and (body := exchange.begin_body()) is not None:
            self._greet(table, arrival.visitor, record)
            self._count(arrival.client, exchange)
            record.location = arrival.location
        else:
            arrival = await self._judge(scope, table, exchange)
        visitor = arrival.visitor
        bounds = table.resilience
        deadline = exchange.deadline = Deadline.start(
            bounds.total_s, bounds.commit_s, sweep=self._sweep, task=exchange.task
        )
        if b"x-gateway-timeout-ms" in visitor.headers:
            deadline.shorten(timeout_s_of(visitor))
        if body is None and (body := exchange.begin_body()) is None:
            body = await self._upload(exchange, deadline)
        else:
            self._limits.take(len(body))
        body_bytes = held_bytes = len(body)
        try:
            while (current := self._journeys.current()) is not table:
                table = current
                arrival = await self._begin_anew(table, visitor, exchange)
            client, sighting, location = arrival.client, arrival.sighting, arrival.location
            request = read_request(body)
            del body
            self._admit(request, location, exchange)
            assistant = table.assistants.get(request.model)
            if assistant is not None and not assistant.reveal_model:
                exchange.shown_model = assistant.name
            exchange.watch_for_leaving(deadline.task)
            voice = exchange.voice = voice_of(location, visitor)
            said = consent_said(table, client, visitor, sighting) if table.recipients else NO_STATEMENT
            user = user_of(client, visitor, sighting)
            answer = await self._journeys.answer(
                table, client, location, request, deadline, record, voice, user, said, arrival
            )
            record.first_s = time.monotonic() - record.started_at
            turn = self._shadows.turn(table, location, record, answer) if self._shadows is not None else None
            stream = answer.stream if turn is None or turn.heard is None else turn.heard.stream
            if voice is not None and (labelling := labelling_of(voice, request)) is not None:
                exchange.labelling, record.labels = labelling, labelling.names
            asked = request if turn is not None else None
            del request
            if asked is None and not (assistant is not None and assistant.resume):
                # Nobody holds it any more, and its answer may take minutes.
                self._limits.give_back(held_bytes)
                held_bytes = 0
            if answer.completion is not None:
                whole = exchange.written(answer.completion)
                # Its texts take up to four times the memory of its bytes, for which a client may take its time.
                del answer
                if not exchange.answer_at_once(whole):
                    await self._send(deadline, exchange, exchange.answer_whole(whole), bounds.total_s)
            elif stream is not None and not exchange.stream_at_once(stream):
                sending = exchange.answer_stream(stream, table.resilience.keep_alive_s)
                await self._send(deadline, exchange, sending, deadline.left_s(committed=True))
            if self._shadows is not None and turn is not None and asked is not None:
                record.total_s = time.monotonic() - record.started_at
                heard = spoken(table, location, voice, asked, record) if voice is not None else asked
                self._shadows.offer(turn, table, location, heard, record, body_bytes)
        finally:
            if held_bytes:
                self._limits.give_back(held_bytes)

    async def _send(self, deadline: Deadline, exchange: Exchange, sending: Awaitable[None], for_s: float) -> None:
        """Send an answer that may have to wait for its client: a stream for what is left of the request's time, and a
        whole one, which is there in time, for as long once more."""
        try:
            with deadline.limit(for_s + _LAST_WORD_S):
                await sending
        except TimeoutError:
            await exchange.cut_off()

    async def _judge(self, scope: Any, table: ConfigVersion, exchange: Exchange) -> Arrival:
        """Who asks and from where, by a head that nobody has judged yet; raises what either is refused with."""
        visitor = exchange.unread = headers_of(scope)
        self._greet(table, visitor, exchange.record)
        client = self.guesses.authenticate(table, visitor)
        self._count(client, exchange)
        # Awaited where it has to be: most tables have no signal beyond the headers, and each call of a request counts.
        if table.location.beyond_headers:
            sighting, location = await self._seek(table, client, visitor, exchange.record)
        else:
            sighting, location, refused = placed(table, client, visitor)
            exchange.record.location = location
            if refused is not None:
                raise refused
        check_content_headers(visitor)
        arrival = Arrival(table, visitor, client, sighting, location)
        remember_arrival(exchange.head, arrival)
        return arrival

    async def _begin_anew(self, table: ConfigVersion, visitor: Visitor, exchange: Exchange) -> Arrival:
        """Who asks and where it comes from, where the config has changed while the body came in.

        Nothing is decided yet, so the new config decides it all, and what the old one made of it is not told. Against
        its client's limits the request has been counted, by the old one.
        """
        record = exchange.record
        record.table, record.client, record.location = table.version, None, None
        exchange.blocked_by = table.blocked_by
        client = authenticate(table, visitor)
        if client is not None:
            record.client = client.name
        return Arrival(table, visitor, client, *await self._seek(table, client, visitor, record))

    async def _seek(
        self, table: ConfigVersion, client: Client | None, visitor: Visitor, record: Record
    ) -> tuple[Sighting, Location]:
        """Where it comes from; raises what a place that gets no answer is told."""
        sighting = await sighted(table, visitor, self._journeys.signals)
        record.location, refused = locate(table, client, sighting)
        if refused is not None:
            raise refused
        return sighting, record.location

    def _greet(self, table: ConfigVersion, visitor: Visitor, record: Record) -> None:
        """By what the request is known in logs and traces; raises ApiError where too many are here already."""
        record.request_id = request_id_of(visitor)
        if self.in_flight > self._most_requests:
            raise ApiError("overloaded", "this gateway answers as many requests as it can", retry_after_s=1)
        record.trace = trace_of(visitor) or (begin_trace() if table.exporters else None)

    def _count(self, client: Client | None, exchange: Exchange) -> None:
        """Whether who asks may ask so much."""
        if client is not None:
            record = exchange.record
            record.client = client.name
            if client.limits is not None:
                exchange.taken = self._client_limits.take(client, client.limits, record)

    def _admit(self, request: ChatRequest, location: Location, exchange: Exchange) -> None:
        """What its body says of how it is answered; raises ApiError for a stream too many."""
        exchange.record.stream = request.stream
        exchange.include_usage = request.include_usage
        exchange.choices = request.n or 1
        if location.region is not None and location.region.log_prompts and self._log_prompt is not None:
            self._log_prompt(exchange.record, transcript(request))
        if request.stream:
            self._streams.take()
            exchange.is_counted = True

    async def _upload(self, exchange: Exchange, deadline: Deadline) -> bytes:
        """The body of which a part is still to come, and how long that took."""
        asked_at = time.monotonic()
        body = await read_body(exchange.receive, self._limits, deadline)
        exchange.body_read = True
        exchange.record.upload_s = time.monotonic() - asked_at
        return body
