"""The catalogue's data: every file is valid, and a model's facts are those of its most specific entry."""

import re
from collections import Counter
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

import providers
from providers.adapter import KnownElsewhere, KnowsModels, TakesHeaders
from providers.catalogue import CatalogueError, FactsFile
from providers.catalogue.headers import FixedHeader, headers_of, load_headers
from providers.catalogue.models import UNKNOWN_MODEL, ModelFacts, load_models, model_facts, names_of, plain_name
from providers.catalogue.sites import load_sites
from providers.compatible.adapter import adapter_of
from providers.matching.requirements import FEATURES, IMPLIED, PARAMETERS, moves_data
from providers.registry import load_registry
from providers.territories import parse_places, territory_data
from tests.kit.case_files import cases, tables_of
from tests.providers.adapter_facts import facts_of

ADAPTERS = load_registry().adapters
PROVIDERS = sorted(ADAPTERS)


def models(provider: str) -> Mapping[str, ModelFacts]:
    adapter = ADAPTERS[provider]
    assert isinstance(adapter, KnowsModels)
    return adapter.models


MODELS = [(provider, name) for provider in PROVIDERS for name in models(provider)]
PACKAGE = Path(providers.__file__).parent
FILES = [
    FactsFile(".".join(("providers", *path.relative_to(PACKAGE).parent.parts)), path.stem)
    for path in sorted(PACKAGE.rglob("*.toml"))
]
_TABLES = tables_of(__file__)
NO_PROVIDERS = frozenset(_TABLES["no_providers"])
WITHOUT_MAXIMUM = {name: frozenset(models) for name, models in _TABLES["without_maximum"].items()}
"""The models whose longest answer no vendor states, or about which sources differ. Their calls are capped."""
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


@pytest.mark.parametrize("file", FILES, ids=[file.name for file in FILES])
def test_every_file_reads_and_is_read_once(file: FactsFile) -> None:
    assert file.read() is FactsFile(file.package, file.name).read()


def test_every_file_of_a_provider_has_its_adapter() -> None:
    """Each file is named after the adapter that reads it, and no adapter reads a file of another name."""
    assert {file.name for file in FILES} >= NO_PROVIDERS
    held = [file for file in FILES if file.name not in NO_PROVIDERS]
    assert {file.name: file for file in held} == {name: facts_of(adapter) for name, adapter in ADAPTERS.items()}
    assert len(held) == len(ADAPTERS)


def test_published_lists_name_territories_that_exist() -> None:
    for row in FactsFile("providers.catalogue", "availability").read().values():
        assert isinstance(row, dict)
        assert row.keys() >= {"url", "as_of"}
        listed = parse_places(row["territories"])
        assert listed.included
        assert len(row["territories"]) == len(set(row["territories"]))
        assert {code[:2] for code in listed.excluded} <= listed.included <= territory_data().names.keys()


def test_data_moving_fields_have_a_description() -> None:
    fields = FactsFile("providers.matching", "fields").read()["moves_data"]
    assert isinstance(fields, dict)
    assert fields.keys() == moves_data()
    assert all(isinstance(reason, str) and reason for reason in fields.values())


@pytest.mark.parametrize(("provider", "name"), MODELS)
def test_facts_of_every_model_use_known_names(provider: str, name: str) -> None:
    facts = models(provider)[name]
    adapter = ADAPTERS[provider]
    assert facts.features <= adapter.capabilities.features
    assert facts.without <= PARAMETERS | IMPLIED.keys() | adapter.capabilities.parameters
    assert [effort for effort in EFFORTS if effort in facts.efforts] == list(facts.efforts)
    assert facts.context_tokens is None or facts.context_tokens >= 1024
    assert facts.output_tokens is None or facts.context_tokens is None or facts.output_tokens <= facts.context_tokens
    if facts.efforts:
        assert "reasoning" in facts.features
        assert "reasoning_effort" not in facts.without
    if "image_url" in facts.features:
        assert "vision" in facts.features
    assert facts.features <= FEATURES


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_model_has_a_longest_answer_unless_its_vendor_states_none(provider: str) -> None:
    without = {name for name, facts in models(provider).items() if facts.output_tokens is None}
    assert without == WITHOUT_MAXIMUM.get(provider, frozenset())


@cases("provider", "model", "longest")
def test_longest_answer_of_a_model_is_the_one_that_its_vendor_states(provider: str, model: str, longest: int) -> None:
    assert model_facts(models(provider), model).output_tokens == longest


@pytest.mark.parametrize("provider", PROVIDERS)
def test_no_model_matches_two_entries_that_are_equally_specific(provider: str) -> None:
    names = list(models(provider))
    for name in names:
        sample = name.replace("*", "x")
        lengths = [len(other) for other in names if fnmatchcase(sample, other)]
        assert lengths.count(max(lengths)) == 1


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_adapter_shows_the_catalogues_models_and_sites(provider: str) -> None:
    adapter = ADAPTERS[provider]
    facts = facts_of(adapter)
    assert models(provider) is models(provider)
    assert models(provider) == load_models(facts)
    assert adapter.sites == load_sites(facts)
    assert adapter.name == provider


