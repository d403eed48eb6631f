"""A whole answer: its choices, why each ended, and what was counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from providers.chat.messages import AssistantMessage
from providers.value import Value

__all__ = ["ChatCompletion", "Choice", "FinishReason", "Logprobs", "Usage"]

Logprobs = Mapping[str, object]
"""Log probabilities in OpenAI's shape (`content`, `refusal`: lists of tokens), passed through unread."""

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "other"]
"""Why a choice ended. `other` is a word of the provider's that we don't know: never taken for `stop`."""


class Usage(Value, frozen=True):
    """Tokens that were counted by the provider; `total` is always the sum.

    What was read from a cache or written to it, and sound, are part of `prompt`; reasoning, and what the model took or
    didn't take of a prediction, of `completion`.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_tokens: int = 0
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


class Choice(Value, frozen=True):
    """One answer: the message, why it ended, and the provider's own word for that where it isn't ours."""

    message: AssistantMessage
    finish_reason: FinishReason
    index: int = 0
    logprobs: Logprobs | None = None
    raw_finish_reason: str | None = None


class ChatCompletion(Value, frozen=True):
    """A whole answer. `created` is in unix seconds; `usage` is None where the provider counted nothing.

    service_tier, system_fingerprint: how the answer was processed and by which setup, in the provider's own words.
    """

    id: str
    model: str
    created: int
    choices: tuple[Choice, ...]
    usage: Usage | None = None
    service_tier: str | None = None
    system_fingerprint: str | None = None
