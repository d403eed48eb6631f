"""Hold the spending limit during a load step.

Requests of a load step do not wait for each other, so many are open when the limit is near. Each one reserves the most
that it may need before it is sent. The step ends before the request that could exceed the limit.
"""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from evaluation.candidate_client import QuestionResult
from evaluation.text_rules import words_of
from evaluation.work_queue import Budget
from gateway.model.deployment import Deployment
from providers.chat import ChatRequest, text_of
from providers.failures import FailureKind

# The provider rejects these requests before it answers.
_NOT_BILLED = frozenset(
    {
        FailureKind.CONNECT,
        FailureKind.UNAVAILABLE,
        FailureKind.RATE_LIMITED,
        FailureKind.OVERLOADED,
        FailureKind.QUOTA,
        FailureKind.CREDENTIALS,
        FailureKind.MODEL_NOT_FOUND,
        FailureKind.GEO_REFUSED,
        FailureKind.CONTEXT_LENGTH,
        FailureKind.FIELD_REFUSED,
        FailureKind.INVALID_REQUEST,
        FailureKind.UNSUPPORTED,
    }
)
# Some tokenizers need more than one token for a word or for a Chinese character.
_TOKENS_PER_WORD, _TOKENS_PER_MESSAGE = 2.0, 16


def prompt_tokens_of(request: ChatRequest) -> int:
    """Return a high estimate of the prompt tokens of a request."""
    words = sum(len(words_of(text_of(message.content))) for message in request.messages)
    return round(words * _TOKENS_PER_WORD) + _TOKENS_PER_MESSAGE * len(request.messages)


@dataclass(slots=True)
class LoadSpending:
    """The spending of one load step.

    Attributes:
        prompt_estimate: The most prompt tokens of a request. The provider's own count replaces a lower estimate.
        max_tokens: The most answer tokens of a request.
        prompt_tokens: The prompt tokens that the step has spent.
        completion_tokens: The answer tokens that the step has spent.
    """

    candidate: Deployment
    budget: Budget
    prompt_estimate: int
    max_tokens: int
    prompt_tokens: int = 0
    completion_tokens: int = 0
    _reserved: list[tuple[int, int]] = field(default_factory=list)

    def reserve(self) -> None:
        """Reserve the most that the next request may need. Raises SpendReached."""
        most = self.prompt_estimate, self.max_tokens
        self.budget.reserve(self.candidate, *most)
        self._reserved.append(most)

    async def count(self, asking: Coroutine[Any, Any, QuestionResult]) -> QuestionResult:
        """Return the result of a request that was reserved, and count its tokens.

        A request that is cancelled or breaks off, or whose answer has no usage, may be billed. All that was reserved
        then counts as spent.
        """
        most = self._reserved.pop(0)
        spent = most
        try:
            asked = await asking
            if asked.usage is not None:
                spent = asked.usage.prompt_tokens, asked.usage.completion_tokens
            elif asked.failure is not None and asked.failure.kind in _NOT_BILLED:
                spent = 0, 0
            self.prompt_estimate = max(self.prompt_estimate, spent[0])
            return asked
        finally:
            self.budget.release(self.candidate, *most)
            self.budget.add(self.candidate, *spent)
            self.prompt_tokens += spent[0]
            self.completion_tokens += spent[1]
