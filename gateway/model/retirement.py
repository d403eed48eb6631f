"""Models that their vendors retire: how long each deployment has still. Dates in, values out; no clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from gateway.model.approval import Days
from gateway.model.deployment import Deployment

__all__ = ["WARNED_DAYS", "Farewell", "farewells_of"]

WARNED_DAYS = (7, 30, 90)
"""How long before its day a retirement is told of: from the last of them on, and each time more."""


@dataclass(frozen=True, slots=True)
class Farewell:
    """A deployment whose model is retired on a day: that many days from now, 0 or less where it is over."""

    deployment: str
    model: str
    retires_on: date
    days_left: int
    instead: str = ""

    @property
    def warned_days(self) -> int | None:
        """The bound of `WARNED_DAYS` that it has come under; None if it is far from its day."""
        return next((bound for bound in WARNED_DAYS if self.days_left <= bound), None)

    @property
    def is_over(self) -> bool:
        """Whether the day has come, somewhere on Earth."""
        return self.days_left <= 0

    def __str__(self) -> str:
        if self.is_over:
            return f"its model {self.model!r} is RETIRED since {self.retires_on}: the vendor need not answer any more"
        days = "day" if self.days_left == 1 else "days"
        return f"its model {self.model!r} will be retired on {self.retires_on}, in {self.days_left} {days}"


def farewells_of(deployments: Iterable[Deployment], days: Days) -> tuple[Farewell, ...]:
    """How long each deployment's model is still there, of those of which a day is known; the nearest first."""
    known = ((one, one.retirement) for one in deployments if one.retirement is not None)
    farewells = [
        Farewell(one.name, one.model, end.on, end.on.toordinal() - days.last, end.instead) for one, end in known
    ]
    return tuple(sorted(farewells, key=lambda one: one.days_left))
