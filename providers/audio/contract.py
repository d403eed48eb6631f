"""The optional protocols of an adapter whose provider writes down audio (`Transcribes`), or speaks (`Speaks`)."""

from __future__ import annotations

from typing import Protocol

from providers.adapter import Adapter, InputFormat, Target
from providers.audio.facts import SpeechFacts, TranscriptionFacts
from providers.audio.values import SpeechRequest, Transcript, TranscriptionRequest
from providers.reading.event_stream import StreamShortcuts
from providers.wire import WireRequest, WireResponse


class TranscriptionFormat(InputFormat[TranscriptionRequest, Transcript], Protocol):
    """A provider's wire format for the texts of audio files."""

    def facts(self, model: str) -> TranscriptionFacts:
        """Return the limits and abilities of a model, or those of a usual model of the provider."""

    def stream_reader(self, request: TranscriptionRequest, head: WireResponse, target: Target) -> StreamShortcuts:
        """Return a parser of the response to a request for a stream, which may also be one whole answer.

        Its events are those of a chat: `TextDelta` for text, `UsageReport` for the counts, and `Segment`.
        """


class SpeechFormat(Protocol):
    """A provider's wire format for speech."""

    def facts(self, model: str) -> SpeechFacts:
        """Return the limits and abilities of a model, or those of a usual model of the provider."""

    def build_request(self, request: SpeechRequest, target: Target) -> WireRequest:
        """Translate a request into this wire format. `voice` is the vendor's name of it."""

    def stream_reader(self, request: SpeechRequest, head: WireResponse, target: Target) -> StreamShortcuts:
        """Return a parser of the response: its events are `AudioDelta`, at most one `UsageReport`, and an end."""


class Transcribes(Protocol):
    """An optional member of an adapter, with the provider's transcriptions. The adapter itself classifies errors."""

    @property
    def transcription(self) -> TranscriptionFormat | None:
        """The wire format, or None if the provider has none."""


class Speaks(Protocol):
    """An optional member of an adapter, with the provider's speech. The adapter itself classifies errors."""

    @property
    def speech(self) -> SpeechFormat | None:
        """The wire format, or None if the provider has none."""


def transcription_of(adapter: Adapter) -> TranscriptionFormat | None:
    """Return the wire format of an adapter's transcriptions, or None if its provider has none."""
    found: TranscriptionFormat | None = getattr(adapter, "transcription", None)  # an isinstance costs ten times more
    return found


def speech_of(adapter: Adapter) -> SpeechFormat | None:
    """Return the wire format of an adapter's speech, or None if its provider has none."""
    found: SpeechFormat | None = getattr(adapter, "speech", None)
    return found
