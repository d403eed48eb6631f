"""One chat request's two pipes: what was read of it, what was sent, and the watch for the client leaving."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import PurePath
from traceback import extract_tb
from typing import Any

import orjson

from gateway.api.answers import encode_answer, encoder_for
from gateway.api.body import drain, is_little
from gateway.api.door import Visitor
from gateway.api.errors import STATUS, ApiError, blocking_link, encode_error, from_domain, whole_seconds
from gateway.api.headers import pairs_of, response_lines
from gateway.api.keep_alive import KeepAlive
from gateway.api.ledger import Taken
from gateway.api.line import HEAD, LINE, NOT_TAKEN, Line, SameHead
from gateway.api.stream import ChunkEncoder, encode_stream_error
from gateway.execution.deadline import Deadline
from gateway.execution.stream import AnswerStream, all_of, pass_on
from gateway.model.record import Record
from gateway.model.region_text import Locale
from gateway.policy.labels import Labelling
from providers.chat import ChatCompletion

Receive = Callable[[], Any]
Send = Callable[[Any], Any]
_NO_EXTENSIONS: Mapping[str, Any] = {}
_AT_ONCE_BYTES = 64 * 1024
"""So much is taken from us before anybody waits for the client (uvicorn's `HIGH_WATER_LIMIT`): the end of an answer
that is larger is sent apart, and waits."""
_STOPPED = "this gateway was stopped before the answer was complete"
_JSON_LINE = b"content-type: application/json"
_STREAM_LINES = (
    b"content-type: text/event-stream; charset=utf-8",
    b"cache-control: no-cache",
    b"x-accel-buffering: no",
)


class Exchange:
    """One request's two pipes: what was read of it, what was sent, and the watch for the client leaving.

    unread: the request as its headers tell it, until somebody begins to read its body. head: see `SameHead`.
    """

    # What few requests come to have, or what is asked of few.
    body_read = False
    include_usage = False
    choices = 1
    unread: Visitor | None = None
    client_left = False
    is_counted = False
    deadline: Deadline | None = None
    taken: Taken | None = None
    voice: Locale | None = None
    labelling: Labelling | None = None
    shown_model: str | None = None
    blocked_by: str | None = None
    _head_sent = False
    _is_stream = False
    _watcher: asyncio.Task[None] | None = None
    _journey: asyncio.Task[Any] | None = None

    def __init__(self, scope: Any, receive: Receive, send: Send, record: Record) -> None:
        self.receive = receive
        self.record = record
        self._send = send
        extensions: Mapping[str, Any] = scope.get("extensions", _NO_EXTENSIONS)
        self.head: SameHead | None = extensions.get(HEAD)
        line: Line | None = extensions.get(LINE)
        self._line = line
        cycle = self._cycle = line.cycle if line is not None else None
        # Who stands between us and the server, as CORS does, must see the head of the answer.
        self._direct = cycle if cycle is not None and cycle.send == send else None

    @property
    def task(self) -> asyncio.Task[Any] | None:
        """What runs the request, as far as its server tells that."""
        return self._cycle.task if self._cycle is not None else None

    def watch_for_leaving(self, journey: asyncio.Task[Any]) -> None:
        """From now on, the client going away cancels this request, and with it the upstream call."""
        self._journey = journey
        if self._line is not None:
            self._line.watch(self._leave)
        else:
            self._watcher = asyncio.ensure_future(self._watch())

    def _leave(self) -> None:
        self.client_left = True
        self.record.detail = self._line.why_lost if self._line is not None else None
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
        elif self._watcher is not None:
            self._watcher.cancel()
        # No cycle is left behind: what ends here is freed here, without the collector.
        self._journey = self._watcher = None

    def begin_body(self) -> bytes | None:
        """The request's body, if all of it is here already. From now on somebody reads it."""
        self.unread = None
        body = self._cycle.whole_body() if self._cycle is not None else None
        self.body_read = body is not None
        return body

    def written(self, completion: ChatCompletion) -> bytes:
        """A whole answer as it is sent, which is about to happen."""
        record = self.record
        record.status = 200
        record.count(completion.usage)
        if not completion.id:
            completion = replace(completion, id=f"chatcmpl-{record.request_id}")
        return orjson.dumps(encode_answer(completion, self.labelling, record.request_id, self.shown_model))

    def answer_at_once(self, body: bytes) -> bool:
        """Send a whole answer if the client takes it without a wait; whether it did."""
        if self._direct is None or not self._direct.respond([_JSON_LINE, *response_lines(self.record)], body):
            return False
        self._head_sent = True
        return True

    def stream_at_once(self, stream: AnswerStream) -> bool:
        """Send a stream that came as a whole if the client takes it without a wait; whether it did."""
        events = all_of(stream)
        if not events or self._direct is None:
            return False
        encoder = self._encoder()
        data = encoder.encode(events)
        self.record.status = 200
        if not self._direct.respond_stream([*_STREAM_LINES, *response_lines(self.record)], data):
            return False
        self._head_sent = True
        self.record.count(encoder.usage)
        return True

    def _encoder(self) -> ChunkEncoder:
        encoder = encoder_for(self.include_usage, self.labelling, self.record.request_id, self.shown_model)
        encoder.record = self.record
        encoder.choices = self.choices
        return encoder

    async def answer_whole(self, body: bytes) -> None:
        """Send a whole answer, however long the client takes: the end of a large one waits for that."""
        await self._respond(200, body)

    async def answer_stream(self, stream: AnswerStream, keep_alive_s: float) -> None:
        """Send a stream as it comes; the reader's pace is the provider's."""
        self.record.status = 200
        self._is_stream = True
        encoder = self._encoder()
        cycle, keep_alive = self._cycle, None
        try:
            lines = [*_STREAM_LINES, *response_lines(self.record)]
            if self._direct is not None and self._direct.begin(lines):
                self._head_sent = True
            else:
                await self._start(200, pairs_of(lines))
            async for events in stream:
                data = encoder.encode(events)
                if encoder.finished or encoder.failed is not None:
                    if keep_alive is not None:
                        keep_alive.stop()
                elif keep_alive is None:
                    keep_alive = self._expect_more(stream, encoder, keep_alive_s)
                if data:
                    if keep_alive is not None:
                        keep_alive.is_silent = False
                    if cycle is None or not cycle.write(data):
                        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        finally:
            if keep_alive is not None:
                keep_alive.stop()
            await stream.close()
        self.record.count(encoder.usage)
        if encoder.failed is not None:
            self.record.outcome, self.record.code = "interrupted", "stream_interrupted"
            self.record.detail = encoder.failed.failure.detail or encoder.failed.failure.message
        if cycle is None or not cycle.finish():
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def _expect_more(self, stream: AnswerStream, encoder: ChunkEncoder, keep_alive_s: float) -> KeepAlive:
        """What there is to do while the stream's next events are waited for: comments into its silence, and texts that
        come by themselves go past it."""
        keep_alive, cycle = KeepAlive(keep_alive_s, self._send), self._cycle
        if cycle is not None:
            lone_text, write = encoder.lone_text, cycle.write

            def take_text(text: bytes) -> bool:
                if not (data := lone_text(text)) or not write(data):
                    return False
                keep_alive.is_silent = False
                return True

            pass_on(stream, take_text)
        return keep_alive

    async def cut_off(self) -> None:
        """The client is there, and takes nothing: its time is over, and nobody can be told."""
        self.record.outcome, self.record.detail = "cancelled", NOT_TAKEN
        if self._line is not None:
            self._line.cut()
            # The connection is lost in the loop's next round.
            await asyncio.sleep(0)

    async def stop(self) -> None:
        """The gateway ends before this request does: who waits for an answer is told so."""
        if self._is_stream or not self._head_sent:
            code = "stream_interrupted" if self._is_stream else "overloaded"
            await self.fail(ApiError(code, _STOPPED, retry_after_s=1))

    async def fail(self, error: Exception) -> None:
        """Tell the client what went wrong: as a response, or inside a stream that has begun."""
        shown = from_domain(error, self.record.attempts)
        self._note(shown, error)
        if self.shown_model is not None:
            shown = from_domain(error, self.record.attempts, quoting=False)
        if self.voice is not None and shown.code in self.voice.refusals:
            shown = replace(shown, message=self.voice.refusals[shown.code])
        if self._head_sent:
            self.record.outcome, self.record.status = "interrupted", 200
            data = encode_stream_error(ApiError("stream_interrupted", shown.message))
            await self._send({"type": "http.response.body", "body": data, "more_body": False})
            return
        headers = {**shown.headers, **blocking_link(shown, self.blocked_by)}
        if shown.retry_after_s is not None:
            headers["retry-after"] = whole_seconds(shown.retry_after_s)
        await self._respond(shown.status, orjson.dumps(encode_error(shown)), headers)

    def _note(self, shown: ApiError, error: Exception) -> None:
        record = self.record
        record.status, record.code = shown.status, shown.code
        if shown.code == "internal_error":
            record.outcome, record.detail = "internal_error", _place_of(error)
        else:
            record.outcome = "failed" if _is_failure(shown, error) else "refused"
            record.detail = shown.message

    async def _respond(self, status: int, body: bytes, more: dict[str, str] | None = None) -> None:
        headers = pairs_of([_JSON_LINE, *response_lines(self.record), b"content-length: %d" % len(body)])
        if more:
            headers += [(name.encode(), value.encode("latin-1", "replace")) for name, value in more.items()]
        # Who is at the wrong cell has nothing more to say here, and no further byte of a prompt is to come.
        is_elsewhere = status == STATUS["wrong_cell"]
        goes_on = not is_elsewhere and (self.body_read or (self.unread is not None and is_little(self.unread)))
        if not goes_on:
            headers.append((b"connection", b"close"))
        await self._start(status, headers)
        if not goes_on or len(body) > _AT_ONCE_BYTES:
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
            if not goes_on:
                # The answer leaves first; the rest of the body is then read off, so that no reset overtakes it.
                await drain(self.receive)
            body = b""
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._head_sent = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})


def _is_failure(shown: ApiError, error: Exception) -> bool:
    """Whether an operator is to hear of it. A request that is wrong isn't that, whoever found it out. Nobody asked,
    because all are benched, is the outage that a failure before it has made; a limit of a client is raised as it is."""
    return shown.status >= 500 or (shown.code == "rate_limited" and error is not shown)


def _place_of(error: Exception) -> str:
    """What a fault of ours is, and where. Not its words: they may be those of the request."""
    frames = extract_tb(error.__traceback__)
    place = f" at {PurePath(frames[-1].filename).name}:{frames[-1].lineno}, in {frames[-1].name}" if frames else ""
    return f"{type(error).__name__}{place}"
