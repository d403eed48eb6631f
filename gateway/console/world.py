"""The world of the map: the place of each territory, its names, and the territory that a language suggests."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from babel import Locale
from babel.core import get_global

from gateway.console.texts import WORDS, ViewTexts, _
from providers.territories import territory_data
from providers.value import Value

_FOLDER = Path(__file__).parent
_NEAR = 1500.0
_MOST_NEAR = 6
_LEAST_LETTERS = 3
_MOST_NAMED = 6
PINS = ("HK", "MO", "SG", "TW")
"""Territories that are never part of a cluster of the map."""

_ZOOMS: Mapping[str, tuple[str, int, int, float]] = WORDS["parts"]

GROUPS = {"@EU": _("the European Union"), "@EEA": _("the European Economic Area")}


class View(Value, frozen=True):
    """A part of the map. Its name in an address is empty for the whole world, from which `zoom` enlarges distances."""

    name: str
    title: str
    box: str
    zoom: float


class Place(Value, frozen=True):
    """The circle in the largest part of a territory, and the square root of that part's area, which may be 0."""

    x: int
    y: int
    size: int
    radius: int

    @property
    def position(self) -> tuple[int, int]:
        return self.x, self.y


class World(Value, frozen=True):
    """The places of the territories on the map, in its own units. The largest territory is first."""

    width: int
    height: int
    places: Mapping[str, Place]

    def near(self, code: str) -> list[str]:
        """Return the territories whose marks lie so close to this one that they may overlap, the nearest first."""
        if code not in self.places:
            return []
        here = self.places[code].position
        distances = {other: math.dist(here, it.position) for other, it in self.places.items() if other != code}
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
    data: Any = tomllib.loads((_FOLDER / "world.toml").read_text("utf-8"))
    return World(data["width"], data["height"], {code: Place(*values) for code, values in data["places"].items()})


_OF_CHINA = {"CN": "中国内地", "HK": "中国香港", "MO": "中国澳门", "TW": "中国台湾"}
"""The usual names in Chinese texts. CLDR has the country's name for its mainland, and the other three in two forms."""


@cache
def territory_names(language: str = "en") -> Mapping[str, str]:
    """Return the name of each territory, as Unicode CLDR has it."""
    cldr = Locale.parse(language.replace("-", "_")).territories
    names = {code: str(cldr.get(code, name)) for code, name in territory_data().names.items()}
    return names | _OF_CHINA if language.startswith("zh") else names


def name_of(code: str, language: str = "en") -> str:
    """Return the name of a territory; of a part of a country, its country's name and its code."""
    name = territory_names(language).get(code[:2], code)
    return name if len(code) == 2 else f"{name} ({code})"


def places_in(texts: ViewTexts, places: Mapping[str, Any]) -> str:
    """Return the set of territories that `Places.data` describes, with their names. A long list keeps its codes."""
    included, excluded = places["included"], places["excluded"]
    is_long = len([0] if included is None else included) + len(excluded) > _MOST_NAMED

    def listed(codes: Sequence[str]) -> str:
        names = (texts.gettext(GROUPS[it]) if it in GROUPS else name_of(it, texts.language) for it in codes)
        return texts.comma.join(codes if is_long else names)

    if included is None:
        shown, but = texts.gettext(_("any") if is_long else _("anywhere")), _(" but ")
    else:
        shown, but = listed(included) or texts.gettext(_("nowhere")), _(" but not ")
    return f"{shown}{texts.gettext(but)}{listed(excluded)}" if excluded else shown


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


def territory_of_languages(header: str) -> str | None:
    """Return the territory that the first language of a header `Accept-Language` suggests: `de` suggests Germany."""
    for item in header.split(","):
        language, *rest = item.partition(";")[0].strip().replace("_", "-").split("-")
        for code in (part.upper() for part in rest):
            if code in territory_data().names:
                return code
        likely: str = get_global("likely_subtags").get(language.lower(), "")
        if (code := likely.rpartition("_")[2]) in territory_data().names:
            return code
    return None
