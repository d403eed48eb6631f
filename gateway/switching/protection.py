"""Which protected regions a switch would change: those need the signature of an admin on the plan. Pure.

What counts is who gets the prompts of the region's people, where that may be, and by what leave: its territories and
the clients that are bound to it, boundary, approvals, routes and shadows, the deployments in them, where the gateway
itself stands, the exporters that hear of it, and the protection itself.
"""

from __future__ import annotations

from collections.abc import Collection

from gateway.model.table import Region, Table
from gateway.switching.comparing import prompted
from gateway.switching.plan import Plan

__all__ = ["protected_changes"]


def protected_changes(old: Table, new: Table, plan: Plan) -> dict[str, str]:
    """Each region that is protected in the old table and is changed by the plan between the two, and by what."""
    found: dict[str, str] = {}
    for name, region in old.regions.items():
        if region.protected and (why := _why(old, new, region, plan)):
            found[name] = why
    return found


def _why(old: Table, new: Table, region: Region, plan: Plan) -> str:
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


def _rebound(old: Table, new: Table, region: str) -> list[str]:
    """The clients whose people the region loses or gets, as a key's region is final. Who has gone is no matter: nobody
    answers them; nor who is new."""
    named = {client.name: client for client in new.clients.values()}
    found: set[str] = set()
    for key, before in old.clients.items():
        for now in (new.clients.get(key), named.get(before.name)):
            if now is not None and before.region != now.region and region in (before.region, now.region):
                found.add(before.name)
    return sorted(found)


def _stands(table: Table) -> str | None:
    """The gateway is a place for each region that it serves."""
    return table.cell.territory if table.cell is not None else None


def _rewritten(names: Collection[str], plan: Plan) -> set[str]:
    """Those of the deployments that the plan changes, if only by the key of an account."""
    changed = {item.name for item in plan.deployments}
    return {name for name in names if name in changed or _is_among(f"deployments.{name}", plan.keys)}


def _is_among(path: str, keys: Collection[str]) -> bool:
    return any(key == path or key.startswith(f"{path}.") for key in keys)


def _heard(table: Table, region: str) -> list[tuple[object, ...]]:
    """Who is told of the region's requests, and where that is."""
    known = table.regions.get(region)
    return [
        (exporter.name, exporter.permit.origin, exporter.path, exporter.residency)
        for exporter in table.exporters
        if exporter.may_hear_of(known)
    ]
