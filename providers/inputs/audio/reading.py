"""Read a provider's answer with text or audio while it arrives, as events of a stream. Pure.

One reader knows all forms of the events of transcriptions, and reads one whole answer too: servers copy each other.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Callable, Mapping

from providers import chat
from providers.failures import About, Failure, FailureKind, ProviderFailed
from providers.inputs.audio.kinds import SPEECH_FORMATS, kind_of
from providers.inputs.audio.tags import Tagger
from providers.inputs.audio.values import SpeechRequest, Transcript
from providers.json_values import (
    JsonError,
    as_list,
    as_map,
    loads,
    read_count,
    read_map,
    read_str,
    repair_surrogates,
    split_high_surrogate,
)
from providers.reading.errors import classify, error_object, holds_error, malformed, shared_rules
from providers.reading.event_stream import EndsWithBody, StreamShortcuts
from providers.reading.response_reader import MAX_BODY_BYTES, TOO_LARGE, is_event_stream
from providers.reading.sse import ServerSentEvent, SseParser
from providers.value import replace
from providers.wire import WireResponse

_SEGMENT = frozenset(
    "id seek start end text tokens temperature avg_logprob compression_ratio no_speech_prob type speaker "
    "speaker_id".split()
)
_TIMES, _LOGPROB = frozenset({"start", "end"}), frozenset({"token", "logprob", "bytes"})
_GUESSES = re.compile(r"<\|[^|<>]{1,32}\|>|[\U0001f60a\U0001f614\U0001f621\U0001f630\U0001f922\U0001f62e]")
"""The marks of emotion, sounds and language that SenseVoice writes into a text. It is never passed on."""
_MOST_MS = 10**12
_UNKNOWN = 0xFFFFFFFF
_WAV_HEAD = (
    b"RIFF" + struct.pack("<I", _UNKNOWN) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 24_000, 48_000, 2, 16)
    + b"data" + struct.pack("<I", _UNKNOWN)
)  # fmt: skip
_HEAD_BYTES = 64
_TEXT = re.compile(rb"\s*[{<][\t\n\r\x20-\xf7]*\Z")
"""The beginning of JSON or HTML. That of PCM has bytes that no text has, because most samples are small."""
_TEXTS = frozenset({"application/json", "application/problem+json", "text/html", "text/event-stream"})


def read_transcript(body: Mapping[str, object]) -> Transcript:
    """Return the transcript in a JSON object of OpenAI's form. Everything that no field of it has is dropped.

    Raises ProviderFailed.
    """
    text = body.get("text")
    if not isinstance(text, str):
        raise malformed("the answer has no text")
    duration = body.get("duration")
    listed = [as_map(one).get("code", one) for one in as_list(body.get("languages"))]
    languages = tuple([one for one in listed if isinstance(one, str)])
    segments, words, logprobs = body.get("segments"), body.get("words"), body.get("logprobs")
    return Transcript(
        plain_words(text),
        read_str(body, "language") or None,
        languages,
        length / 1000 if (length := milliseconds(duration)) else None,
        tuple(map(_segment, as_list(segments))) if isinstance(segments, list) else None,
        tuple(map(_word, as_list(words))) if isinstance(words, list) else None,
        [_members(one, _LOGPROB) for one in logprobs] if isinstance(logprobs, list) else None,
        read_usage(read_map(body, "usage"), text, duration),
    )


def plain_words(text: str) -> str:
    """Return a text without a vendor's guesses about who speaks, and without halves of surrogate pairs."""
    text = repair_surrogates(text)
    return _GUESSES.sub("", text).strip() if _GUESSES.search(text) else text


def _members(value: object, names: frozenset[str]) -> dict[str, object]:
    """Return the members of these names that are texts, numbers or lists of numbers: what is deeper may be a guess."""
    return {name: item for name, item in as_map(value).items() if name in names and _is_plain(item)}


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(one, int | float) for one in value)
    return value is None or isinstance(value, str | int | float)


def _segment(value: object) -> Mapping[str, object]:
    found = _members(value, _SEGMENT)
    found["text"] = plain_words(read_str(found, "text") or "")
    speaker = found.get("speaker", found.pop("speaker_id", None))
    return found if speaker is None else {**found, "speaker": str(speaker)}


