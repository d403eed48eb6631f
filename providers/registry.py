"""Adapters by name, from entry points (`providers.adapters`): ours come through the same door as strangers'."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import get_args

from providers.adapter import Adapter
from providers.auth import AuthScheme
from providers.plugins import check_members, load_group

__all__ = ["GROUP", "Registry", "check_adapter", "load_registry"]

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
