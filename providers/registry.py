"""Adapters by name, from entry points (`providers.adapters`): ours come through the same door as strangers'.

A plug-in that doesn't load is remembered with its reason, and stops only the configs that use it. So is a name that
two packages claim: which of them a prompt goes through must not depend on their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points

from providers.adapter import Adapter

__all__ = ["GROUP", "Registry", "check_adapter", "load_registry"]

GROUP = "providers.adapters"


@dataclass(frozen=True, slots=True)
class Registry:
    """Every adapter that loaded, by name, and for every other one why it didn't."""

    adapters: Mapping[str, Adapter]
    broken: Mapping[str, str]


@cache
def load_registry() -> Registry:
    """The installed adapters. An entry point's name is the provider's name in config."""
    adapters: dict[str, Adapter] = {}
    broken: dict[str, str] = {}
    values: dict[str, str] = {}
    for point in entry_points(group=GROUP):
        first = values.setdefault(point.name, point.value)
        if first != point.value:
            adapters.pop(point.name, None)
            broken[point.name] = f"two packages register this name: {first} and {point.value}"
        if point.name in broken:
            continue
        try:
            adapters[point.name] = check_adapter(point.load())
        except Exception as error:  # a stranger's module can raise anything at import
            broken[point.name] = f"{point.value}: {type(error).__name__}: {error}"
    return Registry(adapters, broken)


def check_adapter(candidate: object) -> Adapter:
    """The candidate, if it has the members of an adapter; a class stands for what it makes without arguments.

    Raises TypeError naming what it lacks.
    """
    candidate = candidate() if isinstance(candidate, type) else candidate
    members = ("name", "capabilities", "sites", "auth")
    methods = ("build_request", "parse_response", "stream_parser", "classify_error")
    missing = [name for name in members if not hasattr(candidate, name)]
    missing += [name for name in methods if not callable(getattr(candidate, name, None))]
    if missing:
        raise TypeError(f"is no adapter: it lacks {', '.join(missing)}")
    return candidate  # type: ignore[return-value]  # the members were checked; their types can't be
