"""Write a stream as `GenerateContentResponse` objects: as server-sent events, or as one JSON array.

Theory of operation. Texts and thoughts are written as they arrive. Calls are collected, because a `functionCall` has
its arguments whole. The ends of all candidates, their calls and the usage leave together, in the last object, when the
provider's answer is known to be whole: to Google's clients a stream that only ends is a success, so nothing that looks
like an end may come before a failure. A failure is one last object with `error` as its only member.

In the form of events, only `data:` lines and blank lines may occur: google-genai for Python fails at any other line.
Google's SDK for Go splits at two line feeds, so silence is filled with two. It reads an error only in an object without
`data:`, as Google sends it, and those for Python and JavaScript read it in both forms: it stands in both.
To it a line also ends at U+0085, U+2028 and U+2029 (`str.splitlines`), which a JSON text may have: they are escaped.
"""

from __future__ import annotations

import re
from typing import assert_never

import msgspec
import orjson

from gateway.api.dialects.dialect import StreamEncoder
from gateway.api.dialects.gemini.encode import (
    call_parts,
    encode_citations,
    encode_logprobs,
    encode_usage,
    end_of,
    image_part,
)
from gateway.api.dialects.gemini.errors import error_object
from gateway.api.dialects.labelling import MEMBER
from gateway.api.errors import ApiError
from gateway.execution.exchange import AnswerStyle
from gateway.model.record import Record
from gateway.usage.token_count import tokens_of
from providers import chat
from providers.reading.folding import text_of_run
from providers.value import Value

_FIRST_TEXT = b'{"candidates":[{"content":{"parts":[{"text":"'
_AFTER_TEXT = b'"}],"role":"model"},"index":0}]'
_LINE_ENDS = re.compile(rb"\xc2\x85|\xe2\x80[\xa8\xa9]")


class StreamForm(Value, frozen=True):
    """The bytes before, between and after the objects of a stream, and those while it is silent."""

    first: bytes
    between: bytes
    last: bytes
    content_type: bytes
    keep_alive: bytes


EVENTS = StreamForm(
    b"data: ", b"\n\ndata: ", b"\n\n", b"content-type: text/event-stream; charset=utf-8", keep_alive=b"\n\n"
)
ARRAY = StreamForm(b"[", b",\n", b"]\n", b"content-type: application/json", keep_alive=b"\n")


class _Call(msgspec.Struct):
    id: str = ""
    name: str = ""
    signature: str | None = None
    arguments: list[str] = []


class _Candidate(msgspec.Struct):
    """The parts of a candidate that are collected until the end of the stream."""

    calls: dict[int, _Call] = {}
    annotations: list[chat.Annotation] = []
    finish: chat.ChoiceFinish | None = None
    has_refused: bool = False


