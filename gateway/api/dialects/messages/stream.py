"""Write a stream of Anthropic's Messages API, as a state machine over the events of an answer.

Theory of operation. `message_start` comes first. At most one content block is open; it ends when a piece of another
kind arrives. A thinking block gets its `signature_delta` just before it ends: the sealed state of the call that begins
then, or a placeholder. If another block stood in between, an empty thinking block with the state comes before the call.
A call stays open until its arguments are complete, because the pieces of several calls may alternate; the pieces of
other calls wait, and so does text. Usage is known last, so `message_delta` waits for the end of the answer.

    state     event                               next state
    ------    --------------------------------    ----------
    idle      any                                 open         message_start
    open      text, refusal, reasoning, call      open         the block's events
    open      end of the stream                   ended        ends of blocks, message_delta, message_stop
    any       failure                             ended        error, and nothing after it
"""

from __future__ import annotations

from typing import assert_never

import msgspec
import orjson

from gateway.api.dialects.dialect import StreamEncoder
from gateway.api.dialects.labelling import MEMBER
from gateway.api.dialects.messages import encode
from gateway.api.dialects.messages.decode import NO_STATE
from gateway.api.dialects.messages.errors import encode_error
from gateway.api.errors import ApiError
from gateway.execution.exchange import AnswerStyle
from gateway.model.record import Record
from providers import chat
from providers.json_values import dumps, is_json_object

PING = b'event: ping\ndata: {"type": "ping"}\n\n'
_IDLE, _OPEN, _ENDED = range(3)
_NONE, _TEXT, _THINKING, _CALL = range(4)
_DELTA = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":"'
_DELTA_TAIL = b'"}}\n\n'


class _Call(msgspec.Struct):
    """A call whose pieces wait, or which is open."""

    start: chat.ToolCallDelta
    pieces: list[str] = []


