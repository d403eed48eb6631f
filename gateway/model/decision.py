"""The result of routing one request: a plan or a refusal, and the reason for each deployment that was skipped."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias

from gateway.model.assistant import Assistant
from gateway.model.config_version import Region
from gateway.model.consent import ConsentKind, ConsentRequest
from gateway.model.deployment import Deployment
from gateway.model.hand_off import BarrierRule
from gateway.model.permit import Permit
from gateway.model.refusal_reason import REASON_BY_CODE, RefusalReason
from gateway.model.region_text import Sentences
from providers.failures import FailureKind
from providers.value import Value


class SkipReason(StrEnum):
    """Why a deployment of the route is not in the plan."""

    BOUNDARY = "boundary"  # it would store or process data outside the region's boundary
    AVAILABILITY = "availability"  # the vendor does not serve the caller's territory
    REQUIREMENT = "requirement"  # the site has a requirement that the operator has not attested
    APPROVAL = "approval"  # the region requires an approval, and the deployment has no valid one
    EXCEPTED = "excepted"  # the site's promise of residency excludes a feature of the request
    CAPABILITY = "capability"  # it lacks a feature of the request
    MOVES_DATA = "moves_data"  # a field of the request would move or store data
    PARAMETER = "parameter"  # it does not support a parameter, and is configured to refuse instead of dropping it
    INFERENCE_GEO = "inference_geo"  # the request asks for an answer that is computed in another place
    DISABLED = "disabled"
    ENDED = "ended"  # the vendor has ended its model, its site or its whole API
    CREDENTIAL = "credential"  # no credential is set, or its sign-in has no token
    HEALTH = "health"  # it is in a cooldown, or its breaker is open
    WEIGHT = "weight"  # its weight is 0
    REDACTION = "redaction"  # it gets placeholders, and the request has what they cannot stand for
    CONSENT = "consent"  # the user has not agreed that it gets this request


FailureKinds: TypeAlias = frozenset[FailureKind | None]
"""The kinds of the failures that put a deployment out of use. None stands for an unknown or a suspected one."""


class Exclusion(NamedTuple):
    """Why a deployment of the route is not in the plan."""

    reason: SkipReason
    detail: str
    """The reason in words."""
    log_detail: str | None = None
    """The words for logs and receipts, if `detail` has a name that the client made up, else None."""
    kinds: FailureKinds = frozenset()
    """For `health`, the kinds of the failures that caused it."""
    standing: Exclusion | None = None
    """Next to a reason of this request: what excludes the deployment from every request now."""


Verdict: TypeAlias = "Step | Exclusion"
"""The step of a deployment in the plan, or why it is skipped."""


def client_detail(reason: SkipReason, detail: str) -> str:
    """Return the reason in words for a client. The source of the gateway's credentials is not shown to clients."""
    return "no credential" if reason is SkipReason.CREDENTIAL else detail


class Unavailable(Value, frozen=True):
    """A deployment that is not used for `for_s` seconds."""

    reason: str
    for_s: float
    is_rate_limit: bool = False
    """Whether a rate limit is the only reason."""
    by_breaker: bool = False
    """The reason is that it keeps failing, not that a provider refuses the credentials."""
    is_callers: bool = False
    """It is not used for the caller that asks, or its client, alone."""
    kinds: FailureKinds = frozenset()
    """The kinds of the failures that are the reason."""
    is_credential: bool = False
    """Its sign-in has no token."""


class RefusalCode(StrEnum):
    """Why a request is not answered, as an error code of the API."""

    PERMISSION_DENIED = "permission_denied"
    CONSENT_REQUIRED = "consent_required"
    AGE_RESTRICTED = "age_restricted"
    REGION_BLOCKED = "region_blocked"
    REGION_UNKNOWN = "region_unknown"
    REGION_CONFLICT = "region_conflict"
    WRONG_CELL = "wrong_cell"
    NO_APPROVED_DEPLOYMENT = "no_approved_deployment"
    NO_ELIGIBLE_DEPLOYMENT = "no_eligible_deployment"
    UNSUPPORTED_CAPABILITY = "unsupported_capability"
    NO_HEALTHY_DEPLOYMENT = "no_healthy_deployment"
    RATE_LIMITED = "rate_limited"
    REQUEST_TOO_LARGE = "request_too_large"


