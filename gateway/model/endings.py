"""The ends of the facts on which a configuration relies: of approvals, models, prices and laws."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Literal

from gateway.model.approval import Days, Ending, Term, terms_of
from gateway.model.config_version import ConfigVersion
from gateway.model.deployment import Deployment


class FactEnding(Ending, frozen=True):
    """The end of a fact of a vendor or a law.

    Attributes:
        kind: The kind of the fact. A model ends with its site, its API version, its token host or its vendor's API.
        subject: The deployment or the label that relies on it, by the name of its kind.
        what: The fact, such as `its price`.
        on: The first day without it.
        instead: The fact that replaces it, or empty.
    """

    kind: Literal["model", "price", "law"]
    subject: Mapping[str, str]
    what: str
    on: date
    instead: str = ""

    def __str__(self) -> str:
        if self.kind == "model":
            if self.is_over:
                return f"{self.what} is RETIRED since {self.on}: routes pass it over"
            until = f"routes pass it over from {self.on} 12:00 UTC"
            return f"{self.what} is retired on {self.on}, {self.in_days}; {until}"
        return f"{self.what} ended on {self.on}" if self.is_over else f"{self.what} ends on {self.on}, {self.in_days}"


def deployment_endings_of(deployments: Iterable[Deployment], days: Days) -> list[FactEnding]:
    """Return the ends of models and of latest prices. Such a price is used after its end too.

    A model ends when its day has begun everywhere on Earth: from then on routes pass it over (`Deployment.ends_s`). All
    other facts end when their day has begun somewhere. A deployment that the operator keeps (`accept_ended`) has none.
    """
    found = []
    for one in deployments:
        if one.accept_ended:
            continue
        subject, end, price = {"deployment": one.name}, one.retirement, one.price
        if end is not None:
            what, left = end.what or f"its model {one.model!r}", end.on.toordinal() - days.first
            found.append(FactEnding(left, "model", subject | {"model": one.model}, what, end.on, end.instead))
        if price is not None and price.ends is not None:
            left = price.ends.toordinal() - days.last
            found.append(FactEnding(left, "price", subject, "its price", price.ends))
    return found


def law_ending(label: str, on: date, instead: str, days: Days) -> FactEnding:
    """Return the end of the law that a label is for."""
    return FactEnding(on.toordinal() - days.last, "law", {"label": label}, "the law of the label", on, instead)


def endings_of(config: ConfigVersion, days: Days) -> list[Term | FactEnding]:
    """Return the end of each fact on which the configuration relies, the nearest first."""
    laws = [law_ending(label, *end, days) for label, end in config.law_ends.items()]
    deployments = config.deployments.values()
    found: list[Term | FactEnding] = [
        *terms_of(config.approvals, days),
        *deployment_endings_of(deployments, days),
        *laws,
    ]
    return sorted(found, key=lambda it: it.days_left)
