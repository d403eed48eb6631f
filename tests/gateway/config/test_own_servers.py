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
        "acme.openai.azure.com",
        "vpc-dashscope-intl.aliyuncs.com",
        "api-me-east-1.modelarts-maas.com",
        "api.us.mistral.ai",
        "proxy.openai.com",
    ],
)
def test_unknown_host_below_a_vendors_domain_is_warned_of(host: str) -> None:
    assert any(f"{host} is below" in message for message in messages(f"https://{host}/v1"))


def contradictions(host: str, places: str, model: str = "m") -> list[str]:
    own = f"provider: openai-compatible, model: '{model}', stores: {places}, processes: {places}, api_key: k-1"
    text = with_deployment(f"{own}, endpoint: 'https://{host}/v1'")
    return [problem.message for problem in problems_of(text) if problem.message.startswith("contradicts")]


@pytest.mark.parametrize(
    ("host", "known"),
    [
        (
            "bedrock-runtime.us-east-1.api.aws",
            "the site us-east-1 (bedrock-runtime.us-east-1.amazonaws.com): it stores in US",
        ),
        (
            "bedrock-mantle.us-east-1.api.aws",
            "the site us-east-1 (bedrock-runtime.us-east-1.amazonaws.com): it stores in US",
        ),
        ("bedrock-runtime-fips.us-east-1.amazonaws.com", "the site us-east-1 ("),
        ("vpce-0a-x.bedrock-runtime.us-east-1.vpce.amazonaws.com", "the site us-east-1 ("),
        ("vpce-0a-x-us-east-1a.bedrock-mantle.us-east-1.vpce.amazonaws.com", "the site us-east-1 ("),
        ("bedrock-mantle.eu-central-1.api.aws", "it processes in any"),
        ("us-east-1.api.x.ai", "the site global (api.x.ai): it stores in any"),
        ("eu-west-1.api.x.ai", "the site global (api.x.ai): it stores in any"),
        ("us.api.x.ai", "the site us (us.api.x.ai): it stores in US"),
        ("de.api.openai.com", "the site global (api.openai.com): it stores in any"),
        ("eu.api.anthropic.com", "the site global (api.anthropic.com): it stores in any"),
        ("bedrock-mantle.ap-south-2.api.aws", "is in ap-south-2, and so in IN"),
        ("bedrock-runtime.ap-south-2.amazonaws.com", "is in ap-south-2, and so in IN"),
        ("europe-north1-aiplatform.googleapis.com", "is in europe-north1, and so in FI"),
        ("us-west8-aiplatform.googleapis.com", ""),
        ("forum.openrouter.ai", ""),
        ("us-central1-aiplatform-acme.p.googleapis.com", "is in us-central1, and so in US"),
        ("my-elb.us-east-1.elb.amazonaws.com", ""),
        ("bedrock-mantle.us-east-1.api.aws.example.de", ""),
    ],
)
def test_facts_against_a_host_that_is_known_by_its_form_are_refused(host: str, known: str) -> None:
    found = contradictions(host, "DE")
    assert any(known in message for message in found) if known else not found


@pytest.mark.parametrize(
    ("host", "places", "model"),
    [
        ("bedrock-mantle.us-east-1.api.aws", "US", "openai.gpt-oss-120b"),
        ("us-east-1.api.x.ai", "any", "grok-4.6"),
        ("bedrock-mantle.ap-south-2.api.aws", "[IN, SG]", "m"),
        ("bedrock-runtime.us-west-1.amazonaws.com", "US-CA", "m"),
    ],
)
def test_facts_that_fit_the_form_of_a_host_are_accepted(host: str, places: str, model: str) -> None:
    assert contradictions(host, places, model) == []


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
