"""Undo a step whose follow-up fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def undone_on_failure(undo: Callable[[], object]) -> Iterator[None]:
    """Call `undo` if the block raises anything, also a cancellation, and let the exception go on.

    Args:
        undo: Gives back what was opened before the block, such as `connection.close`.

    Examples:
        >>> with undone_on_failure(connection.close):
        ...     check(connection)
    """
    try:
        yield
    except BaseException:
        undo()
        raise
