"""Suggest names that are accepted: of a provider for the name that another gateway uses, and of models."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.deployments import Vendor
from gateway.config.operator_catalogue import provider_hint
from gateway.config.problems import choice_hint, nearest, nearest_names
from providers.adapter import KnownElsewhere
from providers.catalogue.models import UNKNOWN_MODEL
from providers.registry import Registry, load_registry
from tests.kit.case_files import tables_of

REGISTRY = load_registry()
_TABLES = tables_of(__file__)
MEANT = _TABLES["meant"]


@pytest.mark.parametrize(("meant", "word"), [(name, word) for name, words in MEANT.items() for word in words.split()])
def test_name_from_another_gateway_suggests_its_provider(meant: str, word: str) -> None:
    assert provider_hint(word, REGISTRY) == f"did you mean '{meant}'?"


@pytest.mark.parametrize("name", sorted(REGISTRY.adapters))
def test_every_known_foreign_name_suggests_its_provider(name: str) -> None:
    adapter = REGISTRY.adapters[name]
    assert isinstance(adapter, KnownElsewhere)
    for word in adapter.known_as:
        assert provider_hint(word, REGISTRY) == f"did you mean '{name}'?"


@pytest.mark.parametrize("word", ["acme", "bailiann", "", ".", "kim"])
def test_name_similar_to_a_foreign_name_is_not_suggested(word: str) -> None:
    """It may be another vendor's."""
    assert provider_hint(word, REGISTRY).startswith("there are anthropic, anthropic-vertex, ark, azure, ")


def test_a_provider_that_does_not_load_is_named_too() -> None:
    assert provider_hint("coconot", Registry({}, {"coconut": "broken"})) == "did you mean 'coconut'?"
    assert provider_hint("qwen", Registry({}, {})) == "there is none"


@pytest.mark.parametrize("name", sorted(REGISTRY.adapters))
def test_every_model_that_a_hint_may_propose_is_known(name: str) -> None:
    vendor = Vendor(REGISTRY.adapters[name])
    assert not [model for model in vendor.names if vendor.facts(model) is UNKNOWN_MODEL]


@given(st.text(max_size=80), st.sets(st.text(max_size=80)))
def test_hint_never_proposes_the_name_that_is_refused(word: str, names: set[str]) -> None:
    names |= {word, word.upper(), f"{word}s"}
    assert nearest(word, names) != word
    assert word not in nearest_names(word, names)
    assert choice_hint(word, {word}, none="none") == "none"
