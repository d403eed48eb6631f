"""The ends of the facts on which a configuration relies: of approvals, models, prices and laws."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from typing import ClassVar, Literal

from gateway.model.approval import Days, Ending, Term, terms_of
from gateway.model.config_version import ConfigVersion
from gateway.model.deployment import Deployment
from gateway.model.end_stages import EndStage


class FactEnding(Ending, frozen=True):
    """The end of a price or a law."""

    kind: Literal["price", "law"]
    subject: Mapping[str, str]
    """The deployment or the label that relies on it, by the name of its kind."""
    what: str
    """The fact, such as `its price`."""
    on: date
    """The first day without it."""
    instead: str = ""
    """The fact that replaces it, or empty."""

    def __str__(self) -> str:
        return f"{self.what} ended on {self.on}" if self.is_over else f"{self.what} ends on {self.on}, {self.in_days}"


class StageEnding(Ending, frozen=True):
    """A stage of the end of a model, which ends with its site, its API version, its token host or its vendor's API."""

    kind: ClassVar[Literal["model"]] = "model"
    subject: Mapping[str, str]
    what: str
    on: date
    instead: str
    stage: EndStage
    begun: bool
    """Whether its day has begun, at the moment that it has for what it changes."""
    is_note: bool
    """It is shown without a warning: a notice with a day to follow, or an earliest day that is over."""

    @property
    def warned_days(self) -> int | None:
        """The smallest bound that has been reached, or None without a warning."""
        return None if self.is_note else self.bound

    @property
    def is_over(self) -> bool:
        """Whether routes pass the deployment over."""
        return self.begun and self.stage.passes_over

    def document(self) -> dict[str, object]:
        """Return what `/readyz`, `status --json` and the admin API show of it next to the deployment."""
        return {"on": self.on.isoformat(), "days_left": self.days_left, **self.stage.document()}

    def __str__(self) -> str:
        what, on, to, firm = self.what, self.on, self.stage.to, self.stage.firm
        unsure = "" if firm else f" (unconfirmed: {self.stage.row.unconfirmed})"
        acts = f" from {acting_at(self.stage)}" if not self.begun else ""
        match self.stage.stage:
            case "announced":
                return f"the end of {what} was announced on {on}{'' if self.is_note else ', without a day'}{unsure}"
            case "dearer":
                return f"{what} {'costs' if firm else 'may cost'} more from {on}{unsure}"
            case "redirects" if self.stage.acts_s is None:
                return f"{what} may be answered by {to} from {on}{unsure}; routes keep it"
            case "redirects":
                words = f"{what} is answered by {to} {f'since {on}' if self.begun else f'from {on}, {self.in_days}'}"
                elsewhere = f"{unsure}; {to} is computed elsewhere: routes pass it over{acts}"
                return f"{words}{elsewhere if self.stage.leaves else ''}"
            case "fails" if self.stage.is_earliest:
                return f"{what} is retired not before {on}; routes keep it"
            case "fails" if not firm:
                return f"{what} may be retired on {on}{unsure}; routes keep it"
        begun = f"is RETIRED since {on}:" if self.begun else f"is retired on {on}, {self.in_days};"
        return f"{what} {begun} routes pass it over{acts}"


def acting_at(stage: EndStage) -> str:
    """Return the moment at which a stage acts in words, or an empty text if it does not act."""
    return f"{datetime.fromtimestamp(stage.acts_s, UTC):%Y-%m-%d %H:%M} UTC" if stage.acts_s is not None else ""


def stage_endings_of(one: Deployment, days: Days) -> list[StageEnding]:
    """Return the stages of the end of a deployment's model."""
    found, is_alone = [], all(it.stage == "announced" for it in one.stages)
    for stage in one.stages:
        begun, left, row = stage.has_begun(days), stage.on.toordinal() - days.first, stage.row
        is_note = (stage.stage == "announced" and not is_alone) or (stage.is_earliest and begun)
        subject, what = {"deployment": one.name, "model": one.model}, row.what or f"its model {one.model!r}"
        found.append(StageEnding(left, subject, what, stage.on, row.instead or stage.to, stage, begun, is_note))
    return found


def price_endings_of(one: Deployment, days: Days) -> Iterator[FactEnding]:
    """Yield the end of a deployment's latest price, when its day has begun somewhere. It is used after that too.

    A day from which on the model costs more ends it too.
    """
    price = one.price
    if price is None or one.accept_ended:
        return
    dearer = [it.on for it in one.stages if it.stage == "dearer" and it.firm and (price.valid_from or date.min) < it.on]
    if ends := min([*dearer, *([price.ends] if price.ends is not None else [])], default=None):
        yield FactEnding(ends.toordinal() - days.last, "price", {"deployment": one.name}, "its price", ends)


def law_ending(label: str, on: date, instead: str, days: Days) -> FactEnding:
    """Return the end of the law that a label is for."""
    return FactEnding(on.toordinal() - days.last, "law", {"label": label}, "the law of the label", on, instead)


def endings_of(config: ConfigVersion, days: Days) -> list[Term | FactEnding | StageEnding]:
    """Return the end of each fact on which the configuration relies, the nearest first."""
    found: list[Term | FactEnding | StageEnding] = [
        law_ending(label, *end, days) for label, end in config.law_ends.items()
    ]
    for one in config.deployments.values():
        found += [*terms_of({one.name: one.approvals_on(days)}, days), *stage_endings_of(one, days)]
        found += price_endings_of(one, days)
    return sorted(found, key=lambda it: it.days_left)


def retirements_in(endings: Iterable[Term | FactEnding | StageEnding]) -> list[StageEnding]:
    """Return those of models that routes pass over because their vendor serves them no longer."""
    return [it for it in endings if it.kind == "model" and it.stage.is_retirement]
