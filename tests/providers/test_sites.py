"""The facts of every known host, as the vendors publish them, and the URLs that requests can be sent to."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.catalogue.sites import sites_of
from providers.matching.requirements import FEATURES, PARAMETERS, moves_data
from providers.registry import load_registry
from providers.sites import OriginError, Residency, Scope, Site, parse_origin
from providers.territories import ANYWHERE, Places, parse_places
from tests.kit.case_files import cases
from tests.kit.chat_strategies import unhurried
from tests.kit.example_counts import examples

ADAPTERS = load_registry().adapters
PROVIDERS = sorted(ADAPTERS)
SITES = [(provider, name) for provider in PROVIDERS for name in ADAPTERS[provider].sites]


def site(provider: str, name: str) -> Site:
    return ADAPTERS[provider].sites[name]


def places(*words: str) -> Places:
    return parse_places(words)


# --- facts ----------------------------------------------------------------------------------------


@cases("provider", "name", "origin", "stores", "processes")
def test_site_has_its_storage_and_processing_places(
    provider: str, name: str, origin: str, stores: list[str], processes: list[str]
) -> None:
    known = site(provider, name)
    assert known.origin == origin
    assert known.residency.stores == places(*stores)
    assert known.residency.processes == places(*processes)
    assert known.residency_of("a model that nobody knows") == known.residency


def test_scope_of_models_has_its_own_residency() -> None:
    us = site("dashscope", "us")
    assert us.residency_of("qwen-plus").processes == ANYWHERE
    assert us.residency_of("qwen-plus-us").processes == places("US")
    assert us.residency_of("qwen-plus-us").stores == places("US")
    assert us.residency_of("qwen-us-plus").processes == ANYWHERE
    assert us.residency_of("QWEN-PLUS-US").processes == ANYWHERE


@cases("provider", "name", "model", "boundary", "inside")
def test_residency_of_a_model_is_compared_with_a_boundary(
    provider: str, name: str, model: str, boundary: list[str], inside: bool
) -> None:
    assert site(provider, name).residency_of(model).within(places(*boundary)) is inside


def test_site_may_list_fields_that_its_promise_covers() -> None:
    row = {"origin": "https://a.example", "base_path": "/v1", "stores": ["DE"], "processes": ["DE"]}
    sites = sites_of({"sites": {"plain": row, "more": {**row, "allows": ["store"]}}})
    assert {name: known.allows for name, known in sites.items()} == {"plain": frozenset(), "more": {"store"}}


def test_a_scope_may_have_several_names() -> None:
    inside = Residency(places("US"), places("US"))
    known = replace(site("openai", "global"), scopes=(Scope(("gpt-6*", "o9"), inside),))
    assert [known.residency_of(model) == inside for model in ("gpt-6-luna", "o9", "o10")] == [True, True, False]


def test_both_storing_and_processing_must_stay() -> None:
    jp = site("openai", "jp").residency
    assert jp.stores.within(places("JP"))
    assert not jp.processes.within(places("JP"))
    assert not jp.within(places("JP"))
    assert not Residency(places("US"), places("JP")).within(places("JP"))


@cases("provider", "served", "unserved")
def test_availability_contains_only_served_territories(provider: str, served: list[str], unserved: list[str]) -> None:
    for known in ADAPTERS[provider].sites.values():
        assert known.availability.published
        assert [code for code in served if not known.availability.places.contains(code)] == []
        assert [code for code in unserved if known.availability.places.contains(code)] == []


def test_a_vendor_without_a_list_serves_its_own_storage_territory() -> None:
    for name, stores in (("cn-beijing", "CN"), ("intl", "SG"), ("us", "US"), ("hongkong", "HK")):
        available = site("dashscope", name).availability
        assert not available.published
        assert available.places == places(stores)
        assert available.never == (frozenset() if stores == "CN" else {"CN"})


def test_openai_sites_have_their_requirements_and_exceptions() -> None:
    for name, known in ADAPTERS["openai"].sites.items():
        assert known.requires == (() if name in ("global", "us") else (frozenset({"zdr", "mam"}),))
        assert known.excepts == (frozenset() if name == "global" else {"json_schema", "strict_tools", "decisions"})
        assert known.pins == {"store": False}


@pytest.mark.parametrize(("provider", "name"), SITES)
def test_every_site_of_the_catalogue_is_sound(provider: str, name: str) -> None:
    known = site(provider, name)
    assert known.name == name
    origin = known.origin_of("ws-1")
    assert parse_origin(origin) == (origin, None)
    assert parse_origin(origin + known.base_path) == (origin, known.base_path or None)
    assert known.owns(origin)
    assert known.base_path.startswith("/") or not known.base_path
    assert known.excepts <= FEATURES | PARAMETERS | {"decisions"}
    assert known.allows <= moves_data()
    assert known.api_key_env.isidentifier()
    assert known.api_key_env.isupper()
    assert known.residency.stores.included != frozenset()
    assert known.residency.processes.included != frozenset()
    for scope in known.scopes:
        # An unknown model takes the residency of the site, so it has to be the widest.
        assert scope.residency.stores.within(known.residency.stores)
        assert scope.residency.processes.within(known.residency.processes)


def test_host_has_one_set_of_facts_and_one_key() -> None:
    """Two APIs of one vendor may share a host. Then they share all its facts except for pins.

    The models of one may lack the promise for those of the other.
    """
    known = [(provider, site(provider, name)) for provider, name in SITES]
    for provider, one in known:
        for other_provider, other in known:
            if other.owns(one.origin) and (other.pins == one.pins or provider != other_provider):
                facts = (other.origin, other.residency, other.availability, other.api_key_env)
                assert facts == (one.origin, one.residency, one.availability, one.api_key_env)
                assert not one.scopes or not other.scopes or one.scopes == other.scopes
                assert provider != other_provider or one is other


def test_no_two_sites_share_a_key() -> None:
    """Except at vendors where a key belongs to the account in all regions."""
    keys = {one.origin: one.api_key_env for one in (site(provider, name) for provider, name in SITES)}
    shared = {key: count for key, count in Counter(keys.values()).items() if count > 1}
    assert shared == {"XAI_API_KEY": 2, "OPENROUTER_API_KEY": 3}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_facts_have_a_source_and_a_date(provider: str) -> None:
    for known in ADAPTERS[provider].sites.values():
        citations = [known.citation, known.availability.citation, *(scope.citation for scope in known.scopes)]
        for citation in filter(None, citations):
            assert not citation.missing, f"{provider} {known.name} lacks {citation.missing}"
        assert (known.availability.citation is not None) == bool(known.availability.listed_as)


def test_site_may_list_the_territories_that_it_serves() -> None:
    """A vendor outside this repository cannot add a list to `availability.toml`."""
    row = {"origin": "https://a.example", "base_path": "/v1", "stores": ["NO"], "processes": ["NO"]}
    found = sites_of({"sites": {"listed": {**row, "available": ["@EEA", "CH"]}, "unlisted": row}})
    listed, unlisted = found["listed"].availability, found["unlisted"].availability
    assert (listed.places, listed.published) == (places("@EEA", "CH"), True)
    assert (unlisted.places, unlisted.published) == (places("NO"), False)


@pytest.mark.parametrize("provider", ["dashscope", "dashscope-compatible"])
@pytest.mark.parametrize(("name", "host"), [("frankfurt", "eu-central-1"), ("tokyo", "ap-northeast-1")])
def test_workspace_must_be_a_valid_host_label(provider: str, name: str, host: str) -> None:
    known = site(provider, name)
    assert known.origin_of("LLM-1") == f"https://llm-1.{host}.maas.aliyuncs.com"
    assert known.residency.processes.is_anywhere, "Frankfurt's scopes, and maybe Tokyo's, have one without a boundary"
    for word in ("", "a.b", "a/b", "a@b", "evil.example/", "-a", "a" * 64):
        with pytest.raises(OriginError):
            known.origin_of(word)


# --- owner of a host ------------------------------------------------------------------------------


@cases("provider", "name", "origin", "owned")
def test_whose_host_it_is(provider: str, name: str, origin: str, owned: bool) -> None:
    assert site(provider, name).owns(origin) is owned


# --- valid origins --------------------------------------------------------------------------------


@cases("url", "origin", "path")
def test_origin_has_one_normal_form(url: str, origin: str, path: str | None) -> None:
    assert parse_origin(url) == (origin, path)


@cases("url")
def test_invalid_origin_is_refused_with_a_reason(url: str) -> None:
    with pytest.raises(OriginError) as caught:
        parse_origin(url)
    assert str(caught.value).startswith(("must ", "is ", "has "))


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http"])
def test_invalid_port_is_named_in_the_error(port: str) -> None:
    with pytest.raises(OriginError, match="must have a port from 1 to 65535"):
        parse_origin(f"http://127.0.0.1:{port}/v1")


@settings(unhurried, max_examples=examples(500))
@given(
    st.text("hpst:/@[]%?#.\\ ae10-", max_size=30)
    | st.text(max_size=20)
    | st.text("a.-:0/", max_size=9).map("https://".__add__)
)
def test_accepted_origin_is_already_normalised(url: str) -> None:
    try:
        origin, path = parse_origin(url)
    except OriginError:
        return
    assert parse_origin(origin) == (origin, None)
    assert parse_origin(origin + (path or "")) == (origin, path or None)
