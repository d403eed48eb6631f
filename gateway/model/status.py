"""What an operator is told of a running gateway: its table, the tries to change it, its processes. No secret in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from gateway.model.config_version import ConfigVersion
from gateway.model.decision import Unavailable
from gateway.model.schedule import ScheduleStatus

OPERATOR_HEADER = "x-gateway-operator"
"""What a request to the admin listener says of who makes it: a claim."""

Cause = Literal["start", "file", "sighup", "admin", "rollback"]
"""Why a config was loaded: the process began, a file changed, the signal, the admin listener, a rollback."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake or warning of a config. line and column count from 1; 0 where the file as a whole is meant."""

    severity: str
    file: str
    line: int
    column: int
    path: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Changes:
    """What one table has otherwise than the one before. Routes are `assistant/region`, sections the config's keys."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reload:
    """One try to make the config the active one.

    table: the version that is active after it. findings: the mistakes that rejected it, and the warnings.
    behind: the workers that have not confirmed the new table yet. who: what the one who ordered it said of itself.
    missing: whether the version to go back to isn't there. retriable: whether something of ours was in the way, and not
    the config, so that it may work when it is asked for again.
    """

    cause: Cause
    activated: bool
    table: str
    at: datetime
    duration_s: float
    findings: tuple[Finding, ...] = ()
    changes: Changes = Changes()
    behind: tuple[int, ...] = ()
    who: str = ""
    missing: bool = False
    retriable: bool = False

    @property
    def result(self) -> str:
        """The same in a word."""
        return "activated" if self.activated else "rejected"


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One serving process as it told last. unwell: the deployments that it doesn't ask. answers: it told just now."""

    seat: int
    pid: int
    table: str
    running: int
    is_draining: bool
    unwell: Mapping[str, Unavailable]
    answers: bool = True


@dataclass(frozen=True, slots=True)
class Status:
    """The whole gateway. loaded: how the active table came to be. failed: the last try since, if it was rejected.

    keeps_history: whether there is a state directory. file_is_active: False after a rollback, until the file changes.
    reloads: how often, by cause and result. at_s: when it was all so (Unix time). schedules_off: why no schedule runs.
    """

    table: ConfigVersion
    loaded: Reload
    failed: Reload | None
    reloads: Mapping[tuple[str, str], int]
    is_draining: bool
    workers: tuple[WorkerStatus, ...]
    workers_wanted: int = 1
    worker_restarts: int = 0
    schedules: tuple[ScheduleStatus, ...] = ()
    schedules_off: str = ""
    keeps_history: bool = False
    file_is_active: bool = True
    at_s: float = field(kw_only=True)
