"""Sets of territories are compared with a model that lists every territory of a small world."""

import itertools
import tomllib
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.territories import (
    ANYWHERE,
    NOWHERE,
    Places,
    TerritoryError,
    may_overlap,
    parent,
    parse_places,
    parse_territory,
    parts_of,
    territory_data,
    territory_name,
)
from scripts.subdivisions import PATH, VERSION, subdivisions_text
from tests.kit.case_files import cases
from tests.kit.chat_strategies import unhurried
from tests.kit.example_counts import examples

# A country's own code stands for the rest of it. A subdivision in no set represents all that are not named.
COUNTRIES = ("US", "CN", "DE")
PARTS = ("US-CA", "US-NY", "CN-BJ")
WORLD = (*COUNTRIES, *PARTS, "US-ZZ", "CN-ZZ", "DE-ZZ", "FR", "FR-ZZ")

codes = st.sampled_from([*COUNTRIES, *PARTS])
written = st.lists(st.one_of(codes, codes.map(lambda code: f"!{code}"), st.just("*")), max_size=6)
parsed = written.filter(lambda words: not lets_in_again(words)).map(parse_places)
built = st.builds(Places, st.none() | st.frozensets(codes, max_size=4), st.frozensets(codes, max_size=3))


def lets_in_again(words: list[str]) -> bool:
    """Whether the list includes a part of a country that it excludes from `*`, which a set cannot express."""
    return "*" in words and any(f"!{parent(word)}" in words and f"!{word}" not in words for word in words)


def members(places: Places) -> set[str]:
    return {place for place in WORLD if places.contains(place)}


def meaning(words: Iterable[str]) -> set[str]:
    """Return the territories of a list: the most specific matching word decides, and `!` wins over the plain word."""
    found = set()
    for place in WORLD:
        for name in (place, parent(place), "*"):
            if f"!{name}" in words:
                break
            if name in words:
                found.add(place)
                break
    return found


@settings(unhurried, max_examples=examples(500))
@given(written)
def test_most_specific_word_of_a_list_decides(words: list[str]) -> None:
    if lets_in_again(words):
        with pytest.raises(TerritoryError, match="can't be included"):
            parse_places(words)
    else:
        assert members(parse_places(words)) == meaning(words)


@settings(unhurried, max_examples=examples(500))
@given(parsed, parsed)
def test_within_is_inclusion_of_every_place(inner: Places, outer: Places) -> None:
    assert inner.within(outer) == (members(inner) <= members(outer) and covers_unnamed(inner, outer))


def covers_unnamed(inner: Places, outer: Places) -> bool:
    """Whether the countries that no list names are covered too. FR represents them in the model."""
    return inner.included is not None or outer.included is None


@settings(unhurried, max_examples=examples(500))
@given(built, built)
def test_within_is_never_true_for_a_territory_outside(inner: Places, outer: Places) -> None:
    if inner.within(outer):
        assert members(inner) <= members(outer)


@unhurried
@given(parsed, parsed, parsed)
def test_within_is_an_order(a: Places, b: Places, c: Places) -> None:
    assert a.within(a)
    assert NOWHERE.within(a)
    assert a.within(ANYWHERE)
    if a.within(b) and b.within(c):
        assert a.within(c)
    if a.within(b) and b.within(a):
        assert members(a) == members(b)


@settings(unhurried, max_examples=examples(500))
@given(parsed, parsed)
def test_union_contains_the_territories_of_both_sets(a: Places, b: Places) -> None:
    both = a.union(b)
    either = members(a) | members(b)
    assert members(both) == members(b.union(a))
    assert members(both) <= either
    missing = either - members(both)
    assert all(parent(place) in a.excluded | b.excluded for place in missing)
    if not a.excluded and not b.excluded:
        assert not missing
    assert members(a.union(a)) == members(a)
    assert members(a.union(NOWHERE)) == members(a)


@unhurried
@given(parsed)
def test_anywhere_fits_only_a_bare_star(places: Places) -> None:
    assert ANYWHERE.within(places) == places.is_anywhere
    assert places.is_anywhere == (members(places) == set(WORLD))


@cases("words", "place", "inside")
def test_list_contains_the_expected_places(words: list[str], place: str, inside: bool) -> None:
    assert parse_places(words).contains(place) is inside


@cases("inner", "outer", "inside")
def test_places_are_within_larger_places(inner: list[str], outer: list[str], inside: bool) -> None:
    assert parse_places(inner).within(parse_places(outer)) is inside


@cases("words", "shown")
def test_sets_are_shown_as_an_operator_writes_them(words: list[str], shown: str) -> None:
    assert str(parse_places(words)) == shown


@cases("words", "included", "excluded")
def test_sets_are_data_with_groups(words: list[str], included: list[str] | None, excluded: list[str]) -> None:
    assert parse_places(words).data() == {"included": included, "excluded": excluded}


@pytest.mark.parametrize("word", ["US", "XK", "HK", "US-CA", "UA-09", "GB-ENG", "CN-BJ"])
def test_valid_codes_are_unchanged(word: str) -> None:
    assert parse_territory(word) == word


