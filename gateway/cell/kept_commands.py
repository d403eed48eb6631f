"""Keep the commands of an instance in its state directory, `cell-commands.json`, until the cell has them.

A command of an operator may find the database silent, and a database that was restored, or a standby that took over,
may lack the last commands. So each instance keeps the last pin, its own or one that it has followed, and compares it
with that of the database: a pin that the cell does not know is stored again, and one that is older than that of the
cell is never stored. A pin is a `rollback` or a `release`. Its time, by the clock of the database, is given to it once
and decides which of two is later.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import msgspec

from gateway.cell.cell_database import CellCommand, CellDatabase
from gateway.operator_errors import StateError
from gateway.telemetry.log import logger
from providers.value import Value, replace

_NAME = "cell-commands.json"
_STEP_S = 0.001
"""A command is later than the one that its operator has seen, also by the slower clock of a standby."""


class KeptCommand(Value, frozen=True):
    """A command as its instance keeps it.

    Attributes:
        given_s: The time at which it was given, by the clock of this machine.
        after_s: The time of the last pin of the cell that this instance had seen then.
        is_sent: Whether the cell has had it.
    """

    command: CellCommand
    given_s: float
    after_s: float
    is_sent: bool = False


class _Kept(Value, frozen=True):
    pin: KeptCommand | None = None
    reload: KeptCommand | None = None


class KeptCommands:
    """The commands that one process of an instance keeps. Use it from any thread. Methods raise StateError.

    Attributes:
        refused: Why the last command of this instance was not stored for the cell, or an empty text.
    """

    def __init__(self, directory: Path, database: CellDatabase) -> None:
        self.refused = ""
        self._path = directory / _NAME
        self._database = database
        self._one_at_a_time = threading.Lock()
        self._kept = self._read()

    def _read(self) -> _Kept:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return _Kept()
        except (OSError, msgspec.MsgspecError) as error:
            logger().error("command_not_shared", detail=f"{self._path} can't be read: {error}")
            return _Kept()

    def _write(self, kept: _Kept) -> None:
        # A full disk does not lose it: it stays in memory.
        self._kept = kept
        beside = self._path.with_suffix(".new")
        try:
            with open(beside, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                file.write(msgspec.json.encode(kept))
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, self._path)
        except OSError as error:
            raise StateError(f"{self._path} can't be written: {error.strerror}") from error

    def give(self, action: str, version: str, who: str, signature: str | None, after_s: float = 0.0) -> None:
        """Keep a command that this instance has executed. `share` stores it for the cell."""
        sender = str(who)  # of a `Who`, the characters only
        command = CellCommand(0, action, version, sender, signature or "", self._database.owner, 0.0)
        with self._one_at_a_time:
            self.refused, pin = "", self._kept.pin
            if pin is not None:
                after_s = max(after_s, pin.after_s, pin.command.noted_s)
            given = KeptCommand(command, time.time(), after_s)
            # A release makes every instance load its file, so what is left of a reload before it is done.
            is_reload = action == "reload"
            self._write(replace(self._kept, reload=given) if is_reload else _Kept(given))

    def note(self, command: CellCommand) -> None:
        """Keep a pin that this instance follows, unless a later one was given here meanwhile."""
        with self._one_at_a_time:
            if self._is_news(command):
                self._write(replace(self._kept, pin=KeptCommand(command, command.noted_s, 0.0, is_sent=True)))

    def is_news(self, command: CellCommand) -> bool:
        """Return whether a pin of the cell is later than the one that is kept."""
        with self._one_at_a_time:
            return self._is_news(command)

    def _is_news(self, command: CellCommand) -> bool:
        pin = self._kept.pin
        return pin is None or (pin.is_sent and pin.command.noted_s < command.noted_s)

    def share(self, of_cell: CellCommand | None) -> CellCommand | None:
        """Store what the cell does not know, given its last pin. Return the one that is the last then."""
        with self._one_at_a_time:
            pin, reload = self._kept.pin, self._kept.reload
            if pin is not None and not (pin.is_sent and of_cell is not None and of_cell.noted_s >= pin.command.noted_s):
                of_cell = self._send(pin)
            if reload is not None:
                pin = self._kept.pin
                self._send(reload if pin is None else replace(reload, after_s=max(reload.after_s, pin.command.noted_s)))
                self._write(replace(self._kept, reload=None))
            return of_cell

    def _send(self, kept: KeptCommand) -> CellCommand | None:
        """Store a command unless the cell has a later one. Return the last pin of the cell then."""
        command, is_pin = kept.command, kept.command.action != "reload"
        if not command.noted_s:
            # Kept before it is sent: a repetition, when the answer was lost, has the same time.
            age_s = max(0.0, time.time() - kept.given_s)
            command = replace(command, noted_s=max(self._database.now_s() - age_s, kept.after_s + _STEP_S))
            kept = replace(kept, command=command)
            self._write(replace(self._kept, pin=kept) if is_pin else replace(self._kept, reload=kept))
        later = self._database.add_command(command)
        is_refused = later is not None and later.noted_s > command.noted_s and not kept.is_sent
        if later is not None and is_refused:
            self.refused = (
                f"the {command.action} that was given here reaches no other instance, because the cell has a later "
                f"{later.action}{f' by {later.who}' if later.who else ''}: give it again if it is still wanted"
            )
            logger().error("command_refused", action=command.action, who=command.who, detail=self.refused)
        if is_pin:
            # A later pin is news for this instance, which has to follow it.
            self._write(replace(self._kept, pin=None if is_refused else replace(kept, is_sent=True)))
        return later or command
