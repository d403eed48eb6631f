"""The state of a running gateway for operators: config version, reloads and workers. It contains no secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple

from gateway.free_space import FreeSpace
from gateway.model.answer_change import AnswerChange
from gateway.model.budget import Window
from gateway.model.config_version import ConfigVersion
from gateway.model.decision import Unavailable
from gateway.model.held_token import TokenStatus
from gateway.model.schedule import ScheduleStatus
from gateway.model.units import at_second
from providers.value import Value

OPERATOR_HEADER = "x-gateway-operator"
"""The header of an admin request that names its sender. The name is not verified."""


class Who(str):
    """The name of an operator, for the audit trail. In all else it is a text."""

    how: str
    """How the operator came in: with `token` (a stored one), `issuer:NAME`, `built-in` (of the settings) or `proxy`. It
    is verified; the name may be anybody's choice. Empty without a token, and for a command on the machine."""

    def __new__(cls, name: str, how: str = "") -> Who:
        """Return the name with how its bearer came in."""
        who = super().__new__(cls, name)
        who.how = how
        return who


def callers_text(number: int) -> str:
    """Return a number of clients and end users in words."""
    return f"{number} clients or users" if number > 1 else "1 client or user"


def audited(who: str) -> dict[str, str]:
    """Return the members of a line of the audit trail that name the operator of a change."""
    how = who.how if isinstance(who, Who) else ""
    return {"who": str(who), **({"how": how} if how else {})}


ROWS_DELETED_HEADER = "x-gateway-rows-deleted-through"
"""The header of sent usage rows with the last day whose rows were deleted, if it is one of the asked days."""

CLOCK = "clock"
"""The kind of a problem of stores: the clock of this machine differs from that of a shared store."""

Cause = Literal["start", "file", "sighup", "admin", "rollback", "release"]
"""Why a config was loaded: process start, a changed file, the signal, the admin listener, a rollback or its release."""

ReloadRefusal = Literal[
    "config_invalid", "signature_required", "version_not_found", "not_pinned", "rollback_pinned", "gateway_failed"
]
"""Why a config was not activated."""
_SILENT_S = 15.0
_BEHIND_S = 60.0


class Finding(Value, frozen=True):
    """One mistake or warning of a config. `line` and `column` count from 1; 0 means the file as a whole."""

    severity: str
    file: str
    line: int
    column: int
    path: str
    message: str
    hint: str


class Changes(Value, frozen=True):
    """The differences between two config versions. Routes are `assistant/region`; sections are the config's keys.

    `answers` has the territories that lose, gain or change their first answer.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    answers: tuple[AnswerChange, ...] = ()


FOLLOWS = {  # The line of a command about the other instances, by the scope of the change.
    "cell": "every instance of the cell follows within two seconds",
    "waiting": "the database does not answer: the change is kept, and the other instances follow when it does",
}


class Reload(Value, frozen=True):
    """One attempt to activate a config."""

    cause: Cause
    activated: bool
    config_version: str
    """The version that is active after it."""
    at: datetime
    duration_s: float
    """The time from the save of the file, or from the request, to its end."""
    findings: tuple[Finding, ...] = ()
    """The mistakes that rejected it, and the warnings."""
    changes: Changes = Changes()
    unconfirmed: tuple[int, ...] = ()
    """The workers that have not confirmed the new version yet."""
    who: str = ""
    """The name that the sender of the request gave. It is not verified."""
    missing: bool = False
    """Whether the version to roll back to is not in the history."""
    retriable: bool = False
    """Whether the cause was in the gateway and not in the config, so that another attempt may succeed."""
    pinned: str = ""
    """The version that a rollback pinned and that is active after it, or an empty text."""
    scope: Literal["instance", "cell", "waiting"] = "instance"
    """The instances of an operator's request: this one, all of the cell, or this one until it can be shared."""
    is_unsigned: bool = False
    """Whether a protected region would change, and no accepted signature was given."""
    waited_s: float = 0.0
    """That part of the duration in which the compile had no core or no disk."""

    @property
    def times_ms(self) -> dict[str, float]:
        """Its times in milliseconds, as logs and reports have them."""
        return {"duration_ms": round(self.duration_s * 1000, 1), "waited_ms": round(self.waited_s * 1000, 1)}

    @property
    def refused_by(self) -> ReloadRefusal | None:
        """Why nothing was activated, or None."""
        if self.activated:
            return None
        if self.pinned:
            return "rollback_pinned"
        if self.missing:
            return "not_pinned" if self.cause == "release" else "version_not_found"
        if self.is_unsigned:
            return "signature_required"
        return "gateway_failed" if self.retriable else "config_invalid"

    @property
    def is_pinned(self) -> bool:
        """Whether the config file was not activated because a version is pinned."""
        return bool(self.pinned) and not self.activated

    @property
    def result(self) -> str:
        """The result as one word."""
        return "activated" if self.activated else "rejected"


