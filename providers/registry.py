"""The registry of adapters, and the loading of plug-ins from entry points."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any, TypeVar, get_args

from providers.adapter import Adapter
from providers.auth import AuthScheme

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


GROUP = "providers.adapters"


_MEMBERS = ("name", "capabilities", "sites", "auth")


_METHODS = ("build_request", "parse_response", "stream_parser", "classify_error")


@dataclass(frozen=True, slots=True)
class Registry:
    """Every adapter that loaded, by name, and for every other one why it didn't."""

    adapters: Mapping[str, Adapter]
    broken: Mapping[str, str]


@cache
def load_registry() -> Registry:
    """The installed adapters. An entry point's name is the provider's name in config."""
    adapters, broken = load_group(GROUP, check_adapter)
    for name, adapter in list(adapters.items()):
        if adapter.name != name:  # logs and metrics would have another word for it than the config, perhaps another's
            del adapters[name]
            broken[name] = f"its adapter's name is {adapter.name!r}; it must be the entry point's, {name!r}"
    return Registry(adapters, broken)


def check_adapter(candidate: object) -> Adapter:
    """The candidate, if it has the members of an adapter; raises TypeError naming what it lacks.

    A scheme of its own would pass as `auth` until the first request: nobody could apply it.
    """
    adapter: Adapter = check_members(candidate, "adapter", _MEMBERS, _METHODS)
    auth: object = adapter.auth
    if not isinstance(auth, AuthScheme):
        schemes = ", ".join(scheme.__name__ for scheme in get_args(AuthScheme))
        raise TypeError(f"is no adapter: its auth is {type(auth).__name__}, and must be one of {schemes}")
    return adapter
