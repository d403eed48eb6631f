"""Territories and sets of them: ISO 3166-1 codes, ISO 3166-2 subdivisions, groups, `*` and exclusions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from importlib.resources import files
from itertools import groupby
from typing import Any

from providers.value import Value

_PART = re.compile(r"[A-Z]{2}-[A-Z0-9]{1,3}")
_SHOWN_PARTS = 3
EVERYWHERE = "*"
"""The word for all territories in a list."""


class TerritoryData(Value, frozen=True):
    """The contents of `territories.toml`."""

    names: Mapping[str, str]
    """English names by territory code."""
    groups: Mapping[str, frozenset[str]]
    """Codes by group name, such as `@EU`."""
    aliases: Mapping[str, str]
    """Valid codes by common wrong codes."""
    unknown: frozenset[str]
    """Codes that location sources send if the country is unknown."""
    hidden: frozenset[str]
    """Codes that location sources send if the user hides the country, such as for Tor."""
    stays: frozenset[str]
    """Territories whose law requires that prompts stay inside."""


@cache
def territory_data() -> TerritoryData:
    import tomllib  # imported here, because a process that only serves requests parses no facts

    data: Any = tomllib.loads(files(__package__).joinpath("territories.toml").read_text("utf-8"))
    return TerritoryData(
        names=data["names"],
        groups={f"@{name}": frozenset(codes) for name, codes in data["groups"].items()},
        aliases=data["aliases"],
        unknown=frozenset(data["not_a_country"]["unknown"]),
        hidden=frozenset(data["not_a_country"]["hidden"]),
        stays=frozenset(data["stays"]["territories"]),
    )


@cache
def _upper_parts() -> Mapping[str, str]:
    """Return every part of a country in ISO 3166-2, with the part of the first level that contains it."""
    import tomllib

    data: Any = tomllib.loads(files(__package__).joinpath("subdivisions.toml").read_text("utf-8"))
    upper = {
        f"{country}-{part}": f"{country}-{part}" for country, parts in data["parts"].items() for part in parts.split()
    }
    for part, parts in data["parts_of_parts"].items():
        upper.update({f"{part[:2]}-{name}": part for name in parts.split()})
    return upper


@cache
def _parts() -> Mapping[str, tuple[str, ...]]:
    grouped = groupby(sorted(_upper_parts()), key=parent)
    return {country: tuple(parts) for country, parts in grouped if country is not None}


def parts_of(country: str) -> tuple[str, ...]:
    """Return the codes of all parts of a country, at every level. Empty for a country without parts, such as HK."""
    return _parts().get(country, ())


class TerritoryError(ValueError):
    """A word that is not a territory. The message suggests the territory that was probably meant."""


def parent(territory: str) -> str | None:
    """Return the country of a subdivision (`US` for `US-CA`), or None for a country."""
    return territory[:2] if len(territory) > 2 else None


def may_overlap(part: str, other: str) -> bool:
    """Return whether one of two different parts may contain the other: England (GB-ENG) and London (GB-LND)."""
    upper = _upper_parts()
    return part != other and part in upper and upper[part] == upper.get(other) and upper[part] in (part, other)


def territory_name(territory: str) -> str:
    """Return the English name of a country, followed by the code of a subdivision. An unknown code is returned."""
    data = territory_data()
    name = data.names.get(territory[:2], territory)
    return name if len(territory) == 2 else f"{name} ({territory})"


def parse_territory(word: str) -> str:
    """Return `word` if it is a territory code. Raises TerritoryError with the nearest code."""
    data = territory_data()
    if word in data.names or _is_part(word):
        return word
    raise TerritoryError(f"{word!r} is not a territory (ISO 3166){_hint(word)}")


def _is_part(word: str) -> bool:
    """Return whether the word is the code of a part, but not one of a territory with its own code (CN-HK)."""
    return word in _upper_parts() and word not in territory_data().aliases


def _hint(word: str) -> str:
    data = territory_data()
    upper = word.upper().strip()
    if upper in data.aliases:
        return f"; did you mean {data.aliases[upper]}?"
    if upper in data.names or _is_part(upper):
        return f"; did you mean {upper}? Codes are upper case"
    if f"@{upper}" in data.groups:
        return f"; did you mean the group @{upper}?"
    if upper[:2] in data.names and _PART.fullmatch(upper):
        return f": {data.names[upper[:2]]} has no such part in ISO 3166-2; {_name_parts(upper)}"
    from difflib import get_close_matches

    by_name = {name.lower(): code for code, name in data.names.items()}
    if near := get_close_matches(word.lower(), by_name, n=1, cutoff=0.8):
        return f"; did you mean {by_name[near[0]]} ({data.names[by_name[near[0]]]})?"
    return "; write a code, such as DE, or US-CA for a subdivision"


def _name_parts(unknown: str) -> str:
    """Return the parts that may have been meant, or the country if it has no parts."""
    from difflib import get_close_matches

    country = unknown[:2]
    parts = [part for part in parts_of(country) if _is_part(part)]
    if not parts:
        return f"write {country}"
    shown = get_close_matches(unknown, parts, n=3, cutoff=0.8) or parts[:_SHOWN_PARTS]
    return f"write {country} or one of its {len(parts)} parts, such as {', '.join(shown)}"


class Places(Value, frozen=True):
    """A set of territories. The most specific entry decides.

    The set keeps the codes that the operator wrote. So it can exclude a subdivision of an included country, or include
    a subdivision of an excluded one.

    Examples:
        >>> from providers.contract import parse_places
        >>> places = parse_places(["US", "!US-CA"])
        >>> places.contains("US-NY")
        True
        >>> places.contains("US-CA")
        False
    """

    included: frozenset[str] | None
    """Codes in the set, or None for all territories."""
    excluded: frozenset[str] = frozenset()
    """Codes that are not in the set."""

    @property
    def is_anywhere(self) -> bool:
        """Whether this set is a bare `*` without exclusions."""
        return self.included is None and not self.excluded

    def contains(self, territory: str) -> bool:
        """Return whether the code of a territory is in the set.

        The entry of a subdivision wins over that of its country.
        """
        for code in (territory, parent(territory)):
            if code is None:
                continue
            if code in self.excluded:
                return False
            if self.included is not None and code in self.included:
                return True
        return self.included is None

    def within(self, other: Places) -> bool:
        """Return whether this set is a subset of another one, subdivisions included."""
        if self.included is None:
            return other.included is None and not any(map(self.contains, other.excluded))
        # A subdivision that the other set excludes may lie in a country that this set includes. The reverse needs no
        # check: a subdivision of a country that the other set excludes was found by the first condition.
        return all(map(other.contains, self.included)) and not any(map(self.contains, other.excluded))

    def union(self, other: Places) -> Places:
        """Return the union of two sets.

        A subdivision that only one set includes is lost if the other set excludes its country.
        """
        either = self.excluded | other.excluded
        excluded = frozenset(code for code in either if not self.contains(code) and not other.contains(code))
        if self.included is None or other.included is None:
            return Places(None, excluded)
        return Places(self.included | other.included, excluded)

    def __str__(self) -> str:
        """Return the set in words: `any`, `any but CN`, `DE, FR`, `@EU but not DE`."""
        return _words(self)

    def data(self) -> dict[str, list[str] | None]:
        """Return the set as JSON data: `included` (codes and whole groups, or None for all) and `excluded`."""
        included = None if self.included is None else _with_groups(self.included)
        return {"included": included, "excluded": sorted(self.excluded)}


ANYWHERE = Places(None)
"""The set of all territories."""


NOWHERE = Places(frozenset())
"""The empty set."""


@lru_cache(maxsize=1024)
def _words(places: Places) -> str:
    """Return a set in words. They are remembered, because each receipt has the words of a region's boundary."""
    minus = ", ".join(sorted(places.excluded))
    if places.included is None:
        return f"any but {minus}" if minus else "any"
    shown = ", ".join(_with_groups(places.included)) or "nowhere"
    return f"{shown} but not {minus}" if minus else shown


