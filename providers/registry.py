"""The registry of adapters, and the loading of plug-ins from entry points."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import Any, TypeVar, get_args

from providers.adapter import Adapter, KnowsOffers
from providers.auth import AuthScheme
from providers.catalogue import CatalogueError
from providers.value import Value

_Plugin = TypeVar("_Plugin")
GROUP = "providers.adapters"
_MEMBERS = ("name", "capabilities", "sites", "auth")
_METHODS = ("build_request", "parse_response", "stream_parser", "classify_error")


def load_group(group: str, check: Callable[[object], _Plugin]) -> tuple[dict[str, _Plugin], dict[str, str]]:
    """Return the installed plug-ins of a group that pass `check`, and the reason for each that does not, by name."""
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
        except Exception as error:  # the module of a plug-in can raise anything at import
            broken[point.name] = f"{point.value}: {type(error).__name__}: {error}"
    return loaded, broken


def check_members(candidate: object, kind: str, members: Sequence[str], methods: Sequence[str]) -> Any:
    """Return the candidate if it has all members and methods. A class is called without arguments first.

    Raises TypeError with the names of missing ones. Types are not checked.
    """
    candidate = candidate() if isinstance(candidate, type) else candidate
    missing = [name for name in members if not hasattr(candidate, name)]
    missing += [name for name in methods if not callable(getattr(candidate, name, None))]
    if missing:
        raise TypeError(f"is not a valid {kind}: it lacks {', '.join(missing)}")
    return candidate


class Registry(Value, frozen=True):
    """The adapters that loaded, and the reason for each that did not, by name."""

    adapters: Mapping[str, Adapter]
    broken: Mapping[str, str]


@cache
def load_registry() -> Registry:
    """Return the installed adapters. An entry point's name is the provider's name in configurations."""
    adapters, broken = load_group(GROUP, check_adapter)
    for name, adapter in list(adapters.items()):
        if adapter.name != name:
            # Logs and metrics would use another name than the configuration, perhaps that of another provider.
            del adapters[name]
            broken[name] = f"the adapter's name is {adapter.name!r}; it must be the entry point's name, {name!r}"
            continue
        try:
            # Prices and retirements are read now, so that a wrong one is reported here, not during a compilation.
            _ = adapter.offers if isinstance(adapter, KnowsOffers) else None
        except CatalogueError as error:
            del adapters[name]
            broken[name] = f"its facts file is invalid: {error}"
    return Registry(adapters, broken)


def check_adapter(candidate: object) -> Adapter:
    """Return the candidate if it has the members of an adapter, or what it makes if it is a class.

    `auth` is checked too, because an unknown scheme would fail only at the first request. Raises TypeError if members
    are missing, or `auth` is not an `AuthScheme`.
    """
    adapter: Adapter = check_members(candidate, "adapter", _MEMBERS, _METHODS)
    auth: object = adapter.auth
    if not isinstance(auth, AuthScheme):
        schemes = ", ".join(scheme.__name__ for scheme in get_args(AuthScheme))
        raise TypeError(f"is not a valid adapter: its auth is {type(auth).__name__}; expected one of {schemes}")
    return adapter
