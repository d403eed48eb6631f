"""Sum up in a ledger what the counters of open windows must show: what was spent, and the top-ups."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, tzinfo

from gateway.model.budget import Window
from gateway.state.database import Statements
from gateway.usage.amounts import NANO
from gateway.usage.gate import TOKENS, Counter, CounterKind
from gateway.usage.usage_row import RowKind
from gateway.usage.windows import LENGTHS_NS, AllBounds

_NAMES = {CounterKind.CLIENT: "client", CounterKind.PROJECT: "project", CounterKind.USER: "end_user"}
_TABLES = {CounterKind.CLIENT: "total_day", CounterKind.PROJECT: "total_day", CounterKind.USER: "total_user_day"}

# Single rows, because a sum of large top-ups may exceed 64 bits.
_CHANGES = """
SELECT budget_of, CASE budget_of WHEN 'client' THEN client WHEN 'project' THEN project ELSE end_user END,
    CASE budget_of WHEN 'user' THEN client ELSE '' END, budget_unit, kind, budget_amount
FROM usage_row JOIN series ON series.number = usage_row.series
WHERE kind IN ('top_up', 'reset') AND budget_per = ? AND time_ns >= ? AND budget_of IS NOT NULL
    AND (budget_of <> 'user' OR end_user IS NOT NULL)
"""


def counter_sums(statements: Statements, windows: AllBounds, zone: tzinfo) -> list[tuple[Counter, int, int]]:
    """Return each counter of an open window with what was spent, and its top-ups. The zone is that of the ledger."""
    spent: dict[Counter, int] = defaultdict(int)
    credit: dict[Counter, int] = defaultdict(int)
    for window, (start_ns, _, _) in windows.items():
        for kind, column in _NAMES.items():
            if window in LENGTHS_NS:
                rows = statements.execute(_of_rows(column, kind), (start_ns,))
            else:
                day = datetime.fromtimestamp(start_ns // NANO, zone).date().isoformat()
                rows = statements.execute(_of_totals(column, kind), ("" if window is Window.TOTAL else day,))
            for name, client, currency, tokens, whole, nano in rows.fetchall():
                spent[Counter(kind, name, TOKENS, window, client)] += int(tokens)
                if currency:
                    spent[Counter(kind, name, currency, window, client)] += int(whole) * NANO + int(nano)
        found = statements.execute(_CHANGES, (window.value, start_ns)).fetchall()
        for of, name, client, unit, kind_of_row, amount in found:
            counter = Counter(CounterKind(of), name, unit, window, client)
            if kind_of_row == RowKind.TOP_UP:
                credit[counter] += int(amount)
            else:
                spent[counter] -= int(amount)
    numbers = [(one, max(0, spent[one]), credit[one]) for one in dict.fromkeys([*spent, *credit])]
    return [one for one in numbers if one[1] or one[2]]


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
