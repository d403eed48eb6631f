"""The operations of the admin listener, and the documents that it returns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Protocol

from gateway.api.errors import ApiError
from gateway.execution.failure_observations import EVERYBODY, Asker
from gateway.model.approval import Term, days_at
from gateway.model.budget import shown_amount
from gateway.model.config_version import ConfigVersion
from gateway.model.decision import Unavailable
from gateway.model.endings import FactEnding, StageEnding, endings_of, retirements_in
from gateway.model.schedule import ScheduleStatus, Tally
from gateway.model.status import Changes, Finding, Overview, Reload, SimulatedSite, Status, Traffic, WorkerStatus
from gateway.policy.routing import config_exclusion
from gateway.policy.territory_answers import region_answers
from gateway.telemetry.event_feed import Subscription
from gateway.telemetry.traffic import LAST, RECENT_S, WINDOW_S

if TYPE_CHECKING:
    from gateway.service.client_admin import ClientAdmin

_FINDING = tuple(field.name for field in fields(Finding))
_LISTED = tuple(field.name for field in fields(Changes) if field.name != "answers")


class Review(Protocol):
    """Shows changes to operators, and makes none. Methods raise StateError, NotStored if there is no such version."""

    def history(self, limit: int) -> dict[str, object]:
        """Return the latest activations, the newest first. It blocks."""

    def version(self, name: str) -> dict[str, object]:
        """Return a version with its last activation, its plan and its text. It blocks."""

    async def differences(self, before: str, after: str) -> dict[str, object]:
        """Return the plan from one version to another, and the lines of the file that differ."""

    async def plan(self, text: bytes, traffic: Mapping[tuple[str, str], float]) -> dict[str, object]:
        """Return the plan of a text, with the shares of this traffic by assistant and region."""


class Control(Protocol):
    """The operations of a gateway: of one process, or of the supervisor of several."""

    async def status(self, asker: Asker = EVERYBODY) -> Status:
        """Return the present status. `asker` is the client and its user for whom deployments are unavailable."""

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics: the body and its content type, which the Accept header chooses."""

    async def overview(self) -> Overview:
        """Count the traffic until now, and return the parts of the status that need a look at the disk."""

    async def snapshots(self) -> list[bytes]:
        """Return the counts of all processes as snapshots of metrics."""

    def review(self) -> Review:
        """Return the history, differences and plans."""

    async def resume(self, deployment: str, who: str) -> bool:
        """End the cooldowns and breakers of a deployment in all workers. Return whether one did not use it."""

    async def stop_schedule(self, assistant: str, region: str, who: str) -> bool:
        """Stop a canary schedule. Return whether one was running. Raises StateError."""

    def drain(self) -> float:
        """Begin to drain, and return how many seconds connections are accepted before a stop."""

    async def reload(self, who: str) -> Reload:
        """Load the config now and return the result."""

    async def rollback(self, version: str | None, who: str, signature: str | None) -> Reload:
        """Make a version of the history active, pin it, and return the result."""

    async def release(self, who: str, signature: str | None) -> Reload:
        """Make the config file active in place of the pinned version, and return the result."""

    def client_admin(self, who: str) -> ClientAdmin | None:
        """Return the actions on stored clients, or None without a state directory."""

    async def requests(self) -> list[dict[str, object]]:
        """Return the last finished requests with their attempts, as JSON data, the latest first."""

    def events(self) -> Subscription:
        """Return a subscription to events; raises TooManySubscribers. It must be closed."""

    async def faults(self) -> tuple[SimulatedSite, ...]:
        """Return the simulated sites of a demo with their faults. Raises ApiError outside a demo."""

    async def set_fault(self, deployment: str, fault: str) -> None:
        """Set the fault of a simulated deployment's site, or remove it with an empty text. Raises ApiError."""

    async def clear_faults(self) -> None:
        """Remove the faults of all simulated sites. Raises ApiError outside a demo."""

    async def arrived(self, deployment: str) -> str | None:
        """Return the body of the last request that reached a simulated deployment, or None. Raises ApiError."""

    async def clock(self, ahead_s: int | None = None) -> int:
        """Move the clock of a demo's users, or leave it; return by how many seconds it is ahead. Raises ApiError."""