class Step(Value, frozen=True):
    """One step of a plan: the deployment, its permit, and the parameters that are dropped for it.

    `consent` is the basis of a consent that the deployment requires. If it `emulates`, the deployment has no JSON
    schemas, which the request needs, and the gateway asks in words.
    """

    deployment: Deployment
    permit: Permit
    dropped: frozenset[str] = frozenset()
    consent: ConsentKind | None = None
    emulates: bool = False


class Considered(Value, frozen=True):
    """One deployment of the route: in the plan (reason None), or skipped, with the reason in words.

    The log has other words if these have a name that the client made up. A member of a weighted step has a share of
    users (0 to 1).
    """

    deployment: str
    provider: str
    reason: SkipReason | None = None
    detail: str = ""
    log_detail: str | None = None
    share: float | None = None


class Plan(Value, frozen=True):
    """The ordered steps that the region's policy allows for this request. There is at least one."""

    assistant: Assistant
    region: Region
    steps: tuple[Step, ...]
    variant: str | None = None
    """The user's own member of the weighted set that begins the route, even if it is unavailable."""
    has_effects: bool = False
    """A provider stores or does something for the request in addition to answering, so it must not be sent twice."""
    barrier: BarrierRule | None = None
    """The barrier after the last step, if it may open for this request."""


class Refusal(Value, frozen=True):
    """The reason why no deployment may answer, or none can. `message` is for the client."""

    code: RefusalCode
    message: str
    home: str | None = None
    """The URL of the cell that serves the region."""
    retry_after_s: float | None = None
    """When another request may succeed."""
    asks: Deployment | None = None
    """The deployment that would be used if the user had agreed."""
    param: str | None = None
    """The one field of the request that is the cause, if there is exactly one."""
    log_message: str | None = None
    """The message for the log, if `message` has a name that the client made up, else None."""
    missing: frozenset[str] = frozenset()
    """The features that no deployment has."""
    age: Mapping[str, object] | None = None
    """The limit of time that refuses, for `error.age`. A repeated request is refused too."""
    sentences: Sentences | None = None
    """The sentence for the end user in place of that of the reason, or None for that of the reason."""
    note: Any = None
    """The `FeatureNote` of the feature whose door refuses, or None."""

    @property
    def reason(self) -> RefusalReason:
        """The member of the closed set of reasons."""
        return REASON_BY_CODE[self.code]


class Refused(Exception):
    """Routing refused the request. `consent` describes the consent that is missing, if that is the reason."""

    def __init__(self, refusal: Refusal, consent: ConsentRequest | None = None) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
        self.consent = consent


class Lane(Value, frozen=True):
    """One step of a route that has a weighted step, judged for one kind of request, independent of the user.

    It has the configured weights by deployment, the deployments that can be used, and those that are skipped only
    because of their health.
    """

    weights: Mapping[str, float]
    able: Mapping[str, Step]
    unavailable: frozenset[str] = frozenset()
    is_set: bool = False


class Decision(Value, frozen=True):
    """The outcome, and the verdict on each deployment of the route: its step of the plan, or why it is skipped.

    If a step of the route is weighted, it has `lanes`, and a verdict with a step means that some users may get it.
    """

    outcome: Plan | Refusal
    verdicts: tuple[tuple[Deployment, Verdict], ...] = ()
    lanes: tuple[Lane, ...] = ()

    @property
    def considered(self) -> tuple[Considered, ...]:
        """Every deployment of the route, in order, with its reason in words."""
        shares = self.shares
        return tuple(
            Considered(deployment.name, deployment.provider, share=shares.get(deployment.name))
            if isinstance(verdict, Step)
            else Considered(deployment.name, deployment.provider, *verdict[:3], share=shares.get(deployment.name))
            for deployment, verdict in self.verdicts
        )

    @property
    def shares(self) -> Mapping[str, float]:
        """The share of users of each member of a weighted set, while all members are available."""
        shares: dict[str, float] = {}
        for lane in self.lanes:
            if lane.is_set:
                total = sum(lane.weights.values())
                shares = {name: weight / total for name, weight in lane.weights.items()} | shares
        return shares
