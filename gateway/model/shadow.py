"""What came of a request that was sent to a shadow too."""

from __future__ import annotations

from dataclasses import dataclass, field

from providers.chat import Usage


@dataclass(frozen=True, slots=True)
class ShadowRecord:
    """One request that a shadow was asked, and the answer that its client got, beside it. Times are seconds.

    at_s: Unix time. outcome: `ok`, or the kind of failure. first_s: until the answer began; a whole JSON answer.
    prompt, answer, refusal (the provider's own words for one) and calls (of tools: their names and arguments): only
    where the config keeps text. beside_answer: likewise, where the client's own answer is a whole one of plain text.
    """

    at_s: float
    table: str
    request_id: str
    assistant: str
    region: str
    deployment: str
    model: str
    stream: bool
    outcome: str
    first_s: float
    total_s: float
    usage: Usage | None = None
    finish_reason: str | None = None
    answer_characters: int = 0
    tool_calls: int = 0
    beside: str | None = None
    beside_first_s: float | None = None
    beside_total_s: float | None = None
    beside_usage: Usage | None = None
    prompt: str | None = field(default=None, repr=False)
    answer: str | None = field(default=None, repr=False)
    refusal: str | None = field(default=None, repr=False)
    calls: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    beside_answer: str | None = field(default=None, repr=False)
