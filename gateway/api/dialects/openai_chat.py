"""Answers and stream events in the form of OpenAI's chat completions, with the labels of a region.

A stream is one line of JSON per event, and `[DONE]` after a whole answer only. The first chunk of each choice has the
role, and choices begin in the order of their indexes. The finish chunk has an empty delta. Usage comes last, without
choices, if it was asked for. A failure is one last event with an `error` object and no `[DONE]`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, assert_never

import orjson

from gateway.api.body import read_request
from gateway.api.dialects.dialect import JSON_MEDIA, Dialect, StreamEncoder
from gateway.api.dialects.labelling import MEMBER, label_answer, own_word
from gateway.api.errors import ApiError, encode_error
from gateway.execution.exchange import AnswerStyle
from gateway.model.moderation import ModerationRecord
from gateway.model.record import Record
from gateway.model.served import ServedRequest
from providers import chat
from providers.formats.reasoning_state import join_call_id
from providers.json_values import dumps_texts
from providers.openai_json import encode_completion
from providers.openai_json.encode_answer import OUTWARD_FINISH, encode_images, encode_usage
from providers.served import InputRequest
from providers.value import replace

DONE = b"data: [DONE]\n\n"


class OpenAIChat(Dialect):
    """OpenAI's chat completions. See `gateway.api.dialects.dialect.Dialect`."""

    keep_alive = b": keep-alive\n\n"
    stream_type = b"content-type: text/event-stream; charset=utf-8"
    media = JSON_MEDIA
    route = "/v1/chat/completions"
    user_field = "user"

    def decode(self, body: bytes) -> ServedRequest:
        return read_request(body)

    def encode_answer(self, completion: chat.ChatCompletion, style: AnswerStyle, record: Record) -> bytes:
        if not completion.id or style.shown_model is not None:
            completion = replace(completion, id=f"chatcmpl-{record.request_id}")
        labelled, member = label_answer(completion, style, record)
        body = encode_completion(labelled, style.shown_model)
        return orjson.dumps({**body, MEMBER: member} if member else body)

    def encoder(self, style: AnswerStyle, record: Record) -> StreamEncoder:
        return ChunkEncoder(style, record)

    def encode_error(self, error: ApiError, request_id: str) -> bytes:
        return orjson.dumps(encode_error(error))


OPENAI_CHAT = OpenAIChat()


class InputDialect(OpenAIChat, ABC):
    """One request that is not a chat. Its errors are those of chats.

    `whole_type` is the header line with the content type of a whole answer, or None for JSON.
    """

    whole_type: bytes | None = None

    @abstractmethod
    def decode(self, body: bytes) -> InputRequest:
        """Parse and decode the body. Raises ApiError or InvalidRequest."""

    @abstractmethod
    def encode_result(self, result: Any, style: AnswerStyle, record: Record) -> bytes:
        """Return the body of an answer to a request of this dialect."""


