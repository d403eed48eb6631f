"""Territories and sets of them: ISO 3166-1 codes, ISO 3166-2 subdivisions, groups, `*` and exclusions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, slots=True)
class TerritoryData:
    """names: code -> English name; groups: `@EU` -> codes; aliases: codes that people write -> the right one;
    unknown, hidden: what is said instead of a country where nobody knows it, and where somebody hides it. stays: whose
    people's prompts may not leave the territory."""

    names: Mapping[str, str]
    groups: Mapping[str, frozenset[str]]
    aliases: Mapping[str, str]
    unknown: frozenset[str]
    hidden: frozenset[str]
    stays: frozenset[str]


@cache
def territory_data() -> TerritoryData:
    """The world, as `territories.toml` has it."""
    import tomllib  # not at the top: a process that only serves requests parses no facts

    data: Any = tomllib.loads(files(__package__).joinpath("territories.toml").read_text("utf-8"))
    return TerritoryData(
        names=data["names"],
        groups={f"@{name}": frozenset(codes) for name, codes in data["groups"].items()},
        aliases=data["aliases"],
        unknown=frozenset(data["not_a_country"]["unknown"]),
        hidden=frozenset(data["not_a_country"]["hidden"]),
        stays=frozenset(data["stays"]["territories"]),
    )


_SUBDIVISION = re.compile(r"[A-Z]{2}-[A-Z0-9]{1,3}")


EVERYWHERE = "*"


class TerritoryError(ValueError):
    """A word that is no territory; the message says what it could have been."""


def parent(territory: str) -> str | None:
    """The country of a subdivision (`US` of `US-CA`), None for a country."""
    return territory[:2] if len(territory) > 2 else None


def territory_name(territory: str) -> str:
    """The English name of a country, with the code of its part if there is one; the code itself if unknown."""
    data = territory_data()
    name = data.names.get(territory[:2], territory)
    return name if len(territory) == 2 else f"{name} ({territory})"


def parse_territory(word: str) -> str:
    """The territory code that `word` is; raises TerritoryError with the nearest code."""
    data = territory_data()
    if word in data.names or _is_part(word):
        return word
    raise TerritoryError(f"{word!r} is no territory (ISO 3166){_hint(word)}")


def _is_part(word: str) -> bool:
    """Whether it is the code of a part of a country, and not another code of what is a territory itself (CN-HK)."""
    data = territory_data()
    return _SUBDIVISION.fullmatch(word) is not None and word[:2] in data.names and word not in data.aliases


def _hint(word: str) -> str:
    data = territory_data()
    upper = word.upper().strip()
    if upper in data.aliases:
        return f"; did you mean {data.aliases[upper]}?"
    if upper in data.names or _is_part(upper):
        return f"; did you mean {upper}? Codes are upper case"
    if f"@{upper}" in data.groups:
        return f"; did you mean the group @{upper}?"
    from difflib import get_close_matches

    by_name = {name.lower(): code for code, name in data.names.items()}
    if near := get_close_matches(word.lower(), by_name, n=1, cutoff=0.8):
        return f"; did you mean {by_name[near[0]]} ({data.names[by_name[near[0]]]})?"
    return "; write a code, such as DE, or US-CA for a part"


@dataclass(frozen=True, slots=True)
class Places:
    """A set of territories. `included` None means everywhere; `excluded` is taken out of it.

    Sets stay in the operator's words: an excluded part of an included country counts, and so does an
    included part of an excluded one.
    """

    included: frozenset[str] | None
    excluded: frozenset[str] = frozenset()

    @property
    def is_anywhere(self) -> bool:
        """Whether this is the bare `*`, without any exclusion."""
        return self.included is None and not self.excluded

    def contains(self, territory: str) -> bool:
        """Whether the territory is in the set; the most specific entry wins."""
        for code in (territory, parent(territory)):
            if code is None:
                continue
            if code in self.excluded:
                return False
            if self.included is not None and code in self.included:
                return True
        return self.included is None

    def within(self, other: Places) -> bool:
        """Whether every place of this set, parts of countries too, is in the other one."""
        if self.included is None:
            return other.included is None and not any(map(self.contains, other.excluded))
        # A part that the other leaves out may lie in a country that this one names. A country that it leaves out can't
        # be here by a part that it doesn't name itself: the part would have been missed before.
        return all(map(other.contains, self.included)) and not any(map(self.contains, other.excluded))

    def union(self, other: Places) -> Places:
        """What is in either, less only the part that one has of a country that the other leaves out."""
        excluded = frozenset(code for code in self.excluded | other.excluded if self._agree(other, code))
        if self.included is None or other.included is None:
            return Places(None, excluded)
        return Places(self.included | other.included, excluded)

    def _agree(self, other: Places, code: str) -> bool:
        return not self.contains(code) and not other.contains(code)

    def __str__(self) -> str:
        """As an operator writes it: `* but not CN`, `DE, FR`, `any`."""
        if self.is_anywhere:
            return "any"
        minus = ", ".join(sorted(self.excluded))
        if self.included is None:
            return f"any but {minus}"
        shown = _name_groups(self.included)
        return f"{shown} but not {minus}" if minus else shown


ANYWHERE = Places(None)


NOWHERE = Places(frozenset())


def _name_groups(codes: frozenset[str]) -> str:
    """The codes with the largest known group in them named, so that the EEA is one word and not thirty."""
    words: list[str] = []
    rest = codes
    for name, members in sorted(territory_data().groups.items(), key=lambda item: -len(item[1])):
        if members <= rest:
            words.append(name)
            rest -= members
    return ", ".join([*words, *sorted(rest)]) or "nowhere"


def parse_places(words: Iterable[str]) -> Places:
    """The set that a list like `["@EEA", CH]`, `["*", "!CN"]` or `[any]` names; raises TerritoryError."""
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
                    f"{code!r} lies in '!{parent(code)}'; beside '*' no part of it can be let in again"
                )
        return Places(None, frozenset(excluded))
    return Places(frozenset(included - excluded), frozenset(code for code in excluded if parent(code) in included))


def _expand(name: str) -> frozenset[str]:
    if not name.startswith("@"):
        return frozenset({parse_territory(name)})
    groups = territory_data().groups
    if name not in groups:
        raise TerritoryError(f"{name!r} is no group of territories; there are {', '.join(sorted(groups))}")
    return groups[name]
