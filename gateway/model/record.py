"""The record of one request and of its attempts: the source of the log line, metrics, traces and receipts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from gateway.model.caller import TraceContext
from gateway.model.consent import ConsentKind
from gateway.model.decision import Decision, Exclusion, FailureKinds, SkipReason, Step, client_detail
from gateway.model.deployment import Proxy, known_names
from gateway.model.hand_off import HandOff
from gateway.model.help import Help
from gateway.model.location import Location
from gateway.model.moderation import ModerationRecord
from gateway.model.preference import Preference
from gateway.model.refusal_reason import REASON_BY_CODE
from gateway.model.served import Use
from gateway.model.wrapper import WrapperNote
from providers.catalogue.prices import Price, cost_of
from providers.chat import Usage
from providers.failures import Failure, FailureKind
from providers.territories import Places
from providers.value import Value, replace


class AttemptAction(StrEnum):
    """The action of the gateway after a failed attempt."""

    RETRY = "retry"  # another attempt on the same deployment
    FAILOVER = "failover"  # the next step of the plan
    STOP = "stop"  # no further attempt


class DecisionReason(StrEnum):
    """Why the gateway took the action after a failed attempt."""

    NAMED_WAIT = "named_wait"  # the provider named a wait within the bound
    BACKOFF = "backoff"  # the provider named no wait, so the wait is random
    OTHER_KEY = "other_key"  # another key of the deployment may be used at once
    WAIT_TOO_LONG = "wait_too_long"  # the wait is longer than the bound
    FAILURE_KIND = "failure_kind"  # failures of this kind are not retried on the same deployment
    PROVIDER_REFUSES_RETRY = "provider_refuses_retry"  # the provider sent `x-should-retry: false`
    ATTEMPTS_PER_DEPLOYMENT = "attempts_per_deployment"  # the deployment has had all its attempts
    ATTEMPTS_TOTAL = "attempts_total"  # the request has had all its attempts
    RETRY_BUDGET = "retry_budget"  # the retry budget of the process is spent
    BREAKER = "breaker"  # the deployment's breaker is open
    OTHER_TOKEN = "other_token"  # noqa: S105  # that of a sign-in was refused: the request is sent again
    KEPT_CONNECTION = "kept_connection"  # a kept connection had ended, so the request is sent on a new one
    EFFECTS = "effects"  # the provider may have stored or done something, so the request is not sent again
    RESUME = "resume"  # the answer broke off, and the next step continues it


class Bound(Value, frozen=True):
    """The limit that a decision compared with: a setting below `resilience`, or `deadline` for the remaining time.

    The value is seconds, a number of attempts, or the share of a retry budget.
    """

    name: str
    value: float


ABANDONED = "abandoned"
"""The outcome of an attempt that was running when the client disconnected."""


_WAITS = frozenset({DecisionReason.NAMED_WAIT, DecisionReason.BACKOFF})


class AttemptDecision(Value, frozen=True):
    """The action of the gateway after a failed attempt: its reason, the wait, and the limit that decided, if any."""

    action: AttemptAction
    reason: DecisionReason
    wait_s: float = 0.0
    bound: Bound | None = None

    @property
    def is_counted_retry(self) -> bool:
        """Whether the deployment is tried once more, for which the breaker and the retry budget must consent."""
        return self.action is AttemptAction.RETRY and self.reason in _WAITS


class AttemptRecord(Value, frozen=True):
    """An attempt that has ended, or that has become the answer (`failure` None)."""

    deployment: str
    provider: str
    model: str
    duration_s: float
    """The time until the answer began (the first real event of a stream, or a whole JSON answer), or until the attempt
    failed or was cancelled."""
    failure: Failure | None = None
    started_at: float = 0.0
    """Monotonic seconds."""
    places: tuple[str, str] | None = None
    """Where the deployment stores and processes data, in words."""
    proxy: Proxy | None = None
    decision: AttemptDecision | None = None
    """The action after the failure. None for an answer, and for a failure that the client's disconnect followed."""
    redacted: WrapperNote | None = None
    """The values that were replaced in its prompt, or None if nothing is configured for it."""
    is_abandoned: bool = False
    """It was running when the client disconnected."""
    consent: ConsentKind | None = None
    """The basis of the user's consent to its deployment, if that requires one."""
    redirected_to: str | None = None
    """The model with which the vendor may have answered in place of `model`, or None."""

    @property
    def outcome(self) -> str:
        """`ok`, the failure kind, or `ABANDONED`."""
        if self.is_abandoned:
            return ABANDONED
        return "ok" if self.failure is None else self.failure.kind

    @property
    def is_resent(self) -> bool:
        """Whether a kept connection ended under it, and the request was sent again at once."""
        return self.decision is not None and self.decision.reason is DecisionReason.KEPT_CONNECTION

    def decision_fields(self) -> dict[str, str | float]:
        """Return the rule that judged the failure and the decision after it, by names that all outputs share."""
        fields: dict[str, str | float] = {}
        if self.failure is not None and self.failure.rule:
            fields["rule"] = self.failure.rule
        if self.failure is not None and self.failure.retry_after_s is not None:
            fields["retry_after_s"] = round(self.failure.retry_after_s, 3)
        decision = self.decision
        if decision is not None:
            fields["decision"], fields["decision_reason"] = str(decision.action), str(decision.reason)
            if decision.action is AttemptAction.RETRY:
                fields["wait_s"] = round(decision.wait_s, 3)
            if decision.bound is not None:
                fields["bound"], fields["bound_value"] = decision.bound.name, round(decision.bound.value, 3)
        return fields


