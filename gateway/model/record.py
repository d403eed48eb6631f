"""The record of one request and of its attempts: the source of the log line, metrics, traces and receipts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.model.caller import TraceContext
from gateway.model.consent import ConsentKind
from gateway.model.decision import Decision, Step
from gateway.model.location import Location
from providers.catalogue.prices import Price, cost_of
from providers.chat import Usage
from providers.failures import Failure, FailureKind
from providers.value import Value


class AttemptRecord(Value, frozen=True):
    """An attempt that has ended, or that has become the answer (`failure` None).

    duration_s: until the answer began (a stream's first real event, a whole JSON answer) or until it failed.
    started_at is monotonic. places: where the deployment stores and processes, in words.
    is_hedge: it was made beside a slow one. lost: another one answered first, and this one was cancelled; duration_s is
        until then.
    """

    deployment: str
    provider: str
    model: str
    duration_s: float
    failure: Failure | None = None
    started_at: float = 0.0
    places: tuple[str, str] | None = None
    is_hedge: bool = False
    lost: bool = False

    @property
    def outcome(self) -> str:
        """`ok`, `lost`, or the kind of failure."""
        if self.failure is not None:
            return self.failure.kind
        return "lost" if self.lost else "ok"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A step of the plan that was not asked, and why."""

    deployment: str
    reason: str


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a client may still ask: of `limit` requests a minute so many are left, and all are back after `full_s`."""

    limit: int
    remaining: int
    full_s: float


@dataclass(frozen=True, slots=True)
class Resumed:
    """Whose answer broke off and who went on with it. usage_is_estimated: no provider counted all that was spent."""

    broken: str
    by: str
    usage_is_estimated: bool = False


@dataclass(slots=True)
class Record:
    """One request. No prompt, no answer, no key ever stands in it. Times are seconds.

    outcome: `ok`, `refused` (ours, or the client's fault, whoever found it out), `failed` (the providers', or nobody
    could be asked), `interrupted` (in mid-stream), `cancelled` (the client left) or `internal_error`. code: the outward
    error code, None for an answer.
    started_at is monotonic. upload_s: of the time to the answer, what the wait for the client's body took.
    decision: what routing made of it, with why each deployment that it passed over was not in the plan.
    consent: what the first deployment that asks for the person's consent was sent the prompt by.
    queued_s: of the same, what the wait for places at deployments took. shed: the deployments that had none, and why.
    retries_refused: the deployments that the budget kept from being retried.
    side: the member of the route's first step that this person has, where that is a weighted one.
    labels: what was said on the answer. profile: the version of the region's profile that the assistant was told.
    resumed: set where an answer broke off and another deployment went on with it, which is then the one that is named.
    shadow: the attempt at the route's shadow that is begun once this request is over: another one who hears the prompt.
    abandoned: the attempts that were under way when the client left. places: where the deployment that answers stores
    and processes, in words.
    price: of the deployment that answered. cost_micros: in millionths of its currency's unit; None if not known.
    """

    request_id: str
    started_at: float
    table: str
    trace: TraceContext | None = None
    client: str | None = None
    allowance: Allowance | None = None
    location: Location | None = None
    assistant: str | None = None
    deployment: str | None = None
    provider: str | None = None
    model: str | None = None
    stream: bool = False
    status: int = 0
    outcome: str = "ok"
    code: str | None = None
    detail: str | None = None
    upload_s: float = 0.0
    queued_s: float = 0.0
    first_s: float | None = None
    total_s: float | None = None
    attempts: list[AttemptRecord] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    shed: tuple[tuple[str, str], ...] = ()
    retries_refused: tuple[str, ...] = ()
    side: str | None = None
    decision: Decision | None = None
    consent: ConsentKind | None = None
    dropped: frozenset[str] = frozenset()
    labels: tuple[str, ...] = ()
    profile: str | None = None
    usage: Usage | None = None
    resumed: Resumed | None = None
    shadow: AttemptRecord | None = None
    abandoned: tuple[AttemptRecord, ...] = ()
    places: tuple[str, str] | None = None
    price: Price | None = None
    cost_micros: int | None = None

    @property
    def sent(self) -> list[AttemptRecord]:
        """The attempts whose prompt was sent, or begun to be: what has no form in a deployment's words is nothing to be
        sent."""
        return [attempt for attempt in self.attempts if attempt.outcome != FailureKind.UNSUPPORTED]

    def note_consent(self, steps: Iterable[Step]) -> None:
        """Take down what let one of these be sent the prompt; a consent that nobody needed in the end is none."""
        asked = {attempt.deployment for attempt in (*self.sent, *self.abandoned)}
        resting = (step.consent for step in steps if step.consent is not None and step.deployment.name in asked)
        self.consent = next(resting, None)

    def count(self, usage: Usage | None) -> None:
        """Take down what the provider counted, and what that costs where a price is known."""
        self.usage = usage
        if usage is not None and self.price is not None:
            self.cost_micros = cost_of(usage, self.price)
