"""Plug-ins from entry points: what loads, by name, and why the rest doesn't.

A plug-in that doesn't load is remembered with its reason, and stops only what would use it. So is a name that two
packages claim: which of them a prompt goes through must not depend on their order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any, TypeVar

__all__ = ["check_members", "load_group"]

_Plugin = TypeVar("_Plugin")


def load_group(group: str, check: Callable[[object], _Plugin]) -> tuple[dict[str, _Plugin], dict[str, str]]:
    """The installed plug-ins of a group that pass `check`, by name, and for every other name why it has none."""
    loaded: dict[str, _Plugin] = {}
    broken: dict[str, str] = {}
    values: dict[str, str] = {}
    for point in entry_points(group=group):
        first = values.setdefault(point.name, point.value)
        if first != point.value:
            loaded.pop(point.name, None)
            broken[point.name] = f"two packages register this name: {first} and {point.value}"
        if point.name in broken:
            continue
        try:
            loaded[point.name] = check(point.load())
        except Exception as error:  # a stranger's module can raise anything at import
            broken[point.name] = f"{point.value}: {type(error).__name__}: {error}"
    return loaded, broken


def check_members(candidate: object, kind: str, members: Sequence[str], methods: Sequence[str]) -> Any:
    """The candidate, if it has all of these; a class stands for what it makes without arguments.

    Raises TypeError naming what it lacks. The members are checked; their types can't be.
    """
    candidate = candidate() if isinstance(candidate, type) else candidate
    missing = [name for name in members if not hasattr(candidate, name)]
    missing += [name for name in methods if not callable(getattr(candidate, name, None))]
    if missing:
        raise TypeError(f"is no {kind}: it lacks {', '.join(missing)}")
    return candidate