class Skipped(Value, frozen=True):
    """A step of the plan that was not tried, and why."""

    deployment: str
    reason: str
    kinds: FailureKinds = frozenset()
    """The failures for which it was not tried."""
    code: str = ""
    """The reason as a code: `quota` without room in a quota, `redaction` for a request that cannot be redacted, else an
    empty text. Neither shows anything about the deployment."""


class Allowance(Value, frozen=True):
    """A limit of a client: `remaining` of `limit` requests or tokens a minute are left. It is full after `full_s`."""

    limit: int
    remaining: int
    full_s: float


class Resumed(Value, frozen=True):
    """The deployments of an answer that broke off (`broken`) and was continued (`by`)."""

    broken: str
    by: str


class Decided(Value, frozen=True):
    """The decisions on a request: where it comes from, and who may answer. A later stage replaces the value."""

    location: Location | None = None
    assistant: str | None = None
    intent: str | None = None
    preference: Preference | None = None
    """The user's preference, if the request states one."""
    profile: str | None = None
    """The version of the region's profile that was added to the prompt."""
    decision: Decision | None = None
    """The result of routing, with the reason for each skipped deployment."""
    variant: str | None = None
    """The user's member of the first step, if that step is weighted."""
    use: Use = "chat"
    """The kind of the request."""
    hand_off: HandOff | None = None
    reveal_model: bool = True
    """Whether the assistant shows the names of models. It counts where there is no decision."""


class FeatureNote:
    """Base of the part of a record that one feature adds. A feature overrides what it has to show."""

    __slots__ = ()
    help: Help | None = None
    """The help for the user, or None."""
    reason: str | None = None
    """With the refusal of a door: the word by which operators see why, in place of the reason of the code."""
    duty: str | None = None
    """With the refusal of a door: the kind of `DUTIES` that counts, or None."""

    def log_fields(self) -> Mapping[str, object]:
        """Return the fields of the log line."""
        return {}

    def receipt_members(self, recipient: Callable[[AttemptRecord], Mapping[str, object]]) -> Mapping[str, object]:
        """Return the members of the receipt. `recipient` returns a deployment that was sent the prompt as JSON data."""
        return {}

    def header_lines(self) -> Iterable[bytes]:
        """Return the lines of the response's headers, without their ends."""
        return ()

    def counts(self, record: Record) -> Iterable[tuple[str, tuple[str, ...]]]:
        """Return the counters to which the finished request adds one, each with the values of its labels."""
        return ()


_NoteT = TypeVar("_NoteT", bound=FeatureNote)
_NO_TOKENS = Usage()
_MAY_COME_BACK = frozenset({SkipReason.CREDENTIAL, SkipReason.HEALTH})
"""The reasons of routing that are a state of the deployment, and no rule of the configuration."""


