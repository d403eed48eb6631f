"""Verdicts of a simulated model, by two words that a text may have."""

from __future__ import annotations

from providers.chat import AssistantMessage, ChatCompletion, ChatRequest, TextPart, UserMessage, text_of
from providers.moderations.guard_models import GuardKind
from providers.moderations.values import (
    ModerationAnswer,
    ModerationInput,
    ModerationRequest,
    ModerationResult,
    verdict_of,
)
from providers.value import replace

HARMFUL = "simulated-harm"
"""A text with this word is flagged as violence."""
IN_CRISIS = "simulated-crisis"
"""A text with this word is flagged as self-harm."""
_CATEGORIES = {HARMFUL: "violence", IN_CRISIS: "self-harm"}
_VERDICTS: dict[GuardKind, dict[str, str]] = {
    "llama-guard": {"": "safe", "violence": "unsafe\nS1", "self-harm": "unsafe\nS11"},
    "qwen3guard": {
        "": "Safety: Safe\nCategories: None",
        "violence": "Safety: Unsafe\nCategories: Violent",
        "self-harm": "Safety: Unsafe\nCategories: Suicide & Self-Harm",
    },
}


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
