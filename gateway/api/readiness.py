"""The readiness of a gateway in detail, as an operator reads it: what is active, since when, who is off, and why."""

from __future__ import annotations

from dataclasses import fields

from gateway.model.approval import days_at, terms_of
from gateway.model.retirement import farewells_of
from gateway.model.schedule import ScheduleStatus, Tally
from gateway.model.status import Changes, Finding, Reload, Status, WorkerStatus
from gateway.policy.routing import off

__all__ = ["readiness", "readiness_word", "reload_report", "unwell_by_deployment"]

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
            "benched": unwell_by_deployment(status.workers, by_breaker=False),
            "breakers": unwell_by_deployment(status.workers, by_breaker=True),
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
        for one in farewells_of(status.table.deployments.values(), days_at(status.at_s))
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


def unwell_by_deployment(workers: tuple[WorkerStatus, ...], *, by_breaker: bool) -> dict[str, list[dict[str, object]]]:
    """By deployment, what each worker that has benched it, or whose breaker of it is open, says."""
    found: dict[str, list[dict[str, object]]] = {}
    for worker in workers:
        for name, unwell in worker.unwell.items():
            told = {"worker": worker.seat, "reason": unwell.reason, "for_s": round(unwell.for_s, 1)}
            if unwell.by_breaker is by_breaker:
                found.setdefault(name, []).append(told)
    return found
