"""What an app must show of who answers its user: the public names and numbers of the approvals that count here now."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.model.approval import Approval, Days, days_at
from gateway.model.decision import Plan, Refusal, Step, Unwell
from gateway.model.table import Assistant, Client, Table
from gateway.policy.location import Sighting, resolve
from gateway.policy.routing import decide
from gateway.service.explain import NO_NEEDS
from gateway.service.journey import Refused

__all__ = ["disclose"]


def disclose(
    table: Table,
    client: Client | None,
    sighting: Sighting,
    assistant: Assistant,
    health: Mapping[str, Unwell],
    now_s: float,
) -> dict[str, object]:
    """Each deployment that may answer a plain request from there now, in order; raises Refused where none may."""
    outcome = decide(table, assistant, resolve(table, client, sighting), NO_NEEDS, health, now_s).outcome
    if isinstance(outcome, Refusal):
        raise Refused(outcome)
    days = days_at(now_s)
    return {
        "object": "disclosure",
        "assistant": assistant.name,
        "region": outcome.region.name,
        "data": [_deployment(step, outcome, days) for step in outcome.steps],
    }


def _deployment(step: Step, plan: Plan, days: Days) -> dict[str, object]:
    deployment = step.deployment
    counting = [
        approval
        for approval in deployment.approvals
        if approval.region == plan.region.name and approval.counts_on(days)
    ]
    return {
        "deployment": deployment.name,
        "model": deployment.model,
        "model_name": counting[0].model_name if counting else None,
        "approvals": [_approval(approval) for approval in counting],
    }


def _approval(approval: Approval) -> dict[str, object]:
    return {
        "authority": approval.authority,
        "kind": approval.kind,
        "number": approval.number,
        "model_name": approval.model_name,
        "document": approval.document,
    }
