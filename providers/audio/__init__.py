"""Audio: canonical requests for transcriptions and speech, optional protocols of an adapter, and the vendors' formats.

Adapters whose provider writes audio down satisfy `Transcribes`; those whose provider speaks satisfy `Speaks`.
"""

from providers.audio.contract import Speaks, SpeechFormat, Transcribes, TranscriptionFormat, speech_of, transcription_of
from providers.audio.facts import (
    SpeechFacts,
    TranscriptionFacts,
    VendorAudio,
    load_speech_facts,
    load_transcription_facts,
)
from providers.audio.formats import VendorSpeech, VendorTranscription
from providers.audio.values import SpeechRequest, Transcript, TranscriptionRequest

__all__ = [
    "Speaks",
    "SpeechFacts",
    "SpeechFormat",
    "SpeechRequest",
    "Transcribes",
    "Transcript",
    "TranscriptionFacts",
    "TranscriptionFormat",
    "TranscriptionRequest",
    "VendorAudio",
    "VendorSpeech",
    "VendorTranscription",
    "load_speech_facts",
    "load_transcription_facts",
    "speech_of",
    "transcription_of",
]