class SimulatorFaults(Protocol):
    """The faults and the clock of a demo's simulated sites. It has no access to real deployments."""

    def sites(self) -> tuple[SimulatedSite, ...]:
        """Return every simulated site with its fault."""

    def set(self, name: str, words: str) -> None:
        """Set the fault of the site of this deployment for every request; an empty text removes it. Raises ApiError."""

    def clear(self) -> None:
        """Remove the faults of all sites, also those that the command line injected."""

    def arrived(self, name: str) -> str | None:
        """Return the body of the last request that this deployment got, as text, or None. Raises ApiError."""

    def clock(self, ahead_s: int | None) -> int:
        """Move the clock of users if a number is given, and return how many seconds it is ahead. Raises ApiError."""


def no_faults() -> ApiError:
    """Return the error for a request about simulated faults outside a demo."""
    message = "no provider is simulated: faults exist in `gateway demo`, `simulate` and `serve --simulated`"
    return ApiError("not_found", message)


def readiness_word(status: Status) -> str:
    """Return `ready`, `degraded` (some workers do not answer), `not ready` (none answers) or `draining`."""
    if status.is_draining:
        return "draining"
    if not (missing := _missing_seats(status)):
        return "ready"
    return "degraded" if len(missing) < status.workers_wanted else "not ready"


def _missing_seats(status: Status) -> list[int]:
    """Return the seats whose worker hangs, is starting, or has ended and is being replaced."""
    answering = {worker.seat for worker in status.workers if worker.answers}
    return [seat for seat in range(1, status.workers_wanted + 1) if seat not in answering]


def is_ready(status: Status) -> bool:
    """Return whether the gateway should get requests, as it should while it is degraded."""
    return readiness_word(status) in ("ready", "degraded")


def websocket_report(status: Status) -> dict[str, int]:
    """Return the number of WebSocket connections, and the bytes that they keep."""
    members = "connections", "state_bytes"
    return {name: sum(worker.websocket.get(name, 0) for worker in status.workers) for name in members}


def readiness(status: Status) -> dict[str, object]:
    """Return the whole document of `/readyz`."""
    config, ends = status.config, endings_of(status.config, days_at(status.at_s))
    off_now = {
        name: reason
        for name, item in config.deployments.items()
        if (reason := config_exclusion(item, status.at_s)) is not None
    }
    return {
        "status": readiness_word(status),
        "config_version": {"version": config.version, "demo": config.demo, "loaded": reload_report(status.loaded)},
        "simulated": config.demo or config.simulated,
        "state": {"keeps_history": status.keeps_history, "file_active": status.file_is_active},
        "revocations_delayed": config.keys_stale,
        "stores": _stores(status),
        "traffic": traffic_report(status),
        "sign_ins": {it.name: it.document() for it in status.sign_ins},
        "rollback_pinned": status.pinned or None,
        "answers": answers_report(status) if status.pinned else None,
        "last_failed_reload": reload_report(status.failed) if status.failed is not None else None,
        "deployments": {
            "count": len(config.deployments),
            "off": {name: exclusion.detail for name, exclusion in off_now.items()},
            "benched": unavailable_by_deployment(status.workers, by_breaker=False),
            "breakers": unavailable_by_deployment(status.workers, by_breaker=True),
            "breaker_callers": dict(sum((Counter(worker.closed_callers) for worker in status.workers), Counter())),
        },
        "websocket": websocket_report(status),
        "approvals": [_ending(it, "last_day") for it in ends if it.kind == "approval"],
        "schedules": {"off": status.schedules_off or None, "routes": [*map(_schedule, status.schedules)]},
        "retirements": [_ending(it, "retires_on") for it in retirements_in(ends)],
        "stages": [_ending(it, "on") | it.document() for it in ends if it.kind == "model"],
        "workers": {
            "wanted": status.workers_wanted,
            "restarts": status.worker_restarts,
            "missing": _missing_seats(status),
            "running": [_worker(worker) for worker in status.workers],
        },
    }


