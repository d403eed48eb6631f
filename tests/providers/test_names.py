"""Names that providers have elsewhere: each belongs to one provider alone."""

from __future__ import annotations

from collections import Counter

import pytest

from providers.adapter import KnownElsewhere
from providers.catalogue import CatalogueError
from providers.catalogue.names import load_names, names_of, plain_name
from providers.compatible.adapter import adapter_of
from providers.registry import load_registry

ADAPTERS = load_registry().adapters
ROW = 'name = "coconut"\nknown_as = ["palm-labs"]\n[dialect]\n'


def test_a_name_belongs_to_one_provider_alone() -> None:
    names = [*ADAPTERS, *(word for name in ADAPTERS for word in load_names(name))]
    assert [name for name, times in Counter(map(plain_name, names)).items() if times > 1] == []


@pytest.mark.parametrize("name", sorted(ADAPTERS))
def test_an_adapter_shows_the_catalogue_s(name: str) -> None:
    adapter = ADAPTERS[name]
    assert isinstance(adapter, KnownElsewhere)
    assert tuple(adapter.known_as) == load_names(name)


def test_a_row_of_a_stranger_s_has_them_too() -> None:
    assert adapter_of(ROW).known_as == ("palm-labs",)


@pytest.mark.parametrize("names", ["palm", [1], {"a": 1}, None, [""], ["--"]], ids=repr)
def test_what_are_no_names_is_refused(names: object) -> None:
    with pytest.raises(CatalogueError, match="known_as"):
        names_of({"known_as": names})
