"""Set the answers of a simulated model: a reply for each question, and the probability of another reply.

The seed and the question alone determine the reply. So a simulated model always answers a question in the same way, and
models with different seeds know different answers. With a spread, a share of the replies is drawn anew each time.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from providers.chat import AssistantMessage, ChatCompletion, ChatRequest, FinishReason, ToolCall, UserMessage, text_of
from providers.testkit.answer_pieces import cut
from providers.value import Value, replace


class Reply(Value, frozen=True):
    """A reply, which is text or tool calls."""

    text: str
    calls: tuple[ToolCall, ...] = ()


class Lesson(Value, frozen=True):
    """The replies to a question: `reply` for the fraction `chance` (0 to 1) of all seeds, `otherwise` for the rest."""

    reply: Reply
    otherwise: Reply
    chance: float = 1.0


def draw(words: str) -> float:
    """Return a number in [0, 1) that is evenly distributed over words, and the same at every call."""
    digest = hashlib.sha256(words.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


@dataclass(frozen=True, slots=True)
class AnswerQuality:
    """The lessons by the whole text of the last user message. `spread` is the fraction of replies drawn anew."""

    lessons: Mapping[str, Lesson]
    seed: int = 0
    spread: float = 0.0
    asked: Counter[str] = field(default_factory=Counter, compare=False, repr=False)

    def reply_to(self, question: str) -> Reply | None:
        """Return the reply to a question, or None if the question is unknown."""
        lesson = self.lessons.get(question)
        if lesson is None:
            return None
        drawn = draw(f"{self.seed}:{question}")
        if self.spread:
            sample = self.asked[question]
            self.asked[question] += 1
            if draw(f"{self.seed}:{sample}:anew:{question}") < self.spread:
                drawn = draw(f"{self.seed}:{sample}:{question}")
        return lesson.reply if drawn < lesson.chance else lesson.otherwise

    def taught(self, request: ChatRequest, completion: ChatCompletion) -> ChatCompletion:
        """Return the completion with the reply instead of the model's own text, and with its tokens counted again."""
        question = next((message for message in reversed(request.messages) if isinstance(message, UserMessage)), None)
        reply = self.reply_to(text_of(question.content)) if question is not None else None
        if reply is None:
            return completion
        pieces = cut(reply.text)
        budget = len(pieces) if request.max_tokens is None else request.max_tokens
        text = "".join(pieces[:budget])
        message = AssistantMessage(text if text or not reply.calls else None, tool_calls=reply.calls)
        cost = len(pieces[:budget]) + sum(len(cut(call.arguments)) + 1 for call in reply.calls)
        finish: FinishReason = "tool_calls" if reply.calls else "stop" if budget >= len(pieces) else "length"
        choices = tuple(
            replace(choice, message=message, finish_reason=finish, logprobs=None) for choice in completion.choices
        )
        usage = completion.usage and replace(completion.usage, completion_tokens=cost, reasoning_tokens=0)
        return replace(completion, choices=choices, usage=usage)