def _word(value: object) -> Mapping[str, object]:
    return {"word": plain_words(read_str(as_map(value), "word") or ""), **_members(value, _TIMES)}


def milliseconds(seconds: object) -> int:
    """Return a number of seconds in milliseconds, or 0 if it can't be a length."""
    if isinstance(seconds, str):
        try:
            seconds = float(seconds)
        except ValueError:
            return 0
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return 0
    return round(seconds * 1000) if 0 < seconds * 1000 < _MOST_MS else 0


def read_usage(source: Mapping[str, object], text: str, duration: object = None) -> chat.Usage | None:
    """Return the counts of an answer: tokens, and the length that is billed, or else the length of the audio.

    All counts are 0 if the provider states so of audio without a text.
    """
    prompt = read_count(source, "input_tokens") or read_count(source, "prompt_tokens")
    completion = read_count(source, "output_tokens") or read_count(source, "completion_tokens")
    details = read_map(source, "input_token_details")
    stated = source.get("seconds"), source.get("prompt_audio_seconds"), duration
    length = next(filter(None, map(milliseconds, stated)), 0)
    is_nothing = not text and any(type(one) in (int, float) and one == 0 for one in stated)
    if not (prompt or completion or length or is_nothing):
        return None
    return chat.Usage(prompt, completion, audio_tokens=read_count(details, "audio_tokens"), audio_ms=length)


class _Reader:
    """The common part of both readers, a `StreamParser` with `StreamShortcuts`. A subclass overrides `_start`."""

    def __init__(self, head: WireResponse) -> None:
        self._head = head
        self._done = False

    def text_reader(self) -> None:
        """See `StreamShortcuts`."""

    def is_complete(self) -> bool:
        return False

    def feed(self, data: bytes) -> tuple[chat.StreamEvent, ...]:
        return self._taken(self._read, data)

    def close(self) -> tuple[chat.StreamEvent, ...]:
        return self._taken(self._end)

    def _taken(self, step: Callable[..., list[chat.StreamEvent]], *data: bytes) -> tuple[chat.StreamEvent, ...]:
        if self._done:
            return ()
        try:
            events = step(*data)
        except ProviderFailed as error:
            events = [chat.Failed(error.failure)]
        end = next((at for at, event in enumerate(events, 1) if isinstance(event, chat.Finished | chat.Failed)), None)
        self._done = end is not None
        return tuple(events[:end])

    def _read(self, data: bytes) -> list[chat.StreamEvent]:
        raise NotImplementedError

    def _end(self) -> list[chat.StreamEvent]:
        raise NotImplementedError

    def _fail_on_error(self, body: Mapping[str, object]) -> None:
        """Raise ProviderFailed for an error inside an answer that began with status 200."""
        if body.get("type") == "error" or holds_error(body, shared_rules()):
            raise ProviderFailed(classify(body, self._head, shared_rules()))


class _Events:
    """Splits server-sent events into their JSON objects; None stands for `[DONE]`."""

    def __init__(self) -> None:
        self._sse = SseParser()

    def objects(self, data: bytes | None) -> list[Mapping[str, object] | None]:
        """Return the objects that these bytes complete. `data`: None at the end. Raises ProviderFailed."""
        found: list[Mapping[str, object] | None] = []
        for item in self._sse.feed(data) if data is not None else self._sse.close():
            if not isinstance(item, ServerSentEvent) or not item.data.strip():
                continue
            if item.data.startswith(b"[DONE]"):
                found.append(None)
                continue
            try:
                found.append(as_map(loads(item.data)))
            except JsonError:
                if data is not None:
                    raise malformed("an event of the provider's stream is not valid JSON") from None
        if self._sse.overflowed:
            raise ProviderFailed(TOO_LARGE)
        return found


