"""Dialects by adapter name, from entry points (`providers.simulators`): a plug-in brings its own simulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from providers.plugins import check_members, load_group
from providers.simulator.dialect import Dialect

__all__ = ["GROUP", "Dialects", "NoSimulator", "check_dialect", "load_dialects"]

GROUP = "providers.simulators"
_METHODS = ("read_request", "write_answer", "write_stream", "write_error", "write_error_event")


class NoSimulator(LookupError):
    """A provider can't be simulated; the message says why."""


@dataclass(frozen=True, slots=True)
class Dialects:
    """Every dialect that loaded, by the name of its adapter, and for every other one why it didn't."""

    dialects: Mapping[str, Dialect]
    broken: Mapping[str, str]

    def named(self, provider: str) -> Dialect:
        """The dialect of a provider; raises NoSimulator."""
        if provider in self.dialects:
            return self.dialects[provider]
        if provider in self.broken:
            raise NoSimulator(f"the simulator of {provider!r} doesn't load: {self.broken[provider]}")
        raise NoSimulator(f"there is no simulator of {provider!r}: no entry point of that name in {GROUP!r}")


@cache
def load_dialects() -> Dialects:
    """The installed dialects. An entry point's name is the provider's name in config."""
    return Dialects(*load_group(GROUP, check_dialect))


def check_dialect(candidate: object) -> Dialect:
    """The candidate, if it has the members of a dialect; raises TypeError naming what it lacks."""
    dialect: Dialect = check_members(candidate, "dialect", ("name",), _METHODS)
    return dialect
