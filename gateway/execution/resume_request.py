"""Build the request for the rest of an answer that broke off, and add up the usage of both parts. Pure.

A model that accepts the beginning of its own answer (capability `prefill`) gets the text that was sent as that
beginning. Any other model is asked in words to go on. Tokens are not counted here as a provider counts them: the
tokens of the text that was sent are estimated, and marked as an estimate.
"""

from __future__ import annotations

import math
from operator import attrgetter
from typing import Any

from gateway.model.decision import Step
from gateway.model.excerpt import Own, excerpt, quoting
from providers.chat import AssistantMessage, ChatRequest, Message, Usage, UserMessage, text_of
from providers.matching.requirements import has_effects
from providers.value import Value, replace

_CHARACTERS_A_TOKEN = 4
_FEWEST_CHARACTERS_A_TOKEN = 3
_REPEATED_CHARACTERS = 80
_COUNTS = attrgetter(*Usage.__struct_fields__)
_SPOKEN = frozenset({"modalities", "audio"})
_INSTRUCTION = (
    "Your answer above broke off. Begin with its last words once more, exactly as they stand between the two lines of "
    "dashes, and go straight on from there to the end of the answer. Write nothing before them, no apology and no "
    "comment, and repeat nothing else.\n---\n"
)


class SentAnswer(Value, frozen=True):
    """The part of a broken answer that the client has: its text, and its reasoning text.

    `after` is the text that followed, which the client does not have.
    """

    text: str
    reasoning: str = ""
    after: str = ""


def is_resumable(request: ChatRequest) -> bool:
    """Return whether another model can continue the answer: plain text, one choice, and no effects at the provider."""
    return (
        (request.n is None or request.n == 1)
        and not request.tools
        and request.tool_choice is None
        and request.response_format is None
        and not request.logprobs
        and not (request.extra and (has_effects(request) or request.extra.keys() & _SPOKEN))
    )


def is_prefilled(step: Step, sent: SentAnswer) -> bool:
    """Return whether the step gets the beginning of its answer; otherwise it is asked in words to go on.

    A placeholder at its end would stand for more than the client has, so that the rest of the value would be lost.
    """
    may_cut_a_value = sent.after and step.permit.wrapper is not None
    return bool(sent.text.strip()) and "prefill" in step.deployment.capabilities.features and not may_cut_a_value


def resume_request(request: ChatRequest, sent: SentAnswer, *, prefilled: bool) -> ChatRequest:
    """Return the request for the rest. If the answer had no text yet, that is the original request."""
    max_tokens = request.max_tokens
    if max_tokens is not None:
        # The limit was not reached, so at least one token is left. The estimate is high, so the limit is not passed.
        max_tokens = max(max_tokens - most_tokens(sent), 1)
    if not sent.text.strip():
        return replace(request, max_tokens=max_tokens)
    before, text, last = request.messages, sent.text, request.messages[-1]
    if isinstance(last, AssistantMessage):
        before, text = before[:-1], text_of(last.content) + text
    end = len(text.rstrip() if prefilled else text)
    messages: tuple[Message, ...] = (*before, AssistantMessage(excerpt(text + sent.after, 0, end)))
    if not prefilled:
        messages += (UserMessage(_instruction(sent)),)
    return replace(request, messages=messages, max_tokens=max_tokens)


def most_tokens(sent: SentAnswer) -> int:
    """Return an estimate of the tokens of what was sent, which is rather too high."""
    return _tokens(sent.text, _FEWEST_CHARACTERS_A_TOKEN) + _tokens(sent.reasoning, _FEWEST_CHARACTERS_A_TOKEN)


def added_tokens(sent: SentAnswer, *, prefilled: bool) -> int:
    """Return about how many tokens longer the prompt of the second part is."""
    if not sent.text.strip():
        return 0
    return estimated_tokens(sent.text) + (0 if prefilled else estimated_tokens(_instruction(sent)))


def _instruction(sent: SentAnswer) -> str:
    return quoting(Own(_INSTRUCTION), _last_words(sent.text, sent.after), Own("\n---"))


def _last_words(text: str, after: str = "") -> str:
    """Return the end of the text, from the beginning of a word if the text has words."""
    stripped = text.strip()
    end = stripped[-_REPEATED_CHARACTERS:]
    words = end.partition(" ")[2].strip() or end if len(end) < len(stripped) else end
    until = len(text.rstrip())
    return excerpt(text + after, until - len(words), until)


def why_too_long(request: ChatRequest, step: Step) -> str | None:
    """Return why the step's context cannot hold the request; None if it may."""
    size = step.deployment.capabilities.context_tokens
    if size is None:
        return None
    tokens = sum(estimated_tokens(text_of(message.content)) for message in request.messages)
    return f"its context is too small for what was sent so far (about {tokens} tokens)" if tokens > size else None


def estimated_tokens(text: str) -> int:
    """Return about how many tokens a text has."""
    return _tokens(text, _CHARACTERS_A_TOKEN)


def _tokens(text: str, ascii_characters: int) -> int:
    if text.isascii():
        return math.ceil(len(text) / ascii_characters)
    plain = sum(1 for character in text if character.isascii())
    return math.ceil(plain / ascii_characters) + len(text) - plain


def _sum(count: int | None, other: int | None) -> int | None:
    return count if other is None else (count or 0) + other


def summed(broken: Usage | None, sent: SentAnswer, added: int, last: Usage) -> tuple[Usage, bool]:
    """Return the usage of both parts together, and whether some of it is an estimate.

    The first provider's usage goes up to the failure. The second prompt was longer by the `added` tokens.
    """
    spent = estimated_tokens(sent.text) + estimated_tokens(sent.reasoning)
    known = broken or Usage(prompt_tokens=max(last.prompt_tokens - added, 0))
    completion_tokens = max(known.completion_tokens, spent)
    sums: dict[str, Any] = dict(zip(Usage.__struct_fields__, map(_sum, _COUNTS(known), _COUNTS(last)), strict=True))
    total = Usage(**{**sums, "completion_tokens": completion_tokens + last.completion_tokens})
    return total, broken is None or known.completion_tokens < completion_tokens
