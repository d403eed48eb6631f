"""What routing decided for one request: a plan or a refusal, and the reason for each deployment passed over."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gateway.model.permit import Permit
from gateway.model.table import Assistant, Deployment, Region

__all__ = ["Considered", "Decision", "PassedOver", "Plan", "Refusal", "RefusalCode", "Step", "Unwell"]


class PassedOver(StrEnum):
    """Why a deployment of the route is not in the plan."""

    BOUNDARY = "boundary"  # it would store or process outside the region's boundary
    AVAILABILITY = "availability"  # the vendor doesn't serve the caller's territory
    REQUIREMENT = "requirement"  # the site requires something that nobody attested
    APPROVAL = "approval"  # the region requires one, and it has none that is valid now
    EXCEPTED = "excepted"  # the site's promise of residency leaves out what is asked
    CAPABILITY = "capability"  # it can't do what is asked
    MOVES_DATA = "moves_data"  # a field of the request would move or keep data
    PARAMETER = "parameter"  # it can't express a parameter, and is set to refuse rather than drop
    DISABLED = "disabled"
    CREDENTIAL = "credential"  # none is set
    HEALTH = "health"  # benched, or its breaker is open


@dataclass(frozen=True, slots=True)
class Unwell:
    """A deployment that is not to be asked for `for_s` seconds: why, and whether only its rate limit is the matter.

    by_breaker: because it keeps failing, and not because a provider refuses our keys.
    """

    reason: str
    for_s: float
    is_rate_limit: bool = False
    by_breaker: bool = False


class RefusalCode(StrEnum):
    """Why nobody answers, in the words of the API's error codes."""

    PERMISSION_DENIED = "permission_denied"
    REGION_BLOCKED = "region_blocked"
    REGION_UNKNOWN = "region_unknown"
    REGION_CONFLICT = "region_conflict"
    WRONG_CELL = "wrong_cell"
    NO_APPROVED_DEPLOYMENT = "no_approved_deployment"
    NO_ELIGIBLE_DEPLOYMENT = "no_eligible_deployment"
    UNSUPPORTED_CAPABILITY = "unsupported_capability"
    NO_HEALTHY_DEPLOYMENT = "no_healthy_deployment"
    RATE_LIMITED = "rate_limited"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a plan: whom to ask, the permit for it, and the parameters that are dropped on the way."""

    deployment: Deployment
    permit: Permit
    dropped: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Considered:
    """One deployment of the route: in the plan (reason None), or passed over, and why in words."""

    deployment: str
    provider: str
    reason: PassedOver | None = None
    detail: str = ""
    dropped: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Plan:
    """The ordered steps, never empty, that the region's policy allows for this request."""

    assistant: Assistant
    region: Region
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nobody may, or can, answer; `message` is for the client.

    home: the URL of the cell that serves the region. retry_after_s: when asking again may help.
    """

    code: RefusalCode
    message: str
    home: str | None = None
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome, and what became of each deployment of the route: its step of the plan, or why it is passed over."""

    outcome: Plan | Refusal
    judged: tuple[tuple[Deployment, Step | tuple[PassedOver, str]], ...] = ()

    @property
    def considered(self) -> tuple[Considered, ...]:
        """Every deployment of the route, in order, in words."""
        return tuple(
            Considered(deployment.name, deployment.provider, dropped=verdict.dropped)
            if isinstance(verdict, Step)
            else Considered(deployment.name, deployment.provider, *verdict)
            for deployment, verdict in self.judged
        )
