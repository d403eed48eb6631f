"""Facts of the providers' models of audio, from `audio.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from providers.adapter import Capabilities
from providers.catalogue import FactsFile
from providers.catalogue.models import ByModel, facts_by_model
from providers.inputs.audio.kinds import KINDS, SPEECH_FORMATS
from providers.value import Value

_FILE = FactsFile("providers.inputs.audio", "audio")


class TranscriptionFacts(Value, frozen=True, forbid_unknown_fields=True):
    """How one model is asked for the text of a file, and what it takes.

    Attributes:
        form: `usual` for a form, or `qwen` for a chat with a data URL.
        path: The path below the base path.
        translation_path: That of translations, or empty if it translates nothing.
        kinds: The kinds of files that it takes.
        most_bytes: The largest file.
        longest_s: The longest file in seconds, or None without a limit.
        asks: The format that is asked for: `verbose_json` where the model has segments or a duration, else `json`, or
            empty for a vendor without the field.
        has_segments: Whether the answer has segments, so that subtitles can be written.
        diarizes: Whether it distinguishes speakers.
        granularities: The kinds of times that may be asked for.
        parameters: The further fields that it takes.
        stream: The form of its events: `typed` as OpenAI's, `chunks` or `named`; or empty if it has none.
        keywords: Its name of the field with words that the model should know.
    """

    form: str = "usual"
    path: str = "/audio/transcriptions"
    translation_path: str = ""
    kinds: tuple[str, ...] = tuple(KINDS)
    most_bytes: int = 25_000_000
    longest_s: int | None = None
    asks: str = "json"
    has_segments: bool = False
    diarizes: bool = False
    granularities: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    stream: str = ""
    keywords: str = "keywords"

    @property
    def formats(self) -> frozenset[str]:
        """The formats of an answer that can be given from its answers."""
        timed = {"srt", "vtt", "verbose_json"} if self.has_segments else set()
        return frozenset({"json", "text", *timed, *(["diarized_json"] if self.diarizes else [])})

    @property
    def capabilities(self) -> Capabilities:
        """The same in the form in which routing compares it with a request."""
        features = {"audio", *map("file.{}".format, self.kinds), *map("response_format.{}".format, self.formats)}
        features |= {f"timestamp_granularities.{one}" for one in self.granularities}
        features |= {"translation"} if self.translation_path else set()
        return Capabilities(frozenset(features), frozenset({"file", *self.parameters}))


class SpeechFacts(Value, frozen=True, forbid_unknown_fields=True):
    """How one model is asked to speak, and what it takes.

    Attributes:
        form: `usual` for the bytes of a file, `json` for one with base64, or `qwen` for events.
        path: The path below the base path.
        query: Fixed parameters of the path.
        formats: The formats that the vendor itself has.
        pcm_is_24k: Whether its `pcm` has 24 kHz, 16 bit, mono, so that `wav` can be made of it.
        most_characters: The longest input, or None if the vendor states none.
        parameters: Of `speed` and `instructions`, those that it takes.
        voice: The vendor's name of the field with the voice.
        pins: Further fields of the body, by format, or for `*` in each.
        audio_tokens: The most tokens of audio for a character.
    """

    form: str = "usual"
    path: str = "/audio/speech"
    query: tuple[tuple[str, str], ...] = ()
    formats: tuple[str, ...] = tuple(SPEECH_FORMATS)
    pcm_is_24k: bool = True
    most_characters: int | None = None
    parameters: tuple[str, ...] = ("speed",)
    voice: str = "voice"
    pins: Mapping[str, Mapping[str, object]] = {}
    audio_tokens: int = 60

    @property
    def offers(self) -> frozenset[str]:
        """The formats that a client can have: also `wav` of `pcm`."""
        return frozenset(self.formats) | ({"wav"} if self.pcm_is_24k and "pcm" in self.formats else set())

    @property
    def capabilities(self) -> Capabilities:
        """The same in the form in which routing compares it with a request."""
        features = frozenset(map("response_format.{}".format, self.offers))
        return Capabilities(features, frozenset({"input", *self.parameters}))


@cache
def load_transcription_facts(provider: str) -> ByModel[TranscriptionFacts] | None:
    """Return the transcribers of a provider, or None if it has none."""
    table = _table(provider, "transcription")
    return facts_by_model(f"audio.toml, {provider}.transcription", table, TranscriptionFacts)


@cache
def load_speech_facts(provider: str) -> ByModel[SpeechFacts] | None:
    """Return the speaking models of a provider, or None if it has none."""
    return facts_by_model(f"audio.toml, {provider}.speech", _table(provider, "speech"), SpeechFacts)


def _table(provider: str, use: str) -> Any:
    data: Any = _FILE.read()
    return data.get(provider, {}).get(use)
