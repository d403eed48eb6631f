"""Why a request is answered as it is: the values of the decision itself, as plain data for JSON and for people."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.model.decision import Considered, Decision, Plan, Unwell
from gateway.model.location import Location
from gateway.model.table import Assistant, Client, Table
from gateway.policy.location import Sighting, resolve
from gateway.policy.routing import decide
from providers.fitting import Needs

__all__ = ["explain", "explain_text"]

NO_NEEDS = Needs(frozenset(), frozenset(), frozenset())


def explain(
    table: Table,
    client: Client | None,
    sighting: Sighting,
    assistant: Assistant,
    health: Mapping[str, Unwell],
    needs: Needs = NO_NEEDS,
) -> dict[str, object]:
    """What would become of a request from there for that assistant: by the same functions that traffic uses."""
    location = resolve(table, client, sighting)
    decision = decide(table, assistant, location, needs, health)
    return {
        "table": table.version,
        "assistant": assistant.name,
        "location": _location(location),
        "outcome": _outcome(decision),
        "considered": [_considered(item) for item in decision.considered],
    }


def _location(location: Location) -> dict[str, object]:
    return {
        "region": location.region.name if location.region else None,
        "territory": location.territory,
        "why": location.why,
        "problem": location.problem,
        "evidence": [
            {
                "signal": item.signal,
                "said": item.said,
                "territory": item.territory,
                "region": item.region,
                "decided": item.decided,
                "note": item.note,
            }
            for item in location.evidence
        ],
    }


def _outcome(decision: Decision) -> dict[str, object]:
    outcome = decision.outcome
    if isinstance(outcome, Plan):
        return {
            "plan": [
                {
                    "deployment": step.deployment.name,
                    "provider": step.deployment.provider,
                    "model": step.deployment.model,
                    "site": step.deployment.site,
                    "stores": str(step.deployment.residency.stores),
                    "processes": str(step.deployment.residency.processes),
                }
                for step in outcome.steps
            ]
        }
    return {"refusal": {"code": outcome.code, "message": outcome.message}}


def _considered(item: Considered) -> dict[str, object]:
    return {
        "deployment": item.deployment,
        "provider": item.provider,
        "eligible": item.reason is None,
        "reason": item.reason,
        "detail": item.detail,
    }


def explain_text(table: Table, client: Client | None, sighting: Sighting, assistant: Assistant) -> str:
    """The same for a terminal: the location with its evidence, then each deployment of the route in order."""
    location = resolve(table, client, sighting)
    decision = decide(table, assistant, location, NO_NEEDS, {})
    region = location.region.name if location.region else f"none ({location.problem})"
    lines = [f"assistant   {assistant.name}", f"region      {region}   (why: {location.why})"]
    for item in location.evidence:
        meaning = item.note or f"{item.territory or '?'} is in region {item.region or 'none'}"
        lines.append(f"  {'*' if item.decided else ' '} {item.signal:<12} {item.said!r:<12} {meaning}")
    outcome = decision.outcome
    if isinstance(outcome, Plan):
        lines.append("answered by")
        for number, step in enumerate(outcome.steps, 1):
            deployment = step.deployment
            lines.append(
                f"  {number}. {deployment.name}   {deployment.provider} {deployment.model} at {deployment.site}   "
                f"stores {deployment.residency.stores}, processes {deployment.residency.processes}"
            )
    else:
        lines.append(f"refused     {outcome.code}: {outcome.message}")
    passed_over = [item for item in decision.considered if item.reason is not None]
    if passed_over:
        lines.append("passed over")
        lines.extend(f"  - {item.deployment}   {item.reason}: {item.detail}" for item in passed_over)
    lines.append(f"table       {table.version}")
    return "\n".join(lines)
