"""`gateway check` names the oldest fact of a vendor, and warns about old facts and facts without a source."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from gateway.config.check_report import render_matrix
from gateway.config.compile import Compiled
from providers.compatible.adapter import adapter_of
from providers.registry import load_registry
from tests.gateway.config.catalogue_files import load
from tests.kit.config_cases import compiled, sections

_ACME = """
name = "acme"
[dialect]
[sites.oslo]
origin = "https://api.acme.example"
base_path = "/v1"
stores = ["NO"]
processes = ["NO"]
"""
_SOURCE = """source = "page"
[sources.page]
url = "https://acme.example/regions"
quote = "in Norway"
as_of = {}
"""


def _check(toml: str) -> Compiled:
    registry = load_registry()
    registry = replace(registry, adapters={**registry.adapters, "acme": adapter_of(toml)})
    text = sections(
        cell="",
        blocked="",
        assistants="assistants: {a: {routes: {no: [x, y]}}}",
        regions="regions: {no: {territories: [NO], boundary: [NO]}}",
        deployments="deployments: {x: {provider: acme, model: m, endpoint: oslo, api_key: k}, "
        "y: {provider: acme, model: n, endpoint: oslo, api_key: k}}",
    )
    return compiled(text, registry=registry)


def _warnings(toml: str) -> list[str]:
    return [str(one).partition("warning: ")[2] for one in _check(toml).warnings if "relies on a fact" in one.message]


def test_plug_in_site_without_a_source_is_one_warning() -> None:
    assert _warnings(_ACME) == [
        "deployments.x: relies on a fact without a complete source: the site acme oslo has no url, quote, as_of; "
        "update the provider's package; from 2.0 on, such a fact is refused"
    ]


def test_fact_older_than_a_year_is_one_warning() -> None:
    assert _warnings(_ACME + _SOURCE.format("2024-01-31")) == [
        "deployments.x: relies on a fact older than a year: the site acme oslo, as of 2024-01-31 "
        "(https://acme.example/regions); read its source again, or update the gateway; "
        "your own catalogue can replace prices and retirements"
    ]
    today = datetime.now(UTC).date()
    assert _warnings(_ACME + _SOURCE.format(today)) == []


def test_check_names_the_oldest_fact_and_the_unconfirmed_ones() -> None:
    toml = _ACME + _SOURCE.format("2024-01-31") + 'unconfirmed = "the place of storage"\n'
    shown = render_matrix(_check(toml).config).partition("\nfacts of the vendors\n")[2]
    assert shown == (
        "  oldest: the site acme oslo, as of 2024-01-31 (https://acme.example/regions)\n"
        "  unconfirmed: the site acme oslo: the place of storage"
    )


def test_operators_own_price_needs_no_page_but_grows_old(tmp_path: Path) -> None:
    def warned(as_of: str) -> list[str]:
        price = f"{{input: 1, output: 2, currency: USD, as_of: {as_of}, source: contract 7}}"
        found = load(tmp_path, f"version: 1\nmodels: {{openai-compatible: {{m: {{price: {price}}}}}}}").warnings
        return [f"{one.message}; {one.hint}" for one in found if "relies on a fact" in one.message]

    assert warned("2026-11-01") == []
    assert warned("2024-11-01") == [
        "relies on a fact older than a year: the price of openai-compatible m at https://llm.example.com, "
        "as of 2024-11-01 (contract 7); read its source again, and set `as_of` in your own catalogue"
    ]


def test_fee_of_a_vendor_that_is_never_charged_is_warned_of() -> None:
    price = 'models = ["m"]\ninput = 1\noutput = 1\ncurrency = "EUR"\nas_of = 2026-11-01\nsource = "page"\n'
    found = _check(f"{_ACME}{_SOURCE.format('2026-11-01')}[[prices]]\n{price}tool_calls = {{web_serch = 0.01}}\n")
    (warning,) = [str(one).partition("warning: ")[2] for one in found.warnings if "fee" in one.message]
    assert warning == (
        "deployments.x.model: its fee for 'web_serch' is never charged, because no known request field has this name; "
        "did you mean 'web_search'?"
    )
