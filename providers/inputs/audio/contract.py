"""The wire formats of an adapter with a member `transcription` or `speech`, and the uses of these names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import ClassVar, Protocol

from providers.adapter import InputFormat, Target
from providers.inputs.audio.facts import SpeechFacts, TranscriptionFacts
from providers.inputs.audio.reading import TaggedReader
from providers.inputs.audio.values import MOST_CHARACTERS, SpeechRequest, Transcript, TranscriptionRequest, voice_in
from providers.matching.requirements import param_of
from providers.reading.event_stream import StreamShortcuts
from providers.served import InputUse, ServingDeployment, SizedNeeds
from providers.wire import WireRequest, WireResponse

_MOST_NAMES = 64
_ORDER = "audio file file_size translation timestamp_granularities response_format voice input_length".split()
"""The parts of a request that a deployment may not have, the first one named first."""


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


class _Audio(InputUse, frozen=True):
    """A use whose requests have a size."""

    is_offered: ClassVar[bool] = True

    def refusal(self, missing: Set[str], every: Sequence[ServingDeployment]) -> tuple[str, str]:
        feature = min(missing, key=lambda name: (_ORDER.index(name.partition(".")[0]), name))
        name, _, value = feature.partition(".")
        if name != "response_format":
            param = param_of(feature)
            usual = f"`{param}` is not supported in this region: no deployment takes it"
            return feature, self.why(name, value, every) or usual
        able = {it for facts in self.facts_at(every) for it in facts.capabilities.features}
        forms = sorted(it.partition(".")[2] for it in able if it.startswith("response_format."))
        which = f"{self.unsent(value)}, which no deployment of this region has: send one of {', '.join(forms)}"
        return feature, f"`response_format` {which}"

    def why(self, name: str, value: str, every: Sequence[ServingDeployment]) -> str:
        """Return why no deployment takes a request with a feature, or an empty text for the usual reason."""
        return ""

    def unsent(self, form: str) -> str:
        """Return what the client did that asks for a format."""
        return f"is {form}"


class Transcription(_Audio, frozen=True):
    """Audio files as text."""

    def reader(
        self, request: TranscriptionRequest, form: TranscriptionFormat, head: WireResponse, target: Target
    ) -> StreamShortcuts:
        return form.stream_reader(request, head, target)

    def fitting(self, asked: ServingDeployment, needs: SizedNeeds) -> frozenset[str]:
        return frozenset({"file_size"}) if needs.size <= self.most_bytes(asked) else frozenset()

    def most_bytes(self, asked: ServingDeployment) -> int:
        """Return the largest file that a deployment takes, or 0 if it writes no audio down."""
        known = [facts.most_bytes for facts in self.facts_at([asked])]
        return asked.audio_bytes if known and asked.audio_bytes is not None else sum(known)

    def why(self, name: str, value: str, every: Sequence[ServingDeployment]) -> str:
        match name:
            case "file_size":
                return f"`file` is larger than the {max(map(self.most_bytes, every))} bytes of this region"
            case "translation":
                return "no deployment of this region translates audio: ask for a transcription"
            case "file":
                return f"`file` is a {value} file by its first bytes, and no deployment of this region takes this kind"
        return ""

    def offer(self, able: Sequence[ServingDeployment]) -> Mapping[str, object] | None:
        if not (facts := self.facts_at(able)):
            return None
        return {
            "input_formats": sorted({kind for one in facts for kind in one.kinds}),
            "response_formats": sorted({form for one in facts for form in one.formats}),
            "stream": True,
            "translate": any(one.translation_path for one in facts),
            "max_bytes": max(map(self.most_bytes, able)),
        }


class Speech(_Audio, frozen=True):
    """Texts as audio files."""

    def reader(self, request: SpeechRequest, form: SpeechFormat, head: WireResponse, target: Target) -> StreamShortcuts:
        reader = form.stream_reader(request, head, target)
        return TaggedReader(reader, head, request) if request.tags else reader

    def fitting(self, asked: ServingDeployment, needs: SizedNeeds) -> frozenset[str]:
        fits = {
            "input_length": needs.size <= self.most_characters(asked),
            "voice": voice_in(asked.voices, needs.voice) is not None,
        }
        return frozenset(name for name, fit in fits.items() if fit)

    def most_characters(self, asked: ServingDeployment) -> int:
        """Return the longest text that a deployment speaks, or 0 if it does not speak."""
        stated = [facts.most_characters for facts in self.facts_at([asked])]
        return MOST_CHARACTERS if stated == [None] else sum(stated)

    def why(self, name: str, value: str, every: Sequence[ServingDeployment]) -> str:
        if name == "input_length":
            return f"`input` has more than the {max(map(self.most_characters, every))} characters of this region"
        names = sorted({voice for it in every for voice in it.voices if voice != "*"})[:_MOST_NAMES]
        return f"`voice` is unknown in this region: it has {', '.join(names)}" if name == "voice" else ""

    def unsent(self, form: str) -> str:
        return "is not sent, or is mp3" if form == "mp3" else super().unsent(form)

    def offer(self, able: Sequence[ServingDeployment]) -> Mapping[str, object] | None:
        if not (facts := self.facts_at(able)):
            return None
        names = {name for it in able for name in it.voices} - {"*"}
        return {
            "voices": None if any(not it.voices for it in able) else sorted(names),
            "response_formats": sorted({form for one in facts for form in one.offers}),
            "stream": True,
            "max_characters": max(map(self.most_characters, able)),
        }
