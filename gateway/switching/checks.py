"""What must hold before a switch, beyond that the new config compiles: who was answered is answered still. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gateway.model.deployment import Deployment
from gateway.model.table import Region, Table
from gateway.policy.fence import is_inside, lacking_approval
from gateway.policy.routing import off
from gateway.switching.comparing import asked_in
from gateway.switching.plan import Check

__all__ = ["checks_of", "compiles", "why_not_asked"]


def compiles(errors: Sequence[str]) -> Check:
    """That the new config has no mistake; findings: the mistakes."""
    return Check("compiles", not errors, tuple(errors))


def checks_of(old: Table, new: Table, warnings: Sequence[str], now_s: float) -> tuple[Check, ...]:
    """The checks of a switch between two tables that compile. now_s: Unix time, for what ends.

    warnings: those of the new config that the old one has not.
    """
    unanswered, unapproved = tuple(_unanswered(old, new, now_s)), tuple(_unapproved(old, new, now_s))
    return (
        Check("answered", not unanswered, unanswered),
        Check("approved", not unapproved, unapproved),
        Check("warnings", True, tuple(warnings)),
    )


def why_not_asked(table: Table, region: Region, deployment: Deployment, now_s: float) -> str | None:
    """Why a step of the region's routes is passed over now, whatever is asked; None if it can be asked."""
    if not is_inside(table, region, deployment):
        return "outside the boundary"
    if deployment.unmet:
        return f"not attested: {', '.join(deployment.unmet)}"
    lacking = lacking_approval(region, deployment, now_s)
    if lacking is not None:
        return lacking
    stopped = off(deployment)
    return stopped[1] if stopped is not None else None


def _unanswered(old: Table, new: Table, now_s: float) -> Iterator[str]:
    """Each route by which somebody was answered, and nobody is any more."""
    for name in old.regions:
        region = new.regions.get(name)
        routes = asked_in(new, name) if region is not None else {}
        for assistant, steps in asked_in(old, name).items():
            if all(why_not_asked(old, old.regions[name], step, now_s) for step in steps):
                continue
            if region is None or assistant not in routes:
                yield f"{assistant}/{name}: nobody answers these people any more (region_blocked)"
                continue
            reasons = {step.name: why_not_asked(new, region, step, now_s) for step in routes[assistant]}
            if all(reasons.values()):
                told = "; ".join(f"{step}: {reason}" for step, reason in reasons.items())
                yield f"{assistant}/{name}: nobody can be asked ({told})"


def _unapproved(old: Table, new: Table, now_s: float) -> Iterator[str]:
    """Each step that is new where approvals are required, or was approved, and is not approved now."""
    for name, region in new.regions.items():
        known = old.regions.get(name)
        before = asked_in(old, name) if known is not None else {}
        for assistant, steps in asked_in(new, name).items():
            for step in steps:
                lacking = lacking_approval(region, step, now_s)
                was = [one for one in before.get(assistant, ()) if one.name == step.name]
                if lacking is None or (known and was and lacking_approval(known, was[0], now_s) is not None):
                    continue
                yield f"{assistant}/{name}: {step.name}: {lacking}"
