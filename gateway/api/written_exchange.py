"""Write the answer or the error of one request to its HTTP client, in the dialect of the request.

There is one writer for a whole answer and one for a stream. Both first try to write everything at once, which needs no
wait and no further task switch. An error is a response of its own, or the last event of a stream that has begun.

The head of a stream is sent even before the answer if only one deployment can give it, because the head names it. A
failure before the answer is then an event with the code that a response would have had.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from traceback import extract_tb
from typing import Any

from gateway.api.body import drain, is_little
from gateway.api.connection import NOT_TAKEN, ClientConnection, Cycle
from gateway.api.dialects.dialect import Dialect, StreamEncoder
from gateway.api.dialects.labelling import MEMBER
from gateway.api.dialects.openai_chat import InputDialect
from gateway.api.errors import ApiError, blocking_link, from_domain, whole_seconds
from gateway.api.keep_alive import KeepAlive
from gateway.api.response_headers import json_lines, pairs_of, response_lines
from gateway.execution.answer_stream import AnswerStream, LargeEvents, TakeText
from gateway.execution.deadline import Sweep
from gateway.execution.exchange import AnswerStyle, Exchange, TimedChat
from gateway.execution.run import PlanExhausted
from gateway.execution.upstream_client import Answer, OwnAnswer
from gateway.model.caller import RequestHeaders
from gateway.model.moderation import NoVerdict
from gateway.model.record import UNANSWERED
from gateway.model.refusal_reason import STATUS
from gateway.policy.region_text import sentence_for
from gateway.public_names import RESPONSE_HEADERS, names_in
from gateway.service.chat_service import ChatService
from gateway.tasks import run_apart
from gateway.usage.client_limits import LimitReached
from gateway.usage.refusals import CallRefused
from providers.chat import ChatCompletion, StreamEvent, Usage
from providers.served import InputAnswer
from providers.value import replace

Receive = Callable[[], Any]
Send = Callable[[Any], Any]
_AT_ONCE_BYTES = 64 * 1024
"""The server accepts this much without waiting for the client (uvicorn's `HIGH_WATER_LIMIT`). The end of a larger
answer is sent separately, and waits."""
_LAST_EVENT_S = 1.0
"""The time beyond the request's deadline in which a client can read the end of its answer, such as an error."""
_SLOW_S = 1.0
"""The time of a user is counted before an answer is written, and again if its client has read for so long."""
_STOPPED = "the gateway was stopped before the answer was complete: repeat the request"
_STREAM_LINES = (b"cache-control: no-cache", b"x-accel-buffering: no")
_MOST_BETAS = 16
_LATER = tuple(name.encode() + b":" for name in names_in(RESPONSE_HEADERS, "late"))
"""The beginnings of the lines of headers that are not known before an answer has begun."""


# Slots are read faster than defaults of the class, and every request reads most of these.
@dataclass(slots=True, eq=False, repr=False)
class WrittenExchange(Exchange):
    """See `Exchange`. Its answer is written here, to the client's connection if the server is ours.

    `client_left`: The client closed its connection, which has cancelled the request.
    """

    _service: ChatService
    _sweep: Sweep
    connection: ClientConnection | None
    _receive: Receive
    _send: Send
    _dialect: Dialect
    _headers: RequestHeaders = field(init=False)
    _scope: Any = field(init=False)
    _body_begun: bool = False
    _body_read: bool = False
    _head_sent: bool = False
    client_left: bool = False
    # A stream may have a head, and has nothing of an answer yet.
    _waits: bool = False
    # Fills the silence before an answer begins.
    _keep_alive: KeepAlive | None = None
    # The duties that are counted already.
    _counted: frozenset[str] = frozenset()
    _running: asyncio.Task[Any] | None = None
    # The encoder of a stream that has begun.
    _encoder: StreamEncoder | None = None
    cycle: Cycle | None = field(init=False)
    _direct: Cycle | None = field(init=False)

    def __post_init__(self) -> None:
        cycle = self.cycle = self.connection.cycle if self.connection is not None else None
        # If something wraps `send`, as CORS does, it must see the head of the answer: then nothing is written directly.
        self._direct = cycle if cycle is not None and cycle.send == self._send else None

    def watch_itself(self) -> None:
        """Fill the silence before the answer. Half of the time to the first comment is over."""
        silence_s = self.config.resilience.keep_alive_s
        self._keep_alive = KeepAlive(silence_s, self._send_waiting, self._dialect.keep_alive)
        self._keep_alive.is_silent = True

    async def _send_waiting(self, message: Any) -> None:
        """Send a comment before the answer has begun, after the head of the stream, if it is known who answers."""
        if not self._head_sent:
            if not self._service.foresee(self):
                return
            self._note_own_names()
            lines = [line for line in self._stream_lines() if not line.startswith(_LATER)]
            self.record.answered_by, self._waits = UNANSWERED, True
            await self._start(200, pairs_of(lines))
        await self._send(message)

    def _stop_waiting(self) -> None:
        self._sweep.forget(self)
        if self._keep_alive is not None:
            self._keep_alive.stop()

    def _note_own_names(self) -> None:
        """Name what is left out as the API of the client does."""
        dropped = self.record.shown.dropped
        if "user" in dropped:
            self.record.shown.dropped = dropped - {"user"} | {self._dialect.user_field}
        if b"anthropic-beta" in self._headers.headers:
            # The values switch features of Anthropic's API on, which another provider does not have.
            values = ",".join(self._headers.all(b"anthropic-beta")).split(",")[:_MOST_BETAS]
            self.record.shown.dropped |= {f"anthropic-beta.{value.strip()}" for value in values if value.strip()}

    def respond(self, answer: Answer | OwnAnswer) -> Awaitable[None] | None:
        """Encode the answer in `style`, and write it now if the client takes it without a wait; then return None.

        Otherwise return an awaitable that writes the rest. It does not hold a whole answer, for which a slow client may
        take minutes.
        """
        style = self.style
        if self.record.stream:
            self._stop_waiting()
        if self.record.shown.dropped or b"anthropic-beta" in self._headers.headers:
            self._note_own_names()
        if answer.completion is not None:
            if answer.is_large:
                writing = self._respond_large([answer.completion], style)
                return self._write_within(self.config.resilience.total_s, writing)
            return self.respond_whole(answer.completion, style)
        if answer.result is not None:
            return self._respond_result(answer.result, style)
        return self.respond_stream(answer.stream, style) if answer.stream else None

    async def _respond_large(self, held: list[ChatCompletion], style: AnswerStyle) -> None:
        """Write the one answer of a list, which is large. No other request waits while it is encoded and then freed."""
        usage = held[0].usage

        def encoded() -> bytes:
            return self._dialect.encode_answer(held.pop(), style, self.record)

        if (writing := self._respond_body(await run_apart(encoded), usage)) is not None:
            await writing

    def respond_whole(self, completion: ChatCompletion, style: AnswerStyle) -> Awaitable[None] | None:
        """Write a whole answer. The awaitable does not hold it. From now on the client has the whole time again."""
        return self._respond_body(self._dialect.encode_answer(completion, style, self.record), completion.usage)

    def _respond_body(self, body: bytes, usage: Usage | None) -> Awaitable[None] | None:
        """Write a whole answer that is encoded."""
        record = self.record
        record.shown.status = 200
        record.count(usage)
        time_of_chat = self.chat_time
        if time_of_chat is not None and record.shown.is_noticed:
            self._note_notice(time_of_chat)
        is_due = time_of_chat is not None and not time_of_chat.end_now()
        direct = self._direct if not record.duties and not is_due else None
        if direct is not None and direct.respond(json_lines(record), body):
            self._head_sent = True
            return None
        if time_of_chat is not None:
            writing = self._write_timed(body, time_of_chat, is_due=is_due)
        else:
            writing = self._write_response(200, body)
        return self._write_within(self.config.resilience.total_s, writing)

    async def _write_timed(self, body: bytes, time_of_chat: TimedChat, *, is_due: bool) -> None:
        """Write a whole answer whose time counts until the client has it. `is_due`: its end is not noted yet."""
        if is_due:
            await time_of_chat.end()
        began_at = time.monotonic()
        try:
            await self._write_response(200, body)
        finally:
            if time.monotonic() - began_at >= _SLOW_S:
                time_of_chat.extend_soon()

    def _note_notice(self, time_of_chat: TimedChat) -> None:
        labelling = self.style.labelling
        if not time_of_chat.is_noticed and labelling is not None:
            time_of_chat.show_notice(self.record, is_repeated=labelling.notice == "repeated")

    async def _respond_result(self, result: InputAnswer, style: AnswerStyle) -> None:
        """Write an answer of another use than chat."""
        record = self.record
        record.shown.status = 200
        record.count(result.usage)
        if not isinstance(self._dialect, InputDialect):
            raise TypeError("the dialect of a chat has no such answer")
        encode = self._dialect.encode_result
        given = result, style, record
        body = await asyncio.to_thread(encode, *given) if result.is_large else encode(*given)
        writing = self._write_response(200, body, media=self._dialect.whole_type)
        await self._write_within(self.config.resilience.total_s, writing)

    def respond_stream(self, stream: AnswerStream, style: AnswerStyle) -> Awaitable[None] | None:
        """Write a stream, at once if all of it is here. The client may read until the deadline."""
        tap = stream.text_tap()
        events = tap.whole_events() if tap is not None else ()
        is_small = events and events.__class__ is not LargeEvents
        if is_small and self._direct is not None and not self._head_sent:
            encoder = self._dialect.encoder(style, self.record)
            data = encoder.encode(events if style.seal is None else style.seal.seal_events(events))
            self.record.shown.status = 200
            if self._is_counted_now() and self._direct.respond_stream(self._stream_lines(), data):
                self._head_sent = True
                self.record.count(encoder.usage)
                return None
        return self._write_within(self.deadline.left_s(committed=True), self._write_stream(stream, style))

    def _is_counted_now(self) -> bool:
        """Return whether nothing has to be waited for that counts before the last byte: no duty, and no time."""
        time_of_chat = self.chat_time
        if time_of_chat is not None and self.record.shown.is_noticed:
            self._note_notice(time_of_chat)
        return not self.record.duties and (time_of_chat is None or time_of_chat.end_now())

    async def _write_within(self, limit_s: float, writing: Awaitable[None]) -> None:
        try:
            with self.deadline.limit(limit_s + _LAST_EVENT_S):
                await writing
        except TimeoutError:
            # The client has read nothing until its time was over: it would not read an error.
            self.record.outcome, self.record.detail = "cancelled", NOT_TAKEN
            if self.connection is not None:
                self.connection.cut()
                # The connection is lost in the next turn of the loop.
                await asyncio.sleep(0)

    async def _write_stream(self, stream: AnswerStream, style: AnswerStyle) -> None:
        """Write events as they arrive. A slow client slows down the provider."""
        record, cycle = self.record, self.cycle
        record.shown.status = 200
        encoder = self._encoder = self._dialect.encoder(style, record)
        encoder.interrupted = self._interrupted
        is_held = record.moderation is not None
        # An answer that is held is written by its events alone. It has a status when its first text is released, or
        # when silence must be filled.
        tap = stream.text_tap() if not is_held else None
        self._waits = True
        keep_alive = KeepAlive(style.keep_alive_s, self._send_begun, self._dialect.keep_alive)
        try:
            if not is_held:
                await self._begin_stream()
            async for events in stream:
                if events.__class__ is LargeEvents:
                    data = await run_apart(_encoded, encoder, events, style)
                else:
                    data = encoder.encode(events if style.seal is None else style.seal.seal_events(events))
                if encoder.finished or encoder.failed is not None:
                    keep_alive.stop()
                if self._waits or record.duties != self._counted or self.chat_time is not None:
                    await self._do_before(encoder, has_data=bool(data))
                if data:
                    keep_alive.is_silent = False
                    if cycle is None or not cycle.write(data):
                        await self._send({"type": "http.response.body", "body": data, "more_body": True})
                if tap is not None and cycle is not None:
                    tap.pass_texts_to(_text_writer(cycle, encoder, keep_alive))
        finally:
            keep_alive.stop()
            if self.chat_time is not None:
                self.chat_time.broke_off()
            await stream.close()
        record.count(encoder.usage)
        if encoder.failed is not None:
            record.outcome, record.shown.code = "interrupted", "stream_interrupted"
            record.detail = encoder.failed.failure.detail or encoder.failed.failure.message
            if encoder.breaks_off:
                await self._break_off()
                return
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _do_before(self, encoder: StreamEncoder, *, has_data: bool) -> None:
        """Do what comes before more of a stream leaves. Raises PlanExhausted if it has failed before it began."""
        time_of_chat = self.chat_time
        if time_of_chat is not None:
            if self.record.shown.is_noticed:
                self._note_notice(time_of_chat)
            if encoder.finished:
                await time_of_chat.end()
        if self.record.duties != self._counted:
            await self.count_duties()
        if self._waits and (has_data or encoder.finished):
            if encoder.failed is not None:
                raise PlanExhausted(encoder.failed.failure)
            if not self._head_sent:
                await self._begin_stream()
            self._waits = False
            if time_of_chat is not None and not encoder.finished:
                await time_of_chat.begin()

    async def _begin_stream(self) -> None:
        if not self._head_sent:
            await self._start(200, pairs_of(self._stream_lines()))

    async def _send_begun(self, message: Any) -> None:
        """Send a part of a stream, after its head."""
        await self._begin_stream()
        await self._send(message)

    async def _break_off(self) -> None:
        """Close the connection before the end of an answer that has no place for an error: it must not look whole."""
        if self.connection is not None:
            self.connection.forget(self._cancel)
            # A body of HTTP/1.0 has no other end than that of its connection.
            end = self.connection.reset if self._scope["http_version"] == "1.0" else self.connection.cut
            end()
            await asyncio.sleep(0)

    async def stop(self) -> None:
        """Report that the gateway stops before the request has ended, unless a whole answer is already on its way."""
        if self._encoder is not None or self._waits or not self._head_sent:
            code = "stream_interrupted" if self._encoder is not None else "overloaded"
            await self.fail(ApiError(code, _STOPPED, retry_after_s=1))

    async def fail(self, error: Exception) -> None:
        """Report an error: as a response, or inside a stream that has begun."""
        self._stop_waiting()
        record = self.record
        shown = from_domain(error, record.attempts)
        self._note(shown, error)
        _forget_frames(error)
        if not self.reveal_model:
            shown = from_domain(error, record.attempts, quoting=False)
        if self._head_sent:
            record.shown.status = 200
            # The client can act on a limit that refuses a further call, so the error names it.
            is_named = self._waits or isinstance(error, CallRefused | NoVerdict)
            last = self._worded(shown) if is_named else self._interrupted(shown.message)
            encoder = self._encoder
            if self._waits:  # an encoder that has met a failure may have ended
                encoder = self._dialect.encoder(self.style, record)
            else:
                record.outcome = "interrupted"
            if encoder is not None and encoder.breaks_off:
                await self._break_off()
                return
            data = encoder.encode_failure(last) if encoder is not None else b""
            await self.count_duties()
            await self._send({"type": "http.response.body", "body": data, "more_body": False})
            return
        headers = {**shown.headers, **blocking_link(shown, self.config.blocked_by)}
        if shown.retry_after_s is not None:
            headers["retry-after"] = whole_seconds(shown.retry_after_s)
        shown = self._worded(shown)
        headers |= self._dialect.error_headers(shown)
        body = self._dialect.encode_error(shown, record.request_id)
        # A client at the wrong cell must not send the rest of its prompt here.
        is_last = not self._can_continue() or shown.status == STATUS["wrong_cell"]
        await self._write_response(shown.status, body, headers, is_last=is_last)

    def _interrupted(self, message: str, code: str = "stream_interrupted") -> ApiError:
        """Return the error of a stream that breaks off. See `StreamEncoder`."""
        return self._worded(ApiError(code, message))

    def _worded(self, error: ApiError) -> ApiError:
        """Return the error in the words of the region: message and sentence are those of the code that is shown."""
        language = self._headers.one(b"accept-language") if b"accept-language" in self._headers.headers else None
        sentence = sentence_for(self.config, self.record.decided.location, language, error.code, error.sentences)
        texts = self.locale.refusals if self.locale is not None else {}
        if self._head_sent and (charged := self.record.shown.charged) is not None:
            # The head of a whole answer has it; that of a stream has left before the cost was known.
            error = replace(error, outer={MEMBER: {"cost": charged}})
        if (found := self.record.help) is not None:
            self.record.note_duty(found.duty)
            # The user reads the text of the help, so the message is for developers, and has no words of the region.
            return replace(error, extra={**error.extra, **found.member()}, sentence=found.sentence)
        return replace(error, message=texts.get(error.code, error.message), sentence=sentence)

    def _note(self, shown: ApiError, error: Exception) -> None:
        record = self.record
        record.shown.status, record.shown.code = shown.status, shown.code
        record.token_issuer = record.token_issuer or shown.token_issuer
        if shown.code == "internal_error":
            # The type of the error and where it was raised. Its message may quote the request.
            frames = extract_tb(error.__traceback__)
            at = f" at {PurePath(frames[-1].filename).name}:{frames[-1].lineno}, in {frames[-1].name}" if frames else ""
            record.outcome, record.detail = "internal_error", f"{type(error).__name__}{at}"
        else:
            record.outcome = "failed" if _is_failure(shown, error) else "refused"
            record.detail = shown.log_message if shown.log_message is not None else shown.message

    async def _write_response(
        self,
        status: int,
        body: bytes,
        more: Mapping[str, str] | None = None,
        *,
        is_last: bool = False,
        media: bytes | None = None,
    ) -> None:
        """Write a response. The end of a large one waits for the client.

        `is_last`: then the connection closes, on which an unread body may still arrive. `media`: the line with its
        content type, if it is not JSON.
        """
        await self.count_duties()
        headers = pairs_of([*json_lines(self.record), b"content-length: %d" % len(body)])
        if more:
            headers += [(name.encode(), value.encode("latin-1", "replace")) for name, value in more.items()]
        if media is not None:
            headers = [*pairs_of([media]), *(pair for pair in headers if pair[0] != b"content-type")]
        await self._start(status, [*headers, (b"connection", b"close")] if is_last else headers)
        if is_last or len(body) > _AT_ONCE_BYTES:
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
            body = b""
        if is_last:
            # The response has left. Now the rest of the body is read, so that no reset overtakes the response.
            await drain(self._receive)
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    def _stream_lines(self) -> list[bytes]:
        return [self._dialect.stream_type, *_STREAM_LINES, *response_lines(self.record)]

    async def count_duties(self) -> None:
        """Count what the request did for duties, each kind once. The text that counts leaves after its count."""
        record = self.record
        if kinds := record.duties - self._counted:
            self._counted = record.duties
            await self._service.count_duties(record, kinds)

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._head_sent = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    def _cancel(self) -> None:
        self.client_left = True
        self.record.detail = self.connection.why_lost if self.connection is not None else None
        if self._running is not None:
            self._running.cancel()

    def _can_continue(self) -> bool:
        """Whether another request can follow on the connection, because the body is read or short enough to skip."""
        return self._body_read or (not self._body_begun and is_little(self._headers))


def _encoded(encoder: StreamEncoder, events: tuple[StreamEvent, ...], style: AnswerStyle) -> bytes:
    """Return events of a stream as the client gets them."""
    return encoder.encode(events if style.seal is None else style.seal.seal_events(events))


def _text_writer(cycle: Cycle, encoder: StreamEncoder, keep_alive: KeepAlive) -> TakeText:
    """Return what writes a text that arrives alone, while the task waits for the next events of the stream."""
    around = encoder.around_text()
    if around is not None and (writer := cycle.text_writer(*around, keep_alive)) is not None:
        return writer
    lone_text, write = encoder.lone_text, cycle.write

    def write_text(text: bytes) -> bool:
        if not (data := lone_text(text)) or not write(data):
            return False
        keep_alive.is_silent = False
        return True

    return write_text


def _is_failure(shown: ApiError, error: Exception) -> bool:
    """Return whether the error is a failure that an operator should see.

    An invalid request is not a failure, and neither is a limit of a client. If no deployment was asked because all are
    unavailable, the error belongs to the outage that earlier failures have caused.
    """
    is_own_limit = error is shown or isinstance(error, LimitReached | CallRefused)
    return shown.status >= 500 or (shown.code == "rate_limited" and not is_own_limit)


def _forget_frames(error: BaseException | None) -> None:
    """Free what the frames of an error hold, such as a part of a body: its client may take seconds to end."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
