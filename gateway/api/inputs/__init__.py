"""The dialects of requests that are not chats, by path: the door of the API to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateway.api.dialects.dialect import Dialect
from gateway.api.inputs.audio import SpeechDialect, TranscriptionDialect, TranslationDialect
from gateway.api.inputs.decisions import DecisionsDialect
from gateway.api.inputs.dialects import (
    OpenAIEmbeddingsDialect,
    OpenAIModerationsDialect,
    RerankDialect,
    SecondRerankDialect,
)
from gateway.api.inputs.gemini import GeminiEmbeddingsDialect

_DIALECTS: tuple[type[Dialect], ...] = (
    OpenAIEmbeddingsDialect,
    OpenAIModerationsDialect,
    RerankDialect,
    SecondRerankDialect,
    DecisionsDialect,
    TranscriptionDialect,
    TranslationDialect,
    SpeechDialect,
)
INPUT_DIALECTS: Mapping[str, Callable[[], Dialect]] = {dialect.route: dialect for dialect in _DIALECTS}
"""Makes the dialect for one request, by path."""


def google_input_dialect(method: str, assistant: str) -> Dialect | None:
    """Return the dialect for one request to a method of Gemini's API, or None if it is one of chats."""
    if method not in ("embedContent", "batchEmbedContents"):
        return None
    return GeminiEmbeddingsDialect(assistant, is_batch=method == "batchEmbedContents")
