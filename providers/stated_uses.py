"""The uses of an adapter that the facts of its vendor decide alone: rerank, transcriptions and speech.

A file of facts names the vendor, or the use is not offered. Embeddings stay with each adapter: their format differs.
"""

from __future__ import annotations

from providers.audio.facts import load_speech_facts, load_transcription_facts
from providers.audio.formats import VendorSpeech, VendorTranscription
from providers.rerank.facts import load_rerank_facts
from providers.rerank.formats import VendorRerankFormat


class StatedUses:
    """The base of an adapter, by the provider's name, with these uses."""

    __slots__ = ()
    name: str

    @property
    def rerank(self) -> VendorRerankFormat | None:
        vendor = load_rerank_facts(self.name)
        return VendorRerankFormat(vendor) if vendor is not None else None

    @property
    def transcription(self) -> VendorTranscription | None:
        vendor = load_transcription_facts(self.name)
        return VendorTranscription(vendor) if vendor is not None else None

    @property
    def speech(self) -> VendorSpeech | None:
        vendor = load_speech_facts(self.name)
        return VendorSpeech(vendor) if vendor is not None else None
