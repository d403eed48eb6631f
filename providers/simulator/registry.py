"""Dialects by adapter name, from entry points (`providers.simulators`): a plug-in brings its own simulator.

A dialect that doesn't load is remembered with its reason, and stops only what would simulate that provider.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points

from providers.simulator.dialect import Dialect

__all__ = ["GROUP", "Dialects", "check_dialect", "load_dialects"]

GROUP = "providers.simulators"
_METHODS = ("read_request", "write_answer", "write_stream", "write_error", "write_error_event")


@dataclass(frozen=True, slots=True)
class Dialects:
    """Every dialect that loaded, by the name of its adapter, and for every other one why it didn't."""

    dialects: Mapping[str, Dialect]
    broken: Mapping[str, str]


@cache
def load_dialects() -> Dialects:
    """The installed dialects. An entry point's name is the provider's name in config."""
    dialects: dict[str, Dialect] = {}
    broken: dict[str, str] = {}
    for point in entry_points(group=GROUP):
        try:
            dialects[point.name] = check_dialect(point.load())
        except Exception as error:  # a stranger's module can raise anything at import
            broken[point.name] = f"{point.value}: {type(error).__name__}: {error}"
    return Dialects(dialects, broken)


def check_dialect(candidate: object) -> Dialect:
    """The candidate, if it has the members of a dialect; a class stands for what it makes without arguments.

    Raises TypeError naming what it lacks.
    """
    candidate = candidate() if isinstance(candidate, type) else candidate
    missing = [] if hasattr(candidate, "name") else ["name"]
    missing += [name for name in _METHODS if not callable(getattr(candidate, name, None))]
    if missing:
        raise TypeError(f"is no dialect: it lacks {', '.join(missing)}")
    return candidate  # type: ignore[return-value]  # the members were checked; their types can't be
