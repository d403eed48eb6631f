"""Dialects by adapter name, from entry points (`providers.simulators`): a plug-in brings its own simulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from providers.plugins import check_members, load_group
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
    return Dialects(*load_group(GROUP, check_dialect))


def check_dialect(candidate: object) -> Dialect:
    """The candidate, if it has the members of a dialect; raises TypeError naming what it lacks."""
    dialect: Dialect = check_members(candidate, "dialect", ("name",), _METHODS)
    return dialect
