"""The log lines about the active config: each change of it, and dates of approvals and models that come near."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from gateway.config.problems import Problem
from gateway.model.approval import Term, days_at
from gateway.model.config_version import ConfigVersion
from gateway.model.endings import FactEnding, StageEnding, endings_of
from gateway.model.status import Changes, Reload
from gateway.telemetry.log import logger

REMINDER_INTERVAL_S = 600.0
"""The interval of checks for approvals and retirements whose date comes near."""
_URGENT_DAYS = 7
_END_EVENTS = {
    "approval": ("approval_ending", "approval_ended"),
    "model": ("model_retiring", "model_retired"),
    "price": ("price_ending", "price_ended"),
    "law": ("law_ending", "law_ended"),
}
_STAGE_EVENTS = ("model_stage_near", "model_stage_begun")
"""Those of every stage of a model's end but the one at which routes pass it over."""
_SHOWN = 20


def _pinned_detail(version: str) -> str:
    """Return the sentence that logs have while a version is pinned by a rollback."""
    return (
        f"version {version} is pinned by a rollback: edits of the config file are compiled and reported, not "
        "activated, until `gateway rollback --release`"
    )


def log_reload(done: Reload, problems: Sequence[Problem], previous: str, *, file_is_active: bool) -> None:
    """Log one attempt to change the config. `previous` is the version that was active before it."""
    log = logger().bind(cause=done.cause, config_version=done.config_version, **done.times_ms)
    log = log.bind(who=done.who) if done.who else log
    if not done.activated:
        errors = [problem for problem in problems if problem.severity == "error"]
        reported = {"errors": len(errors), "findings": list(map(str, errors[:_SHOWN]))}
        if done.is_pinned:
            log.warning("rollback_pinned", detail=_pinned_detail(done.pinned), **reported)
            return
        log.error("config_rejected", detail=_rejection_detail(done), **reported)
        return
    for problem in problems[:_SHOWN]:
        logger().warning("config", detail=str(problem))
    log.info(
        "config_activated",
        previous=previous,
        warnings=len(problems),
        **_in_short(done.changes),
        **({"file_active": file_is_active, "detail": _pinned_detail(done.pinned)} if done.pinned else {}),
        **({"workers_behind": list(done.unconfirmed)} if done.unconfirmed else {}),
    )


def _rejection_detail(done: Reload) -> str:
    stays = "the previous version stays active"
    if not done.retriable:
        return stays
    # After a rollback, or a reload through the admin listener, its sender decides whether to repeat it.
    if done.cause in ("file", "sighup"):
        return f"{stays}; the config is not the cause, and the reload is repeated until it succeeds"
    return f"{stays}; the config is not the cause, so the request may be repeated"


def _in_short(changes: Changes) -> dict[str, list[str]]:
    """Return the changes by name. Only the first ones of many are listed."""
    named = {
        "added": changes.added,
        "removed": changes.removed,
        "changed": changes.changed,
        "routes": changes.routes,
        "sections": changes.sections,
        "answers": tuple(change.summary for change in changes.answers),
    }
    return {
        word: [*names[:_SHOWN], *([f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else [])]
        for word, names in named.items()
        if names
    }


def _reminder_of(ending: Term | FactEnding | StageEnding) -> tuple[object, ...]:
    """Return what a reminder states. A model and an approval lose a day at different hours, so each is compared."""
    return ending.kind, *ending.subject.values(), ending.on, ending.days_left, str(ending)


async def remind(
    current: Callable[[], ConfigVersion],
    *,
    clock: Callable[[], float] = time.time,
    wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Check the dates at intervals, without end. Log each fact that ends soon when the days that are left change."""
    reported = days_at(clock())
    while True:
        await wait(REMINDER_INTERVAL_S)
        days = days_at(clock())
        if days == reported:
            continue
        before, reported = reported, days
        told = {_reminder_of(ending) for ending in endings_of(current(), before)}
        for ending in endings_of(current(), days):
            if ending.warned_days is not None and _reminder_of(ending) not in told:
                log = logger().error if ending.days_left <= _URGENT_DAYS else logger().warning
                event, fields = _END_EVENTS[ending.kind][ending.is_over], dict[str, object]()
                if ending.kind == "model" and not (stage := ending.stage).is_retirement:
                    event = _STAGE_EVENTS[ending.begun]
                    fields = {"stage": stage.stage, "firm": stage.firm, "to": stage.to or None}
                log(event, **ending.subject, **fields, days_left=ending.days_left, detail=str(ending))
