"""Deterministic vectors and verdicts of a simulated model."""

from __future__ import annotations

import math
from array import array
from hashlib import blake2b

from providers.chat import AssistantMessage, ChatCompletion, ChatRequest, TextPart, Usage, UserMessage, text_of
from providers.inputs.embeddings.values import EmbeddingAnswer, EmbeddingRequest, Tokens, Vector
from providers.moderations.guard_models import GuardKind
from providers.moderations.values import (
    ModerationAnswer,
    ModerationInput,
    ModerationRequest,
    ModerationResult,
    verdict_of,
)
from providers.value import replace

DIMENSIONS = 1536
"""The length of the vectors of a model whose own length is unknown."""
HARMFUL = "simulated-harm"
"""A text with this word is flagged as violence."""
IN_CRISIS = "simulated-crisis"
"""A text with this word is flagged as self-harm."""
_WORD_BYTES = 4
_MOST = 2**31
_CATEGORIES = {HARMFUL: "violence", IN_CRISIS: "self-harm"}
_VERDICTS: dict[GuardKind, dict[str, str]] = {
    "llama-guard": {"": "safe", "violence": "unsafe\nS1", "self-harm": "unsafe\nS11"},
    "qwen3guard": {
        "": "Safety: Safe\nCategories: None",
        "violence": "Safety: Unsafe\nCategories: Violent",
        "self-harm": "Safety: Unsafe\nCategories: Suicide & Self-Harm",
    },
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
    """Return a verdict for each input. Only content with one of the words above is flagged."""
    return ModerationAnswer(tuple(map(_verdict, request.inputs)))


def _verdict(content: ModerationInput) -> ModerationResult:
    text = content if isinstance(content, str) else " ".join(it.text for it in content if isinstance(it, TextPart))
    category = _category(text)
    return verdict_of(frozenset({category}) if category else frozenset(), flagged=bool(category))


def _category(text: str) -> str:
    return next((category for word, category in _CATEGORIES.items() if word in text.lower()), "")


def with_verdict(completion: ChatCompletion, request: ChatRequest, kind: GuardKind) -> ChatCompletion:
    """Return the answer of a guard model to a chat, which is its verdict on the last message."""
    is_pair = bool(request.messages) and isinstance(request.messages[-1], AssistantMessage)
    judged = AssistantMessage if is_pair else UserMessage
    texts = [text_of(message.content) for message in request.messages if isinstance(message, judged)]
    verdict = _VERDICTS[kind][_category(texts[-1]) if texts else ""]
    if is_pair and kind == "qwen3guard":
        verdict += "\nRefusal: No"
    choices = tuple(
        replace(choice, message=replace(choice.message, content=verdict, tool_calls=(), reasoning=None))
        for choice in completion.choices
    )
    return replace(completion, choices=choices)
