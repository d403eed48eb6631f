"""OpenAI's transcriptions, translations and speech."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Literal

import orjson

from gateway.api.body import Body, parse_json
from gateway.api.dialects.dialect import StreamEncoder
from gateway.api.dialects.openai_chat import DONE, InputDialect
from gateway.api.errors import ApiError
from gateway.execution.exchange import AnswerStyle
from gateway.inputs.audio import AudioNote, note_audio
from gateway.model.caller import RequestHeaders
from gateway.model.record import Record
from gateway.usage.token_count import tokens_of
from providers import chat
from providers.inputs.audio.decode import decode_speech, decode_transcription
from providers.inputs.audio.form import FormPart, FormReader, boundary_of, parse_form
from providers.inputs.audio.kinds import SPEECH_FORMATS
from providers.inputs.audio.values import SpeechRequest, Transcript, diarized_segment, srt_of, vtt_of
from providers.reading.folding import text_of_run
from providers.served import InputAnswer, InputRequest
from providers.value import replace

_PLAIN = b"content-type: text/plain; charset=utf-8"
_TOKENS_PER_CHARACTER = 4
_FILTERED = "the text was refused by the moderation of this region"


class TranscriptionDialect(InputDialect):
    """One request for a transcription: a form with a file."""

    route = "/v1/audio/transcriptions"
    media = b"multipart/form-data"
    task: Literal["transcribe", "translate"] = "transcribe"

    def __init__(self) -> None:
        self._boundary = ""
        self._format = "json"
        self._parts: tuple[FormPart, ...] = ()

    def read_head(self, headers: RequestHeaders) -> None:
        given = headers.all(b"content-type")
        boundary = boundary_of(given[0]) if len(given) == 1 else None
        if boundary is None:
            problem = "the content type must be `multipart/form-data` with one `boundary` of 1 to 70 characters"
            raise ApiError("unsupported_media_type", problem)
        self._boundary = boundary

    async def read_large(self, body: Body) -> None:
        form = FormReader(body, self._boundary)
        for _ in form.steps():
            await asyncio.sleep(0)
        self._parts = form.parts

    def decode(self, body: Body) -> InputRequest:
        parts, self._parts = self._parts or parse_form(body, self._boundary), ()
        request = decode_transcription(parts, self.task)
        self._format = request.response_format
        self.whole_type = _PLAIN if self._format in ("text", "srt", "vtt") else None
        return request

    def encode_result(self, result: Transcript, style: AnswerStyle, record: Record) -> bytes:
        usage = note_audio(record, result.usage)
        match self._format:
            case "text":
                return f"{result.text}\n".encode("utf-8", "replace")
            case "srt":
                return srt_of(result).encode("utf-8", "replace")
            case "vtt":
                return vtt_of(result).encode("utf-8", "replace")
        body: dict[str, object] = {"text": result.text}
        shown = {
            "language": result.language,
            "languages": [{"code": one} for one in result.languages] or None,
            "duration": result.duration_s,
            "segments": result.segments,
            "words": result.words,
            "logprobs": result.logprobs,
        }
        if self._format == "json":  # some clients take it for the verbose form by these members
            del shown["segments"], shown["words"], shown["language"], shown["duration"]
        else:
            body["task"] = self.task
        body |= {name: value for name, value in shown.items() if value is not None}
        body["usage"] = usage_of(usage)
        return _json({**body, **_member(record)})

    def encoder(self, style: AnswerStyle, record: Record) -> StreamEncoder:
        return TranscriptEncoder(style, record, has_segments=self._format == "diarized_json")


class TranslationDialect(TranscriptionDialect):
    """One request for a translation into English."""

    route = "/v1/audio/translations"
    task = "translate"


def usage_of(usage: chat.Usage) -> Mapping[str, object]:
    """Return the usage of a transcript: tokens where the provider counts them, else the length."""
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    if not (prompt or completion):
        return {"type": "duration", "seconds": usage.audio_ms / 1000}
    details = {"audio_tokens": usage.audio_tokens, "text_tokens": max(prompt - usage.audio_tokens, 0)}
    tokens = {"input_tokens": prompt, "output_tokens": completion, "total_tokens": prompt + completion}
    return {"type": "tokens", **tokens, "input_token_details": details}


def _member(record: Record, *, is_stream: bool = False) -> Mapping[str, object]:
    """Return the member of the gateway, if there is one. A stream has no headers for what is known at its end."""
    member: dict[str, object] = {"usage": "estimated"} if record.shown.usage_is_estimated else {}
    if is_stream and record.shown.charged is not None:
        member["cost"] = record.shown.charged
    if is_stream and record.moderation is not None and (told := record.moderation.member()) is not None:
        member["moderation"] = told
    return {"x_gateway": member} if member else {}


def _json(value: Mapping[str, object]) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # in numbers or names of a vendor, such as an integer of more than 64 bits
        return json.dumps(value).encode()


def _event(value: Mapping[str, object]) -> bytes:
    return b"data: " + _json(value) + b"\n\n"


class TranscriptEncoder(StreamEncoder):
    """Encodes the events of a transcript."""

    def __init__(self, style: AnswerStyle, record: Record, *, has_segments: bool) -> None:
        """See StreamEncoder. `has_segments`: the client asked for the parts of each speaker."""
        super().__init__(style, record)
        self._has_segments = has_segments
        self._texts: list[str] = []
        self._segments = 0
        self._is_filtered = False

    def encode(self, events: tuple[chat.StreamEvent, ...]) -> bytes:
        return b"".join([self._encode(event) for event in events])

    def _encode(self, event: chat.StreamEvent) -> bytes:
        match event:
            case chat.TextDelta() | chat.TextRun():
                text = event.text if isinstance(event, chat.TextDelta) else text_of_run(event.pieces)
                self._texts.append(text)
                return _event({"type": "transcript.text.delta", "delta": text}) if text else b""
            case chat.SegmentDelta(segment) if self._has_segments:
                self._segments += 1
                return _event(diarized_segment(self._segments - 1, segment))
            case chat.ChoiceFinish(reason):
                self._is_filtered = reason == "content_filter"
            case chat.UsageReport(usage):
                self.usage = usage
            case chat.Failed():
                return self._broken(event)
            case chat.Finished():
                self.finished = True
                counted = usage_of(note_audio(self._record, self.usage))
                if self._is_filtered:
                    error, found = self.interrupted(_FILTERED, "content_filter"), self._record.moderation
                    told = {"direction": "input", "categories": list(found.categories) if found is not None else []}
                    return self.encode_failure(replace(error, extra={**error.extra, "moderation": told}))
                done: dict[str, object] = {"type": "transcript.text.done", "text": "".join(self._texts)}
                if counted["type"] == "tokens":  # this event has no other usage
                    done["usage"] = counted
                return _event({**done, **_member(self._record, is_stream=True)}) + DONE
        return b""


class SpeechDialect(InputDialect):
    """One request for speech. Its answer is the bytes of a file, or events."""

    route = "/v1/audio/speech"

    def __init__(self) -> None:
        self._input, self._events, self._media = "", False, ""

    def decode(self, body: Body) -> InputRequest:
        request: SpeechRequest = decode_speech(parse_json(bytes(body)))
        self._input, self._events = request.input, request.events
        self._media = SPEECH_FORMATS[request.response_format].media
        if not request.events:
            self.stream_type, self.keep_alive = f"content-type: {self._media}".encode(), b""
        return request

    def encode_result(self, result: InputAnswer, style: AnswerStyle, record: Record) -> bytes:
        raise TypeError("speech is always a stream")

    def encoder(self, style: AnswerStyle, record: Record) -> StreamEncoder:
        media = self._media
        if self._events:
            return SpeechEventEncoder(style, record, media, self._input)
        return SpeechEncoder(style, record, media)


class SpeechEncoder(StreamEncoder):
    """Passes the bytes of speech on. It has no place for an error, so that the connection breaks off."""

    breaks_off = True

    def __init__(self, style: AnswerStyle, record: Record, media: str = "") -> None:
        """See StreamEncoder. `media`: the content type of the file."""
        super().__init__(style, record)
        note = record.noted(AudioNote)
        self._note, self._media = note, media
        self._hash = sha256() if note is not None and note.signer is not None else None

    def encode(self, events: tuple[chat.StreamEvent, ...]) -> bytes:
        return b"".join([self._encode(event) for event in events])

    def _encode(self, event: chat.StreamEvent) -> bytes:
        match event:
            case chat.AudioDelta(data):
                if self._hash is not None:
                    self._hash.update(data)
                return self._shown(data)
            case chat.UsageReport(usage):
                self.usage = usage
                note_audio(self._record, usage)
            case chat.Failed():
                return self._broken(event)
            case chat.Finished():
                self.finished = True
                return self._end()
        return b""

    def _shown(self, data: bytes) -> bytes:
        return data

    def _end(self) -> bytes:
        return b""

    def encode_failure(self, error: ApiError) -> bytes:
        return b"" if self.breaks_off else super().encode_failure(error)


class SpeechEventEncoder(SpeechEncoder):
    """Encodes speech as events, with its usage in the last one."""

    breaks_off = False

    def __init__(self, style: AnswerStyle, record: Record, media: str, spoken: str) -> None:
        """See StreamEncoder. `spoken`: the text."""
        super().__init__(style, record, media)
        self._spoken = spoken
        labels = style.labelling.labels if style.labelling is not None else ()
        self._signed = {label.name for label in labels if label.proof is not None}

    def _shown(self, data: bytes) -> bytes:
        return _event({"type": "speech.audio.delta", "audio": b64encode(data).decode()})

    def _end(self) -> bytes:
        record, usage = self._record, self.usage or chat.Usage()
        prompt = usage.prompt_tokens or max(1, tokens_of(self._spoken))
        completion = usage.completion_tokens or max(1, len(self._spoken) * _TOKENS_PER_CHARACTER)
        member: dict[str, object] = {"characters": usage.characters or len(self._spoken)}
        if record.shown.charged is not None:
            member["cost"] = record.shown.charged
        if record.shown.usage_is_estimated:
            member["usage"] = "estimated"
        if (note := self._note) is not None and note.labels:
            labels = note.labels
            if self._hash is not None and note.signer is not None:
                mark = note.signer.mark_audio(self._media, self._hash.hexdigest())
                signed = self._signed
                labels = [{**one, "marks": [mark]} if one["name"] in signed else one for one in labels]
                record.shown.marked = True
            member["labels"] = labels
        tokens = {"input_tokens": prompt, "output_tokens": completion, "total_tokens": prompt + completion}
        return _event({"type": "speech.audio.done", "usage": tokens, "x_gateway": member})
