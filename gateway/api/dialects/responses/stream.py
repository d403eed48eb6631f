"""Write a stream of OpenAI's Responses API, as a state machine over the events of an answer.

Theory of operation. `response.created` and `response.in_progress` come first. An item begins with the first piece that
belongs to it: reasoning, a message, or a function call. At most one of the first two kinds is open, and it ends when
another item begins. Calls stay open, because their pieces may alternate. The finish reason ends all items that are
open, and only then is it known whether the last one is incomplete: clients such as Codex act on the end of an item.
The last event repeats all items.

    state     event                             next state
    ------    ------------------------------    ----------
    idle      any                               open         created, in_progress
    open      text, refusal, reasoning, call    open         the item's events
    open      finish of the answer              finished     the ends of all open items
    finished  end of the stream                 ended        completed or incomplete
    any       failure                           ended        failed
"""

from __future__ import annotations

import time
from typing import assert_never

import msgspec
import orjson

from gateway.api.dialects.dialect import StreamEncoder
from gateway.api.dialects.responses import encode
from gateway.api.errors import ApiError
from gateway.execution.exchange import AnswerStyle
from gateway.model.record import Record
from providers import chat
from providers.reading.response_reader import MAX_BODY_BYTES, TOO_LARGE

_IDLE, _OPEN, _FINISHED, _ENDED = range(4)


class _Item(msgspec.Struct):
    """An item of the answer that is open or has ended."""

    id: bytes
    at: bytes
    """The members `item_id` and `output_index` of its events."""
    index: int
    """Its position in the output."""
    pieces: list[bytes] = []
    """The escaped pieces of what is open in it: a text, a refusal, a reasoning text, or arguments."""
    done: bytes = b""


class _Call(_Item):
    name: str = ""
    members: bytes = b""
    kind: str | None = None


class _Reasoning(_Item):
    state: str | None = None


class _Message(_Item):
    """A message. Its parts that have ended are `parts`; the open one is a text or a refusal."""

    is_refusal: bool = False
    parts: list[bytes] = []
    annotations: list[bytes] = []
    logprobs: list[bytes] = []


