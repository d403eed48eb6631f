"""Sum up in a ledger what the counters of open windows must show: what was spent, and the top-ups.

The tables of both ledgers have the same columns, so the statements are the same for SQLite and PostgreSQL. Pure: the
caller runs them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, tzinfo
from typing import Any, NamedTuple, assert_never

from gateway.model.budget import Window
from gateway.usage.amounts import NANO
from gateway.usage.gate import TOKENS, Counter, CounterKind
from gateway.usage.usage_row import RowKind
from gateway.usage.windows import AllBounds

_NAMES = {CounterKind.CLIENT: "client", CounterKind.PROJECT: "project", CounterKind.USER: "end_user"}
_TABLES = {CounterKind.CLIENT: "total_day", CounterKind.PROJECT: "total_day", CounterKind.USER: "total_user_day"}

Lines = Iterable[Sequence[Any]]
# Single rows, because a sum of large top-ups may exceed 64 bits.
_CHANGES = """
SELECT budget_of, CASE budget_of WHEN 'client' THEN client WHEN 'project' THEN project ELSE end_user END,
    CASE budget_of WHEN 'user' THEN client ELSE '' END, budget_unit, kind, budget_amount
FROM usage_row JOIN series ON series.number = usage_row.series
WHERE kind IN ('top_up', 'reset') AND budget_per = ? AND time_ns >= ? AND budget_of IS NOT NULL
    AND (budget_of <> 'user' OR end_user IS NOT NULL)
"""


class SumStatement(NamedTuple):
    """A statement that the caller runs.

    Attributes:
        text: The statement, with a `?` for each value.
        values: The values.
        add: Takes the lines of the result.
    """

    text: str
    values: tuple[object, ...]
    add: Callable[[Lines], None]


class CounterSums:
    """The spent amounts and the top-ups of each open window. They are complete when all statements have run.

    Args:
        windows: The bounds of the windows.
        zone: The time zone of the days of the ledger.
    """

    def __init__(self, windows: AllBounds, zone: tzinfo) -> None:
        self._windows = windows
        self._zone = zone
        self._spent: dict[Counter, int] = defaultdict(int)
        self._credit: dict[Counter, int] = defaultdict(int)

    def numbers(self) -> Iterator[tuple[Counter, int, int]]:
        """Return each counter with what was spent, and its top-ups."""
        for counter in dict.fromkeys([*self._spent, *self._credit]):
            spent, credit = max(0, self._spent.get(counter, 0)), self._credit.get(counter, 0)
            if spent or credit:
                yield counter, spent, credit

    def statements(self) -> Iterator[SumStatement]:
        """Return the statements to run."""
        for window, (start_ns, _, _) in self._windows.items():
            for kind, column in _NAMES.items():
                add = self._adding(kind, window)
                match window:
                    case Window.MINUTE | Window.HOUR:
                        yield SumStatement(_of_rows(column, kind), (start_ns,), add)
                    case Window.TOTAL:
                        yield SumStatement(_of_totals(column, kind), ("",), add)
                    case Window.DAY | Window.WEEK | Window.MONTH:
                        day = datetime.fromtimestamp(start_ns // NANO, self._zone).date().isoformat()
                        yield SumStatement(_of_totals(column, kind), (day,), add)
                    case never:
                        assert_never(never)
            yield SumStatement(_CHANGES, (window.value, start_ns), self._adding_changes(window))

    def _adding(self, kind: CounterKind, window: Window) -> Callable[[Lines], None]:
        def add(lines: Lines) -> None:
            for name, client, currency, tokens, whole, nano in lines:
                self._spent[Counter(kind, name, TOKENS, window, client)] += int(tokens)
                if currency:
                    self._spent[Counter(kind, name, currency, window, client)] += int(whole) * NANO + int(nano)

        return add

    def _adding_changes(self, window: Window) -> Callable[[Lines], None]:
        def add(lines: Lines) -> None:
            for of, name, client, unit, kind_of_row, amount in lines:
                counter = Counter(CounterKind(of), name, unit, window, client)
                if kind_of_row == RowKind.TOP_UP:
                    self._credit[counter] += int(amount)
                else:
                    self._spent[counter] -= int(amount)

        return add


def _client_of(kind: CounterKind) -> str:
    return "client" if kind is CounterKind.USER else "''"


def _of_rows(column: str, kind: CounterKind) -> str:
    return (
        f"SELECT {column}, {_client_of(kind)}, currency, SUM(input_tokens + output_tokens), "  # noqa: S608
        f"SUM(COALESCE(amount_nano, 0) / {NANO}), SUM(COALESCE(amount_nano, 0) % {NANO}) "
        "FROM usage_row JOIN series ON series.number = usage_row.series "
        f"WHERE time_ns >= ? AND kind = 'usage' AND COALESCE({column}, '') <> '' GROUP BY 1, 2, 3"
    )


def _of_totals(column: str, kind: CounterKind) -> str:
    table = _TABLES[kind]
    return (
        f"SELECT {column}, {_client_of(kind)}, currency, SUM(input_tokens + output_tokens), "  # noqa: S608
        f"SUM(amount_whole), SUM({table}.amount_nano) "
        f"FROM {table} JOIN series ON series.number = {table}.series "
        f"WHERE day >= ? AND {column} <> '' GROUP BY 1, 2, 3"
    )
