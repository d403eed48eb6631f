"""What can be told of a candidate without asking it: its approvals, and how it stands towards the fence."""

from __future__ import annotations

from gateway.model.approval import days_at, why_unapproved
from gateway.model.decision import PassedOver, Plan
from gateway.model.deployment import Deployment
from gateway.model.location import Location
from gateway.model.table import Assistant, Region, Table
from gateway.policy.routing import decide
from providers.fitting import Needs

__all__ = ["approval_of", "fence_of"]

_KEEPS = Needs(frozenset(), frozenset({"store"}), frozenset({"store"}))
_PLAIN = Needs(frozenset(), frozenset(), frozenset())


def approval_of(deployment: Deployment, region: Region, now_s: float, *, wanted: bool) -> dict[str, object]:
    """Its records for the region, what is the matter with them today (None if nothing is), and whether that matters.

    wanted: the suite asks for an approval, whether the region does or not.
    """
    records = [
        {
            "authority": one.authority,
            "kind": one.kind,
            "number": one.number,
            "model_name": one.model_name,
            "valid_from": None if one.valid_from is None else str(one.valid_from),
            "valid_until": None if one.valid_until is None else str(one.valid_until),
        }
        for one in deployment.approvals
        if one.region == region.name
    ]
    lacking = why_unapproved(deployment.approvals, region.name, days_at(now_s))
    return {"lacking": lacking, "asked_for": wanted or region.approvals_required, "records": records}


def fence_of(
    table: Table, assistant: Assistant, deployment: Deployment, region: Region, now_s: float
) -> dict[str, object]:
    """What the gateway's decision makes of it: in each region, and of a request that keeps data at the provider."""

    def reason(where: Region, needs: Needs) -> tuple[PassedOver | None, str]:
        place = Location(where, None, "evaluation", ())
        decision = decide(table, assistant, place, needs, {}, now_s, evaluating=deployment)
        if isinstance(decision.outcome, Plan):
            return None, ""
        first = decision.considered[0] if decision.considered else None
        return (first.reason if first else None), (first.detail if first else decision.outcome.message)

    regions = {name: reason(where, _PLAIN) for name, where in table.regions.items()}
    kept, why = reason(region, _KEEPS)
    return {
        "stores": str(deployment.residency.stores),
        "processes": str(deployment.residency.processes),
        "regions": {name: detail or "may be asked" for name, (_, detail) in regions.items()},
        "keeping_data": f"stopped: {why}"
        if kept is PassedOver.MOVES_DATA
        else why or "allowed by the facts of its site",
    }
