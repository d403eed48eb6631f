"""Stream events -> the bytes of OpenAI's event stream: one line of JSON an event, `[DONE]` after a whole answer only.

Each choice's first chunk carries the role, and choices begin in the order of their indexes; the finish chunk has an
empty delta; usage, if asked for, comes last with no choices. A failure is one last event with an `error` object, and no
`[DONE]`.
"""

from __future__ import annotations

from typing import assert_never

import orjson

from gateway.api.errors import ApiError, encode_error
from gateway.model.record import Record, Resumed
from providers.chat import (
    AnnotationsDelta,
    ChoiceFinish,
    Failed,
    Finished,
    Heartbeat,
    Opened,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    TextRun,
    ToolCallDelta,
    Usage,
    UsageReport,
)
from providers.codec.answer import OUTWARD_FINISH, encode_usage
from providers.codec.call_ids import join_call_id
from providers.json_values import dumps_texts

DONE = b"data: [DONE]\n\n"


def _event(value: object) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def encode_stream_error(error: ApiError) -> bytes:
    """The last event of a stream that failed."""
    return _event(encode_error(error))


class ChunkEncoder:
    """One client's stream. `usage` and `failed` are there for the record once they have passed. model: what is shown
    instead of the model's name, if anything is. record: tells whether the answer was resumed, where there is one.
    choices: how many were asked for."""

    choices = 1

    def __init__(self, include_usage: bool, fallback_id: str, model: str | None = None) -> None:
        self.record: Record | None = None
        self.usage: Usage | None = None
        self.failed: Failed | None = None
        self.finished = False
        self._include_usage = include_usage
        self._fallback_id = fallback_id
        self._model = model
        # A chunk's bytes up to its choices, and behind them; around a text of choice 0; and around the next one.
        self._head = b""
        # Where that tells of the setup of who answers: what is left of it where another goes on.
        self._frame: dict[str, object] | None = None
        self._end = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
        self._text_head = self._text_tail = b""
        self._started: set[int] = set()
        # The choices that have their role already, because one with a higher index spoke before them.
        self._introduced: set[int] = set()

    def encode(self, events: tuple[StreamEvent, ...]) -> bytes:
        """The bytes of a batch; empty where there is nothing to show."""
        if self._frame is not None and self._resumed() is not None:
            # Another model goes on, whose setup is another one.
            self._begin(self._frame)
            self._frame = None
        if len(events) == 1:
            return self._encode(events[0])
        written: list[bytes] = []
        texts: list[str] = []
        for event in events:
            if type(event) is TextDelta and event.logprobs is None and event.choice == 0 and 0 in self._started:
                texts.append(event.text)
                continue
            if texts:
                written.append(self._texts(texts))
                texts = []
            written.append(self._encode(event))
        if texts:
            written.append(self._texts(texts))
        return b"".join(written)

    def lone_text(self, text: bytes) -> bytes:
        """The same for one more text of choice 0, the inside of a JSON string, where it changes nothing for what comes
        after it; empty elsewhere."""
        return self._text_head + text + self._text_tail if 0 in self._started else b""

    def _texts(self, texts: list[str]) -> bytes:
        """A chunk for each further text of choice 0, written in one go."""
        return self._text_head + dumps_texts(texts, self._text_tail + self._text_head) + self._text_tail

    def _encode(self, event: StreamEvent) -> bytes:
        match event:
            case TextDelta():
                if event.choice == 0 and event.logprobs is None and 0 in self._started:
                    return self._text_head + orjson.dumps(event.text)[1:-1] + self._text_tail
                return self._delta(event.choice, {"content": event.text}, event.logprobs)
            case TextRun():
                return self._text_run(event.pieces)
            case Opened():
                self._open(event)
                return b""
            case ChoiceFinish():
                return self._finish(event)
            case UsageReport():
                self.usage = event.usage
                return self._usage(event.usage) if self._include_usage else b""
            case Finished():
                self.finished = True
                return DONE
            case ReasoningDelta():
                return self._delta(event.choice, {"reasoning_content": event.text})
            case RefusalDelta():
                return self._delta(event.choice, {"refusal": event.text})
            case AnnotationsDelta():
                return self._delta(event.choice, {"annotations": event.annotations})
            case ToolCallDelta():
                return self._delta(event.choice, {"tool_calls": [_tool_call(event)]})
            case Failed():
                self.failed, self.usage = event, self.usage or event.usage
                return encode_stream_error(ApiError("stream_interrupted", event.failure.message))
            case Heartbeat():
                return b""
            case _:
                assert_never(event)

    def _open(self, event: Opened) -> None:
        head: dict[str, object] = {
            "id": event.id or self._fallback_id,
            "object": "chat.completion.chunk",
            "created": event.created,
            "model": self._model or event.model,
        }
        # Where the model isn't told, nothing else that may tell the provider is.
        if self._model is None and (event.service_tier is not None or event.system_fingerprint is not None):
            self._frame, head = head, dict(head)
            if event.service_tier is not None:
                head["service_tier"] = event.service_tier
            if event.system_fingerprint is not None:
                head["system_fingerprint"] = event.system_fingerprint
        self._begin(head)

    def _begin(self, head: dict[str, object]) -> None:
        """Chunks begin so from now on."""
        self._head = b'data: %b,"choices":[' % orjson.dumps(head)[:-1]
        self._text_head = self._head + b'{"index":0,"delta":{"content":"'
        self._text_tail = b'"},"logprobs":null,"finish_reason":null}' + self._end

    def _text_run(self, pieces: tuple[bytes, ...]) -> bytes:
        head, tail = self._text_head, self._text_tail
        if 0 not in self._started:
            first = self._delta(0, {"content": orjson.loads(b'"' + pieces[0] + b'"')})
            return first + self._text_run(pieces[1:]) if len(pieces) > 1 else first
        # The ends go with the first and the last text: to put them around all of it would copy it twice.
        parts = [*pieces]
        parts[0] = head + parts[0]
        parts[-1] += tail
        return (tail + head).join(parts)

    def _chunk(self, choices: bytes, extras: dict[str, object] | None = None, usage: Usage | None = None) -> bytes:
        """A chunk with these choices, as they are written."""
        if extras is None and usage is None:
            return self._head + choices + self._end
        told = b"" if usage is None else b',"usage":' + orjson.dumps(encode_usage(usage))
        if extras is not None:
            told += b',"x_gateway":' + orjson.dumps(extras)
        if usage is None and self._include_usage:
            told += b',"usage":null'
        return b"%b%b]%b}\n\n" % (self._head, choices, told)

    def _delta(self, choice: int, delta: dict[str, object], logprobs: object = None) -> bytes:
        before = b""
        if choice not in self._started:
            before = self._introduce_those_before(choice) if choice and self.choices > 1 else b""
            self._started.add(choice)
            if choice not in self._introduced:
                delta = {"role": "assistant", **delta}
        body: dict[str, object] = {"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": None}
        return before + self._chunk(orjson.dumps(body))

    def _introduce_those_before(self, choice: int) -> bytes:
        """The roles of those with a lower index that have said nothing yet. OpenAI's own clients put a choice that is
        new at the end of their list, whatever its index: in another order they mix up the answers, or raise."""
        silent = [lower for lower in range(min(choice, self.choices)) if lower not in self._started | self._introduced]
        self._introduced.update(silent)
        delta = {"role": "assistant"}
        bodies = ({"index": lower, "delta": delta, "logprobs": None, "finish_reason": None} for lower in silent)
        return b"".join(self._chunk(orjson.dumps(body)) for body in bodies)

    def _finish(self, event: ChoiceFinish) -> bytes:
        role = b""
        if event.choice not in self._started:
            self._started.add(event.choice)
            role = b'"content":""' if event.choice in self._introduced else b'"role":"assistant","content":""'
        reason = OUTWARD_FINISH[event.reason].encode()
        body = b'{"index":%d,"delta":{%b},"logprobs":null,"finish_reason":"%b"}' % (event.choice, role, reason)
        extras: dict[str, object] = {}
        if event.reason == "other" and event.raw:
            extras["finish_reason"] = event.raw
        if (resumed := self._resumed()) is not None:
            extras["resumed"] = {"from": resumed.broken, "by": resumed.by}
        return self._chunk(body, extras or None)

    def _usage(self, usage: Usage) -> bytes:
        resumed = self._resumed()
        is_estimated = resumed is not None and resumed.usage_is_estimated
        return self._chunk(b"", {"usage": "estimated"} if is_estimated else None, usage)

    def _resumed(self) -> Resumed | None:
        return self.record.resumed if self.record is not None else None


def _tool_call(event: ToolCallDelta) -> dict[str, object]:
    if event.id is None:
        return {"index": event.index, "function": {"arguments": event.arguments}}
    return {
        "index": event.index,
        "id": join_call_id(event.id, event.signature),
        "type": "function",
        "function": {"name": event.name, "arguments": event.arguments},
    }
