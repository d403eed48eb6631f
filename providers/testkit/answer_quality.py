"""What a simulated model knows: for each question what it says, and how likely it says something else instead.

Which of the two follows from the seed and the question alone, so that a simulated model answers the same question the
same way whenever it is asked, and two seeds know different things.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from providers.chat import AssistantMessage, ChatCompletion, ChatRequest, FinishReason, ToolCall, UserMessage, text_of
from providers.testkit.answer_pieces import cut


@dataclass(frozen=True, slots=True)
class Reply:
    """What is said: text, or calls of tools."""

    text: str
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Lesson:
    """One question: `reply` in the share `chance` (0 to 1) of all seeds, `otherwise` in the rest."""

    reply: Reply
    otherwise: Reply
    chance: float = 1.0


@dataclass(frozen=True, slots=True)
class AnswerQuality:
    """The lessons by the whole text of the last thing that the person says."""

    lessons: Mapping[str, Lesson]
    seed: int = 0

    def reply_to(self, question: str) -> Reply | None:
        """What is said to a question; None where it is none of the known ones."""
        lesson = self.lessons.get(question)
        if lesson is None:
            return None
        digest = hashlib.sha256(f"{self.seed}:{question}".encode("utf-8", "surrogatepass")).digest()
        drawn = int.from_bytes(digest[:6], "big") / 2**48
        return lesson.reply if drawn < lesson.chance else lesson.otherwise

    def taught(self, request: ChatRequest, completion: ChatCompletion) -> ChatCompletion:
        """The completion with what was learnt instead of the model's own words, and its tokens counted anew."""
        asked = next((one for one in reversed(request.messages) if isinstance(one, UserMessage)), None)
        reply = self.reply_to(text_of(asked.content)) if asked is not None else None
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
