"""The table of roads in `ROADS.md`: what each costs, and the changes that moved it by more than 1 %.

Instructions depend on the build of Python. With another one than that of the table, each road is compared as a multiple
of the plain one, which differs less.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from bench.report import table_of

__all__ = ["PLAIN", "TABLE", "RoadTable", "this_build"]

TABLE = Path(__file__).with_name("ROADS.md")
PLAIN = "plain"
MOST_GROWTH, NOTED = 1.1, 0.01
"""The growth that fails, and the share of a change that is noted. Two libraries of C differ by several percent."""

_HEADS = ("road", "thousands of instructions", "times plain", "moved by")
_BUILD = "Build of Python: "


def this_build() -> str:
    """Return the version of this Python and what compiled it, which decide how many instructions it needs."""
    return f"{platform.python_version()}, {platform.python_compiler()}"


class Row(NamedTuple):
    """The cost of a road in thousands of instructions, and the changes that moved it, the latest first."""

    thousands: int
    moved: str = ""


class RoadTable(NamedTuple):
    """The text before the table, the build of Python with which the roads were counted, and their rows."""

    head: str
    build: str
    rows: Mapping[str, Row]

    @classmethod
    def read(cls, text: str) -> RoadTable:
        """Read the file. The text before the line of the build is kept as it is."""
        head, _, rest = text.partition(_BUILD)
        build, _, table = rest.partition("\n")
        lines = [
            [cell.strip() for cell in line.split("|")[1:-1]] for line in table.split("\n") if line.startswith("| ")
        ]
        rows = {name: Row(int(thousands.replace(",", "")), moved) for name, thousands, _, moved in lines[1:]}
        return cls(head, build.removesuffix("."), rows)

    def text(self) -> str:
        """Return the text of the file."""
        plain = self.rows[PLAIN].thousands
        rows = [
            [name, f"{row.thousands:,}", f"{row.thousands / plain:.2f}", row.moved] for name, row in self.rows.items()
        ]
        return f"{self.head}{_BUILD}{self.build}.\n\n{table_of(_HEADS, rows)}\n"

    def problems(self, build: str, counts: Mapping[str, int]) -> list[str]:
        """Return what is wrong with these thousands of instructions: each road that has grown, or is not recorded."""
        problems = [f"{name}: no count is recorded" for name in counts if name not in self.rows]
        scale = 1.0 if build == self.build else counts[PLAIN] / self.rows[PLAIN].thousands
        for name, row in self.rows.items():
            growth = counts.get(name, 0) / (row.thousands * scale)
            if growth > MOST_GROWTH:
                problems.append(f"{name}: {counts[name]:,} thousand instructions, {growth - 1:.1%} more than recorded")
        return problems

    def updated(self, build: str, counts: Mapping[str, int], change: str) -> RoadTable:
        """Return the table with these thousands of instructions, and the change at each road that moved by over 1 %.

        Counts of another build replace the old ones without a change, because nothing shows what the build did. Raises
        ValueError if a road has moved and no change is named.
        """
        rows: dict[str, Row] = {}
        for name, now in counts.items():
            row = rows[name] = self.rows.get(name, Row(now))
            if build != self.build:
                rows[name] = Row(now, row.moved)
            # A smaller change is not written, so that many of them are noted together.
            elif abs(now - row.thousands) > row.thousands * NOTED:
                if not change:
                    raise ValueError(f"{name} has moved from {row.thousands:,} to {now:,}: name the change with --by")
                moved = f"{row.thousands:,} → {now:,}: {change}"
                rows[name] = Row(now, f"{moved}; {row.moved}" if row.moved else moved)
        return RoadTable(self.head, build, rows)
