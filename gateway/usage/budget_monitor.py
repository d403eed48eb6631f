"""Watch the budgets of clients and projects: the used share of each, and an alert when a share is reached.

One process does this. End users are not watched: there may be any number of them, and their names are not metrics.

The file `alerts.json` of the state directory has the shares that were reported, so that a restart does not repeat them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from gateway.model.budget import Window
from gateway.model.config_version import ConfigVersion
from gateway.operator_errors import StateError
from gateway.usage.amounts import NANO
from gateway.usage.gate import Counter, CounterKind, Counters, CounterState, shown_in
from gateway.usage.spending_limits import calendar_of, counted_budgets
from gateway.usage.windows import FOREVER_NS
from providers.value import Value

FILE_NAME = "alerts.json"
MILLION = 1_000_000
_AT_ONCE = 200
"""The counters that are read before other tasks of the event loop run."""

_Line = tuple[CounterKind, str, str, Window, int, int]
"""A counter, the start of its window, and the highest percentage that was reported."""

BudgetLabels = tuple[str, ...]
"""Client, project and window of a budget. Either client or project is empty."""


class BudgetAlert(Value, frozen=True):
    """A budget has reached a share that the configuration names.

    Attributes:
        of: `client` or `project`.
        name: Its name.
        per: The window.
        unit: `tokens` or the currency.
        percent: The share that is reached.
        spent: The spent amount, as decimal text.
        limit: The budget with its top-ups.
        resets_at: When the next window begins, in ISO 8601, or None.
    """

    of: str
    name: str
    per: str
    unit: str
    percent: int
    spent: str
    limit: str
    resets_at: str | None

    @classmethod
    def at(cls, counter: Counter, limit: int, state: CounterState, percent: int) -> BudgetAlert:
        """Return the alert of a counter."""
        resets_at = None
        if state.end_ns < FOREVER_NS:
            resets_at = datetime.fromtimestamp(state.end_ns // NANO, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        owner = str(counter.kind), counter.name, str(counter.window), counter.unit
        shown = shown_in(counter.unit, state.spent), shown_in(counter.unit, limit + state.credit)
        return cls(*owner, percent, *shown, resets_at)


class BudgetMonitor:
    """The used shares of all budgets.

    Args:
        gate: Knows what was spent.
        current: Returns the active config version.
        clock: Returns Unix nanoseconds.
        state_dir: Where the reported percentages are kept. None: nowhere.
    """

    def __init__(
        self,
        gate: Counters,
        current: Callable[[], ConfigVersion],
        clock: Callable[[], int] = time.time_ns,
        state_dir: Path | None = None,
    ) -> None:
        self._gate = gate
        self._current = current
        self._clock = clock
        self._used: Mapping[BudgetLabels, int] = {}
        # The highest percentage that was reported, and the start of its window.
        self._file = state_dir / FILE_NAME if state_dir is not None else None
        self._reported: dict[Counter, tuple[int, int]] = _read(self._file) if self._file is not None else {}

    def used_shares(self) -> Mapping[BudgetLabels, int]:
        """Return the used share of each budget, in millionths. Of several units in one window, the most used counts."""
        return self._used

    def keep_reported(self) -> None:
        """Write the reported shares of the present budgets to the file. Raises StateError."""
        if self._file is None:
            return
        present = counted_budgets(self._current())
        lines: list[_Line] = [
            (counter.kind, counter.name, counter.unit, counter.window, start_ns, percent)
            for counter, (start_ns, percent) in self._reported.items()
            if counter in present
        ]
        draft = self._file.with_name(f".{FILE_NAME}.{os.getpid()}")
        try:
            draft.touch(mode=0o600)
            draft.write_bytes(msgspec.json.encode(lines))
            draft.replace(self._file)
        except OSError as error:
            raise StateError(f"{error.filename or self._file} can't be written: {error.strerror}") from error

    async def poll(self) -> list[BudgetAlert]:
        """Read all budgets. Return an alert for each share that was reached since the last time."""
        config = self._current()
        budgets = list(counted_budgets(config).items())
        windows = calendar_of(config).at(self._clock())
        alerts: list[BudgetAlert] = []
        used: dict[BudgetLabels, int] = {}
        at = config.usage.alerts.at if config.usage.alerts is not None else ()
        for start in range(0, len(budgets), _AT_ONCE):
            some = budgets[start : start + _AT_ONCE]
            states = await self._gate.read([counter for counter, _ in some], windows)
            for (counter, limit), state in zip(some, states, strict=True):
                whole = limit + state.credit
                share = state.spent * MILLION // whole if whole > 0 else MILLION
                labels = _labels(counter)
                used[labels] = max(share, used.get(labels, 0))
                if at:
                    alerts += self._alerts(counter, limit, state, at)
            await asyncio.sleep(0)
        self._used = used
        return alerts

    def _alerts(self, counter: Counter, limit: int, state: CounterState, at: tuple[int, ...]) -> list[BudgetAlert]:
        whole = limit + state.credit
        reached = max((percent for percent in at if state.spent * 100 >= percent * whole), default=0)
        start_ns, reported = self._reported.get(counter, (state.start_ns, 0))
        if start_ns != state.start_ns:
            reported = 0
        if not reached or reached <= reported:
            return []
        self._reported[counter] = state.start_ns, reached
        return [BudgetAlert.at(counter, limit, state, percent) for percent in at if reported < percent <= reached]


def _read(file: Path) -> dict[Counter, tuple[int, int]]:
    """Return what was reported. Nothing if the file is missing or damaged: then alerts are repeated once."""
    try:
        lines = msgspec.json.decode(file.read_bytes(), type=list[_Line])
        return {
            Counter(kind, name, unit, window): (start, percent) for kind, name, unit, window, start, percent in lines
        }
    except (OSError, ValueError, msgspec.MsgspecError):
        return {}


def _labels(counter: Counter) -> BudgetLabels:
    if counter.kind is CounterKind.CLIENT:
        return counter.name, "", str(counter.window)
    return "", counter.name, str(counter.window)
