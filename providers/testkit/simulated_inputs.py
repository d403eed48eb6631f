"""Deterministic vectors and verdicts of a simulated model."""

from __future__ import annotations

import math
from array import array
from hashlib import blake2b

from providers.chat import AssistantMessage, ChatCompletion, ChatRequest, TextPart, Usage, UserMessage, text_of
from providers.embeddings import EmbeddingAnswer, EmbeddingRequest, Tokens, Vector
from providers.moderations import GuardKind, ModerationAnswer, ModerationRequest, ModerationResult
from providers.moderations.values import ModerationInput, verdict_of
from providers.value import replace

__all__ = ["HARMFUL", "embed", "moderate", "with_verdict"]

DIMENSIONS = 1536
"""The length of the vectors of a model whose own length is unknown."""
HARMFUL = "simulated-harm"
"""A text with this word is flagged as violence."""
_WORD_BYTES = 4
_MOST = 2**31
_VERDICTS: dict[GuardKind, tuple[str, str]] = {
    "llama-guard": ("safe", "unsafe\nS1"),
    "qwen3guard": ("Safety: Safe\nCategories: None", "Safety: Unsafe\nCategories: Violent"),
}


def embed(request: EmbeddingRequest, dimensions: int = DIMENSIONS) -> EmbeddingAnswer:
    """Return a vector of length 1 for each input. Equal inputs have equal vectors, other inputs have other vectors."""
    size = request.dimensions or dimensions
    vectors = tuple(_vector(request.model, item, size) for item in request.inputs)
    tokens = sum(len(item) if not isinstance(item, str) else max(1, len(item.split())) for item in request.inputs)
    return EmbeddingAnswer(vectors, Usage(prompt_tokens=tokens))


def _vector(model: str, item: str | Tokens, size: int) -> Vector:
    text = item if isinstance(item, str) else " ".join(map(str, item))
    seed = f"{model}\0{text}".encode("utf-8", "replace")
    values: list[float] = []
    block = 0
    while len(values) < size:
        digest = blake2b(seed, salt=block.to_bytes(8, "big")).digest()
        for start in range(0, len(digest), _WORD_BYTES):
            values.append(int.from_bytes(digest[start : start + _WORD_BYTES], "big") / _MOST - 1)
        block += 1
    values = values[:size]
    length = math.sqrt(sum(value * value for value in values)) or 1.0
    return array("f", (value / length for value in values))


def moderate(request: ModerationRequest) -> ModerationAnswer:
    """Return a verdict for each input. Only content with the word `HARMFUL` is flagged."""
    return ModerationAnswer(tuple(map(_verdict, request.inputs)))


def _verdict(content: ModerationInput) -> ModerationResult:
    text = content if isinstance(content, str) else " ".join(it.text for it in content if isinstance(it, TextPart))
    is_harmful = HARMFUL in text.lower()
    return verdict_of(frozenset({"violence"}) if is_harmful else frozenset(), flagged=is_harmful)


def with_verdict(completion: ChatCompletion, request: ChatRequest, kind: GuardKind) -> ChatCompletion:
    """Return the answer of a guard model to a chat: its verdict on the last message."""
    is_pair = bool(request.messages) and isinstance(request.messages[-1], AssistantMessage)
    judged = AssistantMessage if is_pair else UserMessage
    texts = [text_of(message.content) for message in request.messages if isinstance(message, judged)]
    verdict = _VERDICTS[kind][HARMFUL in texts[-1].lower() if texts else False]
    if is_pair and kind == "qwen3guard":
        verdict += "\nRefusal: No"
    choices = tuple(
        replace(choice, message=replace(choice.message, content=verdict, tool_calls=(), reasoning=None))
        for choice in completion.choices
    )
    return replace(completion, choices=choices)
