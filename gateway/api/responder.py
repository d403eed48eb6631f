"""Write the answer or the error of one request to its client: one writer for a whole answer, one for a stream.

The dialect of the request encodes what is written.

Both writers first try to write everything at once, which needs no wait and no further task switch. An error is a
response of its own, or the last event of a stream that has begun.

Comments fill the silence of a provider within a stream, so that no proxy between the gateway and the client closes the
connection. A comment is not an event (HTML standard, section 9.2.6): clients skip it. It stands between two events and
before the last one, and it never counts as a sign of life of the provider.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import PurePath
from traceback import extract_tb
from typing import Any

from gateway.api.body import drain
from gateway.api.connection import CONNECTION, HEAD, NOT_TAKEN, ClientConnection, SameHead
from gateway.api.dialects.dialect import Dialect, StreamEncoder
from gateway.api.dialects.openai_inputs import InputDialect
from gateway.api.errors import STATUS, ApiError, blocking_link, from_domain, whole_seconds
from gateway.api.response_headers import json_lines, pairs_of, response_lines
from gateway.execution.answer_stream import AnswerStream
from gateway.execution.deadline import Deadline
from gateway.execution.plan_execution import PlanExhausted
from gateway.model.config_version import ConfigVersion
from gateway.model.input_requests import InputAnswer
from gateway.model.moderation import NoVerdict
from gateway.model.record import Record
from gateway.model.region_text import Sentence
from gateway.policy.region_text import sentence_for
from gateway.service.inbound import AnswerStyle, ErrorStyle
from gateway.usage.client_limits import LimitReached
from gateway.usage.refusals import CallRefused
from providers.chat import ChatCompletion

Receive = Callable[[], Any]
Send = Callable[[Any], Any]
_NO_EXTENSIONS: Mapping[str, Any] = {}
_AT_ONCE_BYTES = 64 * 1024
"""The server accepts this much without waiting for the client (uvicorn's `HIGH_WATER_LIMIT`). The end of a larger
answer is sent separately, and waits."""
_LAST_EVENT_S = 1.0
"""The time beyond the request's deadline in which a client can read the end of its answer, such as an error."""
_STOPPED = "the gateway was stopped before the answer was complete: repeat the request"
_STREAM_LINES = (b"cache-control: no-cache", b"x-accel-buffering: no")


class Responder:
    """Writes to the client of one request.

    Attributes:
        config: The version that reads the request, once it is known.
        accept_language: The header of the request.
        connection: The client's connection, if the server is ours.
        cycle: The request on that connection.
        head: The head of the request, if the connection has seen it before.
    """

    __slots__ = (
        "_dialect",
        "_direct",
        "_encoder",
        "_head_sent",
        "_receive",
        "_record",
        "_send",
        "accept_language",
        "config",
        "connection",
        "cycle",
        "head",
    )

    def __init__(self, scope: Any, receive: Receive, send: Send, record: Record, dialect: Dialect) -> None:
        self._head_sent = False
        # The encoder of a stream that has begun.
        self._encoder: StreamEncoder | None = None
        self._dialect = dialect
        self._receive = receive
        self._send = send
        self._record = record
        self.config: ConfigVersion | None = None
        self.accept_language: str | None = None
        extensions: Mapping[str, Any] = scope.get("extensions", _NO_EXTENSIONS)
        connection: ClientConnection | None = extensions.get(CONNECTION)
        head: SameHead | None = extensions.get(HEAD)
        self.connection, self.head = connection, head
        cycle = self.cycle = connection.cycle if connection is not None else None
        # If something wraps `send`, as CORS does, it must see the head of the answer: then nothing is written directly.
        self._direct = cycle if cycle is not None and cycle.send == send else None

    def respond_whole(
        self, completion: ChatCompletion, style: AnswerStyle, deadline: Deadline, limit_s: float
    ) -> Awaitable[None] | None:
        """Encode a whole answer, and write it at once if the client takes it without a wait.

        Args:
            completion: The answer. The returned awaitable does not hold it.
            style: How it is shown.
            deadline: The deadline of the request.
            limit_s: How long the client may take, from now on.

        Returns:
            An awaitable that writes the answer, or None if it is written.
        """
        record = self._record
        record.shown.status = 200
        record.count(completion.usage)
        if style.seal is not None:
            completion = style.seal.seal_completion(completion)
        body = self._dialect.encode_answer(completion, style, record)
        if self._direct is not None and self._direct.respond(json_lines(record), body):
            self._head_sent = True
            return None
        return self._write_within(deadline, limit_s, self._write_response(200, body))

    async def respond_result(self, result: InputAnswer, style: AnswerStyle, deadline: Deadline, limit_s: float) -> None:
        """Encode an answer of embeddings or moderations, and write it.

        Args:
            result: The answer.
            style: How it is shown.
            deadline: The deadline of the request.
            limit_s: How long the client may take, from now on.
        """
        record = self._record
        record.shown.status = 200
        record.count(result.usage)
        if not isinstance(self._dialect, InputDialect):
            raise TypeError("the dialect of a chat has no such answer")
        # Millions of numbers are encoded in a thread, so that no other request waits for them.
        body = await asyncio.to_thread(self._dialect.encode_result, result, style, record)
        await self._write_within(deadline, limit_s, self._write_response(200, body))

    def respond_stream(self, stream: AnswerStream, style: AnswerStyle, deadline: Deadline) -> Awaitable[None] | None:
        """Encode a stream, and write it at once if all of it is here and the client takes it without a wait.

        Args:
            stream: The answer.
            style: How it is shown.
            deadline: The deadline of the request, until which the client may read.

        Returns:
            An awaitable that writes the stream, or None if it is written.
        """
        tap = stream.text_tap()
        events = tap.whole_events() if tap is not None else ()
        if events and self._direct is not None:
            encoder = self._dialect.encoder(style, self._record)
            data = encoder.encode(events if style.seal is None else style.seal.seal_events(events))
            self._record.shown.status = 200
            if self._direct.respond_stream(self._stream_lines(), data):
                self._head_sent = True
                self._record.count(encoder.usage)
                return None
        return self._write_within(deadline, deadline.left_s(committed=True), self._write_stream(stream, style))

    async def respond_plain(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Write a small body that is not an answer of a provider."""
        self._record.shown.status = 200
        await self._write_response(200, body, headers)

    async def _write_within(self, deadline: Deadline, limit_s: float, writing: Awaitable[None]) -> None:
        try:
            with deadline.limit(limit_s + _LAST_EVENT_S):
                await writing
        except TimeoutError:
            await self._cut_off()

    async def _write_stream(self, stream: AnswerStream, style: AnswerStyle) -> None:
        """Write events as they arrive. A slow client slows down the provider."""
        record, cycle = self._record, self.cycle
        record.shown.status = 200
        encoder = self._encoder = self._dialect.encoder(style, record)
        encoder.sentence_of = self._sentence_of_stream
        keep_alive: KeepAlive | None = None
        try:
            if record.moderation is None:
                await self._start(200, pairs_of(self._stream_lines()))
            else:
                # An answer that is held has a status when its first text is released, or when silence must be filled.
                keep_alive = KeepAlive(style.keep_alive_s, self._send_begun, self._dialect.keep_alive)
            async for events in stream:
                data = encoder.encode(events if style.seal is None else style.seal.seal_events(events))
                if encoder.finished or encoder.failed is not None:
                    if keep_alive is not None:
                        keep_alive.stop()
                elif keep_alive is None:
                    keep_alive = KeepAlive(style.keep_alive_s, self._send, self._dialect.keep_alive)
                    self._tap_texts(stream, encoder, keep_alive)
                if not self._head_sent and (data or encoder.finished):
                    if encoder.failed is not None:
                        raise PlanExhausted(encoder.failed.failure)
                    await self._start(200, pairs_of(self._stream_lines()))
                if data:
                    if keep_alive is not None:
                        keep_alive.is_silent = False
                    if cycle is None or not cycle.write(data):
                        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        finally:
            if keep_alive is not None:
                keep_alive.stop()
            await stream.close()
        record.count(encoder.usage)
        if encoder.failed is not None:
            record.outcome, record.shown.code = "interrupted", "stream_interrupted"
            record.detail = encoder.failed.failure.detail or encoder.failed.failure.message
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_begun(self, message: Any) -> None:
        """Send a part of a stream, after its head."""
        if not self._head_sent:
            await self._start(200, pairs_of(self._stream_lines()))
        await self._send(message)

    def _tap_texts(self, stream: AnswerStream, encoder: StreamEncoder, keep_alive: KeepAlive) -> None:
        """Write a text that arrives alone directly, while the task waits for the next events of the stream."""
        cycle, tap = self.cycle, stream.text_tap()
        if cycle is None or tap is None:
            return
        lone_text, write = encoder.lone_text, cycle.write

        def take_text(text: bytes) -> bool:
            if not (data := lone_text(text)) or not write(data):
                return False
            keep_alive.is_silent = False
            return True

        tap.pass_texts_to(take_text)

    async def _cut_off(self) -> None:
        """Cut the connection of a client that has read nothing until its time is over. It would not read an error."""
        self._record.outcome, self._record.detail = "cancelled", NOT_TAKEN
        if self.connection is not None:
            self.connection.cut()
            # The connection is lost in the next turn of the loop.
            await asyncio.sleep(0)

    async def stop(self, style: ErrorStyle, *, can_continue: bool) -> None:
        """Report that the gateway stops before the request has ended, unless a whole answer is already on its way."""
        if self._encoder is not None or not self._head_sent:
            code = "stream_interrupted" if self._encoder is not None else "overloaded"
            await self.fail(ApiError(code, _STOPPED, retry_after_s=1), style, can_continue=can_continue)

    async def fail(self, error: Exception, style: ErrorStyle, *, can_continue: bool) -> None:
        """Report an error: as a response, or inside a stream that has begun.

        Args:
            error: The error that was raised.
            style: How it is shown.
            can_continue: The connection can serve another request, because the body is read, or short enough to skip.
        """
        shown = from_domain(error, self._record.attempts)
        self._note(shown, error)
        if not style.quotes_provider:
            shown = from_domain(error, self._record.attempts, quoting=False)
        if style.refusals is not None and shown.code in style.refusals:
            shown = replace(shown, message=style.refusals[shown.code])
        if self._head_sent:
            self._record.outcome, self._record.shown.status = "interrupted", 200
            # The client can act on a limit that refuses a further call, so the error names it.
            last = (
                shown if isinstance(error, CallRefused | NoVerdict) else ApiError("stream_interrupted", shown.message)
            )
            last = replace(last, sentence=self._sentence(last.code))
            data = self._encoder.encode_failure(last) if self._encoder is not None else b""
            await self._send({"type": "http.response.body", "body": data, "more_body": False})
            return
        headers = {**shown.headers, **blocking_link(shown, style.blocked_by)}
        if shown.retry_after_s is not None:
            headers["retry-after"] = whole_seconds(shown.retry_after_s)
        shown = replace(shown, sentence=self._sentence(shown.code))
        body = self._dialect.encode_error(shown, self._record.request_id)
        # A client at the wrong cell must not send the rest of its prompt here.
        if can_continue and shown.status != STATUS["wrong_cell"]:
            await self._write_response(shown.status, body, headers)
        else:
            await self._write_last_response(shown.status, body, headers)

    def _sentence_of_stream(self) -> Sentence | None:
        return self._sentence("stream_interrupted")

    def _sentence(self, code: str) -> Sentence | None:
        """Return the sentence for the end user if the request ends with this error code."""
        config = self.config
        return (
            sentence_for(config, self._record.decided.location, self.accept_language, code)
            if config is not None
            else None
        )

    def _note(self, shown: ApiError, error: Exception) -> None:
        record = self._record
        record.shown.status, record.shown.code = shown.status, shown.code
        if shown.code == "internal_error":
            record.outcome, record.detail = "internal_error", _origin_of(error)
        else:
            record.outcome = "failed" if _is_failure(shown, error) else "refused"
            record.detail = shown.log_message if shown.log_message is not None else shown.message

    async def _write_response(self, status: int, body: bytes, more: Mapping[str, str] | None = None) -> None:
        """Write a response after which the connection stays open. The end of a large one waits for the client."""
        await self._start(status, self._json_headers(body, more))
        if len(body) > _AT_ONCE_BYTES:
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
            body = b""
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _write_last_response(self, status: int, body: bytes, more: Mapping[str, str]) -> None:
        """Write a response and close the connection, on which an unread body may still arrive."""
        await self._start(status, [*self._json_headers(body, more), (b"connection", b"close")])
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        # The response leaves first. Then the rest of the body is read, so that no reset overtakes the response.
        await drain(self._receive)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def _json_headers(self, body: bytes, more: Mapping[str, str] | None) -> list[tuple[bytes, bytes]]:
        headers = pairs_of([*json_lines(self._record), b"content-length: %d" % len(body)])
        if more:
            headers += [(name.encode(), value.encode("latin-1", "replace")) for name, value in more.items()]
        return headers

    def _stream_lines(self) -> list[bytes]:
        return [self._dialect.stream_type, *_STREAM_LINES, *response_lines(self._record)]

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._head_sent = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})


class KeepAlive:
    """Sends something, such as a comment, while one stream is silent.

    It checks twice within `silence_s` whether anything was sent.

    The writer sets `is_silent` to False when it sends something, and calls `stop` before it sends the last of it.
    """

    __slots__ = ("_comment", "_data", "_half_s", "_loop", "_send", "_timer", "is_silent")

    def __init__(self, silence_s: float, send: Callable[[Any], Awaitable[None]], data: bytes) -> None:
        """Start the timer. With a `silence_s` of 0 nothing is sent."""
        self.is_silent = False
        self._data = data
        self._half_s = silence_s / 2
        self._send = send
        self._comment: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        if silence_s:
            self._loop = asyncio.get_running_loop()
            self._timer = self._loop.call_later(self._half_s, self._check)

    def _check(self) -> None:
        # One comment that waits for a slow reader is enough: the bytes before it keep that connection busy.
        if self.is_silent and (self._comment is None or self._comment.done()):
            self._comment = self._loop.create_task(self._send_comment())
        self.is_silent = True
        self._timer = self._loop.call_later(self._half_s, self._check)

    async def _send_comment(self) -> None:
        await self._send({"type": "http.response.body", "body": self._data, "more_body": True})

    def stop(self) -> None:
        """Send no comment from now on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._comment is not None:
            self._comment.cancel()
            self._comment = None


def _is_failure(shown: ApiError, error: Exception) -> bool:
    """Return whether the error is a failure that an operator should see.

    An invalid request is not a failure, and neither is a limit of a client. If no deployment was asked because all are
    unavailable, the error belongs to the outage that earlier failures have caused.
    """
    is_own_limit = error is shown or isinstance(error, LimitReached | CallRefused)
    return shown.status >= 500 or (shown.code == "rate_limited" and not is_own_limit)


def _origin_of(error: Exception) -> str:
    """Return the type of an internal error and where it was raised. Its message may quote the request."""
    frames = extract_tb(error.__traceback__)
    origin = f" at {PurePath(frames[-1].filename).name}:{frames[-1].lineno}, in {frames[-1].name}" if frames else ""
    return f"{type(error).__name__}{origin}"
