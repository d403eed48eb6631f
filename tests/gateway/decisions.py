"""Decisions about a caller in a territory, and what came of them."""

from gateway.model.config_version import ConfigVersion
from gateway.model.decision import Decision, Plan, Refusal
from gateway.model.location import Location
from gateway.policy.location.resolution import resolve
from gateway.policy.location.signals import EdgeReport
from tests.gateway.location_reports import reported


def place_of(config: ConfigVersion, territory: str) -> Location:
    """Return the location of a caller whom the edge reports in a territory."""
    return resolve(config, None, reported(EdgeReport((territory,))))


def planned(decision: Decision) -> Plan:
    assert isinstance(decision.outcome, Plan), decision.outcome
    return decision.outcome


def refused(decision: Decision) -> Refusal:
    assert isinstance(decision.outcome, Refusal), decision.outcome
    return decision.outcome


def names(decision: Decision) -> list[str]:
    """Return the deployments of a plan, or nothing."""
    return [step.deployment.name for step in decision.outcome.steps] if isinstance(decision.outcome, Plan) else []
