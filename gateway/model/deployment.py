"""A deployment: one model of one provider at one site, its concurrency limit and the end of its model's life."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from gateway.model.approval import Approval, Days
from gateway.model.consent import ConsentRule
from providers.adapter import Adapter, Capabilities, Target
from providers.auth import Secret
from providers.catalogue.prices import Price, Retirement
from providers.matching.capability_matching import CapabilityMatch, has_effects_there, match_capabilities
from providers.matching.requirements import Requirements
from providers.sites import Residency
from providers.territories import Places


@dataclass(frozen=True, slots=True)
class Concurrency:
    """How many calls of a deployment may run at once, over all workers, and how many requests wait for a place.

    limit: at most. queue, wait_s: so many may wait, and each so long.
    """

    limit: int
    queue: int = 20
    wait_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Deployment:
    """One model of one provider at one site: what an attempt is sent to.

    site: the catalogue's name of the site, or the origin of an operator's own URL.
    capabilities: what the wire format, the model and the operator agree that it can do.
    available: the territories whose people it may answer; everywhere for a URL that the catalogue doesn't know.
    excepts: features and parameters that the site's promise of residency leaves out.
    unmet: what the site requires and nobody attested, in words; empty if all is met.
    credentials: keys, used in turn; `needs_credential` says whether it works without one.
    headers: what is sent with each call beside the credential, as secret as that.
    missing_credentials: where the unset ones should have come from (`DASHSCOPE_API_KEY`).
    fold: whether a request for one JSON is asked as a stream; None: where a next step exists. first_token_s: None is
        what holds for all, and the model's own patience.
    places: where it stores and where it processes, in words. asked_at: its name, origin and model: what is known of how
        it fares holds for the three together, over any number of tables.
    consent: what it asks of the person first, if anything. identity: what becomes of fields that say who asks.
    pseudonym_key: what makes a pseudonym of them, where they are to be hashed.
    price, retirement: what the model's tokens cost there, and when the vendor retires it; None where nobody knows.
    concurrency: None is no bound.
    """

    name: str
    provider: str
    adapter: Adapter
    model: str
    site: str
    origin: str
    target: Target
    residency: Residency
    available: Places
    capabilities: Capabilities
    excepts: frozenset[str] = frozenset()
    unmet: tuple[str, ...] = ()
    allowed_moves: frozenset[str] = frozenset()
    credentials: tuple[Secret, ...] = ()
    headers: tuple[tuple[str, Secret], ...] = ()
    needs_credential: bool = True
    missing_credentials: tuple[str, ...] = ()
    unsupported: Literal["drop", "refuse"] = "drop"
    enabled: bool = True
    simulates: str | None = None
    approvals: tuple[Approval, ...] = ()
    fold: bool | None = None
    first_token_s: float | None = None
    consent: ConsentRule | None = None
    identity: Literal["strip", "hash", "pass"] = "strip"
    pseudonym_key: Secret | None = None
    price: Price | None = None
    retirement: Retirement | None = None
    concurrency: Concurrency | None = None
    places: tuple[str, str] = field(init=False, repr=False)
    asked_at: tuple[str, str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", (str(self.residency.stores), str(self.residency.processes)))
        object.__setattr__(self, "asked_at", (self.name, self.origin, self.model))

    @property
    def retires_on(self) -> date | None:
        """From this day on the vendor doesn't answer for its model; None where no day is known."""
        return self.retirement.on if self.retirement is not None else None

    @property
    def has_credential(self) -> bool:
        """Whether it can be called at all."""
        return bool(self.credentials) or not self.needs_credential


RETIREMENT_WARNING_DAYS = (7, 30, 90)
"""How long before its day a retirement is told of: from the last of them on, and each time more."""


@dataclass(frozen=True, slots=True)
class RetirementNotice:
    """A deployment whose model is retired on a day: that many days from now, 0 or less where it is over."""

    deployment: str
    model: str
    retires_on: date
    days_left: int
    instead: str = ""

    @property
    def warned_days(self) -> int | None:
        """The bound of `WARNED_DAYS` that it has come under; None if it is far from its day."""
        return next((bound for bound in RETIREMENT_WARNING_DAYS if self.days_left <= bound), None)

    @property
    def is_over(self) -> bool:
        """Whether the day has come, somewhere on Earth."""
        return self.days_left <= 0

    def __str__(self) -> str:
        if self.is_over:
            return f"its model {self.model!r} is RETIRED since {self.retires_on}: the vendor need not answer any more"
        days = "day" if self.days_left == 1 else "days"
        return f"its model {self.model!r} will be retired on {self.retires_on}, in {self.days_left} {days}"


def retirement_notices_of(deployments: Iterable[Deployment], days: Days) -> tuple[RetirementNotice, ...]:
    """How long each deployment's model is still there, of those of which a day is known; the nearest first."""
    known = ((one, one.retirement) for one in deployments if one.retirement is not None)
    farewells = [
        RetirementNotice(one.name, one.model, end.on, end.on.toordinal() - days.last, end.instead) for one, end in known
    ]
    return tuple(sorted(farewells, key=lambda one: one.days_left))


def match_of(deployment: Deployment, needs: Requirements) -> CapabilityMatch:
    """How the request fits it, by its provider's format, its model, and what its operator lets through."""
    target = deployment.target
    return match_capabilities(
        needs, deployment.capabilities, target.facts, target.passthrough, deployment.allowed_moves
    )


def has_effects_at(deployment: Deployment, needs: Requirements) -> bool:
    """Whether a deployment that the request fits keeps or does something for it besides answering."""
    target = deployment.target
    return has_effects_there(needs, deployment.capabilities, target.passthrough, deployment.allowed_moves)
