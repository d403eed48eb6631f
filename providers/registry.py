"""Adapters by name, from entry points (`providers.adapters`): ours come through the same door as strangers'."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from providers.adapter import Adapter
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
    return Registry(*load_group(GROUP, check_adapter))


def check_adapter(candidate: object) -> Adapter:
    """The candidate, if it has the members of an adapter; raises TypeError naming what it lacks."""
    adapter: Adapter = check_members(candidate, "adapter", _MEMBERS, _METHODS)
    return adapter
