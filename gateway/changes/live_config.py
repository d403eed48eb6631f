"""The active config version: watch its file, reload it, roll it back, and remind of dates that come near."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.changes.activation import ChangeRequest, VersionActivator, finding_of
from gateway.changes.compile_job import CompiledState, CompileJob, Outcome, told_once
from gateway.changes.compile_process import CompileFailed
from gateway.changes.compiler import Compiler
from gateway.changes.pickling import pack
from gateway.config.problems import Problem
from gateway.config.source_text import Reading, Watch, agree, read_files
from gateway.model.approval import days_at, terms_of
from gateway.model.config_version import ConfigVersion
from gateway.model.deployment import retirement_notices_of
from gateway.model.status import Cause, Changes, Reload
from gateway.operator_errors import NotKept, StateError
from gateway.telemetry.log import logger

if TYPE_CHECKING:
    from gateway.changes.change_log import PinnedRollback
    from gateway.changes.initial_config import InitialConfig


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


LOOK_S = 600.0
"""How long after its last day begins to end something is told of as over, at the most."""


_URGENT_DAYS = 7


async def remind(
    current: Callable[[], ConfigVersion],
    *,
    clock: Callable[[], float] = time.time,
    wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Look at the date from time to time, without end; when it has changed, log what must be renewed or replaced."""
    told = days_at(clock())
    while True:
        await wait(LOOK_S)
        days = days_at(clock())
        if days.last == told.last:
            continue
        told, table = days, current()
        for term in terms_of(table.approvals, days):
            if term.warned_days is not None:
                log = logger().error if term.days_left <= _URGENT_DAYS else logger().warning
                told_of = {"deployment": term.deployment, "region": term.region, "days_left": term.days_left}
                log("approval_ending" if term.days_left >= 0 else "approval_ended", **told_of, detail=str(term))
        for farewell in retirement_notices_of(table.deployments.values(), days):
            if farewell.warned_days is not None:
                log = logger().error if farewell.days_left <= _URGENT_DAYS else logger().warning
                about = {"deployment": farewell.deployment, "model": farewell.model, "days_left": farewell.days_left}
                log("model_retired" if farewell.is_over else "model_retiring", **about, detail=str(farewell))


POLL_S = 0.25


Activate = Callable[[bytes, ConfigVersion], Awaitable[tuple[int, ...]]]
"""Makes a table, given packed and as it is, the active one; the value is the workers that haven't confirmed it."""


