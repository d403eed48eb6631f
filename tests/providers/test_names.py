"""Other names of providers: each belongs to one provider only."""

from __future__ import annotations

from collections import Counter

import pytest

from providers.adapter import KnownElsewhere
from providers.catalogue import CatalogueError
from providers.catalogue.names import names_of, plain_name
from providers.compatible.adapter import adapter_of
from providers.registry import load_registry
from tests.providers.adapter_facts import facts_of

ADAPTERS = load_registry().adapters
ROW = 'name = "coconut"\nknown_as = ["palm-labs"]\n[dialect]\n'


def known_as(name: str) -> tuple[str, ...]:
    adapter = ADAPTERS[name]
    assert isinstance(adapter, KnownElsewhere)
    return tuple(adapter.known_as)


def test_a_name_belongs_to_one_provider_alone() -> None:
    names = [*ADAPTERS, *(word for name in ADAPTERS for word in known_as(name))]
    assert [name for name, times in Counter(map(plain_name, names)).items() if times > 1] == []


@pytest.mark.parametrize("name", sorted(ADAPTERS))
def test_an_adapter_shows_the_names_of_its_facts_file(name: str) -> None:
    assert known_as(name) == tuple(facts_of(ADAPTERS[name]).read().get("known_as", ()))


def test_vendor_of_a_plug_in_has_names_too() -> None:
    assert adapter_of(ROW).known_as == ("palm-labs",)


@pytest.mark.parametrize("names", ["palm", [1], {"a": 1}, None, [""], ["--"]], ids=repr)
def test_invalid_names_are_refused(names: object) -> None:
    with pytest.raises(CatalogueError, match="known_as"):
        names_of({"known_as": names})
