"""The texts of labels and refusals, the numbers of helplines, and the ends of laws that the gateway brings."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import date
from functools import cache
from importlib import resources
from typing import Any

from gateway.model.region_text import Show
from gateway.model.units import parse_age_s
from providers.territories import parse_places
from providers.value import Value


@cache
def table(name: str) -> dict[str, Any]:
    """Return a table of the folder `data`."""
    return tomllib.loads(resources.files("gateway.config").joinpath("data", f"{name}.toml").read_text("utf-8"))


class KnownLabel(Value, frozen=True):
    """A built-in label."""

    name: str
    text: Mapping[str, str]
    show: Show
    aigc: bool = False
    """Whether the law requires the `AIGC` object."""
    must_contain: tuple[tuple[str, ...], ...] = ()
    """The text must contain one word of each group."""
    repeat_s: float | None = None
    """After how long it is shown again, or None if it is not."""
    repeat_text: Mapping[str, str] = {}
    """Its text where it is shown again. Empty if that is `text`."""


@cache
def known_labels() -> dict[str, KnownLabel]:
    """Return the built-in labels by name."""
    return {
        name: KnownLabel(
            name,
            entry["text"],
            entry["show"],
            entry.get("aigc", False),
            tuple(tuple(group) for group in entry.get("must_contain", ())),
            parse_age_s(entry["repeat"]) if "repeat" in entry else None,
            entry.get("repeat_text", {}),
        )
        for name, entry in table("labels").items()
        if isinstance(entry, dict)
    }


@cache
def law_ends() -> dict[str, tuple[date, str]]:
    """Return the first day without a law, by label, and what follows. A label with a law that does not end has none."""
    rows = table("laws")["laws"]
    labels = {name for row in rows for name in row.get("labels", ())}
    of_label = {name: [row for row in rows if name in row.get("labels", ())] for name in labels}
    last = {name: max(some, key=lambda row: row.get("ends", date.max)) for name, some in of_label.items()}
    return {name: (row["ends"], row.get("instead", "")) for name, row in last.items() if "ends" in row}


@cache
def known_refusals() -> dict[str, dict[str, str]]:
    """Return the built-in texts of refusals by error code and language."""
    return {code: texts for code, texts in table("refusals").items() if isinstance(texts, dict)}


@cache
def helplines() -> dict[str, dict[str, str]]:
    """Return the emergency numbers by territory and kind."""
    rows = table("helplines")
    lines: dict[str, dict[str, str]] = {}
    for word, numbers in rows["groups"].items():
        for territory in parse_places([word]).included or ():
            lines[territory] = numbers
    lines.update(rows["lines"])
    return lines


def units_of(territory: str) -> str:
    """Return the system of units of a territory: `metric`, `us` or `uk`."""
    units = table("places")["units"]
    return next((system for system in ("us", "uk") if territory in units[system]), "metric")
