"""Servers outside the catalogue: hosts of vendors, spellings of one server, and fields that are passed on."""

from __future__ import annotations

import pytest

from gateway.config.endpoints import server_of
from tests.kit.config_cases import compiled, more, problems_of, sections, with_deployment

OWN = "provider: openai-compatible, model: m, stores: US, processes: US, api_key: k-1"


def messages(endpoint: str, more_keys: str = "") -> list[str]:
    """Return the messages of the problems and warnings for a deployment at this URL."""
    text = with_deployment(f"{OWN}, endpoint: '{endpoint}'{more_keys}")
    return [problem.message for problem in problems_of(text)]


@pytest.mark.parametrize(
    "host",
    [
        "bedrock-runtime-fips.us-east-1.amazonaws.com",
        "acme.openai.azure.com",
        "vpc-dashscope-intl.aliyuncs.com",
        "api-me-east-1.modelarts-maas.com",
        "eu-west-1.api.x.ai",
        "proxy.openai.com",
    ],
)
def test_unknown_host_below_a_vendors_domain_is_warned_of(host: str) -> None:
    assert any(f"{host} is below" in message for message in messages(f"https://{host}/v1"))


def test_vendors_api_in_openais_form_is_warned_of_with_its_provider() -> None:
    text = with_deployment(
        "provider: openai-compatible, model: m, api_key: k-1, "
        "endpoint: 'https://generativelanguage.googleapis.com/v1beta/openai/'"
    )
    assert "the URL is that of gemini in OpenAI's form, which has less than its own API" in [
        problem.message for problem in problems_of(text)
    ]


@pytest.mark.parametrize(
    "host", ["llm.example.com", "my-elb.eu-central-1.elb.amazonaws.com", "notopenai.com", "10.0.0.7"]
)
def test_host_of_ones_own_is_not_warned_of(host: str) -> None:
    assert not any(" is below " in message for message in messages(f"https://{host}/v1"))


@pytest.mark.parametrize(
    "host", ["acme.openai.azure.com", "acme.services.ai.azure.com", "acme.cognitiveservices.azure.com"]
)
def test_host_of_a_customer_is_not_warned_of_with_its_provider(host: str) -> None:
    own = f"x: {{{OWN.replace('openai-compatible', 'azure')}, endpoint: 'https://{host}'}}"
    warnings = compiled(sections(deployments=more("deployments", own))).warnings
    assert not any(" is below " in warning.message for warning in warnings)
    assert any(f"{host} is below" in message for message in messages(f"https://{host}/v1"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.2:8000"),
        ("http://127.0.0.1:8000", "https://localhost:8000"),
        ("http://llm.example.com:8000", "https://llm.example.com:8000"),
        ("http://[::1]:8000", "http://0.0.0.0:8000"),
    ],
)
def test_spellings_of_one_server_are_one_server(one: str, other: str) -> None:
    assert server_of(one) == server_of(other)


def test_other_port_is_another_server() -> None:
    assert server_of("http://127.0.0.1:8000") != server_of("http://127.0.0.1:8001")
    assert server_of("http://llm.example.com") != server_of("https://llm.example.com")


@pytest.mark.parametrize("name", ["model", "messages", "stream", "temperature"])
def test_standard_field_cannot_be_passed_through(name: str) -> None:
    found = messages("https://llm.example.com/v1", f", passthrough: [{name}]")
    assert any(message.startswith(f"`{name}` has no effect") for message in found)
