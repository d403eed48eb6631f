"""Checks that must pass before a change, and the rules of protected regions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from gateway.changes.plan import ChangePlan, Check, asked_in, prompted
from gateway.model.config_version import ConfigVersion, Region
from gateway.model.deployment import Deployment
from gateway.policy.fence import is_inside, lacking_approval
from gateway.policy.routing import off


def protected_changes(old: ConfigVersion, new: ConfigVersion, plan: ChangePlan) -> dict[str, str]:
    """Each region that is protected in the old table and is changed by the plan between the two, and by what."""
    found: dict[str, str] = {}
    for name, region in old.regions.items():
        if region.protected and (why := _why(old, new, region, plan)):
            found[name] = why
    return found


def _why(old: ConfigVersion, new: ConfigVersion, region: Region, plan: ChangePlan) -> str:
    reasons: list[str] = []
    if set(old.admin_keys) != set(new.admin_keys):
        reasons.append("admin_keys")
    if _stands(old) != _stands(new):
        reasons.append("where the gateway stands")
    for item in plan.regions:
        if item.name == region.name:
            reasons += [change.what for change in item.changes] or [item.kind]
    reasons += [f"the region of client {name}" for name in _rebound(old, new, region.name)]
    routes = [route for route in plan.routes if route.region == region.name]
    reasons += [f"the route of {route.assistant}" for route in routes if route.before != route.after]
    assistants = (*old.assistants.values(), *new.assistants.values())
    asked = {deployment.name for assistant in assistants for deployment in prompted(assistant, region.name)}
    reasons += [f"the deployment {name}" for name in sorted(_rewritten(asked, plan))]
    if _heard(old, region.name) != _heard(new, region.name):
        reasons.append("exporters")
    return ", ".join(dict.fromkeys(reasons))


def _rebound(old: ConfigVersion, new: ConfigVersion, region: str) -> list[str]:
    """The clients whose people the region loses or gets, as a key's region is final. Who has gone is no matter: nobody
    answers them; nor who is new."""
    named = {client.name: client for client in new.clients.values()}
    found: set[str] = set()
    for key, before in old.clients.items():
        for now in (new.clients.get(key), named.get(before.name)):
            if now is not None and before.region != now.region and region in (before.region, now.region):
                found.add(before.name)
    return sorted(found)


def _stands(table: ConfigVersion) -> str | None:
    """The gateway is a place for each region that it serves."""
    return table.cell.territory if table.cell is not None else None


def _rewritten(names: Collection[str], plan: ChangePlan) -> set[str]:
    """Those of the deployments that the plan changes, if only by the key of an account."""
    changed = {item.name for item in plan.deployments}
    return {name for name in names if name in changed or _is_among(f"deployments.{name}", plan.keys)}


def _is_among(path: str, keys: Collection[str]) -> bool:
    return any(key == path or key.startswith(f"{path}.") for key in keys)


def _heard(table: ConfigVersion, region: str) -> list[tuple[object, ...]]:
    """Who is told of the region's requests, and where that is."""
    known = table.regions.get(region)
    return [
        (exporter.name, exporter.permit.origin, exporter.path, exporter.residency)
        for exporter in table.exporters
        if exporter.may_hear_of(known)
    ]


def compiles(errors: Sequence[str]) -> Check:
    """That the new config has no mistake; findings: the mistakes."""
    return Check("compiles", not errors, tuple(errors))


def checks_of(old: ConfigVersion, new: ConfigVersion, warnings: Sequence[str], now_s: float) -> tuple[Check, ...]:
    """The checks of a switch between two tables that compile. now_s: Unix time, for what ends.

    warnings: those of the new config that the old one has not.
    """
    unanswered, unapproved = tuple(_unanswered(old, new, now_s)), tuple(_unapproved(old, new, now_s))
    return (
        Check("answered", not unanswered, unanswered),
        Check("approved", not unapproved, unapproved),
        Check("warnings", True, tuple(warnings)),
    )


def why_not_asked(table: ConfigVersion, region: Region, deployment: Deployment, now_s: float) -> str | None:
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


def _unanswered(old: ConfigVersion, new: ConfigVersion, now_s: float) -> Iterator[str]:
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


def _unapproved(old: ConfigVersion, new: ConfigVersion, now_s: float) -> Iterator[str]:
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
