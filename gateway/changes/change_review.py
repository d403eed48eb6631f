"""The history, the differences of versions and the plan of a text, for operators of a running gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import closing
from difflib import unified_diff
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from gateway.changes.compile_job import CompiledState, CompileJob, Outcome, state_of
from gateway.changes.compile_process import CompileFailed
from gateway.changes.plan import ChangePlan, Check, Traffic, with_traffic
from gateway.changes.plan_checks import compiles, protected_changes
from gateway.changes.plan_text import plan_data, summary_data
from gateway.model.units import at_second
from gateway.operator_errors import NotStored
from providers.value import Value, replace

if TYPE_CHECKING:
    from gateway.changes.cell import CellMember
    from gateway.state.history import Activation, History, Version

Json: TypeAlias = dict[str, object]
_PASTED = "the text"
_MOST_LINES = 2000


class ReviewedState(Value, frozen=True):
    """The state of a live config that reviews read.

    A text to plan may read no other files than `files`. `pinned` is the version that a rollback pinned, or empty.
    """

    active: CompiledState
    files: Collection[str]
    pinned: str


class ChangeReview:
    """Shows changes, and makes none. Compiles run in a child process, one at a time. Methods raise StateError.

    `job` is how the config file is compiled, and `compile_job` compiles in a child process. `directory` is None without
    a history.
    """

    def __init__(
        self,
        job: CompileJob,
        state: Callable[[], ReviewedState],
        directory: Path | None,
        cell: CellMember | None,
        compile_job: Callable[[CompileJob], Awaitable[Outcome]],
    ) -> None:
        self._job = replace(job, text=None, secrets=False, written=True)
        self._state = state
        self._directory = directory
        self._cell = cell
        self._compile = compile_job
        self._one_at_a_time = asyncio.Lock()
        self._active: tuple[str, CompiledState] | None = None
        """The active version without its secrets, by its name, after a text was planned."""

    def history(self, limit: int) -> Json:
        """Return the latest activations, the newest first: of the cell, or of this instance. It blocks."""
        state = self._state()
        active = state.active.config.file_version
        items: list[tuple[str | None, Activation]] = []
        if self._cell is not None:
            items = [*self._cell.record.activations(limit)]
        elif self._directory is not None:
            with closing(_opened(self._directory)) as versions:
                items = [(None, item) for item in versions.activations(limit)]
        # A version may have been activated several times. Only its last activation is marked as active.
        last = next((item for _, item in items if item.version == active), None)
        return {
            "version": active,
            "keeps_history": self._directory is not None,
            "file_active": not state.pinned,
            "pinned": state.pinned or None,
            "activations": activations_data(items, last),
        }

    def version(self, name: str) -> Json:
        """Return a version with its last activation, its plan and its text. It blocks. Raises NotStored."""
        found, last = self._find(name)
        return {
            "version": found.version,
            "content": found.content,
            "activation": activation_data(last) if last is not None else None,
            "plan": last.plan if last is not None else None,
            "text": found.text.decode("utf-8", "replace") if found.text is not None else None,
            "why_not": found.why_not or None,
        }

    async def differences(self, before: str, after: str) -> Json:
        """Return the plan from one version to the other, and the lines of the file that differ. Raises NotStored."""
        (old, _), (new, last) = await asyncio.to_thread(lambda: (self._find(before), self._find(after)))
        lines = await asyncio.to_thread(_lines_between, old, new)
        if last is not None and last.previous == old.version and last.plan:
            return {"plan": last.plan, "lines": lines}
        states = [await self._compiled(it.version, it.text, it.catalogues) for it in (old, new)]
        plan = replace(await asyncio.to_thread(_checked_plan, *states), checks=())
        return {"plan": plan_data(plan), "lines": lines}

    async def plan(self, text: bytes, traffic: Traffic) -> Json:
        """Return the plan of a text that would replace the active version, with the shares of this traffic."""
        state = self._state()
        version = state.active.config.file_version
        outcome = await self._outcome(replace(self._job, text=text, name=_PASTED))
        if others := {path for path in outcome.files if path not in {self._job.path, _PASTED, *state.files}}:
            # The problems could show a part of such a file.
            reason = f"it names catalogue files that the active version does not read ({len(others)})"
            hint = "plan it with `gateway plan FILE` on the machine of the gateway"
            return plan_data(ChangePlan(version, "", checks=(compiles([f"{reason}: {hint}"]),)))
        if (new := state_of(outcome)) is None:
            return plan_data(ChangePlan(version, "", checks=(compiles(_errors(outcome)),)))
        plan = await asyncio.to_thread(_checked_plan, await self._active_without_secrets(state.active), new)
        return plan_data(with_traffic(plan, traffic))

    async def _active_without_secrets(self, active: CompiledState) -> CompiledState:
        """Return the active version as a text is compiled: without secrets, which would be differences."""
        version, written = active.config.version, active.written
        if self._active is None or self._active[0] != version:
            text, catalogues = (written.text, written.catalogues) if written is not None else (None, "")
            self._active = version, await self._compiled(version, text, catalogues)
        return self._active[1]

    async def _compiled(self, version: str, text: bytes | None, catalogues: str) -> CompiledState:
        outcome = await self._outcome(replace(self._job, text=text, name=version, catalogues=catalogues))
        if (state := state_of(outcome)) is None:
            raise NotStored(f"version {version} can't be compiled any more: {'; '.join(_errors(outcome)[:3])}")
        return state

    async def _outcome(self, job: CompileJob) -> Outcome:
        async with self._one_at_a_time:
            try:
                return await self._compile(job)
            except CompileFailed as error:
                return Outcome((job.problem(str(error)),), {}, is_judged=False)

    def _find(self, name: str) -> tuple[Version, Activation | None]:
        from gateway.changes.stored_versions import verified

        if self._cell is not None:
            found = verified(self._cell.record.find(name))
            return found, self._cell.record.last_activation(found.version)
        if self._directory is None:
            raise NotStored("there is no history: set GATEWAY_STATE_DIR")
        with closing(_opened(self._directory)) as versions:
            found = verified(versions.find(name))
            return found, versions.last_activation(found.version)


def _opened(directory: Path) -> History:
    from gateway.state.history import open_history

    return open_history(directory, make=False)


def activation_data(item: Activation) -> Json:
    """Return an activation as JSON data: of its plan only the summary."""
    names = ("version", "previous", "cause", "who", "summary")
    return {**{name: getattr(item, name) for name in names}, **summary_data(item.plan), "at": at_second(item.at_s)}


def activations_data(activations: Iterable[tuple[str | None, Activation]], active: Activation | None) -> list[Json]:
    """Return activations as JSON data, each with the id of its instance if they belong to a cell."""
    return [
        {**activation_data(item), "active": item is active, **({"instance": instance} if instance else {})}
        for instance, item in activations
    ]


def _errors(outcome: Outcome) -> list[str]:
    return [str(problem) for problem in outcome.problems if problem.severity == "error"]


def _checked_plan(old: CompiledState, new: CompiledState) -> ChangePlan:
    """Return the plan between two states with its checks, and with one more if it needs a signature."""
    from gateway.changes.change_log import plan_with_checks

    plan = plan_with_checks(old, new, time.time())
    protected = protected_changes(old.config, new.config, plan)
    checks = [compiles(()), *plan.checks]
    if protected:
        hint = "its change needs a signature: `gateway plan --sign KEYFILE` makes it"
        checks.append(Check("protected", False, tuple(f"{name}: {why}; {hint}" for name, why in protected.items())))
    return replace(plan, checks=tuple(checks))


def _lines_between(old: Version, new: Version) -> list[str]:
    """Return the lines of the file that differ. Only the first ones of many."""
    for version in (old, new):
        if version.text is None:
            raise NotStored(f"the text of version {version.version} is not stored: {version.why_not}")
    return [*islice(unified_diff(_lines_of(old), _lines_of(new), old.version, new.version, lineterm=""), _MOST_LINES)]


def _lines_of(version: Version) -> list[str]:
    return (version.text or b"").decode("utf-8", "replace").splitlines()
