"""How far an evaluation is: bars in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

__all__ = ["ShownProgress"]

_TENTHS = 10


class ShownProgress:
    """Shows progress on standard error while the block runs."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bars = Bars(*columns, console=self._console, disable=not self._console.is_terminal)
        self._tasks: dict[str, TaskID] = {}
        self._done: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(self, part: str, total: int) -> None:
        """See `gateway.evaluate.evaluation.Progress`."""
        self._done[part] = (0, total)
        if part not in self._tasks:
            self._tasks[part] = self._bars.add_task(part, total=total)

    def advance(self, part: str, by: int = 1) -> None:
        """See `gateway.evaluate.evaluation.Progress`."""
        before, total = self._done[part]
        after = min(total, before + by)
        self._done[part] = (after, total)
        self._bars.update(self._tasks[part], completed=after)
        if not self._console.is_terminal and total and after * _TENTHS // total > before * _TENTHS // total:
            print(f"{part}: {after} of {total}", file=sys.stderr, flush=True)
