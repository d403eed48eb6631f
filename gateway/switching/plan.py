"""The plan of a switch between two tables, as values: what changes, whom it touches, and what must hold. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

__all__ = ["Change", "Check", "Kind", "Plan", "PlanItem", "RouteChange", "Traffic", "with_traffic"]

Kind = Literal["added", "removed", "changed"]
Traffic = Mapping[tuple[str, str], float]
"""How many requests there were lately, by assistant and region."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is otherwise, in words. widens: prompts may go where they might not go before."""

    what: str
    before: str
    after: str
    widens: bool = False


@dataclass(frozen=True, slots=True)
class PlanItem:
    """A region or a deployment that changes, and what about it; `asked_by` are the routes that have the deployment."""

    name: str
    kind: Kind
    changes: tuple[Change, ...] = ()
    asked_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RouteChange:
    """What changes for the people of one region who ask for one assistant.

    before, after: the steps in order. because: the region or deployments whose own change reaches this route.
    share: of the requests that were counted lately; None where nobody has counted.
    """

    assistant: str
    region: str
    kind: Kind
    before: tuple[str, ...]
    after: tuple[str, ...]
    because: tuple[str, ...] = ()
    share: float | None = None

    @property
    def added(self) -> tuple[str, ...]:
        """Steps that are new."""
        return tuple(step for step in self.after if step not in self.before)

    @property
    def removed(self) -> tuple[str, ...]:
        """Steps that are gone."""
        return tuple(step for step in self.before if step not in self.after)

    @property
    def reordered(self) -> bool:
        """Whether what stays stands in another order."""
        kept = [step for step in self.before if step in self.after]
        return kept != [step for step in self.after if step in self.before]


@dataclass(frozen=True, slots=True)
class Check:
    """Something that must hold before a switch; findings: why it doesn't, or what is to be known."""

    name: str
    ok: bool
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a switch would do. `before` and `after` are versions, `before` empty where there is none, and `after` where
    the new config doesn't compile.

    sections: other keys of the config that hold something else. keys: every key whose value differs, as it is written.
    requests: how many were counted for the shares; None where nobody has.
    """

    before: str
    after: str
    regions: tuple[PlanItem, ...] = ()
    routes: tuple[RouteChange, ...] = ()
    deployments: tuple[PlanItem, ...] = ()
    sections: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    requests: float | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing changes."""
        return not (self.regions or self.routes or self.deployments or self.sections or self.keys)

    @property
    def ok(self) -> bool:
        """Whether no check fails."""
        return all(check.ok for check in self.checks)

    @property
    def share(self) -> float | None:
        """The share of the counted requests that it touches."""
        shares = [route.share for route in self.routes]
        return sum(share for share in shares if share is not None) if self.requests is not None else None

    @property
    def switched_off(self) -> tuple[str, ...]:
        """The deployments whose kill switch it throws."""
        return tuple(
            item.name
            for item in self.deployments
            if any(change.what == "enabled" and change.after == "no" for change in item.changes)
        )


def with_traffic(plan: Plan, traffic: Traffic) -> Plan:
    """The plan with the share of these requests that each of its routes had."""
    total = sum(traffic.values())
    if total <= 0:
        return plan

    def share(route: RouteChange) -> float:
        return traffic.get((route.assistant, route.region), 0.0) / total

    return replace(plan, requests=total, routes=tuple(replace(route, share=share(route)) for route in plan.routes))
