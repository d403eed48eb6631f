"""What two tables are compared by: the table, what it was compiled from, and what was said of that.

Apart from what is kept of switches, which a gateway without a state directory does without.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.config.problems import Problem, dotted
from gateway.config.written import Written
from gateway.model.table import Table

__all__ = ["State", "told_once"]


@dataclass(frozen=True, slots=True)
class State:
    """A table with what it was compiled from, and the warnings of that, without their places."""

    table: Table
    written: Written | None
    warnings: tuple[str, ...] = ()


def told_once(problems: Iterable[Problem]) -> tuple[str, ...]:
    """The warnings without their lines, so that one that has only moved is no news."""
    found = (f"{dotted(it.path)}: {it.message}" for it in problems if it.severity == "warning")
    return tuple(dict.fromkeys(found))
