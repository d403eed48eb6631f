"""The tables of law and place that come with the package (`config/data`): words, numbers, with source and date."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from gateway.model.speech import Show
from providers.territories import parse_places

__all__ = ["KnownLabel", "helplines", "known_currencies", "known_labels", "known_refusals", "units_of"]


@dataclass(frozen=True, slots=True)
class KnownLabel:
    """A label that we know. aigc: whether the law wants the `AIGC` object. must_contain: one word of each group."""

    name: str
    text: Mapping[str, str]
    show: Show
    aigc: bool = False
    must_contain: tuple[tuple[str, ...], ...] = ()


@cache
def _table(name: str) -> dict[str, Any]:
    file = resources.files("gateway.config").joinpath("data", f"{name}.toml")
    return tomllib.loads(file.read_text("utf-8"))


@cache
def known_labels() -> dict[str, KnownLabel]:
    """The labels by name."""
    return {
        name: KnownLabel(
            name,
            entry["text"],
            entry["show"],
            entry.get("aigc", False),
            tuple(tuple(group) for group in entry.get("must_contain", ())),
        )
        for name, entry in _table("labels").items()
        if isinstance(entry, dict)
    }


@cache
def known_refusals() -> dict[str, dict[str, str]]:
    """What a user is told, by error code and language."""
    return {code: texts for code, texts in _table("refusals").items() if isinstance(texts, dict)}


@cache
def helplines() -> dict[str, dict[str, str]]:
    """Whom to call, by territory and kind."""
    table = _table("helplines")
    lines: dict[str, dict[str, str]] = {}
    for word, numbers in table["groups"].items():
        for territory in parse_places([word]).included or ():
            lines[territory] = numbers
    lines.update(table["lines"])
    return lines


def units_of(territory: str) -> str:
    """The system of units of a territory: `metric`, `us` or `uk`."""
    units = _table("places")["units"]
    return next((system for system in ("us", "uk") if territory in units[system]), "metric")


def known_currencies() -> dict[str, str]:
    """Currencies that Babel's data have otherwise, by territory."""
    return {place: code for place, code in _table("places")["currencies"].items() if place != "source"}
