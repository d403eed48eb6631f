"""What goes wrong with the state directory. Apart from SQLite, which who only has to know of this does without."""

from __future__ import annotations

__all__ = ["StateError"]


class StateError(Exception):
    """The state directory, or a file in it, can't be used; the message says which and why."""
