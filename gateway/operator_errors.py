"""Errors for operators: messages for a terminal, with an exit status."""

from __future__ import annotations

from pathlib import Path

from gateway.files import path_exists


class CommandError(Exception):
    """A command that cannot run as it was given. The message gives the fix."""

    status = 2

    @property
    def shown(self) -> str:
        """Return the text to print."""
        return f"gateway: {self}"


class RejectedConfig(CommandError):
    """The configuration is invalid. The message lists every problem with its position in the file."""

    status = 1

    @property
    def shown(self) -> str:
        return str(self)


def expect_file(path: Path) -> None:
    """Raise CommandError if there is no configuration at the path."""
    if not path_exists(path):
        raise CommandError(f"there is no config at {path}; `gateway init` writes one, `gateway demo` needs none")


class StateError(Exception):
    """The state directory, or a file in it, cannot be used. The message names it and gives the reason."""


class ReceiptDamaged(StateError):
    """A stored receipt is not the one that the gateway stored."""


class DatabaseUnreachable(StateError):
    """The shared database does not answer. It may answer later."""


class NotStored(StateError):
    """The requested item is not stored. Everything else in the state directory is usable."""


def moved_error(path: Path) -> StateError:
    """Return the error for a file that was moved or removed while it was open for writing."""
    return StateError(f"{path} was moved or removed while it was in use: start the gateway again")