class AnsweredBy(Value, frozen=True):
    """The deployment that answers a request. Nothing is set before an answer has begun."""

    deployment: str | None = None
    provider: str | None = None
    model: str | None = None
    places: tuple[str, str] | None = None
    """Where it stores and processes data, in words."""
    price: Price | None = None
    """Its price at the time of the request."""
    called_tools: Mapping[str, int] | None = None
    """How many calls of each tool with a fee count in the cost, or None."""
    computed: Places | None = None
    """Where it processes data, with the places of a deployment whose answer it continues."""


class Shown(msgspec.Struct):
    """The fields of the response around the answer: its status, its error code, and the values of its headers."""

    status: int = 0
    code: str | None = None
    """The error code of the API. None for an answer."""
    reason: str | None = None
    """The word for operators of the feature whose door refuses, or None if they see the reason of the code."""
    dropped: frozenset[str] = frozenset()
    emulated: frozenset[str] = frozenset()
    labels: tuple[str, ...] = ()
    marked: bool = False
    """The answer has a signed mark."""
    embedding_space: str | None = None
    """The model and the length of the vectors of an answer."""
    allowance: Allowance | None = None
    token_allowance: Allowance | None = None
    """The client's tokens per minute, as `allowance` has its requests."""
    max_tokens: int | None = None
    """The cap that the request got because a limit pays for no more tokens."""
    charged: str | None = None
    """The cost of all calls of the request so far, with the currency. None if the client may not see it."""
    usage_is_estimated: bool = False
    """A count was missing or could not be true, so the client gets an estimate, at least in part."""
    is_noticed: bool = False
    """The answer shows the label that repeats."""
    repeated: bool = False
    """It shows this label again in the session of the user."""
    redacted: Mapping[str, int] = {}
    """The number of different values that the recipient did not get, by kind."""

    def note_redaction(self, note: WrapperNote) -> None:
        """Show what the request lacks that is sent now."""
        self.redacted = note.kinds


class WebSocketTurn(Value, frozen=True):
    """The place of a request that is a turn of a WebSocket, whose id is eight hexadecimal digits.

    For a warm-up, no deployment is asked. The turn that continues it is prepared.
    """

    connection: str
    number: int
    is_warm_up: bool = False


Destinations = frozenset[tuple[str, ...]]
"""Where a request may be sent, see `Permit.destination`."""
UNDECIDED = Decided()
UNANSWERED = AnsweredBy()