class TranscriptReader(_Reader):
    """Reads a transcript as events of any form, or as one whole answer, which `whole` reads."""

    def __init__(self, head: WireResponse, whole: Callable[[WireResponse], Transcript]) -> None:
        super().__init__(head)
        self._whole = whole
        self._body: bytearray | None = bytearray()
        self._events = _Events()
        self._shown: list[str] = []
        self._cut = ""
        self._usage: chat.Usage | None = None
        self._is_chunked = False

    def _read(self, data: bytes) -> list[chat.StreamEvent]:
        if self._body is not None:
            self._body += data
            if not is_event_stream(replace(self._head, body=bytes(self._body[:_HEAD_BYTES]))):
                if len(self._body) > MAX_BODY_BYTES:
                    raise ProviderFailed(TOO_LARGE)
                return [chat.Heartbeat()]
            data, self._body = bytes(self._body), None
        events = [event for body in self._events.objects(data) for event in self._event(body)]
        return events or [chat.Heartbeat()]

    def _end(self) -> list[chat.StreamEvent]:
        if self._body is not None:
            transcript = self._whole(replace(self._head, body=bytes(self._body)))
            segments = map(chat.SegmentDelta, transcript.segments or ())
            return [*self._delta(transcript.text), *segments, *self._ended(None, transcript.usage)]
        events = [event for body in self._events.objects(None) for event in self._event(body)]
        if not events or not isinstance(events[-1], chat.Finished):
            events.append(
                chat.Failed(Failure(FailureKind.INTERRUPTED, "the provider's stream ended before the text did"))
            )
        return events

    def _event(self, body: Mapping[str, object] | None) -> list[chat.StreamEvent]:
        if body is None:
            return self._ended(None, self._usage) if self._is_chunked else []
        self._fail_on_error(body)
        match body.get("type"):
            case "transcript.text.delta":
                return self._delta(read_str(body, "delta"))
            case "transcription.text.delta":
                return self._delta(read_str(body, "text"))
            case "transcript.text.segment" | "transcription.segment":
                return [chat.SegmentDelta(_segment(body))]
            case "transcript.text.done" | "transcription.done":
                text = read_str(body, "text") or ""
                return self._ended(text, read_usage(read_map(body, "usage"), "".join(self._shown) + text))
        if body.get("object") == "transcription.chunk":
            self._is_chunked = True
            self._usage = read_usage(read_map(body, "usage"), " ") or self._usage
            pieces = [read_str(read_map(as_map(one), "delta"), "content") for one in as_list(body.get("choices"))]
            return self._delta("".join([piece for piece in pieces if piece]))
        return []

    def _delta(self, text: str | None) -> list[chat.StreamEvent]:
        text, self._cut = split_high_surrogate(self._cut + (text or ""))
        text = _GUESSES.sub("", repair_surrogates(text))
        self._shown.append(text)
        return [chat.TextDelta(text)] if text else []

    def _ended(self, text: str | None, usage: chat.Usage | None) -> list[chat.StreamEvent]:
        """Return the end, after what the deltas lack of the whole text."""
        whole = plain_words(text or "")
        shown = "".join(self._shown)
        rest = whole[len(shown) :] if whole.startswith(shown) else ""
        return [
            *([chat.TextDelta(rest)] if rest else []),
            chat.ChoiceFinish("stop"),
            *([chat.UsageReport(usage)] if usage is not None else []),
            chat.Finished(),
        ]


