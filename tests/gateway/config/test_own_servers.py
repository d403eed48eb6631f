"""Spellings of one server outside the catalogue. `patches/servers.yaml` has the hosts of vendors."""

import pytest

from gateway.config.endpoints import server_of
from providers.catalogue.ended import ended_providers
from tests.kit.case_files import cases
from tests.kit.config_cases import problems_of
from tests.kit.configs import BASE, KEYS


@cases("one", "other")
def test_spellings_of_one_server_are_one_server(one: str, other: str) -> None:
    assert server_of(one) == server_of(other)


def test_other_port_is_another_server() -> None:
    assert server_of("http://127.0.0.1:8000") != server_of("http://127.0.0.1:8001")
    assert server_of("http://llm.example.com") != server_of("https://llm.example.com")


@pytest.mark.parametrize("provider", ended_providers())
def test_hosts_of_a_provider_outlive_it_and_are_where_they_were(provider: str) -> None:
    hosts = ended_providers()[provider].hosts
    assert hosts, "a former provider has the hosts that a URL may still name"
    for host, known in hosts.items():
        for places in (known, *(it for it in ("CN", "DE", "any") if it != str(known))):
            server = {"provider": "openai-compatible", "model": "m", "endpoint": f"https://{host}/v1"}
            server |= {"stores": str(known), "processes": str(places)}
            problems = problems_of(BASE.merge({"deployments": {"x": server}}).text, KEYS)
            found = [it for it in map(str, problems) if f"known facts of {host}" in it]
            assert bool(found) == (places != known), (host, places, problems)