class WorkerStatus(Value, frozen=True):
    """One worker as it reported last."""

    seat: int
    pid: int
    config_version: str
    running: int
    is_draining: bool
    unavailable: Mapping[str, Unavailable]
    """The deployments that it does not use at the moment."""
    answers: bool = True
    """Whether it answered the latest request for its state."""
    store_problems: Mapping[str, str] = {}
    """Why it cannot use a shared store at the moment, by the kind of the store."""
    closed_callers: Mapping[str, int] = {}
    """How many clients and users alone may not use a deployment, by its name."""
    vendor_limits: Mapping[tuple[str, str], VendorLimit] = {}
    """The limits that vendors stated last, by the quota and the unit."""
    without_room: frozenset[str] = frozenset()
    """The deployments that had no room in a quota at their last call, within a minute."""
    unavailable_to: Mapping[str, Mapping[str, Unavailable]] = {}
    """The deployments that it does not use for a client that alone may not use one, by its name."""
    websocket: Mapping[str, int] = {}
    """The number of its WebSocket connections, and the bytes that they keep, by `connections` and `state_bytes`."""


class Traffic(NamedTuple):
    """Numbers of requests: of all, and of those with an error, with a complete answer, and left by their client."""

    requests: int = 0
    errors: int = 0
    answered: int = 0
    cancelled: int = 0

    @property
    def refused(self) -> int:
        """Those that the configuration refused, or that were wrong. They show nothing about an outage."""
        return self.requests - self.errors - self.answered - self.cancelled


class AskedCounts(NamedTuple):
    """How often a deployment was asked, and how often it was not because of the breaker of a client or user alone."""

    attempts: int = 0
    refused: int = 0


class AnswerTimes(NamedTuple):
    """How long the complete answers of a region took: 95 % of them, in the last five minutes and in five an hour ago.

    Attributes:
        first_s: Until the first byte of a stream. None without a stream.
        end_s: Until the end of an answer, streamed or not.
        answers_ago, first_ago_s, end_ago_s: The same an hour ago.
    """

    answers: int = 0
    first_s: float | None = None
    end_s: float | None = None
    answers_ago: int = 0
    first_ago_s: float | None = None
    end_ago_s: float | None = None


class TrafficCounts(Value, frozen=True):
    """The traffic of the last five minutes, and of shorter times, in which an outage that has just begun is seen."""

    regions: Mapping[str, Traffic] = {}
    """The counts by region. The empty name stands for requests without a region."""
    recent: Mapping[str, Traffic] = {}
    """The same of the last 30 s."""
    deployments: Mapping[str, AskedCounts] = {}
    """The counts of the last 30 s, by deployment."""
    last: Mapping[str, Traffic] = {}
    """The last requests of each region, twenty or a few more."""
    times: Mapping[str, AnswerTimes] = {}
    """How long the answers of each region took."""
    implausible: Mapping[tuple[str, str], int] = {}
    """The counts of a deployment's provider since the start that can't be true, by `input` and `other`."""
    unjudged: Mapping[str, int] = {}
    """The requests of a region since the start of which something went on without a verdict."""
    verdicts_refused: Mapping[str, int] = {}
    """Those of which it did so because every judge refused to decide about a text."""


class VendorLimit(Value, frozen=True):
    """A limit of a minute as the headers of the vendor's last answer stated it. `at_s`: when it came (Unix time)."""

    limit: int
    remaining: int
    at_s: float

    def data(self) -> dict[str, object]:
        """Return it as JSON data."""
        return {"limit": self.limit, "remaining": self.remaining, "at": at_second(int(self.at_s))}


class QuotaUse(Value, frozen=True):
    """The use of one limit of a quota."""

    name: str
    unit: str
    window: str
    limit: int | str
    """The number, or an amount of money as decimal text. The same for `used` and `held`."""
    used: int | str
    held: int | str
    free_at: str | None
    """When one more call or token of a client of high priority has room, in ISO 8601; None for now."""
    free_in_s: float | None
    """The seconds until then, or None if that is unknown."""
    share: float
    """The part of it that is used and held, from 0 to 1; of a bucket, the part that is not full."""
    words: str
    deployments: tuple[str, ...]

    def data(self) -> dict[str, object]:
        """Return it as JSON data."""
        names = ("name", "unit", "window", "limit", "used", "held", "free_at", "deployments")
        return {name: getattr(self, name) for name in names} | {"deployments": list(self.deployments)}

    def explained(self) -> dict[str, object]:
        """Return it as `explain` shows it at a step."""
        free_in_s = None if self.free_in_s is None else round(self.free_in_s, 1)
        shown = {name: getattr(self, name) for name in ("name", "unit", "window", "limit", "used")}
        return shown | {"free_in_s": free_in_s}


