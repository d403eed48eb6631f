"""The uses of an adapter that the facts of its vendor decide: all but moderations.

A file of facts names the vendor, or the use is not offered.
"""

from __future__ import annotations

from providers.inputs.audio.facts import load_speech_facts, load_transcription_facts
from providers.inputs.audio.formats import VendorSpeech, VendorTranscription
from providers.inputs.decisions.facts import load_decision_facts
from providers.inputs.decisions.formats import VendorDecisions
from providers.inputs.embeddings.contract import EmbeddingFormat
from providers.inputs.embeddings.facts import load_embedding_facts
from providers.inputs.embeddings.formats import embeddings_of_vendor
from providers.inputs.rerank.facts import load_rerank_facts
from providers.inputs.rerank.formats import VendorRerankFormat


class StatedUses:
    """The base of an adapter, by the provider's name, with these uses."""

    __slots__ = ()
    name: str

    @property
    def embeddings(self) -> EmbeddingFormat | None:
        vendor = load_embedding_facts(self.name)
        return embeddings_of_vendor(vendor) if vendor is not None else None

    @property
    def rerank(self) -> VendorRerankFormat | None:
        vendor = load_rerank_facts(self.name)
        return VendorRerankFormat(vendor) if vendor is not None else None

    @property
    def decisions(self) -> VendorDecisions | None:
        vendor = load_decision_facts(self.name)
        return VendorDecisions(vendor) if vendor is not None else None

    @property
    def transcription(self) -> VendorTranscription | None:
        vendor = load_transcription_facts(self.name)
        return VendorTranscription(vendor) if vendor is not None else None

    @property
    def speech(self) -> VendorSpeech | None:
        vendor = load_speech_facts(self.name)
        return VendorSpeech(vendor) if vendor is not None else None
