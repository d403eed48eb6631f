"""The canonical requests for a transcription and for speech, and the whole answer to the former."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from providers.audio.kinds import Kind
from providers.chat import Usage
from providers.value import Value, replace

FORMATS = ("json", "text", "srt", "vtt", "verbose_json", "diarized_json")
"""The formats of a transcription."""
SPEECH_FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")
"""The formats of speech."""
MOST_CHARACTERS = 4096
_MOST_CUE_MS = 359_999_999
"""The end of the last hour that subtitles can write: the 99th."""


class TranscriptionRequest(Value, frozen=True):
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

    folded: ClassVar[bool] = False

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


class Transcript(Value, frozen=True):
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


class SpeechRequest(Value, frozen=True):
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

    stream: ClassVar[bool] = True
    folded: ClassVar[bool] = False

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


def srt_of(transcript: Transcript) -> str:
    """Return the transcript as SubRip text."""
    cues = [
        f"{number}\n{_time(segment, 'start', ',')} --> {_time(segment, 'end', ',')}\n{_line(segment)}\n\n"
        for number, segment in enumerate(transcript.segments or (), 1)
    ]
    return "".join(cues)


def vtt_of(transcript: Transcript) -> str:
    """Return the transcript as WebVTT text."""
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
