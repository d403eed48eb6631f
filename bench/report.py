"""Format the results as tables: the goals, every subject, the cost of growth, and the machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bench.measure import Result

__all__ = ["growth_table", "main_table", "table_of"]

Figures = Mapping[str, float]
# The targets for the gateway (one worker, Python 3.11), and more ambitious ones.
GOALS: Figures = {
    "json_us": 100,
    "burst_us": 180,
    "gemini_us": 400,
    "paced_us": 30,
    "added_p50_ms": 0.5,
    "added_p99_ms": 1,
    "rss_mb": 60,
    "stream_kb": 40,
    "start_s": 1,
}
STRETCH: Figures = {"json_us": 80, "burst_us": 140, "gemini_us": 300, "paced_us": 22}


def _number(name: str, digits: int = 0) -> Callable[[Figures], str]:
    return lambda figures: f"{figures[name]:,.{digits}f}" if name in figures else "–"


def _pair(name: str) -> Callable[[Figures], str]:
    first, second = _number(f"{name}_p50_ms", 2), _number(f"{name}_p99_ms", 2)
    return lambda figures: f"{first(figures)} / {second(figures)}" if f"{name}_p50_ms" in figures else "–"


_COLUMNS: tuple[tuple[str, Callable[[Figures], str]], ...] = (
    ("JSON µs", _number("json_us")),
    ("JSON/s", _number("json_per_s")),
    ("burst µs", _number("burst_us")),
    ("burst µs, translated", _number("gemini_us")),
    ("paced event µs", _number("paced_us", 1)),
    ("event age p50/p99 ms", _pair("event")),
    ("added p50/p99 ms", _pair("added")),
    ("MB", _number("rss_mb")),
    ("KB per open stream", _number("stream_kb", 1)),
    ("of", _number("held")),
    ("added while held p50/p99 ms", _pair("held")),
    ("start s", _number("start_s", 2)),
    ("--help s", _number("help_s", 2)),
)


def main_table(results: Sequence[Result]) -> str:
    """Return one row for each subject, below the goals. Columns without a value are left out."""
    rows = [("goal", GOALS), ("stretch", STRETCH)]
    rows += [
        (result.name + (f" ({result.errors} errors)" if result.errors else ""), result.figures) for result in results
    ]
    cells = [[name, *(cell(figures) for _, cell in _COLUMNS)] for name, figures in rows]
    heads = ["", *(head for head, _ in _COLUMNS)]
    filled = [0, *(column for column in range(1, len(heads)) if any(row[column] != "–" for row in cells[2:]))]
    return table_of([heads[column] for column in filled], [[row[column] for column in filled] for row in cells])


def growth_table(result: Result) -> str:
    """Return the CPU µs of a JSON request of one subject as one quantity grows."""
    return table_of(["as it grows", result.name], [[name, f"{value:,.3g}"] for name, value in result.growth.items()])


def table_of(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table that is also readable as plain text."""
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(width) if not at else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join((first, *others))} |"

    rule = "|".join("-" * (width + 2) if not at else "-" * (width + 1) + ":" for at, width in enumerate(widths))
    return "\n".join([line(heads), f"|{rule}|", *map(line, rows)])
