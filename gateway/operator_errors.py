"""Errors for the operator of a gateway: messages for a terminal, with an exit status."""

from __future__ import annotations

from pathlib import Path

from gateway.files import is_there


class CommandError(Exception):
    """The command can't be run like that; the person at the terminal is told how to mend it."""

    status = 2

    @property
    def shown(self) -> str:
        """What is printed."""
        return f"gateway: {self}"


class RejectedConfig(CommandError):
    """The config is wrong; every problem is told at its place in the file."""

    status = 1

    @property
    def shown(self) -> str:
        return str(self)


def expect_file(path: Path) -> None:
    """Raises CommandError where there is no such config."""
    if not is_there(path):
        raise CommandError(f"there is no config at {path}; `gateway init` writes one, `gateway demo` needs none")


class StateError(Exception):
    """The state directory, or a file in it, can't be used; the message says which and why."""


class NotKept(StateError):
    """What was asked for isn't among what is kept; nothing is wrong with the rest."""


def moved(path: Path) -> StateError:
    """Why nothing may be written any more to a file that doesn't stand at its path."""
    return StateError(f"{path} was moved or removed while it was in use: start the gateway again")
