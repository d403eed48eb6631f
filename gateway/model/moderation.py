"""The moderation of a region's chats: which deployments judge, the policy, and the result for one request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from gateway.model.section import Listed, PlainSection, key, section

if TYPE_CHECKING:
    from gateway.model.deployment import Deployment
    from providers.moderations.values import ModerationResult

Judged = Literal["passed", "flagged", "skipped", "failed"]
"""`skipped`: no verdict was possible, and the policy lets the request go on. `failed`: it does not."""

_WORSE: tuple[Judged, ...] = ("passed", "skipped", "flagged", "failed")


@section
class ModerationRules(PlainSection):
    """The judges of a region's chats: of what clients send, and of what models answer."""

    on_failure: Literal["closed", "open"] = key(
        "Without a verdict: `closed` gives an error, `open` lets the request go on."
    )
    input_names: Annotated[tuple[str, ...], Listed()] = key(
        "The deployments that judge requests, asked in order if one fails.", default=(), name="input"
    )
    output_names: Annotated[tuple[str, ...], Listed()] = key(
        "The deployments that judge answers, asked in order if one fails.", default=(), name="output"
    )
    controversial: Literal["block", "pass"] = key(
        "The third verdict of guard models: `block` it or let it `pass`.", default="block"
    )
    window_chars: int = key(
        "An answer is judged at the first end of a sentence after so many characters.", default=80, ge=1, le=4000
    )
    hold_chars: int = key("It is judged at the latest after so many characters.", default=400, ge=1, le=8000)
    media: Literal["refuse", "pass"] = key(
        "Images and other media that no deployment of `input` can judge.", default="refuse"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Moderation(ModerationRules):
    """The policy of one region."""

    input: tuple[Deployment, ...]
    """The deployments that judge what a client sends. Empty if it is not judged."""
    output: tuple[Deployment, ...]
    """The deployments that judge what a model answers."""
    forbidden: frozenset[str] = frozenset()
    """The categories of what an answer must not claim, whatever else the verdict states. A user may."""

    @property
    def judges(self) -> tuple[Deployment, ...]:
        """All deployments that judge."""
        return tuple({it.name: it for it in (*self.input, *self.output)}.values())

    def flags(self, result: ModerationResult) -> bool:
        """Return whether a verdict is against a text."""
        return result.flagged and not (result.controversial and self.controversial == "pass")

    def __str__(self) -> str:
        directions = (("requests", self.input), ("answers", self.output))
        asked = [f"{what} by {', then '.join(it.name for it in by)}" for what, by in directions if by]
        ending = "refused" if self.on_failure == "closed" else "let through"
        return f"{'; '.join(asked)}; without a verdict: {ending}"


@dataclass(slots=True)
class ModerationRecord:
    """The decisions of the judges of a request, and the deployments that gave verdicts.

    A direction that is not judged has None. The record `is_skipped` if a text went on without a verdict, and
    `is_refused` if it did so because every judge refused to decide about it.
    """

    input: Judged | None = None
    output: Judged | None = None
    by: list[str] = field(default_factory=list)
    categories: tuple[str, ...] = ()
    is_skipped: bool = False
    is_refused: bool = False

    def note_missing(self, missing: NoVerdict) -> None:
        """Record that a text goes on without a verdict."""
        self.is_skipped = True
        self.is_refused |= missing.is_refused

    def note_output(self, judged: Judged, categories: tuple[str, ...] = ()) -> None:
        """Record a verdict on a part of the answer. The worst one stays."""
        if self.output is None or _WORSE.index(judged) > _WORSE.index(self.output):
            self.output = judged
        self.categories = tuple(sorted({*self.categories, *categories}))
        self.is_skipped |= judged == "skipped"

    def fields(self) -> dict[str, object]:
        """Return it as the log line and the receipt show it."""
        return {"input": self.input, "output": self.output, "by": list(self.by), "skipped": self.is_skipped}

    def member(self) -> dict[str, object] | None:
        """Return the member of `x_gateway` of an answer; None if the client needs no notice."""
        skipped: dict[str, object] = {"skipped": True} if self.is_skipped else {}
        if self.output == "flagged":
            return {"direction": "output", "categories": list(self.categories), **skipped}
        return skipped or None


class Flagged(Exception):
    """A judge has flagged what the client sent."""

    def __init__(self, categories: tuple[str, ...]) -> None:
        super().__init__("flagged")
        self.categories = categories


class NoVerdict(Exception):
    """No judge gave a verdict, and the policy requires one. With `is_refused`, each of them refused to decide."""

    def __init__(self, *, is_refused: bool = False) -> None:
        super().__init__("no verdict")
        self.is_refused = is_refused
