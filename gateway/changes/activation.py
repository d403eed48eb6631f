"""Decide whether a compiled version may become active, compare it with the active one, and record it first."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.changes.compile_job import CompiledState, CompileJob, Outcome, told_once
from gateway.changes.pickling import unpack
from gateway.config.problems import Problem, dotted
from gateway.model.config_version import Assistant, ConfigVersion
from gateway.model.deployment import Deployment
from gateway.model.route import step_text
from gateway.model.status import Cause, Changes, Finding
from gateway.operator_errors import StateError
from gateway.telemetry.log import logger

if TYPE_CHECKING:
    from gateway.changes.change_log import ChangeLog, PinnedRollback


# An adapter is code: where it is another object, its deployment's facts still tell whether anything changed.
_compared = attrgetter(*(field.name for field in fields(Deployment) if field.name != "adapter"))


# What follows from other keys, or is told by name.
_NO_SECTIONS = {
    "version",
    "assistants",
    "deployments",
    "region_by_territory",
    "default_region",
    "demo",
    "memo",
    "recipients",
}


_SECTIONS = tuple(field.name for field in fields(ConfigVersion) if field.name not in _NO_SECTIONS)


def changes_between(old: ConfigVersion, new: ConfigVersion) -> Changes:
    """What is added, removed and changed from the old table to the new one."""
    before, after = old.deployments, new.deployments
    kept = [name for name in after if name in before]
    return Changes(
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        changed=tuple(name for name in kept if not _is_same(before[name], after[name])),
        routes=tuple(_routes(old, new)),
        sections=tuple(_sections(old, new)),
    )


def _is_same(one: Deployment, other: Deployment) -> bool:
    same: bool = _compared(one) == _compared(other)
    return same


def _routes(old: ConfigVersion, new: ConfigVersion) -> list[str]:
    before, after = _steps(old), _steps(new)
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _steps(table: ConfigVersion) -> Mapping[str, tuple[object, ...]]:
    """Each route's steps, its schedule and its shadow, by `assistant/region`."""
    return {
        f"{assistant.name}/{region}": (
            *map(step_text, route),
            assistant.schedules.get(region),
            _shadow(assistant, region),
        )
        for name, assistant in table.assistants.items()
        if name == assistant.name
        for region, route in assistant.routes.items()
    }


def _shadow(assistant: Assistant, region: str) -> tuple[str, float, bool] | None:
    shadow = assistant.shadows.get(region)
    return (shadow.deployment.name, shadow.share, shadow.keep_text) if shadow is not None else None


def _sections(old: ConfigVersion, new: ConfigVersion) -> list[str]:
    """The other keys of the file that hold something else."""
    changed = [name for name in _SECTIONS if getattr(old, name) != getattr(new, name)]
    aliases = [{name: item.name for name, item in table.assistants.items()} for table in (old, new)]
    return changed if aliases[0] == aliases[1] else [*changed, "aliases"]


def finding_of(problem: Problem) -> Finding:
    """The same for who asks."""
    place = (problem.file, problem.line, problem.column, dotted(problem.path))
    return Finding(problem.severity, *place, problem.message, problem.hint)


@dataclass(frozen=True, slots=True)
class ChangeRequest:
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
    state: CompiledState | None
    changes: Changes
    is_unsigned: bool = False
    is_judged: bool = True


@dataclass(frozen=True, slots=True)
class VersionActivator:
    """The rules of one gateway. why_not: why its process can't serve a table; None where it can. switch_log: None where
    no switch is kept."""

    order: CompileJob
    why_not: Callable[[ConfigVersion], str | None]
    switch_log: ChangeLog | None

    def prepare(
        self, wish: ChangeRequest, active: CompiledState, aside: PinnedRollback | None, outcome: Outcome
    ) -> Prepared:
        """What may become active after `active`, written down as about to be."""
        problems, state, changes, is_unsigned = outcome.problems, None, Changes(), False
        is_judged = outcome.is_judged
        if outcome.table is not None:
            state = CompiledState(unpack(outcome.table), outcome.written, told_once(problems))
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

    def _keep(
        self,
        switch_log: ChangeLog,
        wish: ChangeRequest,
        active: CompiledState,
        aside: PinnedRollback | None,
        state: CompiledState,
    ) -> str | None:
        """Write down that this is about to be active; or which signature it lacks. Raises StateError."""
        from gateway.changes.change_log import NotSigned, read_signature, review_change, signature_file

        beside = signature_file(Path(self.order.path))
        try:
            judged = review_change(active, state, time.time(), lambda: wish.signature or read_signature(beside))
            switch_log.switched(judged, state, wish.cause, wish.who, aside.overrides if aside is not None else "")
        except NotSigned as error:
            return str(error)
        return None

    def keep_rejected(self, wish: ChangeRequest, active: str, prepared: Prepared) -> None:
        """Write down that it was tried in vain; `active`: the version that stays."""
        if self.switch_log is None:
            return
        errors = [str(problem) for problem in prepared.problems if problem.severity == "error"]
        try:
            self.switch_log.rejected(wish.cause, wish.who, active, errors, unsigned=prepared.is_unsigned)
        except StateError as error:
            logger().error("audit_failed", detail=str(error))
