"""What routing decided for one request: a plan or a refusal, and the reason for each deployment passed over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from gateway.model.config_version import Assistant, Region
from gateway.model.consent import ConsentKind, ConsentRequest
from gateway.model.deployment import Deployment
from gateway.model.permit import Permit


class SkipReason(StrEnum):
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
    WEIGHT = "weight"  # its weight is 0
    CONSENT = "consent"  # the person has not agreed that it gets this


def client_detail(reason: SkipReason, detail: str) -> str:
    """Why a deployment is passed over, in words for a client, who isn't told how the gateway comes by its keys."""
    return "no credential" if reason is SkipReason.CREDENTIAL else detail


@dataclass(frozen=True, slots=True)
class Unavailable:
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
    CONSENT_REQUIRED = "consent_required"
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
    """One step of a plan: whom to ask, the permit for it, and the parameters that are dropped on the way.

    consent: what lets it get the prompt, where it asks for consent.
    """

    deployment: Deployment
    permit: Permit
    dropped: frozenset[str] = frozenset()
    consent: ConsentKind | None = None


@dataclass(frozen=True, slots=True)
class Considered:
    """One deployment of the route: fit for the plan (reason None), or passed over, and why in words.

    share: of the people (0 to 1), where it is in a weighted step: another may be this one's.
    """

    deployment: str
    provider: str
    reason: SkipReason | None = None
    detail: str = ""
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The ordered steps, never empty, that the region's policy allows for this request.

    side: the person's own member of the weighted set that the route begins with, whether it can be asked now or not.
    has_effects: a provider keeps or does something for it besides answering, so that it must not be asked twice.
    """

    assistant: Assistant
    region: Region
    steps: tuple[Step, ...]
    side: str | None = None
    has_effects: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nobody may, or can, answer; `message` is for the client.

    home: the URL of the cell that serves the region. retry_after_s: when asking again may help. asks: the deployment
    that would be asked, had the person agreed. param: the one place of the request that is the matter, if there is one.
    """

    code: RefusalCode
    message: str
    home: str | None = None
    retry_after_s: float | None = None
    asks: Deployment | None = None
    param: str | None = None


class Refused(Exception):
    """A request is refused by a rule. `consent`: what to ask the user for, if a consent is missing."""

    def __init__(self, refusal: Refusal, consent: ConsentRequest | None = None) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
        self.consent = consent


@dataclass(frozen=True, slots=True)
class Lane:
    """A step of a route that has a weighted one, as it stands for one kind of request, whoever asks.

    weights: by the names of its deployments, as the table has them. able: those that can be asked. unwell: those that
    only their health keeps from it. is_set: whether it is a weighted set.
    """

    weights: Mapping[str, float]
    able: Mapping[str, Step]
    unwell: frozenset[str] = frozenset()
    is_set: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome, and what became of each deployment of the route: its step of the plan, or why it is passed over.

    lanes: the route's steps where one is weighted; then a judged step is one that the person may have, or may not.
    """

    outcome: Plan | Refusal
    judged: tuple[tuple[Deployment, Step | tuple[SkipReason, str]], ...] = ()
    lanes: tuple[Lane, ...] = ()

    @property
    def considered(self) -> tuple[Considered, ...]:
        """Every deployment of the route, in order, in words."""
        shares = self.shares
        return tuple(
            Considered(deployment.name, deployment.provider, share=shares.get(deployment.name))
            if isinstance(verdict, Step)
            else Considered(deployment.name, deployment.provider, *verdict, share=shares.get(deployment.name))
            for deployment, verdict in self.judged
        )

    @property
    def shares(self) -> Mapping[str, float]:
        """Which share of the people each deployment of a weighted set has, while all of the set can be asked."""
        shares: dict[str, float] = {}
        for lane in self.lanes:
            if lane.is_set:
                total = sum(lane.weights.values())
                shares = {name: weight / total for name, weight in lane.weights.items()} | shares
        return shares
