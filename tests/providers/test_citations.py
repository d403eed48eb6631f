"""Each fact of this repository has a source, a quotation and a day, or a reason why it is unconfirmed."""

import tomllib
from datetime import date

import pytest

from providers.catalogue import CatalogueError, FactsFile
from providers.catalogue.prices import offers_of
from providers.catalogue.sites import sites_of
from providers.evidence import Citation
from tests.kit.case_files import cases

_SOURCE = """
[sources.page]
url = "https://a.example/regions"
quote = "data stays in Norway"
as_of = 2026-11-20
"""
_SITE = """
[sites.oslo]
origin = "https://api.a.example"
base_path = "/v1"
stores = ["NO"]
processes = ["NO"]
source = "page"
"""
_PRICE = """
[[prices]]
models = ["m"]
input = 1
output = 2
currency = "EUR"
source = "page"
"""
_RETIREMENT = '[[retirements]]\nmodels = ["m"]\non = 2027-01-01\nsource = "page"\n'
_PAGE = Citation("https://a.example/regions", "data stays in Norway", date(2026, 11, 20))


def test_fact_takes_the_citation_of_the_source_that_it_names() -> None:
    data = tomllib.loads(_SOURCE + _SITE + _PRICE + _RETIREMENT)
    offers = offers_of(data, required=True)
    assert sites_of(data, required=True)["oslo"].citation == _PAGE
    assert offers.prices[0].price.citation == offers.retirements[0].citation == _PAGE


def test_fact_may_replace_a_part_of_its_source() -> None:
    data = tomllib.loads(_SOURCE + _SITE + 'quote = "Oslo"\nas_of = 2026-11-21\nunconfirmed = "the host"\n')
    expected = Citation("https://a.example/regions", "Oslo", date(2026, 11, 21), "the host")
    assert sites_of(data, required=True)["oslo"].citation == expected


def test_scope_may_have_a_source_of_its_own() -> None:
    scope = '[[sites.oslo.scopes]]\nmodels = ["{}"]\nstores = ["NO"]\nprocesses = ["NO"]\n'
    more = '[sources.more]\nurl = "https://a.example/more"\nquote = "more"\nas_of = 2026-11-22\n'
    toml = _SOURCE + more + _SITE + scope.format("x-*") + 'source = "more"\n' + scope.format("y-*")
    oslo = sites_of(tomllib.loads(toml), required=True)["oslo"]
    assert oslo.citation_of("x-1").quote == "more"
    assert oslo.citation_of("y-1") == oslo.citation_of("z") == _PAGE


@cases("old", "new", "message")
def test_fact_of_this_repository_without_a_source_is_refused(old: str, new: str, message: str) -> None:
    toml = _SOURCE + _SITE
    assert old in toml
    with pytest.raises(CatalogueError) as error:
        sites_of(tomllib.loads(toml.replace(old, new)), required=True)
    assert message in str(error.value)


@pytest.mark.parametrize(("facts", "path"), [(_PRICE, "prices[0]"), (_RETIREMENT, "retirements[0]")])
def test_offer_of_this_repository_without_a_source_is_refused(facts: str, path: str) -> None:
    for toml in (facts.replace('source = "page"', ""), facts.replace('"page"', '"a page"\nas_of = 2026-11-20')):
        with pytest.raises(CatalogueError) as error:
            offers_of(tomllib.loads(toml), required=True)
        assert str(error.value).startswith(path)


def test_unconfirmed_fact_needs_a_day_but_no_page() -> None:
    unconfirmed = '[sources.page]\nas_of = 2026-11-20\nunconfirmed = "no page was read"\n'
    found = sites_of(tomllib.loads(unconfirmed + _SITE), required=True)["oslo"].citation
    assert (found.unconfirmed, found.missing) == ("no page was read", ())
    with pytest.raises(CatalogueError, match="its source lacks as_of"):
        sites_of(tomllib.loads(unconfirmed.replace("as_of = 2026-11-20\n", "") + _SITE), required=True)


def test_plug_in_without_a_source_is_accepted() -> None:
    site = sites_of(tomllib.loads(_SITE.replace('source = "page"', "")))["oslo"]
    assert site.citation.missing == ("url", "quote", "as_of")


def test_files_of_this_repository_differ_from_those_of_plug_ins() -> None:
    assert FactsFile("providers.compatible", "acme").is_own
    assert not FactsFile("providers_acme", "acme").is_own
