"""Whether what was compiled may become active: what it changes, what speaks against it, and that it is written down.

It works on files and may wait for a disk: never in the loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.config.changes import changes_between
from gateway.config.problems import Problem
from gateway.live.compiled import State, told_once
from gateway.live.compiling import Order, Outcome
from gateway.live.packing import unpack
from gateway.live.reload_log import finding_of
from gateway.model.status import Cause, Changes, Finding
from gateway.model.table import Table
from gateway.state.errors import StateError
from gateway.telemetry.log import logger

if TYPE_CHECKING:
    from gateway.live.switch_log import Aside, SwitchLog

__all__ = ["Prepared", "Taking", "Wish"]


@dataclass(frozen=True, slots=True)
class Wish:
    """Who wants a change, and how. signature: on the plan, where it doesn't stand beside the config. is_again: nobody
    has asked anew, and it is tried once more because what was in the way may be gone."""

    cause: Cause
    who: str = ""
    signature: str | None = field(default=None, repr=False)
    is_again: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """What came of a compile, ready to be taken; state: None where it can't be. is_unsigned: it lacks a signature.
    is_judged: whether the config decided that, and not what we could do just then."""

    problems: tuple[Problem, ...]
    findings: tuple[Finding, ...]
    state: State | None
    changes: Changes
    is_unsigned: bool = False
    is_judged: bool = True


@dataclass(frozen=True, slots=True)
class Taking:
    """The rules of one gateway. why_not: why its process can't serve a table; None where it can. switch_log: None where
    no switch is kept."""

    order: Order
    why_not: Callable[[Table], str | None]
    switch_log: SwitchLog | None

    def prepare(self, wish: Wish, active: State, aside: Aside | None, outcome: Outcome) -> Prepared:
        """What may become active after `active`, written down as about to be."""
        problems, state, changes, is_unsigned = outcome.problems, None, Changes(), False
        is_judged = outcome.is_judged
        if outcome.table is not None:
            state = State(unpack(outcome.table), outcome.written, told_once(problems))
            changes = changes_between(active.table, state.table)
            reason = self.why_not(state.table)
            if reason is None and self.switch_log is not None:
                try:
                    reason = self._keep(self.switch_log, wish, active, aside, state)
                    is_unsigned = reason is not None
                except StateError as error:
                    reason, is_judged = f"it can't be written down, and so it isn't done: {error}", False
            if reason is not None:
                order = aside.instead_of(self.order) if aside is not None else self.order
                problems, state = (*problems, order.problem(reason)), None
        return Prepared(problems, tuple(map(finding_of, problems)), state, changes, is_unsigned, is_judged)

    def _keep(self, switch_log: SwitchLog, wish: Wish, active: State, aside: Aside | None, state: State) -> str | None:
        """Write down that this is about to be active; or which signature it lacks. Raises StateError."""
        from gateway.live.switch_log import NotSigned, judge, read_signature, signature_file

        beside = signature_file(Path(self.order.path))
        try:
            judged = judge(active, state, time.time(), lambda: wish.signature or read_signature(beside))
            switch_log.switched(judged, state, wish.cause, wish.who, aside.overrides if aside is not None else "")
        except NotSigned as error:
            return str(error)
        return None

    def keep_rejected(self, wish: Wish, active: str, prepared: Prepared) -> None:
        """Write down that it was tried in vain; `active`: the version that stays."""
        if self.switch_log is None:
            return
        errors = [str(problem) for problem in prepared.problems if problem.severity == "error"]
        try:
            self.switch_log.rejected(wish.cause, wish.who, active, errors, unsigned=prepared.is_unsigned)
        except StateError as error:
            logger().error("audit_failed", detail=str(error))
