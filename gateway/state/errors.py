"""What goes wrong with the state directory. Apart from SQLite, which who only has to know of this does without."""

from __future__ import annotations

from pathlib import Path

__all__ = ["NotKept", "StateError", "moved"]


class StateError(Exception):
    """The state directory, or a file in it, can't be used; the message says which and why."""


class NotKept(StateError):
    """What was asked for isn't among what is kept; nothing is wrong with the rest."""


def moved(path: Path) -> StateError:
    """Why nothing may be written any more to a file that doesn't stand at its path."""
    return StateError(f"{path} was moved or removed while it was in use: start the gateway again")
