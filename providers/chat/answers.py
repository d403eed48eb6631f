"""A whole answer: its choices, finish reasons and token counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from providers.chat.messages import AssistantMessage
from providers.failures import Failure, ProviderFailed
from providers.value import Value

Logprobs = Mapping[str, object]
"""Log probabilities in OpenAI's shape (`content` and `refusal` are lists of tokens). They are passed through unread."""

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "other"]
"""Why a choice ended. `other` is a reason that the adapter does not know. It is never treated as `stop`."""

ServiceTier = Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"]
"""OpenAI's words for how a request was processed. Strict SDKs read no others (Python SDK 3.57, read 2026-11-29)."""
SERVICE_TIERS = frozenset(get_args(ServiceTier))
CLAUDE_TIERS = frozenset({"standard", "priority", "batch"})
"""Anthropic's words for it, of which only its own API has all (Python SDK 2.12, read 2026-11-22)."""


class Usage(Value, frozen=True):
    """Token counts of an answer, as the provider reports them."""

    prompt_tokens: int = 0
    """Tokens of the prompt. They include `cached_tokens`, `cache_write_tokens` and `audio_tokens`."""
    completion_tokens: int = 0
    """Generated tokens. They include `reasoning_tokens` and the tokens of predictions."""
    cached_tokens: int = 0
    """Prompt tokens that were read from the provider's cache."""
    reasoning_tokens: int = 0
    """Tokens of the model's reasoning."""
    cache_write_tokens: int = 0
    """Prompt tokens that were written to the provider's cache."""
    audio_tokens: int = 0
    """Prompt tokens of audio."""
    accepted_prediction_tokens: int = 0
    """Tokens of `prediction` that appear in the answer."""
    rejected_prediction_tokens: int = 0
    """Tokens of `prediction` that do not appear in the answer."""
    cache_write_1h_tokens: int | None = None
    """The part of `cache_write_tokens` that stays in the cache for an hour, or None if the provider does not state
    it."""
    audio_ms: int = 0
    """Milliseconds of the audio that was written down, or 0."""
    characters: int = 0
    """Characters of the text that was spoken, as the price of the provider counts them, or 0."""

    @property
    def total_tokens(self) -> int:
        """The sum of prompt and completion tokens."""
        return self.prompt_tokens + self.completion_tokens


def summed(usages: Sequence[Usage | None]) -> Usage | None:
    """Return the prompt and the completion tokens of several answers together, or None if one reports none."""
    known = [usage for usage in usages if usage is not None]
    if not known or len(known) < len(usages):
        return None
    return Usage(sum(one.prompt_tokens for one in known), sum(one.completion_tokens for one in known))


class AnswerRefused(ProviderFailed):
    """The provider has answered, and the answer is not accepted.

    Args:
        failure: The classified failure.
        usage: The tokens that the provider reported for the answer, or None.

    Attributes:
        usage: The argument of this name.
    """

    def __init__(self, failure: Failure, usage: Usage | None) -> None:
        super().__init__(failure)
        self.usage = usage


class Choice(Value, frozen=True):
    """One choice of an answer."""

    message: AssistantMessage
    """The message of the model."""
    finish_reason: FinishReason
    """Why it ended."""
    index: int = 0
    """The number of the choice, from 0."""
    logprobs: Logprobs | None = None
    """Log probabilities, or None if they were not requested."""
    raw_finish_reason: str | None = None
    """The provider's own word, if `finish_reason` does not express it exactly."""
    stop_sequence: str | None = None
    """The stop sequence that ended the text, where the provider names it or it was found in the text."""


class ChatCompletion(Value, frozen=True):
    """A whole answer."""

    id: str
    """The provider's id of the answer. It may be empty."""
    model: str
    """The provider's name of the model that answered."""
    created: int
    """When it was created, in Unix seconds, or 0 if unknown."""
    choices: tuple[Choice, ...]
    """The choices, in the order of their index."""
    usage: Usage | None = None
    """Token counts, or None if the provider reported none."""
    service_tier: str | None = None
    """How the request was processed, in one of OpenAI's or Anthropic's words. Others are left out."""
    system_fingerprint: str | None = None
    """The provider's identifier of the model's setup."""
