"""Take part in a cell: send heartbeats, upload the record, and follow the commands of operators.

One process of an instance does this: the single process or the supervisor. The state directory stays the master of what
this instance has recorded. A rollback, a release and a reload are stored as commands, and every instance executes them
with its own file, its own checks and its own record.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, Protocol

from gateway.cell.cell_database import CellCommand, CellDatabase, Sign
from gateway.cell.cell_record import CellRecord
from gateway.cell.kept_commands import KeptCommands
from gateway.changes.cell_schedules import CellScheduler
from gateway.changes.change_log import ChangeLog
from gateway.changes.schedules import Scheduler
from gateway.installation import instance_name
from gateway.model.budget import StoreServer
from gateway.model.config_version import ConfigVersion
from gateway.model.status import Cause, CellState, Reload
from gateway.operator_errors import NotStored, StateError
from gateway.release import release_name
from gateway.state.history import Version
from gateway.state.schedules import ScheduleStore
from gateway.tasks import stopped
from gateway.telemetry.log import logger
from gateway.usage.journal_reading import backlog
from providers.value import replace

_STATE_S = 1.0
FOLLOW_S = 0.5
_SIGN_LOOKS = 6
"""A sign of life is given at every sixth look."""
_SHIPPED_AT_ONCE = 500


class Followed(Protocol):
    """The live config, as far as commands change it."""

    config: ConfigVersion
    loaded: Reload

    @property
    def pinned(self) -> str:
        """The version that a rollback pinned, or an empty text."""

    async def roll_back_here(self, version: str | None, who: str, signature: str | None) -> Reload:
        """Activate a version of the history on this instance."""

    async def release_here(self, who: str, signature: str | None) -> Reload:
        """Activate the config file on this instance."""

    async def reload(self, cause: Cause, who: str = "") -> Reload:
        """Load the config file on this instance."""


class CellMember:
    """One instance of a cell. `start` needs a running event loop.

    The shared database is connected when it is first used. Raises StateError if the state directory cannot be used.

    Attributes:
        database_problem: Why the database could not be used last, or an empty text.
        answer_s: The time that the database took for the last sign of life, or None before its first answer.
        skew_s: The own time minus that of the database at that sign, in seconds, or None if that is unknown.
        one_command: Held from the begin of a command until the cell has it, so that none of the cell comes between.
    """

    def __init__(self, server: StoreServer, change_log: ChangeLog, state_dir: Path, name: str | None) -> None:
        self.database = CellDatabase(server, instance_name(state_dir))
        self.record = CellRecord(self.database)
        self._change_log = change_log
        self._state_dir = state_dir
        self._name = name or socket.gethostname()
        self._commands = KeptCommands(state_dir, self.database)
        self.one_command = asyncio.Lock()
        self._applied: int | None = None
        """The number of the last command that was read, or None before any was."""
        self._shipped: tuple[int, int] | None = None
        self._connections = 0
        self._state = CellState(())
        self._trail_problem = self._command_problem = self.database_problem = ""
        self.answer_s: float | None = None
        self.skew_s: float | None = None
        self._task: asyncio.Task[None] | None = None

    def close(self) -> None:
        """Ship the last lines of the record, leave the cell (after a handover, stay), and close the connection."""
        with suppress(StateError):
            if not self._change_log.is_paused:
                self.ship()
                self.database.leave()
        self.database.close()

    def scheduler(self, store: ScheduleStore) -> Scheduler:
        """Return what runs the schedules of the cell."""
        return CellScheduler(store, self.database)

    def adopt_predecessor(self) -> bool:
        """Give a new history the version that the cell activated last. Return whether it has one. Raises StateError."""
        if self._change_log.pointer() is None:
            version = self.record.last_version()
            if version is None:
                return False
            self._change_log.adopt(version)
        return True

    def pin_of_cell(self) -> str | None:
        """Return the version that the cell has pinned, an empty text if it has released it, or None before any command.

        A command that this instance could not share before it ended is shared first. Raises StateError if the database
        does not answer.
        """
        self._applied, command = self.database.last_commands()
        self.ship()  # the cell may lack the version of that command
        command = self._commands.share(command)
        if command is None:
            return None
        if command.version:
            self.fetch_version(command.version)
        return command.version

    def fetch_version(self, word: str | None, active: str = "") -> Version:
        """Store a version of the cell in the history of this instance, without a name the previous version.

        Raises NotStored if the cell has no such version, and StateError if the database does not answer.
        """
        name = word or self.record.before(active)
        if name is None:
            raise NotStored("there is no earlier version; `gateway history` lists the versions")
        version = self.record.find(name)
        self._change_log.keep(version)
        return version

    def start(self, live: Followed, is_draining: Callable[[], bool]) -> None:
        """Start to show signs of life and to follow commands."""
        self._task = asyncio.create_task(self._keep(live, is_draining))

    async def stop(self) -> None:
        """Stop. `close` does the rest."""
        await stopped(self._task)
        self._shipped = None

    async def _keep(self, live: Followed, is_draining: Callable[[], bool]) -> None:
        looks, was_draining = 0, False
        while True:
            try:
                if looks % _SIGN_LOOKS == 0 or is_draining() != was_draining:
                    was_draining = is_draining()
                    sign = live.config.file_version, live.loaded.at.isoformat(timespec="seconds")
                    await asyncio.to_thread(self._sign, *sign, was_draining)
                async with self.one_command:
                    await self._follow(live)
                await asyncio.to_thread(self.ship)
                self.database_problem = ""
            except StateError as error:  # the host of this process reports it
                self.database_problem = str(error)
            except Exception as error:  # the loop of a background task must go on
                detail = f"{type(error).__name__}: {error}"
                if detail != self.database_problem:
                    logger().error("cell_not_followed", detail=f"{detail}; rollbacks of other instances are delayed")
                self.database_problem = detail
            looks += 1
            await asyncio.sleep(FOLLOW_S)

    def _sign(self, version: str, since: str, is_draining: bool) -> None:
        sign = Sign(self._name, version, release_name(), since, is_draining, self.rows_waiting())
        began_s = time.monotonic()
        self.skew_s = time.time() - self.database.sign(sign)
        self.answer_s = time.monotonic() - began_s
        self._state = CellState(self.database.instances())

    def rows_waiting(self) -> int:
        """Return the number of usage rows that are not in the ledger yet. It reads files, so call it in a thread."""
        return backlog(self._state_dir).rows

    async def state(self) -> CellState:
        """Return the state of the cell now, or the last known one if its database does not answer at once."""
        unseen = self.database_problem
        if not unseen:
            try:
                async with asyncio.timeout(_STATE_S):
                    self._state = CellState(await asyncio.to_thread(self.database.instances))
            except StateError as error:
                unseen = str(error)
            except TimeoutError:
                unseen = f"the database did not answer within {_STATE_S:g} s"
        instances = self._state.instances
        if unseen:  # the numbers of the last look are old: rows may wait by now
            instances = tuple(replace(one, rows_waiting=None) for one in instances)
        return CellState(instances, self.problems, unseen)

    @property
    def problems(self) -> tuple[str, ...]:
        """The reasons why this instance does not follow the cell."""
        return tuple(filter(None, (self._command_problem, self._commands.refused, self._trail_problem)))

    def counts(self) -> Mapping[tuple[str, ...], int]:
        """Return the number of instances by their state, as they were read last. None while nothing can be read."""
        if self.database_problem or not self._state.instances:
            return {}
        counted = Counter(item.state for item in self._state.instances)
        return {(state,): counted[state] for state in ("current", "behind", "draining", "silent")}

    async def share(self, action: str, version: str, who: str, signature: str | None) -> Literal["cell", "waiting"]:
        """Keep a command that this instance has executed, and store it. Return whether it waits for the database."""

        def give() -> None:
            self._commands.give(action, version, who, signature)
            self._commands.share(self.database.last_commands()[1])

        try:
            await asyncio.to_thread(give)
        except StateError as error:
            logger().error("command_not_shared", action=action, detail=f"{error}; it is repeated until it succeeds")
            return "waiting"
        return "cell"

    async def _follow(self, live: Followed) -> None:
        """Share what the cell does not know, and execute the last commands of other instances."""
        last, pin = await asyncio.to_thread(self.database.last_commands)
        if self._connections != self.database.connections:
            # It may be another one now, such as a restored backup, which gives the same numbers once more. A version
            # that it lacks is shipped before the command that pins it.
            self._connections, self._shipped = self.database.connections, None
            await asyncio.to_thread(self.ship)
        pin = await asyncio.to_thread(self._commands.share, pin)
        if pin is not None and await asyncio.to_thread(self._commands.is_news, pin):
            if pin.owner != self.database.owner and not await self._execute(live, pin):
                return
            await asyncio.to_thread(self._commands.note, pin)
        if self._applied is not None:
            after = max(min(self._applied, last), pin.number if pin is not None else 0)
            commands = await asyncio.to_thread(self.database.commands, after)
            last = max([last, *(command.number for command in commands)])
            reloads = [it for it in commands if it.action == "reload" and it.owner != self.database.owner]
            if reloads and not await self._execute(live, reloads[-1]):
                return
        self._applied = last

    async def _execute(self, live: Followed, command: CellCommand) -> bool:
        """Execute a command. Return False if it has to be tried again."""
        log = logger().bind(action=command.action, who=command.who)
        signature = command.signature or None
        match command.action:
            case "rollback":
                if live.pinned == command.version:
                    return True
                await asyncio.to_thread(self.fetch_version, command.version)
                done = await live.roll_back_here(command.version, command.who, signature)
            case "release":
                if not live.pinned:
                    return True
                done = await live.release_here(command.who, signature)
            case "reload":
                done = await live.reload("admin", command.who)
            case other:
                log.error("command_unknown", detail=f"{other} is of a later release: upgrade this instance")
                return True
        self._command_problem = ""
        if not done.activated:
            reasons = "; ".join(finding.message for finding in done.findings if finding.severity == "error")
            self._command_problem = f"this instance could not follow the {command.action} of the cell: {reasons}"
            if not done.retriable:
                log.error("command_refused", detail=self._command_problem)
        return done.activated or not done.retriable

    def ship(self) -> None:
        """Store what this instance has recorded since the last call in the database. Raises StateError."""
        if self._shipped is None:
            activation, line, digest = self.record.shipped()
            self._shipped = activation, line
            self._trail_problem = self._difference(line, digest)
        while True:
            activations, lines = self._change_log.recorded_after(*self._shipped, _SHIPPED_AT_ONCE)
            if not activations and not lines:
                return
            self.record.ship(activations, lines)
            activation = activations[-1][0] if activations else self._shipped[0]
            self._shipped = activation, lines[-1].number if lines else self._shipped[1]

    def _difference(self, number: int, digest: str) -> str:
        """Return how the audit trail differs from what was shipped, or an empty text."""
        _, lines = self._change_log.recorded_after(2**62, number - 1, 1) if number else ([], [])
        if not number or (lines and lines[0].hash == digest):
            return ""
        problem = f"line {number} of the audit trail is not the one that this instance has shipped: compare both"
        logger().error("audit_failed", detail=f"{problem} with `gateway audit verify`")
        return problem
