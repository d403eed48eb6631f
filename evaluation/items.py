"""Values for questions, checks and recorded answers. Live and recorded answers use the same values."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from providers.chat import ChatCompletion, Tool, ToolCall, text_of
from providers.failures import Failure, FailureKind


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """One recorded answer.

    Attributes:
        refusal: The provider's refusal text, if it sent one.
        filtered: Whether the provider's safety system blocked the answer.
    """

    text: str
    calls: tuple[ToolCall, ...] = ()
    refusal: str | None = None
    filtered: bool = False
    finish: str = "stop"


@dataclass(frozen=True, slots=True)
class Exact:
    """The answer is one of these texts, without surrounding space."""

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Same:
    """The answer has the same words. Character width, case, punctuation and articles are ignored."""

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChoiceCheck:
    """The answer chooses this letter. `of` is the number of choices."""

    letter: str
    of: int


@dataclass(frozen=True, slots=True)
class Number:
    """The last number in the answer is this value, in any notation."""

    value: float
    tolerance: float = 0.0


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression matches the answer."""

    expression: str


@dataclass(frozen=True, slots=True)
class Schema:
    """The answer is JSON that matches this JSON Schema."""

    schema: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class TextRule:
    """One instruction that a rule can check, with the rule's arguments."""

    name: str
    arguments: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TextRules:
    """The answer follows all these instructions."""

    rules: tuple[TextRule, ...]


@dataclass(frozen=True, slots=True)
class ToolCallCheck:
    """The answer calls only this tool, with exactly these arguments. If `name` is None, it must not call a tool."""

    name: str | None
    arguments: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JudgeCheck:
    """A judge model scores the answer by this rubric."""

    rubric: str


Check = Exact | Same | ChoiceCheck | Number | Pattern | Schema | TextRules | ToolCallCheck | JudgeCheck

Expectation = Literal["accept", "refuse", "answer"]
"""The expected result of a bank's item: an acceptable answer, a refusal, or any answer but a refusal."""


@dataclass(frozen=True, slots=True)
class Item:
    """One question.

    Attributes:
        group: The row in tables; for an item of a bank, the risk class.
        check: The check of the answer; None for an item of a bank.
        expects: The expected result of an item of a bank.
        right: A right answer, if one is known. Simulated candidates use it.
        cluster: The group of items that depend on each other, such as those of one template; None for an independent
            item. In files it is called `group`.
        temperature: The temperature of the request, if the deployment supports it. None leaves it to the model.
        epoch: The number of the sample, from 1. Further samples of a question have ids of their own.
    """

    id: str
    group: str
    language: str
    prompt: str
    check: Check | None = None
    expects: Expectation | None = None
    system: str | None = None
    tools: tuple[Tool, ...] = ()
    right: RecordedAnswer | None = None
    max_tokens: int = 2048
    cluster: str | None = None
    temperature: float | None = 0.0
    epoch: int = 1

    @property
    def question_id(self) -> str:
        """The id of the question, which all its samples share."""
        return self.id if self.epoch == 1 else self.id.removesuffix(_sample_suffix(self.epoch))


def samples_of(items: Iterable[Item], epochs: int) -> tuple[Item, ...]:
    """Return each item as often as it is asked. With more than one sample, the model's own temperature applies."""
    if epochs == 1:
        return tuple(items)
    plain = [replace(item, temperature=None) for item in items]
    return tuple(
        item if epoch == 1 else replace(item, id=f"{item.id}{_sample_suffix(epoch)}", epoch=epoch)
        for epoch in range(1, epochs + 1)
        for item in plain
    )


def first_samples(items: Iterable[Item]) -> tuple[Item, ...]:
    """Return the first sample of each question."""
    return tuple(item for item in items if item.epoch == 1)


def _sample_suffix(epoch: int) -> str:
    return f"@{epoch}"


def answer_of(completion: ChatCompletion) -> RecordedAnswer:
    """Return the first choice of a completion as a recorded answer."""
    choice = completion.choices[0]
    message = choice.message
    return RecordedAnswer(
        text_of(message.content),
        message.tool_calls,
        message.refusal,
        choice.finish_reason == "content_filter",
        choice.finish_reason,
    )


def filtered_by(failure: Failure) -> RecordedAnswer | None:
    """Return a failure as an answer if the provider's safety system refused, else None."""
    if failure.kind is FailureKind.CONTENT_FILTER:
        return RecordedAnswer("", filtered=True, finish="content_filter")
    return None


def draw(*words: object) -> float:
    """Return a uniformly distributed number in [0, 1) that depends only on the words."""
    digest = hashlib.sha256("\x1f".join(map(str, words)).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