class MessageStreamEncoder(StreamEncoder):
    """Encodes the stream of one client."""

    def __init__(self, style: AnswerStyle, record: Record, asked: encode.Asked) -> None:
        super().__init__(style, record)
        self._style = style
        self._asked = asked
        self._state = _IDLE
        self._block = _NONE
        self._index = -1
        # The bytes before a further text of the open block.
        self._head = b""
        self._finish = chat.ChoiceFinish("stop")
        self._calls: dict[int, _Call] = {}
        # The index of the call that is open; the calls that wait, in order; and those that have ended.
        self._open_call = -1
        self._waiting: list[int] = []
        # Texts that arrived while a call was incomplete.
        self._later: list[chat.StreamEvent] = []
        self._is_refusal = False
        self._annotations: list[chat.Annotation] = []
        # The bytes of all texts so far, for an estimate of the usage.
        self._bytes = 0

    def encode(self, events: tuple[chat.StreamEvent, ...]) -> bytes:
        written: list[bytes] = []
        for event in self._labels.add(events):
            if self._state == _ENDED:
                break
            if self._state == _IDLE:
                written.append(self._start(event))
            if not self._is_of_another_choice(event):
                self._encode(event, written)
        return b"".join(written)

    def lone_text(self, text: bytes) -> bytes:
        if self._block != _TEXT or self._labels.reads_texts:
            return b""
        self._bytes += len(text)
        return self._head + text + _DELTA_TAIL

    def encode_failure(self, error: ApiError) -> bytes:
        if self._state == _ENDED:
            return b""
        self._state = _ENDED
        return b"event: error\ndata: " + encode_error(error, self._record.request_id) + b"\n\n"

    def _start(self, event: chat.StreamEvent) -> bytes:
        self._state = _OPEN
        opened = event if isinstance(event, chat.Opened) else chat.Opened("", "", 0)
        model = self._model or opened.model
        usage = chat.Usage() if self._record.is_own_answer else chat.Usage(self._asked.prompt_tokens, 1)
        members = encode.usage_members(usage, opened.service_tier, self._style, self._record)
        message: dict[str, object] = {
            **encode.message_head(opened.id, model, self._style, self._record),
            "content": [],
            **encode.NO_END,
            "usage": {**encode.encode_usage(usage), **members},
        }
        if (member := self._labels.first_member()) is not None:
            message[MEMBER] = member
        return _event(b"message_start", {"message": message})

    def _encode(self, event: chat.StreamEvent, written: list[bytes]) -> None:
        if self._open_call >= 0 and self._must_wait(event):
            self._later.append(event)
            return
        match event:
            case chat.TextDelta(text):
                if text:
                    self._say(_TEXT, orjson.dumps(text)[1:-1], written)
            case chat.TextRun(pieces):
                self._run(pieces, written)
            case chat.ReasoningDelta(text):
                shown = b"" if self._asked.hides_thinking else orjson.dumps(text)[1:-1]
                self._bytes += len(text) if self._asked.hides_thinking else 0
                self._say(_THINKING, shown, written)
            case chat.RefusalDelta(text):
                self._is_refusal = True
                self._say(_TEXT, orjson.dumps(text)[1:-1], written)
            case chat.ImageDelta():
                self._close(written)
                self._index += 1
                block = {"index": self._index, "content_block": encode.image_block(event.url)}
                written.append(_event(b"content_block_start", block))
                written.append(_event(b"content_block_stop", {"index": self._index}))
            case chat.ToolCallDelta():
                self._call(event, written)
            case chat.AnnotationsDelta(annotations):
                self._annotations += annotations
                for citation in encode.citations_of(annotations) if self._block == _TEXT else ():
                    delta = {"type": "citations_delta", "citation": citation}
                    written.append(_event(b"content_block_delta", {"index": self._index, "delta": delta}))
            case chat.ChoiceFinish():
                self._finish = event
            case chat.UsageReport(usage):
                self.usage = usage
            case chat.Finished():
                self.finished = True
                self._end(written)
            case chat.Failed():
                written.append(self._broken(event))
            case chat.Opened() | chat.Heartbeat() | chat.AudioDelta() | chat.SegmentDelta():
                pass
            case _:
                assert_never(event)

    def _must_wait(self, event: chat.StreamEvent) -> bool:
        """Return whether an event would end a call whose arguments are incomplete."""
        if not isinstance(
            event, chat.TextDelta | chat.TextRun | chat.ReasoningDelta | chat.RefusalDelta | chat.ImageDelta
        ):
            return False
        return bool(self._waiting or self._later) or not self._is_complete(self._open_call)

    def _say(self, kind: int, text: bytes, written: list[bytes]) -> None:
        """Add a text to the block of its kind, which begins if it is not open. It is the inside of a JSON string."""
        if self._block != kind:
            self._close(written)
            self._begin(kind, written)
        if text:
            self._bytes += len(text)
            written += (self._head, text, _DELTA_TAIL)

    def _run(self, pieces: tuple[bytes, ...], written: list[bytes]) -> None:
        if self._block != _TEXT:
            self._close(written)
            self._begin(_TEXT, written)
        head, between = self._head, _DELTA_TAIL + self._head
        self._bytes += sum(map(len, pieces))
        written += (head, between.join(pieces), _DELTA_TAIL)

    def _begin(self, kind: int, written: list[bytes]) -> None:
        self._block, self._index = kind, self._index + 1
        if kind == _TEXT:
            block = encode.text_block("")
            self._head = _DELTA % (self._index, b"text_delta", b"text")
        else:
            block = {"type": "thinking", "thinking": "", "signature": ""}
            self._head = _DELTA % (self._index, b"thinking_delta", b"thinking")
        written.append(_event(b"content_block_start", {"index": self._index, "content_block": block}))

    def _close(self, written: list[bytes], state: str | None = None) -> None:
        """End the open block, if there is any, with the sealed state of the call that begins next."""
        if self._block == _NONE:
            return
        if self._block == _CALL:
            self._calls[self._open_call].pieces.clear()
            self._open_call = -1
        elif self._block == _THINKING:
            signature = {"type": "signature_delta", "signature": state or NO_STATE}
            written.append(_event(b"content_block_delta", {"index": self._index, "delta": signature}))
        self._block = _NONE
        written.append(_event(b"content_block_stop", {"index": self._index}))

    def _call(self, event: chat.ToolCallDelta, written: list[bytes]) -> None:
        self._bytes += len(event.arguments) + len(event.name or "")
        if event.index not in self._calls:
            self._calls[event.index] = _Call(event)
            if self._open_call >= 0 and not self._is_complete(self._open_call):
                self._waiting.append(event.index)
            else:
                self._open(event.index, written)
            return
        if event.index == self._open_call:
            self._add_arguments(event.arguments, written)
        elif event.index in self._waiting:
            self._calls[event.index].pieces.append(event.arguments)
            self._open_waiting(written, only_complete=True)

    def _open_waiting(self, written: list[bytes], *, only_complete: bool) -> None:
        """Begin the calls that wait, once the open one is complete, or at the end of the answer."""
        while self._waiting and (not only_complete or self._is_complete(self._open_call)):
            self._open(self._waiting.pop(0), written)

    def _is_complete(self, index: int) -> bool:
        """Return whether the arguments of a call are a whole JSON object, so that nothing can follow."""
        pieces = self._calls[index].pieces
        return bool(pieces) and pieces[-1].rstrip().endswith("}") and is_json_object("".join(pieces))

    def _open(self, index: int, written: list[bytes]) -> None:
        call = self._calls[index]
        start = call.start
        if start.signature and self._block != _THINKING:
            self._close(written)
            self._begin(_THINKING, written)
        self._close(written, start.signature)
        self._block, self._open_call, self._index = _CALL, index, self._index + 1
        self._head = _DELTA % (self._index, b"input_json_delta", b"partial_json")
        block = {**encode.call_head(start.id or "", start.name or "", self._record, index), "input": {}}
        written.append(_event(b"content_block_start", {"index": self._index, "content_block": block}))
        pieces, call.pieces = [start.arguments, *call.pieces], []
        for piece in pieces:
            self._add_arguments(piece, written)

    def _add_arguments(self, piece: str, written: list[bytes]) -> None:
        if piece:
            self._calls[self._open_call].pieces.append(piece)
            written += (self._head, orjson.dumps(piece)[1:-1], _DELTA_TAIL)

    def _end(self, written: list[bytes]) -> None:
        self._open_waiting(written, only_complete=False)
        self._close(written)
        for event in self._later:
            self._encode(event, written)
        self._close(written)
        reason = encode.stop_reason(self._finish.reason, has_calls=bool(self._calls), is_refusal=self._is_refusal)
        counted = self.usage if self._record.is_own_answer else encode.counted_usage(self.usage)
        usage = counted or encode.estimated_usage(self.usage, self._asked.prompt_tokens, max(1, self._bytes // 4))
        last: dict[str, object] = {
            "delta": self._asked.end(reason, self._finish.stop_sequence),
            "usage": encode.encode_usage(usage),
        }
        member = self._labels.member(is_estimated=counted is None)
        if self._annotations:
            member["annotations"] = self._annotations
        if member:
            last[MEMBER] = member
        written.append(_event(b"message_delta", last))
        written.append(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
        self._state = _ENDED


def _event(name: bytes, body: dict[str, object]) -> bytes:
    return b'event: %b\ndata: {"type":"%b",%b\n\n' % (name, name, dumps(body)[1:])
