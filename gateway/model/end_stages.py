"""The stages of a model's end at a deployment: the notice, a higher price, another model under its name, its last day.

Each is one value with the moment at which it acts, which all that show or follow it read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from typing import Literal, get_args

from gateway.model.approval import Days, begun_everywhere, begun_somewhere
from providers.catalogue.prices import Retirement
from providers.value import Value

StageName = Literal["announced", "dearer", "redirects", "fails"]


class EndStage(Value, frozen=True):
    """A stage of the end of a model, or of what serves it."""

    stage: StageName
    on: date
    """Its first day."""
    row: Retirement
    """The statement about it."""
    to: str
    """The model that answers from then on, or empty."""
    firm: bool
    """The vendor or the operator states the day, so that routes, prices and approvals follow it."""
    is_earliest: bool
    """The day is only the earliest possible one of `fails`."""
    leaves: bool
    """Another model answers, and stores or computes elsewhere: no prompt is sent, firm or not."""
    passes_over: bool
    """Routes pass the deployment over once it has begun: it `leaves`, or fails for certain."""
    acts_s: float | None
    """The moment (Unix time) from which on routes, approvals or statements follow it, or None if none does. A stage
    that binds a statement or a prompt to a model acts as soon as the day begins somewhere on Earth."""

    @property
    def is_retirement(self) -> bool:
        """Whether the vendor serves the model no longer from its day on, for certain."""
        return self.stage == "fails" and self.firm

    @property
    def certainty(self) -> str:
        """Its certainty as the label of a metric: `true` (firm), `false`, or `earliest` for a day that may be later."""
        return "earliest" if self.is_earliest else str(self.firm).lower()

    def has_begun(self, days: Days) -> bool:
        """Return whether it has begun by these dates on Earth: somewhere if it acts early, else everywhere."""
        is_early = self.stage == "redirects" and self.acts_s is not None
        return self.on.toordinal() <= (days.last if is_early else days.first)

    def document(self) -> dict[str, object]:
        """Return what `/readyz`, `status --json`, the admin API and `explain` show of it."""
        acts_at = datetime.fromtimestamp(self.acts_s, UTC).isoformat() if self.acts_s is not None else None
        return {"stage": self.stage, "firm": self.firm, "to": self.to or None, "acts_at": acts_at}

    def __str__(self) -> str:
        kind = " at the earliest" if self.is_earliest else "" if self.firm else " (not firm)"
        return f"{self.on}{f' to {self.to}' if self.to else ''}{', elsewhere' if self.leaves else ''}{kind}"


def stages_of(
    vendors: Iterable[Retirement], own: Retirement, hosts: Iterable[Retirement], leaves: Callable[[str], bool]
) -> tuple[EndStage, ...]:
    """Return the stages of a model at a deployment, in their order.

    A stage of the operator's `own` catalogue replaces that of the vendor. Of several last days the first firm one
    counts, and an earlier one that is not firm. `hosts`: the ends of token hosts. `leaves`: whether a model is stored
    or computed elsewhere.
    """
    known = [(row, key, on) for row in vendors for key, on in row.days.items() if key not in own.days]
    others = [(row, key, on) for row in (own, *hosts) for key, on in row.days.items()]
    stages = [_stage(row, key, on, leaves) for row, key, on in (*known, *others)]
    names, found = get_args(StageName), list[EndStage]()
    for stage in sorted(stages, key=lambda it: (names.index(it.stage), it.on, not it.firm)):
        if not any(it.stage == stage.stage and (it.firm or not stage.firm) for it in found):
            found.append(stage)
    return tuple(found)


def _stage(row: Retirement, key: str, on: date, leaves: Callable[[str], bool]) -> EndStage:
    name: StageName = "fails" if key == "on" else key  # type: ignore[assignment]  # the keys of `days`
    is_earliest, redirects = key == "on" and row.earliest, name == "redirects"
    firm, goes = row.is_stated and not is_earliest, redirects and leaves(row.to)
    acts_s = begun_everywhere(on) if name == "fails" and firm else None
    if redirects and (firm or goes):
        acts_s = begun_somewhere(on)
    passes_over = goes or (name == "fails" and firm)
    return EndStage(name, on, row, row.to if redirects else "", firm, is_earliest, goes, passes_over, acts_s)


def redirect_of(stages: Iterable[EndStage]) -> EndStage | None:
    """Return the stage from which on the vendor answers with another model that may be asked, or None."""
    return next((it for it in stages if it.to and it.firm and not it.leaves), None)


def answering(model: str, redirect: EndStage | None, days: Days) -> tuple[str, ...]:
    """Return the models that may answer under the name of a model on these dates, of which one may be a redirect."""
    if redirect is None:
        return (model,)
    on = redirect.on.toordinal()
    return (*((model,) if days.first < on else ()), *((redirect.to,) if days.last >= on else ()))
