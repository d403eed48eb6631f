"""The live config: notices that its files have changed, compiles them elsewhere, and makes the result the active table.

A config that can't be used changes nothing: the last good table stays, and what is wrong is logged, counted and kept
for who asks. How a table becomes active (in this process, or in its workers) is a parameter.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from gateway.compiler import CompileFailed, compile_apart
from gateway.compiling import Order, Outcome
from gateway.config.changes import changes_between
from gateway.config.compile import Compiled
from gateway.config.problems import Problem, dotted
from gateway.config.watch import Reading, Watch, read_files
from gateway.model.status import Cause, Changes, Finding, Reload
from gateway.model.table import Table
from gateway.packing import unpack
from gateway.reminding import remind
from gateway.telemetry.log import logger

__all__ = ["POLL_S", "Activate", "Live"]

POLL_S = 0.25
_SHOWN = 20

Activate = Callable[[bytes, Table], Awaitable[tuple[int, ...]]]
"""Makes a table, given packed and as it is, the active one; the value is the workers that haven't confirmed it."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What came of a compile, ready to be taken; table: None where it can't be."""

    problems: tuple[Problem, ...]
    findings: tuple[Finding, ...]
    table: Table | None
    changes: Changes


class Live:
    """The active table, how it came to be, and the last try that failed since."""

    def __init__(
        self,
        order: Order,
        compiled: Compiled,
        *,
        why_not: Callable[[Table], str | None] = lambda _: None,
        compile_order: Callable[[Order], Awaitable[Outcome]] = compile_apart,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.table = compiled.table
        self.failed: Reload | None = None
        self.reloads: Counter[tuple[str, str]] = Counter()
        findings = tuple(map(_finding, compiled.warnings))
        self.loaded = Reload("start", True, compiled.table.version, datetime.now(UTC), 0.0, findings)
        self._order = order
        self._watch = Watch(compiled.files)
        self._why_not = why_not
        self._compile = compile_order
        self._wait = wait
        self._activate: Activate = _nowhere
        self._one_at_a_time = asyncio.Lock()
        self._wanted = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, activate: Activate) -> None:
        """Begin to watch; needs a running loop."""
        self._activate = activate
        work = (self.watch(), self._obey(), remind(lambda: self.table))
        self._tasks = [asyncio.create_task(each) for each in work]

    async def stop(self) -> None:
        """Watch no longer. A reload that is under way is given up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def request(self) -> None:
        """Reload as soon as may be, as SIGHUP asks for."""
        self._wanted.set()

    async def _obey(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            await self._safely(self.reload("sighup"))

    async def watch(self) -> None:
        """Look at the files again and again, and reload when they have changed and come to rest."""
        while True:
            await self._wait(POLL_S)
            await self._safely(self._look())

    async def _look(self) -> None:
        reading = await asyncio.to_thread(read_files, self._watch.paths)
        if not self._watch.settled(reading):
            return
        async with self._one_at_a_time:
            started_at = time.monotonic()
            outcome = await self._outcome()
            # What was compiled may already be something else than what had come to rest; a later look will tell.
            if outcome.at_rest and _agree(reading, outcome.files):
                await self._apply("file", outcome, started_at)

    async def _safely(self, work: Awaitable[object]) -> None:
        try:
            await work
        except Exception as error:  # the top of a background task: the next change must be noticed all the same
            logger().error("config_watch_failed", detail=f"{type(error).__name__}: {error}")

    async def reload(self, cause: Cause) -> Reload:
        """Compile what is there now, and make it active if it can be."""
        async with self._one_at_a_time:
            started_at = time.monotonic()
            return await self._apply(cause, await self._outcome(), started_at)

    async def _apply(self, cause: Cause, outcome: Outcome, started_at: float) -> Reload:
        self._watch.acted_on(outcome.files)
        # Whatever takes long for a thousand deployments is done beside the loop.
        prepared = await asyncio.to_thread(self._prepare, outcome)
        done = Reload(cause, False, self.table.version, datetime.now(UTC), 0.0, prepared.findings)
        if outcome.table is not None and prepared.table is not None:
            table = self.table = prepared.table
            behind = await self._activate(outcome.table, table)
            done = replace(done, activated=True, table=table.version, changes=prepared.changes, behind=behind)
        done = replace(done, duration_s=time.monotonic() - started_at)
        self._note(done, prepared.problems)
        return done

    def _prepare(self, outcome: Outcome) -> _Prepared:
        problems, table, changes = outcome.problems, None, Changes()
        if outcome.table is not None:
            table = unpack(outcome.table)
            changes = changes_between(self.table, table)
            if (reason := self._why_not(table)) is not None:
                problems, table = (*problems, Problem(self._order.path, 0, 0, (), reason)), None
        return _Prepared(problems, tuple(map(_finding, problems)), table, changes)

    async def _outcome(self) -> Outcome:
        try:
            return await self._compile(self._order)
        except CompileFailed as error:
            known = await asyncio.to_thread(read_files, self._watch.paths)
            return Outcome((Problem(self._order.path, 0, 0, (), str(error)),), known)

    def _note(self, done: Reload, problems: tuple[Problem, ...]) -> None:
        self.reloads[done.cause, done.result] += 1
        log = logger().bind(cause=done.cause, table=done.table, duration_ms=round(done.duration_s * 1000, 1))
        if not done.activated:
            self.failed = done
            errors = [str(problem) for problem in problems if problem.severity == "error"]
            told = {"errors": len(errors), "findings": errors[:_SHOWN]}
            log.error("config_rejected", detail="the table before it stays active", **told)
            return
        for problem in problems[:_SHOWN]:
            logger().warning("config", detail=str(problem))
        log.info(
            "config_activated",
            previous=self.loaded.table,
            warnings=len(problems),
            **_in_short(done.changes),
            **({"workers_behind": list(done.behind)} if done.behind else {}),
        )
        self.loaded, self.failed = done, None


async def _nowhere(_: bytes, __: Table) -> tuple[int, ...]:
    return ()


def _agree(one: Reading, other: Reading) -> bool:
    return all(one[path] == other[path] for path in one.keys() & other.keys())


def _finding(problem: Problem) -> Finding:
    place = (problem.file, problem.line, problem.column, dotted(problem.path))
    return Finding(problem.severity, *place, problem.message, problem.hint)


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