def traffic_report(status: Status) -> dict[str, object]:
    """Return the requests by region: of the last five minutes, the last 30 s and the last twenty, and answer times."""

    def counted(regions: Mapping[str, Traffic]) -> dict[str, object]:
        return {name: {"requests": it.requests, "errors": it.errors} for name, it in sorted(regions.items())}

    traffic = status.traffic
    return {
        "seconds": int(WINDOW_S),
        "running": sum(worker.running for worker in status.workers),
        "regions": counted(traffic.regions),
        "recent": {"seconds": int(RECENT_S), "regions": counted(traffic.recent)},
        "last": {"requests": LAST, "regions": counted(traffic.last)},
        "times": {
            name: {"answers": it.answers, **_p95(it.first_s, it.end_s), "hour_ago": _p95(it.first_ago_s, it.end_ago_s)}
            for name, it in sorted(traffic.times.items())
        },
    }


def _p95(first_s: float | None, end_s: float | None) -> dict[str, object]:
    """Return the times within which 95 % of the answers began (streams) and ended, in seconds."""
    return {
        "first_p95_s": round(first_s, 3) if first_s is not None else None,
        "end_p95_s": round(end_s, 3) if end_s is not None else None,
    }


def _stores(status: Status) -> dict[str, object] | None:
    """Return for each shared store `ok`, or why it cannot be used and what happens meanwhile."""
    config = status.config
    if config.stores is None:
        return None
    problems, effects = status.store_problems, {"valkey": _without_valkey, "database": _without_database}
    return {
        kind: f"{problems[kind]}; {effects[kind](config)}" if kind in problems else "ok" for kind in config.stores.kinds
    }


def _without_valkey(config: ConfigVersion) -> str:
    allowed = config.usage.on_loss
    if allowed is None:
        budgets = "requests with a budget are refused (`usage.on_loss: deny`)"
    else:
        amount = f"{shown_amount(allowed.nano)} {allowed.currency}"
        budgets = f"this instance may spend {amount} on requests with a budget (`usage.on_loss`)"
    return f"{budgets}, and the others are served with their limits divided by the number of instances"


def _without_database(config: ConfigVersion) -> str:
    clients = ", and changes of clients and keys are delayed" if config.has_shared_clients else ""
    return f"requests are served, and usage rows wait in the state directory{clients}"


def _ending(it: Term | FactEnding | StageEnding, day: str) -> dict[str, object]:
    """Return the end of a fact, with its day under this name. `warned_days` is the threshold that was reached."""
    return {**it.subject, day: it.on.isoformat(), "days_left": it.days_left, "warned_days": it.warned_days}


def _schedule(status: ScheduleStatus) -> dict[str, object]:
    """Return the progress of a schedule. The counts are of its current stage."""
    schedule, progress = status.schedule, status.progress
    return {
        "assistant": status.assistant,
        "region": status.region,
        "candidate": schedule.candidate,
        "phase": progress.phase,
        "frozen": schedule.is_frozen,
        "reason": progress.reason or None,
        "waits_for": status.waits_for or None,
        "stage": progress.stage + 1,
        "stages": [{"share": stage.share, "for_s": stage.for_s} for stage in schedule.stages],
        "share": status.share,
        "elapsed_s": round(progress.elapsed_s, 1),
        "sides": {"candidate": _tally_report(progress.candidate), "baseline": _tally_report(progress.baseline)},
    }


def answers_report(status: Status) -> list[dict[str, object]]:
    """Return who answers in each region, without regard to health. For many assistants this takes seconds."""
    return [
        {
            "assistant": one.assistant,
            "region": one.region,
            "territories": list(one.territories) or None,
            "shares": {name: round(share, 6) for name, share in one.shares.items()},
            "refusal": one.refusal,
            "frozen": one.is_frozen,
            "text": str(one),
        }
        for one in region_answers(status.config, status.at_s)
    ]