def _with_groups(codes: frozenset[str]) -> list[str]:
    """Return the codes, in which the name of a group replaces the codes of its members. Larger groups come first."""
    words: list[str] = []
    rest = codes
    for name, members in sorted(territory_data().groups.items(), key=lambda item: -len(item[1])):
        if members <= rest:
            words.append(name)
            rest -= members
    return [*words, *sorted(rest)]


def parse_places(words: Iterable[str]) -> Places:
    """Return the set of territories that a list of words names.

    Raises TerritoryError if a word is not a territory or a group, or includes a part of a country that `*` excludes.

    Args:
        words: Codes (`DE`, `US-CA`), groups (`@EEA`), `*` or `any` for all territories, and each of them with `!` to
            exclude it.

    Examples:
        >>> from providers.contract import parse_places
        >>> str(parse_places(["*", "!CN"]))
        'any but CN'
    """
    included: set[str] = set()
    excluded: set[str] = set()
    everywhere = False
    for word in words:
        if word in (EVERYWHERE, "any"):
            everywhere = True
            continue
        name = word.removeprefix("!")
        codes = _expand(name)
        (excluded if word.startswith("!") else included).update(codes)
    if everywhere:
        for code in sorted(included - excluded):
            if parent(code) in excluded:
                raise TerritoryError(
                    f"{code!r} is in '!{parent(code)}': with '*', a part of an excluded country can't be included"
                )
        return Places(None, frozenset(excluded))
    return Places(frozenset(included - excluded), frozenset(code for code in excluded if parent(code) in included))


def _expand(name: str) -> frozenset[str]:
    if not name.startswith("@"):
        return frozenset({parse_territory(name)})
    groups = territory_data().groups
    if name not in groups:
        raise TerritoryError(f"{name!r} is not a group of territories; expected one of {', '.join(sorted(groups))}")
    return groups[name]