@dataclass(frozen=True, slots=True)
class Status:
    """The state of the whole gateway."""

    config: ConfigVersion
    loaded: Reload
    """The reload that activated the present version."""
    failed: Reload | None
    """The latest reload after that, if it was rejected."""
    reloads: Mapping[tuple[str, str], int]
    """The number of reloads by cause and result."""
    is_draining: bool
    workers: tuple[WorkerStatus, ...]
    workers_wanted: int = 1
    worker_restarts: int = 0
    schedules: tuple[ScheduleStatus, ...] = ()
    schedules_off: str = ""
    """Why no schedule runs. Empty if schedules run."""
    keeps_history: bool = False
    """Whether there is a state directory."""
    file_is_active: bool = True
    """Whether the active version has the text of the file. False after a rollback, until its release."""
    pinned: str = ""
    """The version that a rollback pinned, or an empty text."""
    store_problems: Mapping[str, str] = field(default_factory=dict)
    """Why a store cannot be used now, by its kind: `database`, `valkey`, `journal`, or `ledger` without a shared
    database; and `clock`, if the clock of this machine differs from that of a shared store."""
    traffic: TrafficCounts = field(default_factory=TrafficCounts)
    sign_ins: tuple[TokenStatus, ...] = ()
    """The state of each sign-in that is used."""
    quotas: tuple[QuotaUse, ...] = ()
    """The use of each limit of each quota, as it was read last."""
    at_s: float = field(kw_only=True)
    """The time of this state (Unix time)."""

    def vendor_limit(self, use: QuotaUse) -> VendorLimit | None:
        """Return what the vendor stated last of a limit, to any worker."""
        if use.window != Window.MINUTE:
            return None
        stated = [it for worker in self.workers if (it := worker.vendor_limits.get((use.name, use.unit))) is not None]
        return max(stated, key=lambda it: it.at_s, default=None)


InstanceState = Literal["current", "behind", "draining", "silent"]


def instance_state(silent_s: float, *, is_draining: bool, behind_s: float) -> InstanceState:
    """Return the state of an instance, whose cell has activated another version for `behind_s`."""
    if silent_s >= _SILENT_S:
        return "silent"
    if is_draining:
        return "draining"
    return "behind" if behind_s > _BEHIND_S else "current"


class CellInstance(Value, frozen=True):
    """An instance of the cell, as the shared database has it. The members are those of the status document."""

    name: str
    id: str
    version: str
    state: InstanceState
    since: str
    release: str
    rows_waiting: int | None


class CellState(Value, frozen=True):
    """The knowledge of an instance about its cell: all instances, as the database had them last.

    `problems` keep this instance from following the cell. `unseen` is why the shared database cannot be asked now, or
    empty.
    """

    instances: tuple[CellInstance, ...]
    problems: tuple[str, ...] = ()
    unseen: str = ""


class Overview(Value, frozen=True):
    """Facts of one instance for its status document."""

    name: str
    """`GATEWAY_INSTANCE`, or the name of the host."""
    id: str | None
    """The id of its state directory, or None without one."""
    rows_waiting: int | None
    """Usage rows that are not in the ledger yet. None if that is not known here."""
    cell: CellState | None = None
    """The cell, or None without a shared database."""
    space: FreeSpace | None = None
    """The free space of the state directory, or None if there is none."""


EventKind = Literal["config", "health", "faults", "requests"]
"""The subject of an event: a load of the config, a breaker, the simulated faults of a demo, or finished requests."""


class Event(Value, frozen=True):
    """Something that happened in a running gateway. `detail` is JSON data without secrets."""

    kind: EventKind
    at: datetime
    detail: Mapping[str, object]


class SimulatedSite(Value, frozen=True):
    """A simulated site of a demo and its fault, which holds for every deployment there."""

    provider: str
    site: str
    deployments: tuple[str, ...]
    """The names of the deployments of the active config at this site."""
    fault: str
    """The fault in the notation of `gateway simulate`, such as `429=2`. Empty if there is none, or if the command line
    injected faults with probabilities."""
    description: str
    """The faults in words. Empty if there is none."""