class ResponseStreamEncoder(StreamEncoder):
    """Encodes the stream of one client."""

    def __init__(self, style: AnswerStyle, record: Record, asked: encode.ResponsesRequest) -> None:
        super().__init__(style, record)
        self._style = style
        self._asked = asked
        self._head = encode.ResponseHead(record, asked, style.shown_model or "", 0)
        self._state = _IDLE
        self._finish: chat.FinishReason = "stop"
        self._number = 0
        self._bytes = 0
        self._items: list[_Item] = []
        # The reasoning item or the message that is open.
        self._current: _Reasoning | _Message | None = None
        self._calls: dict[int, _Call] = {}
        # The item that was added to last: only this one can be incomplete.
        self._last: _Item | None = None
        # The bytes around the number and around the text of an event with text of the message that is open.
        self._text_head = self._text_middle = b""
        self._texts: list[bytes] | None = None

    @property
    def output(self) -> bytes:
        """The items that have ended, with commas between them."""
        return b",".join([item.done for item in self._items])

    def encode(self, events: tuple[chat.StreamEvent, ...]) -> bytes:
        if self._state == _ENDED:
            return b""
        written: list[bytes] = []
        for event in self._labels.add(events):
            if type(event) is chat.Heartbeat or self._is_of_another_choice(event):
                continue
            if self._state == _IDLE:
                written.append(self._open(event))
            written.append(self._encode(event))
            if self._bytes > MAX_BODY_BYTES and self._state != _ENDED:
                written.append(self._broken(chat.Failed(TOO_LARGE)))
            if self._state == _ENDED:
                break
        return b"".join(written)

    def lone_text(self, text: bytes) -> bytes:
        texts = self._texts
        if texts is None or self._bytes > MAX_BODY_BYTES:
            return b""
        texts.append(text)
        self._bytes += len(text)
        number = self._number
        self._number = number + 1
        return b'%b%d%b%b","logprobs":[]}\n\n' % (self._text_head, number, self._text_middle, text)

    def encode_failure(self, error: ApiError) -> bytes:
        if self._state == _ENDED:
            return b""
        opened = self._open(chat.Heartbeat()) if self._state == _IDLE else b""
        return opened + self._fail(error)

    def _encode(self, event: chat.StreamEvent) -> bytes:
        match event:
            case chat.TextRun(pieces):
                return self._text_run(pieces)
            case chat.TextDelta():
                return self._text(
                    encode.escape(event.text), encode.encode_logprobs(event.logprobs) if event.logprobs else b"[]"
                )
            case chat.RefusalDelta():
                return self._refusal(encode.escape(event.text))
            case chat.ReasoningDelta():
                return self._reasoning(encode.escape(event.text))
            case chat.ToolCallDelta():
                return self._call(event)
            case chat.ImageDelta():
                return self._image(event.url)
            case chat.AnnotationsDelta():
                encoded = [orjson.dumps(encode.encode_annotation(one)) for one in event.annotations]
                return b"".join(map(self._annotation, encoded))
            case chat.ChoiceFinish():
                self._state, self._finish = _FINISHED, event.reason
                return self._end_all()
            case chat.UsageReport():
                self.usage = event.usage
            case chat.Finished():
                return self._complete()
            case chat.Failed():
                return self._broken(event)
            case chat.Opened() | chat.Heartbeat() | chat.AudioDelta() | chat.SegmentDelta():
                pass  # only the first `Opened` counts
            case _:
                assert_never(event)
        return b""

    def _event(self, kind: bytes, members: bytes) -> bytes:
        number = self._number
        self._number = number + 1
        return b'event: %b\ndata: {"type":"%b","sequence_number":%d,%b}\n\n' % (kind, kind, number, members)

    def _open(self, event: chat.StreamEvent) -> bytes:
        """Return the first two events. The model of an answer that fails before it begins is not known."""
        head = self._head
        if isinstance(event, chat.Opened):
            head.model, head.created = head.model or event.model, event.created
            if event.service_tier is not None:
                head.tier = encode.tier_of(event.service_tier, self._style)
        head.created = head.created or int(time.time())
        self._state = _OPEN
        begun = b'"response":' + head.encode(encode.IN_PROGRESS, member=self._labels.first_member())
        return self._event(b"response.created", begun) + self._event(b"response.in_progress", begun)

    def _complete(self) -> bytes:
        written = self._end_all() if self._state != _FINISHED else b""
        self.finished, self._state = True, _ENDED
        if self._record.resumed is not None:
            self._head.tier = encode.USUAL_TIER
        member = self._labels.member(is_estimated=self.usage is None)
        usage = self.usage or encode.estimated_usage(self._asked, self.output)
        status = encode.status_of(self._finish)
        body = self._head.encode(status, self.output, encode.encode_usage(usage), finish=self._finish, member=member)
        # As in each API, it is a member of the event itself. A reader of the response alone finds it there, too.
        beside = b',"x_gateway":' + orjson.dumps(member) if member else b""
        return written + self._event(b"response." + status, b'"response":' + body + beside)

    def _fail(self, error: ApiError) -> bytes:
        """Return the last event of a stream that broke off. Items that had not ended are incomplete in it."""
        self._state, self._texts = _ENDED, None
        output = b",".join([item.done or self._whole(item, encode.INCOMPLETE) for item in self._items])
        reason = orjson.dumps({"code": error.code, "message": error.message, **error.user_fields, **error.extra})
        usage = encode.encode_usage(self.usage) if self.usage is not None else b"null"
        body = self._head.encode(encode.FAILED, output, usage, reason)
        outer = b"," + orjson.dumps(error.outer)[1:-1] if error.outer else b""
        return self._event(b"response.failed", b'"response":' + body + outer)

    # Items.

    def _begin(self, item: _Item, added: bytes) -> bytes:
        self._items.append(item)
        self._last = item
        return self._event(b"response.output_item.added", self._item_members(item.index, added))

    def _item_members(self, index: int, item: bytes) -> bytes:
        return b'"output_index":%d,"item":%b' % (index, item)

    def _next(self, kind: bytes) -> tuple[bytes, bytes, int]:
        """Return the id of the next item, the members that name it in its events, and its position."""
        index = len(self._items)
        id = encode.item_id(kind, self._record, index)
        return id, b'"item_id":"%b","output_index":%d' % (id, index), index

    def _end(self, item: _Item, status: bytes) -> bytes:
        """Return the last event of an item, and those of its parts before it."""
        written = [self._end_of_text(item)]
        item.done = self._whole(item, status)
        item.pieces = []
        written.append(self._event(b"response.output_item.done", self._item_members(item.index, item.done)))
        return b"".join(written)

    def _end_of_text(self, item: _Item) -> bytes:
        whole = b"".join(item.pieces)
        match item:
            case _Message():
                return self._end_part(item)
            case _Reasoning() if whole:
                at = item.at + b',"summary_index":0'
                done = self._event(b"response.reasoning_summary_text.done", b'%b,"text":"%b"' % (at, whole))
                part = b'%b,"part":%b' % (at, encode.summary_part(whole))
                return done + self._event(b"response.reasoning_summary_part.done", part)
            case _Call(kind="custom"):
                # The input stands inside of JSON, so it is written when all of it is there.
                given = encode.escape(encode.custom_input(whole))
                written = self._event(b"response.custom_tool_call_input.delta", b'%b,"delta":"%b"' % (item.at, given))
                done = b'%b,"input":"%b"' % (item.at, given)
                return written + self._event(b"response.custom_tool_call_input.done", done)
            case _Call(kind=None):
                # OpenAI's SDKs of some languages require the name here too.
                members = b'%b,"name":%b,"arguments":"%b"' % (item.at, orjson.dumps(item.name), whole)
                return self._event(b"response.function_call_arguments.done", members)
        return b""

    def _whole(self, item: _Item, status: bytes) -> bytes:
        whole = b"".join(item.pieces)
        match item:
            case _Message():
                parts = [*item.parts, self._part(item)] if item.pieces else item.parts
                return encode.message_item(item.id, status, parts)
            case _Reasoning():
                return encode.reasoning_item(item.id, status, encode.summary_part(whole) if whole else b"", item.state)
            case _Call():
                return encode.call_item(item.id, status, item.members, whole, item.kind)
        return b""

    def _end_current(self) -> bytes:
        """End the reasoning or the message that is open, because another item begins."""
        current, self._current, self._texts = self._current, None, None
        return self._end(current, encode.COMPLETED) if current is not None else b""

    def _end_all(self) -> bytes:
        """End all items, in their order."""
        status = encode.status_of(self._finish)
        written: list[bytes] = []
        is_answered = any(not isinstance(item, _Reasoning) for item in self._items)
        if not is_answered and status == encode.COMPLETED:
            # A complete answer has a text, if need be an empty one.
            written.append(self._message(is_refusal=False)[1])
        self._current = self._texts = None
        for item in self._items:
            if not item.done:
                written.append(self._end(item, status if item is self._last else encode.COMPLETED))
        return b"".join(written)

    # Reasoning and calls.

    def _reasoning(self, escaped: bytes) -> bytes:
        written: list[bytes] = []
        item = self._current
        if not isinstance(item, _Reasoning):
            written.append(self._end_current())
            item = self._current = _Reasoning(*self._next(b"rs"))
            written.append(self._begin(item, encode.reasoning_item(item.id, encode.IN_PROGRESS, b"", None)))
            part = b'%b,"summary_index":0,"part":%b' % (item.at, encode.summary_part(b""))
            written.append(self._event(b"response.reasoning_summary_part.added", part))
        self._add(item, escaped)
        delta = b'%b,"summary_index":0,"delta":"%b"' % (item.at, escaped)
        written.append(self._event(b"response.reasoning_summary_text.delta", delta))
        return b"".join(written)

    def _call(self, event: chat.ToolCallDelta) -> bytes:
        written: list[bytes] = []
        item = self._calls.get(event.index)
        if item is None:
            written.append(self._before_call(event.signature))
            members = encode.call_members(event.id or "", event.name or "", event.signature, self._asked)
            id, at, index = self._next(b"fc")
            name, names = event.name or "", self._asked.names
            item = self._calls[event.index] = _Call(
                id, at, index, name=names.split(name)[1], members=members, kind=names.kinds.get(name)
            )
            written.append(self._begin(item, encode.call_item(id, encode.IN_PROGRESS, members, b"", item.kind)))
        if event.arguments:
            escaped = encode.escape(event.arguments)
            self._add(item, escaped)
            if item.kind is None:
                delta = b'%b,"delta":"%b"' % (item.at, escaped)
                written.append(self._event(b"response.function_call_arguments.delta", delta))
        return b"".join(written)

    def _image(self, url: str) -> bytes:
        ended = self._end_current()
        id, at, index = self._next(b"ig")
        item = _Item(id, at, index, done=encode.image_item(id, url))
        self._bytes += len(url)
        added = self._begin(item, item.done)
        return ended + added + self._event(b"response.output_item.done", self._item_members(item.index, item.done))

    def _before_call(self, signature: str | None) -> bytes:
        """End the item before a call. Reasoning state is in the reasoning item directly before the call."""
        if signature is None or not self._asked.wants_state:
            return self._end_current()
        if isinstance(self._current, _Reasoning):
            self._current.state = signature
            return self._end_current()
        ended = self._end_current()
        id, at, index = self._next(b"rs")
        item = _Reasoning(id, at, index, state=signature)
        added = self._begin(item, encode.reasoning_item(id, encode.IN_PROGRESS, b"", None))
        return ended + added + self._end(item, encode.COMPLETED)

    def _add(self, item: _Item, escaped: bytes) -> None:
        item.pieces.append(escaped)
        self._bytes += len(escaped)
        self._last = item

    # Messages.

    def _text(self, escaped: bytes, logprobs: bytes = b"[]") -> bytes:
        item, begun = self._message(is_refusal=False)
        self._add(item, escaped)
        if logprobs != b"[]":
            item.logprobs.append(logprobs[1:-1])
        number = self._number
        self._number = number + 1
        return b'%b%b%d%b%b","logprobs":%b}\n\n' % (
            begun,
            self._text_head,
            number,
            self._text_middle,
            escaped,
            logprobs,
        )

    def _text_run(self, pieces: tuple[bytes, ...]) -> bytes:
        """Return the same as `_text` for each piece, in less time."""
        item, begun = self._message(is_refusal=False)
        head, middle, number = self._text_head, self._text_middle, self._number
        item.pieces += pieces
        self._bytes += sum(map(len, pieces))
        self._number, self._last = number + len(pieces), item
        return begun + b"".join(
            [b'%b%d%b%b","logprobs":[]}\n\n' % (head, at, middle, piece) for at, piece in enumerate(pieces, number)]
        )

    def _refusal(self, escaped: bytes) -> bytes:
        item, begun = self._message(is_refusal=True)
        self._add(item, escaped)
        return begun + self._event(b"response.refusal.delta", b'%b,"delta":"%b"' % (self._at(item), escaped))

    def _at(self, item: _Message) -> bytes:
        """Return the members that name the part that is open."""
        return b'%b,"content_index":%d' % (item.at, len(item.parts))

    def _message(self, *, is_refusal: bool) -> tuple[_Message, bytes]:
        """Return the message with such a part open, and the events that begin it, if it has to begin."""
        written: list[bytes] = []
        item = self._current
        if not isinstance(item, _Message):
            written.append(self._end_current())
            item = self._current = _Message(*self._next(b"msg"), is_refusal=is_refusal)
            written.append(self._begin(item, encode.message_item(item.id, encode.IN_PROGRESS, ())))
        elif item.is_refusal == is_refusal:
            return item, b""
        else:
            written.append(self._end_part(item))
            item.is_refusal = is_refusal
        empty = encode.refusal_part(b"") if is_refusal else encode.text_part(b"")
        written.append(self._event(b"response.content_part.added", b'%b,"part":%b' % (self._at(item), empty)))
        self._texts = None
        if not is_refusal:
            self._text_head = (
                b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":'
            )
            self._text_middle = b',%b,"delta":"' % self._at(item)
            self._texts = item.pieces if not self._labels.reads_texts else None
        return item, b"".join(written)

    def _annotation(self, annotation: bytes) -> bytes:
        """Add an annotation to the text that is open. Without a text there is no place for it."""
        item = self._current
        if not isinstance(item, _Message) or item.is_refusal:
            return b""
        members = b'%b,"annotation_index":%d,"annotation":%b' % (self._at(item), len(item.annotations), annotation)
        item.annotations.append(annotation)
        return self._event(b"response.output_text.annotation.added", members)

    def _part(self, item: _Message) -> bytes:
        whole = b"".join(item.pieces)
        if item.is_refusal:
            return encode.refusal_part(whole)
        return encode.text_part(whole, b"[%b]" % b",".join(item.annotations), b"[%b]" % b",".join(item.logprobs))

    def _end_part(self, item: _Message) -> bytes:
        whole, part, at = b"".join(item.pieces), self._part(item), self._at(item)
        if item.is_refusal:
            done = self._event(b"response.refusal.done", b'%b,"refusal":"%b"' % (at, whole))
        else:
            members = b'%b,"text":"%b","logprobs":[%b]' % (at, whole, b",".join(item.logprobs))
            done = self._event(b"response.output_text.done", members)
        item.parts.append(part)
        item.pieces, item.annotations, item.logprobs = [], [], []
        return done + self._event(b"response.content_part.done", b'%b,"part":%b' % (at, part))