class SpeechReader(_Reader, EndsWithBody):
    """Reads speech: the bytes of a file, which are checked by their beginning, events with base64, or one JSON with it.

    The client asked for the format `asked`, and the vendor for `sent`: `wav` is made of `pcm`. `SpeechFacts` has the
    vendor's `form`.
    """

    def __init__(self, head: WireResponse, asked: str, sent: str, form: str) -> None:
        super().__init__(head)
        self._asked, self._sent, self._form = asked, sent, form
        self._begun = b""
        self._has_audio = False
        self._body = bytearray()
        self._events = _Events()
        self._usage: chat.Usage | None = None

    def _read(self, data: bytes) -> list[chat.StreamEvent]:
        if self._form == "usual":
            return self._audio(data) or [chat.Heartbeat()]
        if self._form == "qwen" and is_event_stream(self._head):
            events = [event for body in self._events.objects(data) for event in self._event(body or {})]
            return events or [chat.Heartbeat()]
        self._body += data
        if len(self._body) > MAX_BODY_BYTES:
            raise ProviderFailed(TOO_LARGE)
        return [chat.Heartbeat()]

    def _end(self) -> list[chat.StreamEvent]:
        if self._form == "usual":
            return [*self._audio(b"", at_end=True), *self._ended()]
        if not self._body:
            interrupted = Failure(FailureKind.INTERRUPTED, "the provider's stream ended before the audio did")
            raise ProviderFailed(interrupted) if self._has_audio else malformed("the answer has no audio")
        body = error_object(bytes(self._body))
        self._fail_on_error(body)
        audio = body.get("audio_data", read_map(read_map(body, "output"), "audio").get("data"))
        return [*self._audio(_decoded(audio), at_end=True), *self._ended()]

    def _event(self, body: Mapping[str, object]) -> list[chat.StreamEvent]:
        if body.get("code") or body.get("error"):
            raise ProviderFailed(classify(body, self._head, shared_rules()))
        output = read_map(body, "output")
        usage = read_map(body, "usage")
        if characters := read_count(usage, "characters"):
            self._usage = chat.Usage(characters=characters)
        events = self._audio(_decoded(read_map(output, "audio").get("data") or ""))
        if read_str(output, "finish_reason") == "stop":
            events += [*self._audio(b"", at_end=True), *self._ended()]
        return events

    def _ended(self) -> list[chat.StreamEvent]:
        if not self._has_audio:
            raise malformed("the answer has no audio")
        return [
            chat.ChoiceFinish("stop"),
            *([chat.UsageReport(self._usage)] if self._usage is not None else []),
            chat.Finished(),
        ]

    def _audio(self, data: bytes, *, at_end: bool = False) -> list[chat.StreamEvent]:
        """Return audio in the format of the client, once enough of it is here to know its kind."""
        if not self._has_audio:
            self._begun += data
            if not self._begun or (len(self._begun) < _HEAD_BYTES and not at_end):
                return []
            self._check_kind(self._begun)
            self._has_audio = True
            data = self._begun if self._sent == self._asked else _WAV_HEAD + self._begun
        return [chat.AudioDelta(data)] if data else []

    def _check_kind(self, head: bytes) -> None:
        known, kind = SPEECH_FORMATS.get(self._sent), kind_of(head)
        expected = known.kind if known is not None else None
        given = self._head.headers.get("content-type", "").partition(";")[0].strip().lower()
        is_text = given in _TEXTS and self._form == "usual"
        if kind is None and (is_text or _TEXT.match(head[:_HEAD_BYTES])):
            body = error_object(head)
            if body:
                self._fail_on_error(body)
            raise malformed("the answer is a text and no audio")
        if (kind != expected) if expected is not None else kind == "wav":
            raise malformed(f"the answer is not {self._sent}")


class TaggedReader(_Reader, EndsWithBody):
    """Puts the tags of a request for speech into the audio of another reader, once their place is known."""

    def __init__(self, reader: StreamShortcuts, head: WireResponse, request: SpeechRequest) -> None:
        super().__init__(head)
        self._reader, self._is_needed = reader, request.needs_tags
        self._tagger = Tagger(request.response_format, request.tags)

    def _read(self, data: bytes) -> list[chat.StreamEvent]:
        return self._tagged(self._reader.feed(data)) or [chat.Heartbeat()]

    def _end(self) -> list[chat.StreamEvent]:
        return self._tagged(self._reader.close())

    def _tagged(self, events: tuple[chat.StreamEvent, ...]) -> list[chat.StreamEvent]:
        found = list[chat.StreamEvent]()
        for event in events:
            match event:
                case chat.AudioDelta(data):
                    found += self._audio(data)
                case chat.ChoiceFinish():
                    found += [*self._audio(b"", at_end=True), event]
                case _:
                    found.append(event)
        return found

    def _audio(self, data: bytes, *, at_end: bool = False) -> list[chat.StreamEvent]:
        tagged = self._tagger.feed(data, at_end=at_end)
        if tagged and self._is_needed and not self._tagger.has_written:
            raise malformed("the file has no place for its label", About.REQUEST)
        return [chat.AudioDelta(tagged, self._tagger.has_written)] if tagged else []


def _decoded(audio: object) -> bytes:
    if not isinstance(audio, str):
        return b""
    try:
        return base64.b64decode(audio, validate=True)
    except (binascii.Error, ValueError):
        raise malformed("the audio is not base64") from None