def _tally_report(tally: Tally) -> dict[str, object]:
    return {"requests": tally.requests, "failed": tally.failed, "p95_s": tally.percentile_s(0.95)}


def reload_report(done: Reload) -> dict[str, object]:
    """Return the result of one load of a config."""
    return {
        "result": done.result,
        "refused_by": done.refused_by,
        "config_version": done.config_version,
        "cause": done.cause,
        "who": done.who,
        "at": done.at.isoformat(timespec="milliseconds"),
        **done.times_ms,
        # This runs on the event loop. For a thousand warnings, `asdict` takes seven milliseconds, and this takes one.
        "findings": [{name: getattr(finding, name) for name in _FINDING} for finding in done.findings],
        "changes": _changes(done),
        "workers_behind": list(done.unconfirmed),
        "retriable": done.retriable,
    }


def _changes(done: Reload) -> dict[str, object]:
    listed: dict[str, object] = {name: list(values) for name in _LISTED if (values := getattr(done.changes, name))}
    answers = [change.data() for change in done.changes.answers]
    return listed | ({"answers": answers} if answers else {})


def change_report(version: str, loaded: Reload, failed: Reload | None) -> dict[str, object]:
    """Return the detail of an event after an attempt to change the config: the active version, and the attempt."""
    return {
        "config_version": version,
        "loaded": reload_report(loaded),
        "failed": reload_report(failed) if failed else None,
    }


def fault_report(site: SimulatedSite) -> dict[str, object]:
    """Return a simulated site with its fault."""
    return {
        "provider": site.provider,
        "site": site.site,
        "deployments": list(site.deployments),
        "fault": site.fault or None,
        "description": site.description or None,
    }


def _worker(worker: WorkerStatus) -> dict[str, object]:
    return {
        "seat": worker.seat,
        "pid": worker.pid,
        "config_version": worker.config_version,
        "running": worker.running,
        "answers": worker.answers,
        "draining": worker.is_draining,
        "benched": _names(worker, False),
        "breakers": _names(worker, True),
    }


def _names(worker: WorkerStatus, by_breaker: bool) -> list[str]:
    return sorted(name for name, unavailable in worker.unavailable.items() if unavailable.by_breaker is by_breaker)


def unavailable_by_deployment(
    workers: tuple[WorkerStatus, ...], *, by_breaker: bool
) -> dict[str, list[dict[str, object]]]:
    """Return, by deployment, the workers in which its cooldown runs, or in which its breaker is open, with reasons."""
    entries: dict[str, list[dict[str, object]]] = {}
    for worker in workers:
        for name, unavailable in worker.unavailable.items():
            entry = {"worker": worker.seat, "reason": unavailable.reason, "for_s": round(unavailable.for_s, 1)}
            if unavailable.by_breaker is by_breaker:
                entries.setdefault(name, []).append(entry)
    return entries


def unavailable_everywhere(workers: tuple[WorkerStatus, ...]) -> Mapping[str, Unavailable]:
    """Return the deployments that are unavailable in every worker that answers."""
    return _in_all([worker.unavailable for worker in workers if worker.answers])


def unavailable_to_clients(workers: tuple[WorkerStatus, ...]) -> Mapping[str, Mapping[str, Unavailable]]:
    """Return the same for each client that alone may not use a deployment in a worker, by its name."""
    answering = [worker for worker in workers if worker.answers]
    names = {name for worker in answering for name in worker.unavailable_to}
    return {
        name: _in_all([worker.unavailable_to.get(name, worker.unavailable) for worker in answering])
        for name in sorted(names)
    }


def _in_all(maps: Sequence[Mapping[str, Unavailable]]) -> Mapping[str, Unavailable]:
    first = maps[0] if maps else {}
    return {name: reason for name, reason in first.items() if all(name in other for other in maps)}
