"""What is known of one request: filled on its way, read once at its end for the log line and the headers."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.model.attempt import Attempt, Skipped
from gateway.model.location import Location
from gateway.model.trace import TraceContext
from providers.chat import Usage

__all__ = ["Allowance", "Record"]


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a client may still ask: of `limit` requests a minute so many are left, and all are back after `full_s`."""

    limit: int
    remaining: int
    full_s: float


@dataclass(slots=True)
class Record:
    """One request. No prompt, no answer, no key ever stands in it. Times are seconds.

    outcome: `ok`, `refused` (ours or the client's fault), `failed` (the providers', or nobody could be asked),
    `interrupted` (in mid-stream), `cancelled` (the client left) or `internal_error`. code: the outward error code,
    None for an answer.
    started_at is monotonic. upload_s: of the time to the answer, what the wait for the client's body took.
    retries_refused: the deployments that the budget kept from being retried.
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
    first_s: float | None = None
    total_s: float | None = None
    attempts: list[Attempt] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    retries_refused: tuple[str, ...] = ()
    dropped: frozenset[str] = frozenset()
    usage: Usage | None = None