# --- matching of models ---------------------------------------------------------------------------


def test_the_most_specific_entry_wins() -> None:
    family, line, exact = (ModelFacts(context_tokens=size) for size in (1, 2, 3))
    models = {"g-*": family, "g-5*": line, "g-5.5": exact}
    assert model_facts(models, "g-4") is family
    assert model_facts(models, "g-5-mini") is line
    assert model_facts(models, "g-5.5") is exact
    assert model_facts(models, "g-5.5-mini") is line
    assert model_facts(models, "G-5") is UNKNOWN_MODEL
    assert model_facts({}, "g-5") is UNKNOWN_MODEL


@cases("provider", "row", "names")
def test_names_of_real_models_have_the_row_that_is_meant_for_them(provider: str, row: str, names: str) -> None:
    assert all(model_facts(models(provider), name) is models(provider)[row] for name in names.split())


def test_a_pattern_that_is_longer_only_by_name_does_not_beat_the_exact_one() -> None:
    exact, pattern = ModelFacts(api="exact"), ModelFacts(api="pattern")
    assert model_facts({"m": exact, "m*": pattern, "[m]*": pattern}, "m") is exact


def test_an_unknown_model_has_text_and_tools_only() -> None:
    assert ModelFacts(features=frozenset({"tools"}), known=False) == UNKNOWN_MODEL


@cases("provider", "model", "has", "lacks", "without")
def test_model_has_the_features_of_its_catalogue_entry(
    provider: str, model: str, has: set[str], lacks: set[str], without: set[str]
) -> None:
    facts = model_facts(models(provider), model)
    assert has <= facts.features
    assert not lacks & facts.features
    assert without <= facts.without


# --- other names of a provider --------------------------------------------------------------------

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


# --- headers of an operator -----------------------------------------------------------------------

DECLARED = [
    pytest.param(name, header, id=f"{provider}-{name}")
    for provider, adapter in ADAPTERS.items()
    if isinstance(adapter, TakesHeaders)
    for name, header in adapter.headers.items()
]
SOUND = {"value": "app-[a-z]{1,8}", "about": "what it does", "source": "a page"}


def headers(provider: str) -> Mapping[str, FixedHeader]:
    adapter = ADAPTERS[provider]
    assert isinstance(adapter, TakesHeaders)
    return adapter.headers


def test_adapters_have_exactly_the_reviewed_headers() -> None:
    there_are = {
        name: set(one.headers) for name, one in ADAPTERS.items() if isinstance(one, TakesHeaders) and one.headers
    }
    assert there_are == {
        "dashscope": {"X-DashScope-WorkSpace"},
        "dashscope-compatible": {"X-DashScope-WorkSpace"},
        "qianfan": {"appid"},
    }
    assert headers("dashscope") == headers("dashscope-compatible")


@pytest.mark.parametrize(("name", "header"), DECLARED)
def test_each_header_is_described_and_accepts_only_names(name: str, header: object) -> None:
    assert isinstance(header, FixedHeader)
    assert header.about
    assert header.source
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", header.as_of)
    for wrong in ("", "a b", "a\r\nhost: evil", "https://evil.example", "a" * 300, "ü" * 8, "{}", "app-a\n"):
        assert not header.takes(wrong)


@cases("value", "taken", "refused")
def test_forms(value: str, taken: list[str], refused: list[str]) -> None:
    header = {**headers("dashscope"), **headers("qianfan")}[value]
    assert [header.takes(text) for text in (*taken, *refused)] == [True] * len(taken) + [False] * len(refused)


@cases("name", "row", "complaint")
def test_mistake_in_the_data_is_reported(name: str, row: dict[str, str], complaint: str) -> None:
    with pytest.raises(CatalogueError, match=complaint):
        headers_of({"headers": {name: row}})


def test_declared_facts_equal_the_file() -> None:
    row = SOUND | {"value": "[0-9a-z]{4,8}", "as_of": "2026-11-20"}
    (header,) = headers_of({"headers": {"x-a": row}}).values()
    assert header == FixedHeader("[0-9a-z]{4,8}", "what it does", "a page", "2026-11-20")
    load_headers.cache_clear()
    assert list(load_headers(facts_of(ADAPTERS["qianfan"]))) == ["appid"]


def test_vendor_of_a_plug_in_has_its_own_headers() -> None:
    row = 'name = "acme"\n[dialect]\n[headers.x-acme-team]\nvalue = "team-[a-z]{1,20}"\nabout = "who pays"\nsource = "its page"\n'
    assert list(adapter_of(row).headers) == ["x-acme-team"]
