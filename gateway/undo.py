"""Undo a step whose follow-up fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def undone_on_failure(undo: Callable[[], object]) -> Iterator[None]:
    """Call `undo`, such as `connection.close`, if the block raises anything, also a cancellation.

    The exception goes on.

    Examples:
        >>> with undone_on_failure(connection.close):
        ...     check(connection)
    """
    try:
        yield
    except BaseException:
        undo()
        raise
