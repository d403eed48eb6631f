"""The active config version: watch its file, reload it and roll it back."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.changes.activation import ChangeRequest, VersionActivator, finding_of
from gateway.changes.compile_job import CompileJob, Outcome
from gateway.changes.compile_process import CompileFailed
from gateway.changes.compiler import Compiler
from gateway.changes.config_log import log_reload, remind
from gateway.changes.pickling import pack
from gateway.config.problems import Problem
from gateway.config.source_text import Watch, agree, read_files
from gateway.model.config_version import ConfigVersion
from gateway.model.status import Cause, Reload
from gateway.operator_errors import NotStored, StateError
from gateway.telemetry.log import logger
from gateway.undo import undone_on_failure
from providers.value import replace

if TYPE_CHECKING:
    from gateway.changes.change_log import PinnedRollback
    from gateway.changes.change_review import ChangeReview
    from gateway.changes.initial_config import InitialConfig
    from gateway.changes.stored_clients import ClientDatabase


_REQUESTED = ("rollback", "release")
"""The causes of changes that an operator requested. Their failure is not a problem of the config file."""

POLL_S = 0.25
_LOOKS_BEFORE_A_PROCESS = 20
_RECENT_S = 60.0
_SAME_EDIT_S = 10.0
"""The time after an activation by the watch in which a request to reload belongs to the same edit."""


Activate = Callable[[bytes, ConfigVersion], Awaitable[tuple[int, ...]]]
"""Activates a version, given pickled and as an object. Returns the workers that have not confirmed it."""


class LiveConfig:
    """The active config version, how it became active, and the last failed attempt to load the config since then.

    Attributes:
        on_change: Called after each attempt to change the version, and after a schedule has changed its weights.

    Args:
        serving_problem: Returns why this process can't serve a version, or None if it can.
        stage: Returns a version with the shares that its schedules have reached, frozen with `is_pinned`.
        compile_job: Compiles in place of a process of its own, for tests.
        wait: Sleeps between two looks at the files, for tests.
    """

    def __init__(
        self,
        job: CompileJob,
        initial: InitialConfig,
        *,
        serving_problem: Callable[[ConfigVersion], str | None] = lambda _: None,
        stage: Callable[..., ConfigVersion] | None = None,
        clients: ClientDatabase | None = None,
        compile_job: Callable[[CompileJob], Awaitable[Outcome]] | None = None,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        warnings, change_log = initial.outcome.problems, initial.change_log
        self.clients = clients
        self.cell = initial.cell
        self._stage_schedules = stage
        self._has_own_tokens = self._was_closed = False
        self._pinned = initial.pinned
        self.config = self._stage(initial.config)
        self.failed: Reload | None = None
        self.reloads: Counter[tuple[str, str]] = Counter()
        findings = tuple(map(finding_of, warnings))
        self.loaded = Reload("start", True, self.config.version, datetime.now(UTC), 0.0, findings)
        self._job = job
        self._state = initial.state
        self._change_log = change_log
        self._activator = VersionActivator(job, serving_problem, change_log)
        self._watch = Watch({**initial.outcome.files, **self._read_signature()})
        self._compiler = Compiler()
        self._compile = compile_job or self._compiler.compile
        self._is_our_compiler = compile_job is None
        self._wait = wait
        self._activate: Activate = _activate_nothing
        self.on_change: Callable[[], None] = lambda: None
        self._looks = 0
        self.is_draining: Callable[[], bool] = lambda: False
        self._last_error = ""
        """The last error of the watch that still persists. It is logged once."""
        self._one_at_a_time = asyncio.Lock()
        self._staging = asyncio.Lock()
        """Held while a version is activated. A blocked key does not wait for a compile, which takes long."""
        self._has_left = False
        self._requested = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def _stage(self, config: ConfigVersion) -> ConfigVersion:
        """Return the version with its stored clients and the shares of its schedules."""
        self._close_listener(config)
        if self.clients is not None:
            config = self.clients.stage(config)
        if self._stage_schedules is None:
            return config
        return self._stage_schedules(config, is_pinned=self._pinned is not None)

    def _close_listener(self, config: ConfigVersion) -> None:
        closes = self._has_own_tokens or config.gives_roles
        if self.clients is not None:
            self.clients.note_listener(closes=closes)
        self._was_closed = self._was_closed or closes

    def note_own_tokens(self) -> None:
        """Keep the admin listener closed because the settings of this process have a token."""
        self._has_own_tokens = True
        self._close_listener(self.config)

    def listener_is_closed(self) -> bool:
        """Return whether the admin listener refuses requests although there is no token. Raises StateError."""
        return self.clients.is_closed() if self.clients is not None else self._was_closed

    def start(self, activate: Activate) -> None:
        """Start to watch the files. Needs a running event loop."""
        self._activate = activate
        work = (self.watch(), self._handle_requests(), remind(lambda: self.config))
        self._tasks = [asyncio.create_task(each) for each in work]
        self._follow()

    @cached_property
    def review(self) -> ChangeReview:
        """The history, differences and plans. Most processes are never asked, so it is loaded on demand."""
        from gateway.changes.change_review import ChangeReview, ReviewedState

        return ChangeReview(
            self._job,
            lambda: ReviewedState(self._state, self._watch.paths, self.pinned),
            self._change_log.directory if self._change_log is not None else None,
            self.cell,
            self._compile,
        )

    def _follow(self) -> None:
        if self.clients is not None:
            self.clients.start(self.restage)
        if self.cell is not None:
            self.cell.start(self, self.is_draining)

    async def pause(self) -> None:
        """Wait for the end of a running change; the next gateway has the state until `resume`. Raises StateError."""
        await self._one_at_a_time.acquire()
        with undone_on_failure(self._one_at_a_time.release):
            await self._staging.acquire()
        with undone_on_failure(self._go_on), undone_on_failure(self._follow):
            if self.clients is not None:
                await self.clients.stop()
            if self.cell is not None:
                await self.cell.stop()
            if self._change_log is not None:
                self._change_log.pause()

    async def resume(self) -> None:
        """Go on after `pause`, because the next gateway has ended without serving. Raises StateError."""
        try:
            if self._change_log is not None:
                self._change_log.resume()
        finally:
            self._follow()
            self._go_on()

    async def leave(self) -> None:
        """Stop after `pause`, because the next gateway serves, and let it have the lock of the state directory."""
        await self.stop()
        if self._change_log is not None:
            self._change_log.lock.release()
        self._has_left = True
        self._go_on()

    def _go_on(self) -> None:
        self._staging.release()
        self._one_at_a_time.release()

    @asynccontextmanager
    async def _one_change(self, lock: asyncio.Lock | None = None) -> AsyncIterator[None]:
        """Wait for the change that runs. Raises StateError if the next gateway serves then: it must be asked."""
        async with lock or self._one_at_a_time:
            if self._has_left:
                raise StateError("the gateway was restarted meanwhile: repeat the request")
            yield

    def describe(self, facts: Mapping[str, object]) -> None:
        """Write these facts into the lock file of the state directory, for commands. Raises StateError."""
        if self._change_log is not None:
            self._change_log.lock.write_info({"config": os.path.abspath(self._job.path), **facts})

    async def stop(self) -> None:
        """Stop to watch. A reload that is running is cancelled."""
        for task in self._tasks:
            task.cancel()
        if self.clients is not None:
            await self.clients.stop()
        if self.cell is not None:
            await self.cell.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._compiler.prepare(is_wanted=False)

    @property
    def keeps_history(self) -> bool:
        """Whether changes are recorded and can be rolled back."""
        return self._change_log is not None

    @property
    def lock_descriptor(self) -> int | None:
        """The locked file of the state directory, which the workers hold too. None without a state directory."""
        return self._change_log.lock.descriptor if self._change_log is not None else None

    @property
    def file_is_active(self) -> bool:
        """Whether the text of the config file is active. False after a rollback, until its release."""
        return self._pinned is None or self._pinned.has_the_text_of_the_file

    @property
    def pinned(self) -> str:
        """The version that a rollback pinned, or an empty text."""
        return self._pinned.version.version if self._pinned is not None else ""

    def request(self) -> None:
        """Reload as soon as possible, as SIGHUP requests."""
        self._requested.set()

    async def _handle_requests(self) -> None:
        while True:
            await self._requested.wait()
            self._requested.clear()
            await self._run_guarded(self.reload("sighup"), must_apply=True)

    async def watch(self) -> None:
        """Check the files repeatedly, and reload when they have changed and are no longer being written."""
        while True:
            await self._wait(POLL_S)
            await self._run_guarded(self._check_files())

    async def _check_files(self) -> None:
        reading = await asyncio.to_thread(read_files, self._watch.paths)
        if not self._watch.settled(reading):
            is_news = self._watch.is_news(reading)
            if not is_news:
                self._last_error = ""
            # The process of the next compile waits for it, because its start takes most of the time of a change. It is
            # started when the gateway has had time for its own start and for its traffic, or while a changed file
            # settles. Not if a compile is running, or if resources are short: it would use more of them.
            self._looks += 1
            is_wanted = is_news or self._looks > _LOOKS_BEFORE_A_PROCESS
            is_wanted = is_wanted and not self._watch.is_waiting and not self._one_at_a_time.locked()
            await self._compiler.prepare(is_wanted=self._is_our_compiler and is_wanted)
            return
        self._looks = 0
        async with self._one_at_a_time:
            if not self._watch.is_news(reading):
                return
            started_at = await asyncio.to_thread(_saved_at, reading)
            if self._pinned is not None and reading.get(self._job.path) != self._pinned.file:
                await self._report_file(ChangeRequest("file"), self._pinned)
                if not self._watch.is_news(reading):
                    return
            pinned = self._pinned
            outcome = await self._outcome(pinned)
            # The files may have changed again before the compile. Then a later check reloads.
            if outcome.at_rest and agree(reading, outcome.files):
                cause: Cause = "sighup" if self._watch.must_apply else "file"
                request = ChangeRequest(cause, is_again=self._watch.is_trying_again)
                await self._apply(request, pinned, outcome, started_at)

    async def _run_guarded(self, work: Awaitable[object], *, must_apply: bool = False) -> None:
        try:
            await work
        except Exception as error:  # the loop of a background task must go on, so that later changes are noticed
            detail = f"{type(error).__name__}: {error}"
            if detail != self._last_error:
                logger().error("config_watch_failed", detail=detail)
            self._last_error = detail
            self._watch.postpone(must_apply=must_apply)

    async def reload(self, cause: Cause, who: str = "") -> Reload:
        """Compile the current config, and activate it if it is valid.

        While a version is pinned by a rollback, a request of the admin listener changes nothing and reports the file's
        problems. A signal compiles the pinned version again, because it is also used to rotate keys.
        """
        async with self._one_change():
            started_at, request, pinned = time.monotonic(), ChangeRequest(cause, who), self._pinned
            if pinned is not None and cause == "admin":
                return await self._report_file(request, pinned)
            former = self.loaded
            done = await self._apply(request, pinned, await self._outcome(pinned), started_at)
            # The watch may be faster than the request that follows an edit. Its changes are those of the request.
            is_same = done.activated and former.cause == "file" and former.config_version == done.config_version
            if cause == "admin" and is_same and (done.at - former.at).total_seconds() < _SAME_EDIT_S:
                done = replace(done, changes=former.changes)
            return done

    async def _report_file(self, request: ChangeRequest, pinned: PinnedRollback) -> Reload:
        """Compile the config file, and report its problems and that it does not become active. The pin stays.

        Raises CompileFailed if no process could compile it. The watch tries again.
        """
        started_at = time.monotonic()
        outcome = await self._outcome(None)
        if not outcome.is_judged and request.cause == "file":
            raise CompileFailed("; ".join(problem.message for problem in outcome.problems))
        message = f"version {pinned.version.version} is pinned by a rollback, so this file is not activated"
        hint = "`gateway rollback --release` activates it"
        problems = (*outcome.problems, Problem(self._job.path, 0, 0, (), message, hint))
        prepared = await asyncio.to_thread(
            self._activator.reject, request, self.config.version, problems, is_judged=outcome.is_judged
        )
        if outcome.at_rest:
            file = outcome.files[self._job.path]
            self._pinned = replace(pinned, file=file)
            self._watch.note_file(self._job.path, file)
        done = Reload(
            request.cause, False, self.config.version, datetime.now(UTC), time.monotonic() - started_at,
            prepared.findings, who=request.who, retriable=not outcome.is_judged, pinned=pinned.version.version,
        )  # fmt: skip
        self._note(done, outcome.problems, is_reported=False)
        return done

    async def reload_for_all(self, who: str) -> Reload:
        """Load the config file as a request of the admin listener asks, on each instance of the cell."""
        return await self._shared(self.reload("admin", who), "reload", who)

    async def rollback(self, version: str | None, who: str = "", signature: str | None = None) -> Reload:
        """Activate a version of the history with today's environment, by None the previous one, on the whole cell."""
        return await self._shared(self.roll_back_here(version, who, signature), "rollback", who, signature)

    async def release(self, who: str = "", signature: str | None = None) -> Reload:
        """Activate the config file in place of the version that a rollback pinned, on each instance of the cell."""
        return await self._shared(self.release_here(who, signature), "release", who, signature)

    async def _shared(self, change: Awaitable[Reload], action: str, who: str, signature: str | None = None) -> Reload:
        if self.cell is None:
            return await change
        async with self.cell.one_command:
            done = await change
            if not done.activated:
                return done
            return replace(done, scope=await self.cell.share(action, done.pinned, who, signature))

    async def release_here(self, who: str = "", signature: str | None = None) -> Reload:
        """Activate the config file in place of the version that a rollback pinned, on this instance."""
        request = ChangeRequest("release", who, signature)
        async with self._one_change():
            started_at = time.monotonic()
            if self._pinned is None:
                message = "no version is pinned by a rollback: the config file is already active"
                outcome = Outcome((Problem("", 0, 0, (), message),), self._watch.known)
                return replace(await self._apply(request, None, outcome, started_at), missing=True)
            return await self._apply(request, None, await self._outcome(None), started_at)

    async def restage(self) -> tuple[int, ...]:
        """Update the active config to schedules and stored clients. Return the workers that have not confirmed it."""
        async with self._one_change(self._staging):
            config = self._stage(self._state.config)
            active = self.config
            if config.clients is active.clients and all(
                getattr(config, name) == getattr(active, name) for name in ("version", "keys_stale", "blocked_keys")
            ):
                return ()
            packed = await asyncio.to_thread(pack, config)
            self.config = config
            unconfirmed = await self._activate(packed, config)
            self.on_change()
            return unconfirmed

    async def roll_back_here(self, version: str | None, who: str = "", signature: str | None = None) -> Reload:
        """Activate a version of the history on this instance. None means the version before the active one."""
        # Two requests at the same moment mean the same active version: the second must not undo the first.
        request, leaving = ChangeRequest("rollback", who, signature), self._state.config.version
        file = (await asyncio.to_thread(read_files, [self._job.path]))[self._job.path]
        async with self._one_change():
            started_at = time.monotonic()
            try:
                pinned = replace(await asyncio.to_thread(self._find_version, version, leaving), file=file)
            except StateError as error:
                # The version is not stored, or the history cannot be read. No file is the cause.
                missing = isinstance(error, NotStored)
                outcome = Outcome((Problem("", 0, 0, (), str(error)),), self._watch.known, is_judged=missing)
                return replace(await self._apply(request, self._pinned, outcome, started_at), missing=missing)
            return await self._apply(request, pinned, await self._outcome(pinned), started_at)

    def _find_version(self, version: str | None, leaving: str) -> PinnedRollback:
        if self._change_log is None:
            raise NotStored("there is no history to roll back to: set GATEWAY_STATE_DIR")
        path = Path(self._job.path)
        try:
            return self._change_log.rollback_target(version, leaving, path)
        except NotStored:
            if self.cell is None:
                raise
            return self._change_log.rollback_target(self.cell.fetch_version(version, leaving).version, leaving, path)

    async def _apply(
        self, request: ChangeRequest, pinned: PinnedRollback | None, outcome: Outcome, started_at: float
    ) -> Reload:
        # Read before the checks: a signature that arrives during them is a new change.
        signature = self._read_signature()
        # Run in a thread: it takes long for a thousand deployments, and it waits for a disk.
        prepared = await asyncio.to_thread(self._activator.prepare, request, self._state, pinned, outcome)
        retriable = not prepared.is_judged
        done = Reload(
            request.cause, False, self.config.version, datetime.now(UTC), 0.0, prepared.findings, who=request.who,
            retriable=retriable, is_unsigned=prepared.is_unsigned, waited_s=outcome.waited_s,
        )  # fmt: skip
        # A failure that persists is logged once.
        is_reported = request.is_again and self.failed is not None and self.failed.findings == done.findings
        if outcome.packed is not None and prepared.state is not None:
            async with self._staging:
                self._state, self._pinned = prepared.state, pinned
                config = self.config = self._stage(prepared.state.config)
                packed = outcome.packed if config is prepared.state.config else await asyncio.to_thread(pack, config)
                unconfirmed = await self._activate(packed, config)
            done = replace(
                done, activated=True, config_version=config.version, changes=prepared.changes, unconfirmed=unconfirmed,
                pinned=self.pinned,
            )  # fmt: skip
        elif not is_reported:
            await asyncio.to_thread(self._activator.record_rejected, request, self.config.version, prepared)
        if done.activated or done.cause not in _REQUESTED:
            # The files of a version that was rejected belong neither to the active version nor to the next edit.
            if retriable:
                # The sender of a signal gets no answer, so the gateway repeats the reload.
                self._watch.postpone(must_apply=request.cause == "sighup")
            else:
                self._watch.mark_applied({**outcome.files, **signature})
        done = replace(done, duration_s=time.monotonic() - started_at)
        self._note(done, prepared.problems, is_reported=is_reported and not done.activated)
        return done

    def _read_signature(self) -> dict[str, str]:
        """Return the digest of the signature file if there is a protected region: a late signature is a change too."""
        if self._change_log is None or not any(region.protected for region in self.config.regions.values()):
            return {}
        from gateway.changes.change_log import signature_file

        return read_files([str(signature_file(Path(self._job.path)))])

    async def _outcome(self, pinned: PinnedRollback | None) -> Outcome:
        job = pinned.instead_of(self._job) if pinned is not None else self._job
        try:
            outcome = await self._compile(job)
        except CompileFailed as error:
            files = await asyncio.to_thread(read_files, self._watch.paths)
            outcome = Outcome((job.problem(str(error)),), files, is_judged=False)
        # Record the file as it was at the request. A later edit is a new change.
        replaced = {self._job.path: pinned.file} if pinned is not None else {}
        return replace(outcome, files={**outcome.files, **replaced})

    def _note(self, done: Reload, problems: tuple[Problem, ...], *, is_reported: bool) -> None:
        self.reloads[done.cause, done.result] += 1
        if not is_reported:
            log_reload(done, problems, self.loaded.config_version, file_is_active=self.file_is_active)
        if done.activated:
            self.loaded, self.failed = done, None
        elif done.cause not in _REQUESTED:
            self.failed = done
        self.on_change()


def _saved_at(reading: Iterable[str]) -> float:
    """Return the monotonic time at which the newest of the files was saved. It is now for one with an older time."""
    changed_s = 0.0
    for path in reading:
        with suppress(OSError):
            changed_s = max(changed_s, os.stat(path).st_mtime)
    age_s = time.time() - changed_s
    return time.monotonic() - (age_s if 0 <= age_s <= _RECENT_S else 0)


async def _activate_nothing(_: bytes, __: ConfigVersion) -> tuple[int, ...]:
    return ()
