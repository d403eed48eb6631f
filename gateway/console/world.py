"""The world of the map: the position of each territory, its names, and the shapes of regions."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from babel import Locale

from providers.territories import territory_data

FOLDER = Path(__file__).parent
SHAPES: Mapping[str, str] = {
    "circle": "M-9,0a9,9 0 1,0 18,0a9,9 0 1,0 -18,0z",
    "square": "M-8,-8h16v16h-16z",
    "triangle": "M0,-10.5l10,18h-20z",
    "diamond": "M0,-11.5l11.5,11.5l-11.5,11.5l-11.5,-11.5z",
    "plus": "M-3.5,-10h7v6.5h6.5v7h-6.5v6.5h-7v-6.5h-6.5v-7h6.5z",
    "hexagon": "M-5,-9h10l5.5,9l-5.5,9h-10l-5.5,-9z",
    "wedge": "M0,10.5l10,-18h-20z",
    "bar": "M-11,-5h22v10h-22z",
}
"""The outline of each shape around its centre. A region has a shape too, so nothing depends on colour alone."""

CROSS = "M-8,-4.5L-4.5,-8L0,-3.5L4.5,-8L8,-4.5L3.5,0L8,4.5L4.5,8L0,3.5L-4.5,8L-8,4.5L-3.5,0z"
"""The outline of a territory that gets no answer."""

_NEAR = 150.0
_MOST_NEAR = 6
_LEAST_LETTERS = 3
_ZOOMS: Mapping[str, tuple[str, int, int, float]] = {
    "europe": ("Europe", 5330, 760, 6.0),
    "africa": ("Africa", 5420, 2280, 2.6),
    "middle-east": ("Middle East", 6180, 1370, 6.0),
    "asia": ("South and East Asia", 7750, 1450, 3.2),
    "pacific": ("Oceania", 9000, 2900, 3.2),
    "north-america": ("North America", 2750, 1000, 2.3),
    "caribbean": ("Caribbean", 3160, 1830, 9.0),
    "south-america": ("South America", 3500, 2950, 2.4),
}


@dataclass(frozen=True, slots=True)
class View:
    """A part of the map.

    Attributes:
        name: Its name in an address; empty for the whole world.
        title: Its name on the page.
        box: The value of `viewBox`.
        zoom: How much larger than on the whole map a distance is.
    """

    name: str
    title: str
    box: str
    zoom: float


@dataclass(frozen=True, slots=True)
class World:
    """The positions of the territories on the map, in its own units."""

    width: int
    height: int
    points: Mapping[str, tuple[int, int]]

    def near(self, code: str) -> list[str]:
        """Return the territories whose marks lie so close to this one that they may overlap, the nearest first."""
        if code not in self.points:
            return []
        here = self.points[code]
        distances = {other: math.dist(here, point) for other, point in self.points.items() if other != code}
        return sorted((other for other in distances if distances[other] < _NEAR), key=lambda it: distances[it])[
            :_MOST_NEAR
        ]

    def views(self) -> Mapping[str, View]:
        """Return the parts of the map by name. The whole world is first."""
        views = {"": View("", "World", f"0 0 {self.width} {self.height}", 1.0)}
        for name, (title, x, y, zoom) in _ZOOMS.items():
            width, height = self.width / zoom, self.height / zoom
            left = min(max(x - width / 2, 0), self.width - width)
            top = min(max(y - height / 2, 0), self.height - height)
            views[name] = View(name, title, f"{left:.0f} {top:.0f} {width:.0f} {height:.0f}", zoom)
        return views


@cache
def world() -> World:
    """Return the contents of `points.toml`."""
    data: Any = tomllib.loads((FOLDER / "points.toml").read_text("utf-8"))
    return World(data["width"], data["height"], {code: (x, y) for code, (x, y) in data["points"].items()})


@cache
def territory_names() -> Mapping[str, str]:
    """Return the English name of each territory, as Unicode CLDR has it."""
    cldr = Locale("en").territories
    return {code: str(cldr.get(code, name)) for code, name in territory_data().names.items()}


def name_of(code: str) -> str:
    """Return the name of a territory; of a part of a country, its country's name and its code."""
    name = territory_names().get(code[:2], code)
    return name if len(code) == 2 else f"{name} ({code})"


@cache
def _codes_by_name() -> Mapping[str, str]:
    """Return the codes of territories by every name of them in lower case, in English and Chinese."""
    english, chinese = territory_names(), Locale("zh").territories
    codes = {name.casefold(): code for code, name in territory_data().names.items()}
    codes |= {str(chinese[code]).casefold(): code for code in english if code in chinese}
    return codes | {name.casefold(): code for code, name in english.items()}


def find_territory(text: str) -> str | None:
    """Return the territory that a person means by a code or a name; None if there is none, or more than one."""
    wanted = " ".join(text.split())
    code = territory_data().aliases.get(wanted.upper(), wanted.upper())
    if code in territory_data().names or (len(code) > 3 and code[:2] in territory_data().names and code[2] == "-"):
        return code
    names, word = _codes_by_name(), wanted.casefold()
    if word in names:
        return names[word]
    # A Chinese name has few characters.
    if len(word) < (_LEAST_LETTERS if word.isascii() else 1):
        return None
    for matches in (str.startswith, str.__contains__):
        found = {code for name, code in names.items() if matches(name, word)}
        if found:
            return found.pop() if len(found) == 1 else None
    return None