class LiveConfig:
    """The active config version, how it became active, and the last failed attempt to load the config since then.

    Args:
        order: How to compile the config file.
        initial: The version to begin with.
        why_not: Returns why this process can't serve a version, or None if it can.
        stage: Returns the version with the shares that its schedules have reached.
        compile_order: Compiles in place of a process of its own, for tests.
        wait: Sleeps between two looks at the files, for tests.
    """

    def __init__(
        self,
        order: CompileJob,
        initial: InitialConfig,
        *,
        why_not: Callable[[ConfigVersion], str | None] = lambda _: None,
        stage: Callable[[ConfigVersion], ConfigVersion] = lambda table: table,
        compile_order: Callable[[CompileJob], Awaitable[Outcome]] | None = None,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        warnings, switch_log = initial.outcome.problems, initial.switch_log
        self._stage = stage
        self.table = stage(initial.table)
        self.failed: Reload | None = None
        self.reloads: Counter[tuple[str, str]] = Counter()
        findings = tuple(map(finding_of, warnings))
        self.loaded = Reload("start", True, self.table.version, datetime.now(UTC), 0.0, findings)
        self._order = order
        self._state = CompiledState(initial.table, initial.outcome.written, told_once(warnings))
        self._switch_log = switch_log
        self._taking = VersionActivator(order, why_not, switch_log)
        self._aside = initial.aside
        self._watch = Watch({**initial.outcome.files, **self._read_signature()})
        self._compiler = Compiler()
        self._compile = compile_order or self._compiler.compile
        self._is_our_compiler = compile_order is None
        self._wait = wait
        self._activate: Activate = _nowhere
        self._told = ""
        """What went wrong in the watch last, while it is in the way."""
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
        await self._compiler.prepare(is_wanted=False)

    @property
    def keeps_history(self) -> bool:
        """Whether what is switched is kept, and can be rolled back."""
        return self._switch_log is not None

    @property
    def file_is_active(self) -> bool:
        """Whether the config file is what is served; not so after a rollback, until the file changes."""
        return self._aside is None

    def request(self) -> None:
        """Reload as soon as may be, as SIGHUP asks for."""
        self._wanted.set()

    async def _obey(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            await self._safely(self.reload("sighup"), owed=True)

    async def watch(self) -> None:
        """Look at the files again and again, and reload when they have changed and come to rest."""
        while True:
            await self._wait(POLL_S)
            await self._safely(self._look())

    async def _look(self) -> None:
        reading = await asyncio.to_thread(read_files, self._watch.paths)
        if not self._watch.settled(reading):
            is_news = self._watch.is_news(reading)
            if not is_news:
                self._told = ""
            # While a file that has changed comes to rest, who is to compile it gets ready: unless it is being compiled,
            # or we lack something, which a process that waits would lack the more.
            is_wanted = is_news and not self._watch.is_waiting and not self._one_at_a_time.locked()
            await self._compiler.prepare(is_wanted=self._is_our_compiler and is_wanted)
            return
        async with self._one_at_a_time:
            if not self._watch.is_news(reading):
                return
            started_at = time.monotonic()
            aside = self._still_aside(reading)
            outcome = await self._outcome(aside)
            # What was compiled may already be something else than what had come to rest; a later look will tell.
            if outcome.at_rest and agree(reading, outcome.files):
                cause: Cause = "sighup" if self._watch.is_owed else "file"
                wish = ChangeRequest(cause, is_again=self._watch.is_trying_again)
                await self._apply(wish, aside, outcome, started_at)

    async def _safely(self, work: Awaitable[object], *, owed: bool = False) -> None:
        try:
            await work
        except Exception as error:  # the top of a background task: the next change must be noticed all the same
            detail = f"{type(error).__name__}: {error}"
            if detail != self._told:
                logger().error("config_watch_failed", detail=detail)
            self._told = detail
            self._watch.not_acted_on(owed=owed)

    async def reload(self, cause: Cause, who: str = "") -> Reload:
        """Compile what is there now, and make it active if it can be. After a rollback, the file counts again once it
        has changed; until then it is what was rolled back to that is compiled again."""
        async with self._one_at_a_time:
            started_at = time.monotonic()
            aside = self._still_aside(await asyncio.to_thread(read_files, [self._order.path]))
            return await self._apply(ChangeRequest(cause, who), aside, await self._outcome(aside), started_at)

    async def restage(self) -> tuple[int, ...]:
        """Give the active config the shares that its schedules are at by now; the workers that haven't confirmed it."""
        async with self._one_at_a_time:
            table = self._stage(self._state.table)
            if table.version == self.table.version:
                return ()
            packed = await asyncio.to_thread(pack, table)
            self.table = table
            return await self._activate(packed, table)

    async def rollback(self, version: str | None, who: str = "", signature: str | None = None) -> Reload:
        """Make a version of the history active, the one before this if none is named, by today's environment."""
        # Two who ask at the same moment want to leave the same version: the second is not to undo the first.
        wish, unwanted = ChangeRequest("rollback", who, signature), self._state.table.version
        file = (await asyncio.to_thread(read_files, [self._order.path]))[self._order.path]
        async with self._one_at_a_time:
            started_at = time.monotonic()
            try:
                aside = replace(await asyncio.to_thread(self._find_version, version, unwanted), file=file)
            except StateError as error:
                # It is nowhere, or can't be looked up, and so no file is to be mended.
                missing = isinstance(error, NotKept)
                outcome = Outcome((Problem("", 0, 0, (), str(error)),), self._watch.known, is_judged=missing)
                return replace(await self._apply(wish, self._aside, outcome, started_at), missing=missing)
            return await self._apply(wish, aside, await self._outcome(aside), started_at)

    def _find_version(self, version: str | None, unwanted: str) -> PinnedRollback:
        if self._switch_log is None:
            raise NotKept("there is no history to go back in: set GATEWAY_STATE_DIR")
        return self._switch_log.wanted(version, unwanted, Path(self._order.path))

    def _still_aside(self, reading: Reading) -> PinnedRollback | None:
        """The rollback, if it holds for files that read so."""
        aside = self._aside
        return aside if aside is not None and reading.get(self._order.path) == aside.file else None

    async def _apply(
        self, wish: ChangeRequest, aside: PinnedRollback | None, outcome: Outcome, started_at: float
    ) -> Reload:
        # Before it is judged by: one that comes from now on is news.
        signature = self._read_signature()
        # Whatever takes long for a thousand deployments is done beside the loop; so is what waits for a disk.
        prepared = await asyncio.to_thread(self._taking.prepare, wish, self._state, aside, outcome)
        retriable = not prepared.is_judged
        done = Reload(
            wish.cause, False, self.table.version, datetime.now(UTC), 0.0, prepared.findings, who=wish.who,
            retriable=retriable,
        )  # fmt: skip
        # One trouble is told once, however often it is found to last.
        is_told = wish.is_again and self.failed is not None and self.failed.findings == done.findings
        if outcome.table is not None and prepared.state is not None:
            self._state, self._aside = prepared.state, aside if aside is not None and aside.overrides else None
            table = self.table = self._stage(prepared.state.table)
            packed = outcome.table if table is prepared.state.table else await asyncio.to_thread(pack, table)
            behind = await self._activate(packed, table)
            done = replace(done, activated=True, table=table.version, changes=prepared.changes, behind=behind)
        elif not is_told:
            await asyncio.to_thread(self._taking.keep_rejected, wish, self.table.version, prepared)
        if done.activated or done.cause != "rollback":
            # What a version that is not taken names is not what is served, nor what the next edit makes of the file.
            if retriable:
                # Who sends a signal isn't answered, and so can't know that it is to be sent again.
                self._watch.not_acted_on(owed=wish.cause == "sighup")
            else:
                self._watch.acted_on({**outcome.files, **signature})
        done = replace(done, duration_s=time.monotonic() - started_at)
        self._note(done, prepared.problems, is_told=is_told and not done.activated)
        return done

    def _read_signature(self) -> dict[str, str]:
        """What stands beside the config, where that can matter: a signature that comes late is a change too."""
        if self._switch_log is None or not any(region.protected for region in self.table.regions.values()):
            return {}
        from gateway.changes.change_log import signature_file

        return read_files([str(signature_file(Path(self._order.path)))])

    async def _outcome(self, aside: PinnedRollback | None) -> Outcome:
        order = aside.instead_of(self._order) if aside is not None else self._order
        try:
            outcome = await self._compile(order)
        except CompileFailed as error:
            files = await asyncio.to_thread(read_files, self._watch.paths)
            outcome = Outcome((order.problem(str(error)),), files, is_judged=False)
        # What the file says is put aside as it was when this was asked; an edit since then is news.
        put_aside = {self._order.path: aside.file} if aside is not None else {}
        return replace(outcome, files={**outcome.files, **put_aside})

    def _note(self, done: Reload, problems: tuple[Problem, ...], *, is_told: bool) -> None:
        self.reloads[done.cause, done.result] += 1
        if not is_told:
            log_reload(done, problems, self.loaded.table, file_is_active=self.file_is_active)
        if done.activated:
            self.loaded, self.failed = done, None
        elif done.cause != "rollback":
            # That a version can't be gone back to says nothing of the config file: nothing there is to be mended.
            self.failed = done


async def _nowhere(_: bytes, __: ConfigVersion) -> tuple[int, ...]:
    return ()
