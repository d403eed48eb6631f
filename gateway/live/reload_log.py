"""What the log says of a reload, and the findings of a config as an operator is told of them."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.config.problems import Problem, dotted
from gateway.model.status import Changes, Finding, Reload
from gateway.telemetry.log import logger

__all__ = ["finding_of", "log_reload"]

_SHOWN = 20
_NOT_THE_FILE = {
    "file_active": False,
    "detail": "the config file is not what is active, since a rollback; the next edit of it wins",
}


def log_reload(done: Reload, problems: Sequence[Problem], previous: str, *, file_is_active: bool) -> None:
    """The lines of one try to change the config; `previous`: the version that was active before it."""
    log = logger().bind(cause=done.cause, table=done.table, duration_ms=round(done.duration_s * 1000, 1))
    log = log.bind(who=done.who) if done.who else log
    if not done.activated:
        errors = [str(problem) for problem in problems if problem.severity == "error"]
        told = {"errors": len(errors), "findings": errors[:_SHOWN]}
        log.error("config_rejected", detail=_tried_again(done), **told)
        return
    for problem in problems[:_SHOWN]:
        logger().warning("config", detail=str(problem))
    log.info(
        "config_activated",
        previous=previous,
        warnings=len(problems),
        **_in_short(done.changes),
        **({} if file_is_active else _NOT_THE_FILE),
        **({"workers_behind": list(done.behind)} if done.behind else {}),
    )


def finding_of(problem: Problem) -> Finding:
    """The same for who asks."""
    place = (problem.file, problem.line, problem.column, dotted(problem.path))
    return Finding(problem.severity, *place, problem.message, problem.hint)


def _tried_again(done: Reload) -> str:
    stays = "the table before it stays active"
    if not done.retriable:
        return stays
    # Of a rollback, and of a reload that is answered, who asked decides.
    if done.cause in ("file", "sighup"):
        return f"{stays}; nothing is wrong with the config, and it is tried again until it can be done"
    return f"{stays}; nothing is wrong with the config, and it may be asked for again"


def _in_short(changes: Changes) -> dict[str, list[str]]:
    """What changed, by name; of many, the first ones."""
    named = {
        "added": changes.added,
        "removed": changes.removed,
        "changed": changes.changed,
        "routes": changes.routes,
        "sections": changes.sections,
    }
    return {
        word: [*names[:_SHOWN], *([f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else [])]
        for word, names in named.items()
        if names
    }