class ChunkEncoder(StreamEncoder):
    """Encodes the stream of one client.

    The marks of labels are on the first chunk, and on the chunk that ends the last choice, where the integrity value is
    known. An answer that breaks off has no integrity value.
    """

    def __init__(self, style: AnswerStyle, record: Record) -> None:
        super().__init__(style, record)
        self._shown_moderation: dict[str, object] | None = None
        self._include_usage = style.include_usage
        self._choices = style.choices
        # The first chunk will have marks.
        self._is_mark_due = self._labels.reads_texts or record.help is not None
        # A chunk's bytes before and after its choices; and those around a further text of choice 0.
        self._head = b""
        # If the head describes the provider's setup: the head without it, for the model that resumes the answer.
        self._frame: dict[str, object] | None = None
        self._end = b'],"usage":null}\n\n' if style.include_usage else b"]}\n\n"
        self._text_head = self._text_tail = b""
        self._started: set[int] = set()
        # Choices that have their role already, because one with a higher index began before them.
        self._introduced: set[int] = set()
        # The choices that have ended, maybe fewer than were asked for.
        self._ended: set[int] = set()

    def encode(self, events: tuple[chat.StreamEvent, ...]) -> bytes:
        labels = self._labels
        if labels.reads_texts:
            events = labels.add(events)
        else:
            labels.is_last_batch = isinstance(events[-1], chat.Finished) if events else False
        if self._frame is not None and self._record.resumed is not None:
            # Another model resumes the answer, and its setup differs.
            self._begin(self._frame)
            self._frame = None
        if len(events) == 1:
            return self._encode(events[0])
        written: list[bytes] = []
        texts: list[str] = []
        for event in events:
            if type(event) is chat.TextDelta and event.logprobs is None and event.choice == 0 and 0 in self._started:
                texts.append(event.text)
                continue
            if texts:
                written.append(self._texts(texts))
                texts = []
            written.append(self._encode(event))
        if texts:
            written.append(self._texts(texts))
        return b"".join(written)

    def around_text(self) -> tuple[bytes, bytes] | None:
        if 0 not in self._started or self._labels.reads_texts:
            return None
        return self._text_head, self._text_tail

    def _texts(self, texts: list[str]) -> bytes:
        """Return a chunk for each further text of choice 0."""
        return self._text_head + dumps_texts(texts, self._text_tail + self._text_head) + self._text_tail

    def _encode(self, event: chat.StreamEvent) -> bytes:
        match event:
            case chat.TextDelta():
                if event.choice == 0 and event.logprobs is None and 0 in self._started:
                    return self._text_head + orjson.dumps(event.text)[1:-1] + self._text_tail
                return self._delta(event.choice, {"content": event.text}, event.logprobs)
            case chat.TextRun():
                return self._text_run(event.pieces)
            case chat.Opened():
                self._open(event)
                return b""
            case chat.ChoiceFinish():
                return self._finish(event)
            case chat.UsageReport():
                self.usage = event.usage
                return self._usage(event.usage) if self._include_usage else b""
            case chat.Finished():
                self.finished = True
                # A finish in an earlier batch was written before the cost was known.
                cost = self._labels.cost()
                return self._chunk(b"", cost) + DONE if cost else DONE
            case chat.ReasoningDelta():
                return self._delta(event.choice, {"reasoning_content": event.text})
            case chat.RefusalDelta():
                return self._delta(event.choice, {"refusal": event.text})
            case chat.AnnotationsDelta():
                return self._delta(event.choice, {"annotations": event.annotations})
            case chat.ImageDelta():
                return self._delta(event.choice, {"images": encode_images((event.url,))})
            case chat.ToolCallDelta():
                return self._delta(event.choice, {"tool_calls": [_tool_call(event)]})
            case chat.Failed():
                return self._broken(event)
            case chat.Heartbeat() | chat.AudioDelta() | chat.SegmentDelta():
                return b""
            case _:
                assert_never(event)

    def _open(self, event: chat.Opened) -> None:
        head: dict[str, object] = {
            "id": event.id if event.id and self._model is None else f"chatcmpl-{self._record.request_id}",
            "object": "chat.completion.chunk",
            "created": event.created,
            "model": self._model or event.model,
        }
        # If the model is hidden, hide everything else that can identify the provider.
        tier = event.service_tier if event.service_tier in chat.SERVICE_TIERS else None
        if self._model is None and (tier is not None or event.system_fingerprint is not None):
            self._frame, head = head, dict(head)
            if tier is not None:
                head["service_tier"] = tier
            if event.system_fingerprint is not None:
                head["system_fingerprint"] = event.system_fingerprint
        self._begin(head)

    def _begin(self, head: dict[str, object]) -> None:
        """Let all chunks begin with this head from now on."""
        self._head = b'data: %b,"choices":[' % orjson.dumps(head)[:-1]
        self._text_head = self._head + b'{"index":0,"delta":{"content":"'
        self._text_tail = b'"},"logprobs":null,"finish_reason":null}' + self._end

    def _text_run(self, pieces: tuple[bytes, ...]) -> bytes:
        head, tail = self._text_head, self._text_tail
        if 0 not in self._started:
            first = self._delta(0, {"content": orjson.loads(b'"' + pieces[0] + b'"')})
            return first + self._text_run(pieces[1:]) if len(pieces) > 1 else first
        # Add the ends to the first and the last text: adding them to the joined bytes would copy these twice.
        parts = [*pieces]
        parts[0] = head + parts[0]
        parts[-1] += tail
        return (tail + head).join(parts)

    def _chunk(self, choices: bytes, extras: dict[str, object] | None = None, usage: chat.Usage | None = None) -> bytes:
        """Return a chunk with these encoded choices."""
        if self._is_mark_due:
            self._is_mark_due = False
            extras = {**(self._labels.first_member() or {}), **(extras or {})}
        if extras is None and usage is None:
            return self._head + choices + self._end
        tail = b"" if usage is None else b',"usage":' + orjson.dumps(encode_usage(usage))
        if extras is not None:
            tail += b',"%b":' % MEMBER.encode() + orjson.dumps(extras)
        if usage is None and self._include_usage:
            tail += b',"usage":null'
        return b"%b%b]%b}\n\n" % (self._head, choices, tail)

    def _delta(self, choice: int, delta: dict[str, object], logprobs: object = None) -> bytes:
        before = b""
        if choice not in self._started:
            before = self._introduce_lower(choice) if choice and self._choices > 1 else b""
            self._started.add(choice)
            if choice not in self._introduced:
                delta = {"role": "assistant", **delta}
        body: dict[str, object] = {"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": None}
        return before + self._chunk(orjson.dumps(body))

    def _introduce_lower(self, choice: int) -> bytes:
        """Return the role chunks of choices with a lower index that have not begun.

        OpenAI's own clients append a new choice to their list whatever its index. In another order they mix up the
        answers, or raise.
        """
        silent = [lower for lower in range(min(choice, self._choices)) if lower not in self._started | self._introduced]
        self._introduced.update(silent)
        delta = {"role": "assistant"}
        bodies = ({"index": lower, "delta": delta, "logprobs": None, "finish_reason": None} for lower in silent)
        return b"".join(self._chunk(orjson.dumps(body)) for body in bodies)

    def _finish(self, event: chat.ChoiceFinish) -> bytes:
        role = b""
        if event.choice not in self._started:
            self._started.add(event.choice)
            role = b'"content":""' if event.choice in self._introduced else b'"role":"assistant","content":""'
        reason = OUTWARD_FINISH[event.reason].encode()
        body = b'{"index":%d,"delta":{%b},"logprobs":null,"finish_reason":"%b"}' % (event.choice, role, reason)
        extras: dict[str, object] = {}
        if event.raw is not None and (word := own_word(event.reason, event.raw)):
            extras["finish_reason"] = word
        extras |= self._labels.resumed()
        if self._record.moderation is not None:
            extras |= self._unshown_moderation(self._record.moderation)
        if not self._include_usage and self._choices == 1:
            extras |= self._labels.cost()
        self._ended.add(event.choice)
        if self._started <= self._ended:
            extras |= self._labels.last_marks()
        return self._chunk(body, extras or None)

    def _usage(self, usage: chat.Usage) -> bytes:
        extras: dict[str, object] = {"usage": "estimated"} if self._record.shown.usage_is_estimated else {}
        return self._chunk(b"", extras | self._labels.cost() or None, usage)

    def _unshown_moderation(self, moderation: ModerationRecord) -> dict[str, object]:
        """Return the verdict that the client learns, at the end of each choice that has changed it."""
        told = moderation.member()
        if told is None or told == self._shown_moderation:
            return {}
        self._shown_moderation = told
        return {"moderation": told}


def _tool_call(event: chat.ToolCallDelta) -> dict[str, object]:
    if event.id is None:
        return {"index": event.index, "function": {"arguments": event.arguments}}
    return {
        "index": event.index,
        "id": join_call_id(event.id, event.signature),
        "type": "function",
        "function": {"name": event.name, "arguments": event.arguments},
    }