@dataclass(slots=True)
class Record:
    """Everything that is known of one request: what was decided, what happened, and what is shown.

    It never contains a prompt, an answer or a key. Times are seconds.
    """

    request_id: str
    started_at: float
    """Monotonic seconds."""
    config_version: str
    decided: Decided = UNDECIDED
    shown: Shown = field(default_factory=Shown)
    trace: TraceContext | None = None
    client: str | None = None
    key_id: str = ""
    token_issuer: str = ""
    """The name of the issuer of the client's token. Empty if it sent a key."""
    stream: bool = False
    outcome: str = "ok"
    """`ok`, `refused` (by the gateway, or the client's fault), `failed` (by the providers, or no deployment was
    available), `interrupted` (in mid-stream), `cancelled` (the client left) or `internal_error`."""
    detail: str | None = None
    upload_s: float = 0.0
    """The part of the time to the answer in which the gateway waited for the client's body."""
    queued_s: float = 0.0
    """The part of it in which the request waited for concurrency slots of deployments."""
    first_s: float | None = None
    total_s: float | None = None
    attempts: list[AttemptRecord] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    shed: tuple[tuple[str, str], ...] = ()
    """The deployments that had no free slot, and why."""
    retries_refused: tuple[str, ...] = ()
    """The deployments that were not retried because the retry budget was spent."""
    abandoned: tuple[AttemptRecord, ...] = ()
    """The attempts that were running when the client disconnected."""
    answered_by: AnsweredBy = UNANSWERED
    usage: Usage | None = None
    verdicts_refused: bool = False
    """It went on although every judge of a crisis refused to decide about a text."""
    cost_micros: int | None = None
    """The cost of the answer in millionths of the price's currency unit. None if unknown."""
    charge: Callable[[], str | None] | None = None
    """Returns the cost of all calls so far, as `x-gateway-cost` shows it. None if no call has ended."""
    resumed: Resumed | None = None
    """Set if an answer broke off and another deployment continued it. `answered_by` is then the latter."""
    notes: tuple[FeatureNote, ...] = ()
    """The parts that features add. A plain request has none."""
    help: Help | None = None
    """The help for the user that a note brought, see `note`."""
    moderation: ModerationRecord | None = None
    """The verdicts of the region's moderation, if it has one."""
    judges: tuple[AttemptRecord, ...] = ()
    """The calls that sent a text to a judge, the first one of each deployment and outcome."""
    route: str = "/v1/chat/completions"
    """The path of the API, with `{model}` in place of a name."""
    duties: frozenset[str] = frozenset()
    """The kinds that count in the report of duties. Use `note_duty` before the last byte of the answer."""
    websocket: WebSocketTurn | None = None
    """The turn of a WebSocket that it is, or None if it came by HTTP."""

    @property
    def transport(self) -> str:
        """How it came in."""
        return "http" if self.websocket is None else "websocket"

    @property
    def reason(self) -> str | None:
        """The reason why the request was not answered, as operators see it. None for an answer."""
        code = self.shown.code
        return self.shown.reason or REASON_BY_CODE[code] if code is not None else None

    @property
    def is_own_answer(self) -> bool:
        """Whether the gateway answers by itself: no deployment does, and no token is counted."""
        return (found := self.help) is not None and found.is_answer

    def noted(self, kind: type[_NoteT]) -> _NoteT | None:
        """Return the note of this type, or None."""
        return next((note for note in self.notes if isinstance(note, kind)), None)

    def note(self, note: FeatureNote) -> None:
        """Add a note of a feature, in place of the former one of its type."""
        self.notes = (*(it for it in self.notes if type(it) is not type(note)), note)
        self.help = note.help if note.help is not None else self.help

    def note_refusal(self, note: FeatureNote) -> None:
        """Add the note of a feature whose door refuses the request."""
        self.note(note)
        self.shown.reason = note.reason
        if note.duty is not None:
            self.note_duty(note.duty)

    @property
    def outcome_if_left(self) -> str:
        """The outcome when the client disconnects: `failed` if it had waited for a silent deployment."""
        last = self.attempts[-1] if self.attempts else None
        is_silent = last is not None and last.outcome == FailureKind.SILENT and last.decision is None
        return "failed" if is_silent else "cancelled"

    @property
    def redaction(self) -> WrapperNote | None:
        """The values that were replaced for the last deployment that was asked, or None if it has no redaction."""
        attempts = self.abandoned or self.attempts
        return attempts[-1].redacted if attempts else None

    @property
    def sent(self) -> list[AttemptRecord]:
        """The attempts whose prompt was sent, completely or in part.

        A request that the adapter cannot express in the provider's wire format is never sent.
        """
        return [attempt for attempt in self.attempts if attempt.outcome != FailureKind.UNSUPPORTED]

    @property
    def consent(self) -> ConsentKind | None:
        """The basis on which the first deployment that requires consent was sent the prompt."""
        for attempt in (*self.attempts, *self.abandoned):
            if attempt.consent is not None and attempt.outcome != FailureKind.UNSUPPORTED:
                return attempt.consent
        return None

    @property
    def tries(self) -> list[AttemptRecord]:
        """The attempts that count for limits and show something about their deployments: all but those sent again."""
        return [attempt for attempt in self.attempts if not attempt.is_resent]

    @property
    def passed_over(self) -> dict[str, str]:
        """The deployments of the route that were not sent the prompt, each with the reason in words.

        It is the one list of them for the log line, the receipt and the last requests: those that routing excluded,
        those whose wire format cannot express the request, and the steps that were skipped on the way.
        """
        decision, found = self.decided.decision, dict[str, str]()
        for deployment, verdict in decision.verdicts if decision is not None else ():
            if type(verdict) is Exclusion:
                found[deployment.name] = verdict.log_detail or client_detail(verdict.reason, verdict.detail)
        for attempt in self.attempts:
            if attempt.failure is not None and attempt.failure.kind is FailureKind.UNSUPPORTED:
                found[attempt.deployment] = f"does not support {attempt.failure.code}"
        for skipped in self.skipped:
            found[skipped.deployment] = skipped.reason
        return found

    @property
    def misses_a_step(self) -> bool:
        """Whether a deployment was passed over that the route has for this request: what it lacks can come back."""
        decision = self.decided.decision
        verdicts = decision.verdicts if decision is not None else ()
        return bool(self.skipped) or any(type(it) is Exclusion and it.reason in _MAY_COME_BACK for _, it in verdicts)

    @property
    def is_successful(self) -> bool:
        """Whether the first attempt answered the request completely, or each call of embeddings or moderations.

        A request with a retry, a failover, a continued answer, a missed step, a full queue, or a judge without a
        verdict is not successful in this sense: its log line and its receipt are always kept. The same holds if its
        prompt is logged.
        """
        attempts = self.attempts
        return (
            self.outcome == "ok"
            and len(attempts) > 0
            and attempts[0].outcome == "ok"
            and (
                len(attempts) == 1
                or (self.decided.use != "chat" and all(attempt.outcome == "ok" for attempt in attempts))
            )
            and not (self.shed or self.abandoned or self.retries_refused or self.misses_a_step)
            and self.resumed is None
            and (self.moderation is None or not self.moderation.is_skipped)
            and (not self.judges or not self.failed_judges)
            and self.help is None
            and not self.logs_prompt
        )

    @property
    def failed_judges(self) -> tuple[AttemptRecord, ...]:
        """The calls of judges that gave no verdict, also because the client left."""
        return tuple(attempt for attempt in self.judges if attempt.outcome != "ok")

    @property
    def logs_prompt(self) -> bool:
        """Whether the prompt is logged, on a line that belongs to the line of the request."""
        location = self.decided.location
        region = location.region if location is not None else None
        return region is not None and region.log_prompts

    @property
    def named_dropped(self) -> list[str]:
        """The dropped parameters that the catalogue knows, sorted.

        A client makes up the name of any other field, so such a name may contain personal data.
        """
        if not self.shown.dropped:
            return []
        decision = self.decided.decision
        verdicts = decision.verdicts if decision is not None else ()
        return known_names(self.shown.dropped, (deployment for deployment, _ in verdicts))

    def decide_again(self, within: Destinations | None) -> Destinations | None:
        """Forget the decision and the skipped steps, because another version of the config decides anew.

        Returns the destinations that all former decisions allow, if a deployment was sent the request; else `within`.
        """
        decision = self.decided.decision
        if self.attempts and decision is not None:
            steps = (verdict for _, verdict in decision.verdicts if isinstance(verdict, Step))
            allowed = frozenset([step.permit.destination for step in steps])
            within = allowed if within is None else allowed & within
        self.skipped.clear()
        self.shed, self.retries_refused = (), ()
        undone: dict[str, Any] = dict.fromkeys(("decision", "variant", "profile", "intent", "preference", "hand_off"))
        self.decided = replace(self.decided, **undone)
        return within

    def note_duty(self, kind: str) -> None:
        """Note that this request counts in the report of duties, once for each kind of `DUTIES`."""
        self.duties |= {kind}

    def note_judges(self, verdict: Record) -> None:
        """Record the calls for one verdict, which has a record of its own."""
        known = {(attempt.deployment, attempt.outcome) for attempt in self.judges}
        for attempt in (*verdict.sent, *verdict.abandoned):
            if (attempt.deployment, attempt.outcome) not in known:
                known.add((attempt.deployment, attempt.outcome))
                self.judges += (attempt,)

    def count(self, usage: Usage | None) -> None:
        """Record the usage that the provider counted, and its cost if a price is known."""
        self.usage = usage
        by = self.answered_by
        if by.price is not None and (usage is not None or by.called_tools):
            self.cost_micros = cost_of(usage or _NO_TOKENS, by.price, by.called_tools)
