"""The pages of providers and models list everything that the adapters declare."""

import time

import pytest

from gateway.cli.provider_pages import deployments_text, is_unconfirmed, models_page, models_text, providers_page
from providers.adapter import Adapter, KnowsModels, KnowsOffers, TakesHeaders
from providers.matching.requirements import FEATURES, PARAMETERS
from providers.registry import load_registry
from tests.kit.configs import BASE, table_of

ADAPTERS = load_registry().adapters


def table_below(heading: str) -> list[dict[str, str]]:
    """Return the table of a section of the page. A row maps column titles to cells."""
    section = providers_page(ADAPTERS).partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    head, _, *rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(head, row, strict=True)) for row in rows]


@pytest.mark.parametrize(
    ("heading", "words", "claimed"),
    [
        ("Features", FEATURES, lambda adapter: adapter.capabilities.features),
        ("Parameters", PARAMETERS, lambda adapter: adapter.capabilities.parameters & PARAMETERS),
    ],
    ids=["features", "parameters"],
)
def test_row_lists_the_capabilities_of_its_adapter(heading: str, words: frozenset[str], claimed: object) -> None:
    rows = table_below(heading)
    listed = {row["provider"]: {word for word in words if row[word] in ("yes", "emulated")} for row in rows}
    assert callable(claimed)
    assert listed == {name: claimed(adapter) for name, adapter in ADAPTERS.items()}


def test_unconfirmed_providers_are_listed() -> None:
    listed = {row["provider"] for row in table_below("Unconfirmed providers")}
    assert listed == {name for name, adapter in ADAPTERS.items() if is_unconfirmed(adapter)}


def test_each_site_has_a_row_with_its_facts() -> None:
    rows = {(row["provider"], row["endpoint"]): row for row in table_below("Sites")}
    sites = {(name, site.name): site for name, adapter in ADAPTERS.items() for site in adapter.sites.values()}
    assert rows.keys() == sites.keys()
    for key, site in sites.items():
        row = rows[key]
        assert row["stores"] == str(site.residency.stores)
        assert row["processes"] == str(site.residency.processes)
        assert row["key variable"] == site.api_key_env
        assert all(word in row["requires"] for one in site.requires for word in one)
        assert bool(row["exceptions"]) == bool(site.scopes or site.excepts)
    assert rows["openai", "eu"]["requires"] == "zdr or mam"
    assert rows["deepseek", "cn"]["serves"] == "CN"


def test_providers_without_sites_are_listed() -> None:
    page = providers_page(ADAPTERS)
    last = page.partition("\n## Headers")[0].splitlines()[-1]
    without: list[Adapter] = [adapter for adapter in ADAPTERS.values() if not adapter.sites]
    assert last == ", ".join(sorted(f"`{adapter.name}`" for adapter in without)) + "."


def test_every_allowed_header_has_a_row() -> None:
    rows = {(row["provider"], row["header"]): row for row in table_below("Headers")}
    for name, adapter in ADAPTERS.items():
        assert isinstance(adapter, TakesHeaders)
        for header, rule in adapter.headers.items():
            row = rows.pop((name, header))
            assert (row["effect"], row["format"]) == (rule.about, rule.value)
    assert not rows


def test_each_site_and_list_has_a_row_with_its_source() -> None:
    rows = {
        (row["provider"], fact.strip("`")): row for row in table_below("Sources") for fact in row["facts"].split(", ")
    }
    for name, adapter in ADAPTERS.items():
        for site in adapter.sites.values():
            row = rows[name, f"site `{site.name}"]
            assert (row["as of"], row["source"].strip("<>")) == (str(site.citation.as_of), site.citation.source)
            assert row["quotation"] == site.citation.quote
            assert row["unconfirmed"] == site.citation.unconfirmed.strip("`")
            if site.availability.citation is not None:
                listed = rows[name, f"list of territories `{site.availability.listed_as}"]
                assert listed["as of"] == str(site.availability.citation.as_of)


ADAPTERS = load_registry().adapters


def test_every_model_price_and_retirement_has_a_row() -> None:
    page, text = models_page(ADAPTERS), models_text(ADAPTERS)
    rows = sum(len(adapter.models) for adapter in ADAPTERS.values() if isinstance(adapter, KnowsModels))
    for adapter in ADAPTERS.values():
        if isinstance(adapter, KnowsOffers):
            rows += len(adapter.offers.prices) + len(adapter.offers.retirements)
    assert page.count("\n| `") == rows
    assert len(text.splitlines()) == rows + 3 + 2
    assert all(line == line.rstrip() for line in text.splitlines())
    assert "| `moonshot` | `kimi-k3` | cn | CNY 20.00 | 2.00 | 20.00 | 100.00 | | 2026-07-18 |" in page
    assert "272000: 0.20, 0.02, 0.25, 0.75" in page
    assert "us +10 %" in page


def test_each_deployment_has_a_row() -> None:
    table = table_of(BASE)
    head, *rows = deployments_text(table.deployments.values(), time.time()).splitlines()
    assert head.split()[:4] == ["deployment", "provider", "model", "prompt"]
    [qwen] = [row for row in rows if row.startswith("qwen-cn ")]
    assert qwen.split()[1:7] == ["dashscope", "qwen-plus", "1000000", "CNY", "0.80", "0.16"]
