"""What is asked and how its answer is judged: values only, the same for a live answer and a recorded one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from providers.chat import ChatCompletion, Tool, ToolCall, text_of
from providers.failures import Failure, FailureKind


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """One recorded answer. refusal: the provider's own word for one. filtered: its safety system stepped in."""

    text: str
    calls: tuple[ToolCall, ...] = ()
    refusal: str | None = None
    filtered: bool = False
    finish: str = "stop"


@dataclass(frozen=True, slots=True)
class Exact:
    """The text as it is, without the space around it."""

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Same:
    """The same words, whatever the width, case, punctuation and articles."""

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChoiceCheck:
    """The letter of the right one of so many choices."""

    letter: str
    of: int


@dataclass(frozen=True, slots=True)
class Number:
    """A number, however it is written; the last one that the answer gives."""

    value: float
    tolerance: float = 0.0


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression that is found in the text."""

    expression: str


@dataclass(frozen=True, slots=True)
class Schema:
    """JSON that fits a JSON Schema."""

    schema: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class TextRule:
    """One instruction that a rule can check: its name, and what it is given."""

    name: str
    arguments: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TextRules:
    """Instructions, every one of which must be followed."""

    rules: tuple[TextRule, ...]


@dataclass(frozen=True, slots=True)
class ToolCallCheck:
    """A call of this tool with these arguments and no other; name None: no tool may be called."""

    name: str | None
    arguments: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JudgeCheck:
    """What a judge model is to look for, in words."""

    rubric: str


Check = Exact | Same | ChoiceCheck | Number | Pattern | Schema | TextRules | ToolCallCheck | JudgeCheck

Expectation = Literal["accept", "refuse", "answer"]
"""Of an item of a bank: its answer must be acceptable; it must be refused; it must not be refused."""


@dataclass(frozen=True, slots=True)
class Item:
    """One question. `group` is its row in a table, and the risk class where it belongs to a bank.

    check: None for an item of a bank, where `expects` says what must become of it.
    right: an answer that is right, where one is known: what a simulated candidate says.
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


def answer_of(completion: ChatCompletion) -> RecordedAnswer:
    """The first choice of a completion, as it is scored."""
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
    """The answer that a failure is: a refusal of the provider's safety system is one, everything else is none."""
    if failure.kind is FailureKind.CONTENT_FILTER:
        return RecordedAnswer("", filtered=True, finish="content_filter")
    return None


def draw(*words: object) -> float:
    """A number in [0, 1) that follows from the words alone, spread evenly."""
    digest = hashlib.sha256("\x1f".join(map(str, words)).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