class GeminiEncoder(StreamEncoder):
    """Encodes the stream of one client."""

    def __init__(
        self, style: AnswerStyle, record: Record, form: StreamForm, prompt_tokens: int, *, shows_thoughts: bool
    ) -> None:
        """Make it for one stream. `prompt_tokens` is an estimate, for a provider that counts nothing."""
        super().__init__(style, record)
        self._form = form
        self._prompt_tokens = prompt_tokens
        self._shows_thoughts = shows_thoughts
        self._seen_tokens = 0
        self._candidates: dict[int, _Candidate] = {}
        self._is_begun = False
        # The end of the stream's latest object, which is written before the next one.
        self._separator = form.first
        self._tail = b"}"
        # The bytes around a further text of choice 0; empty before the first one.
        self._text_head = self._text_tail = b""

    def encode(self, events: tuple[chat.StreamEvent, ...]) -> bytes:
        return _in_one_line(b"".join([self._encode(event) for event in self._labels.add(events)]))

    def lone_text(self, text: bytes) -> bytes:
        """See StreamEncoder. The text counts for the estimate of the usage."""
        if not self._text_head:
            return b""
        self._seen_tokens += 1
        return _in_one_line(self._text_head + text + self._text_tail)

    def encode_failure(self, error: ApiError) -> bytes:
        data = orjson.dumps(error_object(error, self._record.request_id))
        written = self._write(data, is_last=True)
        return written + data + self._form.last if self._form is EVENTS else written

    def _encode(self, event: chat.StreamEvent) -> bytes:
        match event:
            case chat.TextDelta():
                return self._text(event)
            case chat.TextRun():
                return self._text_run(event.pieces)
            case chat.Opened():
                self._open(event)
            case chat.ReasoningDelta():
                self._seen_tokens += tokens_of(event.text)
                if self._shows_thoughts:
                    return self._parts(event.choice, {"text": event.text, "thought": True})
            case chat.RefusalDelta():
                self._candidate(event.choice).has_refused = True
                self._seen_tokens += tokens_of(event.text)
                return self._parts(event.choice, {"text": event.text})
            case chat.ImageDelta():
                return self._parts(event.choice, image_part(event.url))
            case chat.AnnotationsDelta():
                self._candidate(event.choice).annotations += event.annotations
            case chat.ToolCallDelta():
                call = self._candidate(event.choice).calls.setdefault(event.index, _Call())
                call.id, call.name = call.id or event.id or "", call.name or event.name or ""
                call.signature = call.signature or event.signature
                call.arguments.append(event.arguments)
            case chat.ChoiceFinish():
                self._candidate(event.choice).finish = event
            case chat.UsageReport():
                self.usage = event.usage
            case chat.Finished():
                self.finished = True
                return self._finish()
            case chat.Failed():
                return self._broken(event)
            case chat.Heartbeat() | chat.AudioDelta() | chat.SegmentDelta():
                pass
            case _:
                assert_never(event)
        return b""

    def _candidate(self, choice: int) -> _Candidate:
        return self._candidates.setdefault(choice, _Candidate())

    def _open(self, event: chat.Opened) -> None:
        shown_id = event.id if event.id and self._model is None else self._record.request_id
        known = {"modelVersion": self._model or event.model, "responseId": shown_id}
        self._tail = b"," + orjson.dumps(known)[1:]
        if self._text_head:
            self._expect_texts()

    def _expect_texts(self) -> None:
        """Write further texts of choice 0 the short way from now on."""
        if self._form is EVENTS:
            self._text_head = self._form.first + _FIRST_TEXT
            self._text_tail = _AFTER_TEXT + self._tail + self._form.last
        else:
            self._text_head = self._form.between + _FIRST_TEXT
            self._text_tail = _AFTER_TEXT + self._tail

    def _text(self, event: chat.TextDelta) -> bytes:
        self._seen_tokens += tokens_of(event.text)
        if event.choice == 0 and event.logprobs is None and self._text_head:
            return self._text_head + orjson.dumps(event.text)[1:-1] + self._text_tail
        extras: dict[str, object] = {}
        if event.logprobs and (result := encode_logprobs(event.logprobs)):
            extras["logprobsResult"] = result
        return self._parts(event.choice, {"text": event.text}, extras)

    def _text_run(self, pieces: tuple[bytes, ...]) -> bytes:
        if not self._text_head:
            first = self._text(chat.TextDelta(text_of_run(pieces[:1])))
            return first + self._text_run(pieces[1:]) if len(pieces) > 1 else first
        self._seen_tokens += len(pieces)
        head, tail = self._text_head, self._text_tail
        return head + (tail + head).join(pieces) + tail

    def _parts(self, choice: int, part: dict[str, object], extras: dict[str, object] | None = None) -> bytes:
        """Return an object with one more part of a candidate."""
        self._candidate(choice)
        candidate = {"content": {"parts": [part], "role": "model"}, "index": choice, **(extras or {})}
        data = b'{"candidates":[%b]%b' % (orjson.dumps(candidate), self._tail)
        if not self._is_begun:
            # Not before, because it states whether the words of labels are in this text.
            self._is_begun, member = True, self._labels.first_member()
            if member is not None:
                data = b'%b,"%b":%b}' % (data[:-1], MEMBER.encode(), orjson.dumps(member))
        written = self._write(data)
        if not self._text_head and not self._labels.reads_texts:
            self._expect_texts()
        return written

    def _finish(self) -> bytes:
        """Return the last object of a whole answer."""
        candidates: list[dict[str, object]] = []
        for choice, collected in sorted(self._candidates.items()):
            calls = [
                chat.ToolCall(call.id, call.name, "".join(call.arguments), call.signature)
                for _, call in sorted(collected.calls.items())
            ]
            self._seen_tokens += sum(tokens_of(call.name) + tokens_of(call.arguments) for call in calls)
            parts, broken = call_parts(calls)
            end = collected.finish or chat.ChoiceFinish("other", choice)
            candidate: dict[str, object] = {
                "content": {"parts": parts or [{"text": ""}], "role": "model"},
                **end_of(end.reason, end.raw, broken, is_refusal=collected.has_refused),
                "index": choice,
            }
            if collected.annotations and (citations := encode_citations(collected.annotations)):
                candidate["citationMetadata"] = citations
            candidates.append(candidate)
        member = self._labels.member(is_estimated=self.usage is None)
        usage = self.usage or chat.Usage(self._prompt_tokens, max(1, self._seen_tokens))
        data = orjson.dumps({"candidates": candidates, "usageMetadata": encode_usage(usage)})[:-1] + self._tail
        if member:
            data = b'%b,"%b":%b}' % (data[:-1], MEMBER.encode(), orjson.dumps(member))
        return self._write(data, is_last=True)

    def _write(self, data: bytes, *, is_last: bool = False) -> bytes:
        """Return an object as it is written into the stream."""
        form = self._form
        if form is EVENTS:
            return form.first + data + form.last
        separator, self._separator = self._separator, form.between
        return separator + data + (form.last if is_last else b"")


def _in_one_line(written: bytes) -> bytes:
    """Escape the characters of JSON texts at which some readers end a line."""
    return written if written.isascii() else _LINE_ENDS.sub(_escaped, written)


def _escaped(found: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(found[0].decode())
