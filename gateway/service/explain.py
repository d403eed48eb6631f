"""Why a request is answered as it is: the values of the decision itself, as plain data for JSON and for people."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import wrap

from gateway.model.decision import Considered, Decision, Plan, Refusal, Unwell
from gateway.model.location import Evidence, Location
from gateway.model.table import Assistant, Client, Table
from gateway.policy.location import Sighting, resolve
from gateway.policy.routing import decide
from providers.fitting import Needs
from providers.territories import territory_name

__all__ = ["NO_NEEDS", "explain", "explain_text"]

_WIDTH = 100
NO_NEEDS = Needs(frozenset(), frozenset(), frozenset())


def explain(
    table: Table,
    client: Client | None,
    sighting: Sighting,
    assistant: Assistant,
    health: Mapping[str, Unwell],
    now_s: float,
    needs: Needs = NO_NEEDS,
) -> dict[str, object]:
    """What would become of a request from there for that assistant: by the same functions that traffic uses."""
    location = resolve(table, client, sighting)
    decision = decide(table, assistant, location, needs, health, now_s)
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


def explain_text(table: Table, client: Client | None, sighting: Sighting, assistant: Assistant, now_s: float) -> str:
    """The same for a terminal, where no process has a health: the place and its evidence, who answers, who doesn't."""
    location = resolve(table, client, sighting)
    decision = decide(table, assistant, location, NO_NEEDS, {}, now_s)
    lines = [f"assistant    {assistant.name}", f"region       {_region_text(location)}"]
    for item in location.evidence:
        lines += _wrapped("  * " if item.decided else "  - ", _evidence_text(item))
    lines += ["", *_outcome_text(decision.outcome)]
    if passed_over := [other for other in decision.considered if other.reason is not None]:
        lines += ["", "passed over"]
        for other in passed_over:
            lines += _wrapped("  - ", f"{other.deployment} ({other.reason}): {other.detail}")
    return "\n".join([*lines, "", f"table        {table.version}"])


def _region_text(location: Location) -> str:
    if location.region is None:
        return f"none: {location.problem}"
    how = "assumed, as nothing tells the place" if location.assumed else f"decided by {location.why}"
    return f"{location.region.name}, {how}"


def _evidence_text(item: Evidence) -> str:
    place = f" is {territory_name(item.territory)}" if item.territory else ""
    region = f", in region {item.region}" if item.region else ", in no region" if item.territory else ""
    note = f"; {item.note}" if item.note else ""
    return f"{item.signal}: {item.said!r}{place}{region}{note}"


def _outcome_text(outcome: Plan | Refusal) -> list[str]:
    if isinstance(outcome, Refusal):
        return ["refused", *_wrapped("  ", f"{outcome.code}: {outcome.message}")]
    lines = ["answered by"]
    for number, step in enumerate(outcome.steps, 1):
        deployment = step.deployment
        stores, processes = str(deployment.residency.stores), str(deployment.residency.processes)
        same = stores == processes
        where = f"stores and processes: {stores}" if same else f"stores: {stores}; processes: {processes}"
        model = f"{deployment.name}: {deployment.provider} {deployment.model} at {deployment.site}"
        lines += [*_wrapped(f"  {number}. ", model), *_wrapped("     ", where)]
    return lines


def _wrapped(start: str, text: str) -> list[str]:
    """The text after its start, further lines below it."""
    return wrap(text, _WIDTH, initial_indent=start, subsequent_indent=" " * len(start), break_on_hyphens=False)
