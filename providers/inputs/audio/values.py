"""The canonical requests for a transcription and for speech, and the whole answer to the former."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from typing import Any, ClassVar, Literal, Self

from providers.catalogue.held_audio import HeldAudio
from providers.catalogue.prices import Price
from providers.chat import Usage
from providers.failures import About
from providers.inputs.audio.facts import SpeechFacts, TranscriptionFacts
from providers.inputs.audio.kinds import Kind, lengths_of
from providers.matching.requirements import moving_fields
from providers.reading.errors import malformed
from providers.served import InputAnswer, InputRequest, SizedNeeds
from providers.value import replace

FORMATS = ("json", "text", "srt", "vtt", "verbose_json", "diarized_json")
"""The formats of a transcription."""
MOST_CHARACTERS = 4096
_OPTIONS = ("language", "languages", "keywords", "prompt", "temperature", "include", "chunking_strategy")
"""The fields of a transcription that a deployment may lack: they are left out for it, and named."""
_LISTS = frozenset({"languages", "keywords", "include"})
_TOKENS_IN_PER_S = 100
"""The most tokens that a vendor counts for a second of audio."""
_TOKENS_OUT_PER_S = 50
_END_BYTES = 4 * 1024
_MANY_PARTS = 500
_MOST_CUE_MS = 359_999_999
"""The end of the last hour that subtitles can write: the 99th."""


class TranscriptionRequest(InputRequest, frozen=True):
    """A request for the text of an audio file, or for its translation into English.

    Its `repr` shows neither the file nor a text. The model is that of the client; the `Target` has the provider's.

    Attributes:
        file: The bytes of the file, a view of the client's body.
        kind: The kind of the file, by its first bytes.
        task: `translate` for a translation.
        keywords: Words that the model should know.
        prompt: A text that the audio continues.
        response_format: A member of `FORMATS`.
        granularities: The kinds of times in the answer, of `segment` and `word`.
        include: Further contents of the answer.
        chunking_strategy: How the provider cuts the audio: `auto`.
        extra: Always empty: an unknown field is never sent.
        unread: Names of fields that are not sent.
        boundary: The line between the parts of the form that leaves. The sender sets one that a client can't know.
    """

    use: ClassVar[str] = "transcription"
    is_judged: ClassVar[bool] = True
    is_audio: ClassVar[bool] = True
    has_file: ClassVar[bool] = True
    shown_as: ClassVar[tuple[tuple[str, ...], tuple[str, ...]] | None] = (("audio",), ("messages",))

    model: str
    file: memoryview
    kind: Kind
    task: Literal["transcribe", "translate"] = "transcribe"
    language: str | None = None
    languages: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    prompt: str | None = None
    response_format: str = "json"
    temperature: float | None = None
    granularities: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    chunking_strategy: str | None = None
    stream: bool = False
    extra: Mapping[str, object] = {}
    unread: frozenset[str] = frozenset()
    boundary: str = "assistant-gateway-form"

    def __repr__(self) -> str:
        """Leave out all words of a person."""
        return f"TranscriptionRequest({self.task!r}, {self.kind!r}, {len(self.file)} bytes)"

    @property
    def asks_segments(self) -> bool:
        """Whether the answer needs segments. Times of words alone need none."""
        is_of_words = self.response_format == "verbose_json" and self.granularities == ("word",)
        return self.response_format not in ("json", "text") and not is_of_words

    @property
    def heard_s(self) -> float:
        """See `InputRequest`. It can begin when all of the audio was read."""
        return lengths_of(self.kind, self.file).usual / 1000

    def texts(self) -> Iterator[str]:
        yield from (text for text in (self.prompt, *self.keywords) if text)

    def needs(self) -> SizedNeeds:
        """See `InputRequest`. `file` is among the parameters, so that no decision is remembered."""
        features = {"audio", f"file.{self.kind}", "file_size", f"response_format.{self.response_format}"}
        features |= {f"timestamp_granularities.{one}" for one in self.granularities}
        features |= {"translation"} if self.task == "translate" else set()
        named = {"file", *(name for name in _OPTIONS if getattr(self, name) not in (None, ()))}
        return SizedNeeds(frozenset(features), frozenset(named), frozenset(), use=self.use, size=len(self.file))

    def held(self, facts: TranscriptionFacts | None, price: Price | None, text_bound: int) -> HeldAudio:
        lengths = lengths_of(self.kind, self.file, facts.longest_s if facts is not None else None)
        seconds, is_by_tokens = -(-lengths.most // 1000), price is not None and price.is_by_tokens
        return HeldAudio(
            lengths.most,
            lengths.usual,
            lengths.own,
            price.audio.least_ms if price is not None and price.audio is not None else 0,
            input=text_bound + seconds * _TOKENS_IN_PER_S if is_by_tokens else 0,
            output=seconds * _TOKENS_OUT_PER_S if is_by_tokens else 0,
            price=price,
        )

    def fitted(self, dropped: Set[str], voices: Mapping[str, str], boundary: str) -> Self:
        emptied: dict[str, Any] = {name: () if name in _LISTS else None for name in _OPTIONS if name in dropped}
        return replace(self, boundary=boundary, **emptied)

    def digested(self) -> Self:
        """See `InputRequest`. The ends of a file distinguish it, and the hash of all of it would take long."""
        ends = b"%d" % len(self.file) + self.file[:_END_BYTES] + self.file[-_END_BYTES:]
        return replace(self, file=memoryview(ends))

    def checked(self, answer: Transcript, facts: object) -> Transcript:
        if self.asks_segments and answer.segments is None:
            raise malformed("the answer has no segments", About.REQUEST)
        return with_members(answer, self.response_format)


class Transcript(InputAnswer, frozen=True):
    """The whole text of an audio file. It is empty if there is no speech.

    Attributes:
        language: The language that the provider recognised, or several in `languages`.
        duration_s: The length of the audio by the provider.
        segments: Parts of the text with `start` and `end` in seconds, and `speaker` if they are diarized.
        words: Words with `start` and `end` in seconds.
        logprobs: Log probabilities as the provider sends them.
        usage: The counts of the provider, with the milliseconds that it states, or None if it states none.
    """

    text: str
    language: str | None = None
    languages: tuple[str, ...] = ()
    duration_s: float | None = None
    segments: tuple[Mapping[str, object], ...] | None = None
    words: tuple[Mapping[str, object], ...] | None = None
    logprobs: object = None
    usage: Usage | None = None

    def __repr__(self) -> str:
        """Leave out the text."""
        return f"Transcript({len(self.text)} characters)"

    @property
    def is_large(self) -> bool:
        """See `InputAnswer`. Some have a hundred thousand words."""
        return len(self.segments or ()) + len(self.words or ()) > _MANY_PARTS


def with_members(transcript: Transcript, response_format: str) -> Transcript:
    """Return a transcript whose segments have the members that strict decoders need in this format.

    A member that the server has not given, or in another type, is that of a segment of which nothing is known.
    """
    if transcript.segments is None or response_format not in ("verbose_json", "diarized_json"):
        return transcript
    write = diarized_segment if response_format == "diarized_json" else _verbose
    return replace(transcript, segments=tuple([write(at, one) for at, one in enumerate(transcript.segments)]))


def _verbose(at: int, segment: Mapping[str, object]) -> Mapping[str, object]:
    id, seek, tokens = segment.get("id"), segment.get("seek"), segment.get("tokens")
    return {
        **segment,
        "id": id if type(id) is int else at,
        "seek": seek if type(seek) is int else 0,
        "tokens": tokens if isinstance(tokens, list) else [],
    }


def diarized_segment(at: int, segment: Mapping[str, object]) -> Mapping[str, object]:
    """Return a segment of a speaker as `diarized_json` has it, and as an event."""
    id = segment.get("id")
    return {**segment, "id": f"seg_{at}" if id is None else str(id), "type": "transcript.text.segment"}


class SpeechRequest(InputRequest, frozen=True):
    """A request for a text to be spoken. Its answer is always a stream of audio.

    Attributes:
        voice: The product's name of the voice.
        response_format: A member of `SPEECH_FORMATS`.
        speed: The speed, from 0.25 to 4.
        instructions: How the voice should sound.
        events: Whether the client wants events (`stream_format: sse`) in place of the bytes.
        extra: Unknown fields as parsed JSON. They are sent only where the operator allows it.
        unread: Names of fields that are not sent.
        tags: The labels that are put into the file, each as the name of its tag and JSON text.
        needs_tags: Whether a file without a place for them is a failure.
    """

    use: ClassVar[str] = "speech"
    is_judged: ClassVar[bool] = True
    is_audio: ClassVar[bool] = True
    shown_as: ClassVar[tuple[tuple[str, ...], tuple[str, ...]] | None] = ((), ("messages",))

    model: str
    input: str
    voice: str
    response_format: str = "mp3"
    speed: float | None = None
    instructions: str | None = None
    events: bool = False
    extra: Mapping[str, object] = {}
    unread: frozenset[str] = frozenset()
    tags: tuple[tuple[str, str], ...] = ()
    needs_tags: bool = False

    def __repr__(self) -> str:
        """Leave out the texts."""
        return f"SpeechRequest({self.voice!r}, {self.response_format!r}, {len(self.input)} characters)"

    @property
    def stream(self) -> bool:
        return True

    def texts(self) -> Iterator[str]:
        yield from (text for text in (self.input, self.instructions) if text)

    def needs(self) -> SizedNeeds:
        """See `InputRequest`. `input` is among the parameters, so that no decision is remembered."""
        given = {"speed": self.speed, "instructions": self.instructions}
        named = {"input", *self.extra, *(name for name, value in given.items() if value is not None)}
        features = frozenset({f"response_format.{self.response_format}", "voice", "input_length"})
        moving, size = moving_fields(self.extra), len(self.input)
        return SizedNeeds(features, frozenset(named), moving, use=self.use, size=size, voice=self.voice)

    def held(self, facts: SpeechFacts | None, price: Price | None, text_bound: int) -> HeldAudio:
        audio, is_by_tokens = price.audio if price is not None else None, price is not None and price.is_by_tokens
        per_character = facts.audio_tokens if facts is not None else 0
        return HeldAudio(
            characters=len(self.input) if audio is None else audio.counted(self.input),
            utf8_bytes=len(self.input.encode("utf-8", "replace")),
            input=text_bound if is_by_tokens else 0,
            output=len(self.input) * per_character if is_by_tokens else 0,
            price=price,
        )

    def fitted(self, dropped: Set[str], voices: Mapping[str, str], boundary: str) -> Self:
        without: dict[str, Any] = dict.fromkeys(dropped & {"speed", "instructions"})
        voice = voice_in(voices, self.voice) or self.voice
        return replace(super().fitted(dropped, voices, boundary), voice=voice, **without)


def voice_in(voices: Mapping[str, str], name: str) -> str | None:
    """Return the vendor's name of a voice, or None if a deployment with these voices has no such one."""
    if not voices:
        return name
    return voices.get(name, voices.get("*"))


def srt_of(transcript: Transcript) -> str:
    cues = [
        f"{number}\n{_time(segment, 'start', ',')} --> {_time(segment, 'end', ',')}\n{_line(segment)}\n\n"
        for number, segment in enumerate(transcript.segments or (), 1)
    ]
    return "".join(cues)


def vtt_of(transcript: Transcript) -> str:
    cues = [
        f"\n{_time(segment, 'start', '.')} --> {_time(segment, 'end', '.')}\n{_line(segment)}\n"
        for segment in transcript.segments or ()
    ]
    return "WEBVTT\n" + "".join(cues)


def _line(segment: Mapping[str, object]) -> str:
    """Return the text of a cue, in which an arrow or an empty line would be read as another cue."""
    text = str(segment.get("text", "")).replace("-->", "->")
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


def _time(segment: Mapping[str, object], name: str, point: str) -> str:
    value = segment.get(name)
    seconds = value if isinstance(value, int | float) else 0
    milliseconds = round(min(max(0, seconds * 1000), _MOST_CUE_MS))
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"