@cases("word", "hint")
def test_unknown_territory_is_reported_with_a_suggestion(word: str, hint: str | None) -> None:
    with pytest.raises(TerritoryError) as caught:
        parse_territory(word)
    message = str(caught.value)
    assert message.startswith(f"{word!r} is not a territory (ISO 3166)")
    assert message.endswith(hint or "(ISO 3166); write a code, such as DE, or US-CA for a subdivision")


@pytest.mark.parametrize("words", [["@Europe"], ["!@Europe"], ["US", "@eu"], ["!UK"], ["!!US"], ["!*"], ["!any"]])
def test_a_list_with_a_wrong_word_is_refused(words: list[str]) -> None:
    with pytest.raises(TerritoryError):
        parse_places(words)


def test_unknown_group_is_reported_with_the_known_groups() -> None:
    with pytest.raises(TerritoryError, match="'@Europe' is not a group of territories; expected one of @EEA, @EU"):
        parse_places(["@Europe"])


def test_names_are_for_people() -> None:
    assert territory_name("CN") == "mainland China"
    assert territory_name("US-CA") == "United States (US-CA)"
    assert territory_name("QQ") == "QQ"


def test_parents() -> None:
    assert [parent(code) for code in ("US", "US-CA", "GB-ENG")] == [None, "US", "GB"]


def test_mainland_hong_kong_macao_and_taiwan_are_separate_territories() -> None:
    for one, other in itertools.permutations(("CN", "HK", "MO", "TW"), 2):
        assert not parse_places([one]).within(parse_places([other]))
        assert territory_name(one) != territory_name(other)


def test_the_data_of_the_world() -> None:
    data = territory_data()
    assert len(data.groups["@EU"]) == 27
    assert data.groups["@EEA"] - data.groups["@EU"] == {"IS", "LI", "NO"}
    assert all(codes <= data.names.keys() for codes in data.groups.values())
    # One that had none or one would be named in place of nothing, or of a code.
    assert all(len(codes) > 1 for codes in data.groups.values())
    assert set(data.aliases.values()) <= data.names.keys()
    assert not data.names.keys() & (data.aliases.keys() | data.unknown | data.hidden)
    assert all(len(code) == 2 and code.isupper() for code in data.names)
    assert len(set(data.names.values())) == len(data.names)


def test_every_place_has_one_code() -> None:
    """A part of a country with its own territory code has one valid spelling."""
    data = territory_data()
    assert {"CN-HK": "HK", "CN-MO": "MO", "CN-TW": "TW", "US-PR": "PR"}.items() <= data.aliases.items()
    for other, code in data.aliases.items():
        assert parse_territory(code) == code
        with pytest.raises(TerritoryError, match=f"did you mean {code}"):
            parse_territory(other)


@cases("word", "hint")
def test_unknown_part_of_a_country_is_refused_with_its_parts(word: str, hint: str) -> None:
    with pytest.raises(TerritoryError) as caught:
        parse_territory(word)
    assert hint in str(caught.value)


def test_each_part_of_the_data_belongs_to_a_country_of_ours() -> None:
    names = territory_data().names
    parts = [part for country in names for part in parts_of(country)]
    assert len(parts) > 4900
    assert all(parse_territory(part) == part for part in parts if part not in territory_data().aliases)
    # Replaced codes and codes of FIPS 10-4 are not parts.
    assert not {"FR-A", "CN-11", "UA-11", "US-06", "UA-99"} & set(parts)
    assert {"FR-IDF", "FR-75C", "GB-ENG", "GB-LND", "UA-43", "US-CA"} <= set(parts)


def test_a_part_may_overlap_only_with_parts_that_contain_it() -> None:
    assert may_overlap("GB-ENG", "GB-LND")
    assert may_overlap("GB-LND", "GB-ENG")
    for part, other in (("GB-LND", "GB-MAN"), ("GB-SCT", "GB-LND"), ("UA-43", "UA-43"), ("US-CA", "US-NY")):
        assert not may_overlap(part, other)


# --- the file of subdivisions ---------------------------------------------------------------------

_CONTAINMENT = {
    "supplemental": {
        "subdivisionContainment": {
            "GB": {"_contains": ["gbsct", "gbeng"]},
            "gbeng": {"_contains": ["gblnd"]},
            "NO": {"_contains": ["no23", "no50"]},
        }
    }
}
_ALIASES = {
    "supplemental": {
        "metadata": {
            "alias": {
                "subdivisionAlias": {
                    "no23": {"_reason": "deprecated", "_replacement": "no50"},
                    "gbsct": {"_reason": "overlong", "_replacement": "XS"},
                }
            }
        }
    }
}


def test_file_has_the_parts_of_each_level_without_replaced_codes() -> None:
    text = subdivisions_text("1.2.3", _CONTAINMENT, _ALIASES, "LICENCE\n\nof the data\n")
    assert tomllib.loads(text) == {
        "cldr": "1.2.3",
        "parts": {"GB": "ENG SCT", "NO": "50"},
        "parts_of_parts": {"GB-ENG": "LND"},
    }
    assert "# LICENCE\n#\n# of the data\n" in text


def test_file_of_the_project_is_from_the_version_of_the_script_and_has_its_licence() -> None:
    text = PATH.read_text("utf-8")
    assert tomllib.loads(text)["cldr"] == VERSION
    assert "UNICODE LICENSE V3" in text
    assert "SPDX-License-Identifier: Unicode-3.0" in text
