"""What the admin listener asks of the gateway, who may call it, and the report of readiness."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Protocol

from gateway.api.errors import ApiError
from gateway.model.approval import days_at, terms_of
from gateway.model.deployment import retirement_notices_of
from gateway.model.schedule import ScheduleStatus, Tally
from gateway.model.status import Changes, Finding, Reload, Status, WorkerStatus
from gateway.policy.routing import off


class Control(Protocol):
    """One process, or the supervisor of several."""

    async def status(self) -> Status:
        """How it all is at this moment."""
        ...

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """Everything that is counted: the body and its content type, by an Accept header."""
        ...

    async def reload(self, who: str) -> Reload:
        """Load the config now, and what came of it."""
        ...

    async def rollback(self, version: str | None, who: str, signature: str | None) -> Reload:
        """Make a version of the history active, and what came of it."""
        ...


@dataclass(frozen=True, slots=True)
class Guard:
    """Who may ask. token: what a request must bring; None where only this machine can reach the listener.

    hosts: the names by which a request without a token may call it.
    """

    token: str | None = field(default=None, repr=False)
    hosts: frozenset[str] = frozenset({"localhost", "127.0.0.1", "[::1]"})

    def check(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Raise ApiError for who may not, by the headers of an ASGI scope; of one that came twice the first counts."""
        headers: dict[str, str] = {}
        for key, value in pairs:
            headers.setdefault(key.decode("latin-1"), value.decode("latin-1"))
        if "origin" in headers or headers.get("sec-fetch-site", "none") != "none":
            raise ApiError("permission_denied", "a web page may not call this listener")
        kind = headers.get("content-type")
        if kind is not None and kind.partition(";")[0].strip().lower() != "application/json":
            raise ApiError("unsupported_media_type", "send no body, or `content-type: application/json`")
        if self.token is None:
            host = headers.get("host", "").lower()
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if name not in self.hosts:
                raise ApiError("permission_denied", "call this listener by its address, such as http://127.0.0.1")
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # The bytes of a header are UTF-8 where a program writes them, and Latin-1 where a browser does.
        shown, token = given.strip(" \t"), self.token.encode("utf-8")
        is_ours = any(hmac.compare_digest(shown.encode(charset), token) for charset in ("latin-1", "utf-8"))
        if scheme.lower() != "bearer" or not is_ours:
            raise ApiError("invalid_api_key", "send the admin token: `authorization: Bearer TOKEN`")


_FINDING = tuple(field.name for field in fields(Finding))


_CHANGES = tuple(field.name for field in fields(Changes))


def readiness_word(status: Status) -> str:
    """`ready`, `not ready` or `draining`."""
    if status.is_draining:
        return "draining"
    return "ready" if any(worker.answers for worker in status.workers) else "not ready"


def readiness(status: Status) -> dict[str, object]:
    """The whole document."""
    table = status.table
    off_now = {name: reason for name, item in table.deployments.items() if (reason := off(item)) is not None}
    return {
        "status": readiness_word(status),
        "table": {"version": table.version, "demo": table.demo, "loaded": reload_report(status.loaded)},
        "state": {"keeps_history": status.keeps_history, "file_active": status.file_is_active},
        "last_failed_reload": reload_report(status.failed) if status.failed is not None else None,
        "deployments": {
            "count": len(table.deployments),
            "off": {name: detail for name, (_, detail) in off_now.items()},
            "benched": unavailable_by_deployment(status.workers, by_breaker=False),
            "breakers": unavailable_by_deployment(status.workers, by_breaker=True),
        },
        "approvals": _approvals(status),
        "schedules": {"off": status.schedules_off or None, "routes": [*map(_schedule, status.schedules)]},
        "retirements": _retirements(status),
        "workers": {
            "wanted": status.workers_wanted,
            "restarts": status.worker_restarts,
            "running": [_worker(worker) for worker in status.workers],
        },
    }


def _approvals(status: Status) -> list[dict[str, object]]:
    """Each that has an end, the nearest first; warned_days: the bound that it has come under."""
    return [
        {
            "deployment": term.deployment,
            "region": term.region,
            "last_day": term.last_day.isoformat(),
            "days_left": term.days_left,
            "warned_days": term.warned_days,
        }
        for term in sorted(terms_of(status.table.approvals, days_at(status.at_s)), key=lambda term: term.days_left)
    ]


def _retirements(status: Status) -> list[dict[str, object]]:
    """Each model of which a day is known, the nearest first; warned_days: the bound that it has come under."""
    return [
        {
            "deployment": one.deployment,
            "model": one.model,
            "retires_on": one.retires_on.isoformat(),
            "days_left": one.days_left,
            "warned_days": one.warned_days,
        }
        for one in retirement_notices_of(status.table.deployments.values(), days_at(status.at_s))
    ]


def _schedule(told: ScheduleStatus) -> dict[str, object]:
    """Where it is; the counts are those of its present stage."""
    schedule, progress = told.schedule, told.progress
    return {
        "assistant": told.assistant,
        "region": told.region,
        "candidate": schedule.candidate,
        "phase": progress.phase,
        "reason": progress.reason or None,
        "waits_for": told.waits_for or None,
        "stage": progress.stage + 1,
        "stages": [{"share": stage.share, "for_s": stage.for_s} for stage in schedule.stages],
        "share": told.share,
        "elapsed_s": round(progress.elapsed_s, 1),
        "sides": {"candidate": _side(progress.candidate), "baseline": _side(progress.baseline)},
    }


def _side(tally: Tally) -> dict[str, object]:
    return {"requests": tally.requests, "failed": tally.failed, "p95_s": tally.percentile_s(0.95)}


def reload_report(done: Reload) -> dict[str, object]:
    """What came of one load of a config."""
    return {
        "result": done.result,
        "table": done.table,
        "cause": done.cause,
        "who": done.who,
        "at": done.at.isoformat(timespec="milliseconds"),
        "duration_ms": round(done.duration_s * 1000, 1),
        # Made on the loop: `asdict` copies deeply, which for a thousand warnings is seven milliseconds instead of one.
        "findings": [{name: getattr(finding, name) for name in _FINDING} for finding in done.findings],
        "changes": {name: list(values) for name in _CHANGES if (values := getattr(done.changes, name))},
        "workers_behind": list(done.behind),
        "retriable": done.retriable,
    }


def _worker(worker: WorkerStatus) -> dict[str, object]:
    told = {name: getattr(worker, name) for name in ("seat", "pid", "table", "running", "answers")}
    return {**told, "draining": worker.is_draining, "benched": _names(worker, False), "breakers": _names(worker, True)}


def _names(worker: WorkerStatus, by_breaker: bool) -> list[str]:
    return sorted(name for name, unwell in worker.unwell.items() if unwell.by_breaker is by_breaker)


def unavailable_by_deployment(
    workers: tuple[WorkerStatus, ...], *, by_breaker: bool
) -> dict[str, list[dict[str, object]]]:
    """By deployment, what each worker that has benched it, or whose breaker of it is open, says."""
    found: dict[str, list[dict[str, object]]] = {}
    for worker in workers:
        for name, unwell in worker.unwell.items():
            told = {"worker": worker.seat, "reason": unwell.reason, "for_s": round(unwell.for_s, 1)}
            if unwell.by_breaker is by_breaker:
                found.setdefault(name, []).append(told)
    return found
