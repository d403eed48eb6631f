"""The real deployment of `gateway demo --with`: it has the facts and the fence of its site."""

import json
import time
from pathlib import Path

import httpx
import pytest

from gateway.assembly.application import Gateway
from gateway.config.loading import parse_document
from gateway.config.problems import ConfigRejected
from gateway.config.real_deployment import add_real_deployment, real_deployment
from gateway.features.configuration import compile_config
from gateway.model.config_version import ConfigVersion
from gateway.server.demo import territories_of, why_unused
from gateway.server.simulation import simulated_sites
from providers.registry import load_registry
from tests.kit.config_cases import edited
from tests.kit.httpx_transport import HttpxTransport

REGISTRY = load_registry()
DEMO = (Path(__file__).parents[3] / "config" / "demo.yaml").read_text("utf-8")
KEYS = {"OPENAI_API_KEY": "sk-mine", "DASHSCOPE_API_KEY": "sk-mine", "GEMINI_API_KEY": "sk-mine"}
SIMULATED = "http://127.0.0.1:9"


def demo_with(name: str, text: str = DEMO) -> ConfigVersion:
    """Return the demo's config version with the real deployment, and with simulators at one address."""
    document = parse_document(text.encode(), "demo.yaml", {})
    sites = simulated_sites(compile_config(document, registry=REGISTRY, demo=True).config)
    document = add_real_deployment(document, real_deployment(name, REGISTRY), REGISTRY, KEYS)
    simulators = dict.fromkeys(sites, SIMULATED)
    return compile_config(document, registry=REGISTRY, demo=True, simulators=simulators).config


def answered(name: str) -> dict[str, list[str]]:
    real = real_deployment(name, REGISTRY)
    return territories_of(demo_with(name), "assistant", real.name, time.time())


@pytest.mark.parametrize("name", ["openai", "qwen", "dashscope", "gemini"])
def test_each_offered_provider_answers_some_callers_with_its_key(name: str) -> None:
    config = demo_with(name)
    real = real_deployment(name, REGISTRY)
    deployment = config.deployments[real.name]
    assert deployment.origin == REGISTRY.adapters[real.provider].sites[real.site].origin
    assert deployment.has_credential
    assert "sk-mine" not in repr(config)
    assert answered(name)
    assert why_unused(config, real) is None


def test_site_without_a_promise_answers_only_where_the_boundary_allows_any_place() -> None:
    assert set(answered("openai")) == {"default"}
    assert not {"CN", "DE", "US", "CU", "RU", "HK"} & set(answered("openai")["default"])
    assert answered("openai:us")["us"] == ["US"]


def test_site_in_china_answers_callers_in_china_only() -> None:
    assert answered("qwen") == {"cn": ["CN"]}
    assert answered("qwen:intl") == {"default": ["SG"]}


def test_site_that_requires_a_contract_answers_no_caller() -> None:
    assert answered("openai:eu") == {}
    reason = why_unused(demo_with("openai:eu"), real_deployment("openai:eu", REGISTRY))
    assert "requires mam or zdr" in reason


def test_version_and_stored_text_are_those_of_the_file() -> None:
    plain = parse_document(DEMO.encode(), "demo.yaml", {})
    with_real = add_real_deployment(plain, real_deployment("openai", REGISTRY), REGISTRY, KEYS)
    assert (with_real.version, with_real.written) == (plain.version, plain.written)
    assert "real-openai" not in plain.source.values["deployments"]  # type: ignore[operator]


def test_file_that_names_a_real_provider_is_refused_also_with_the_option() -> None:
    us = "simulates: us, structured_output: emulate}"
    text = edited(DEMO, (us, us + "\n  mine: {provider: openai, model: m, endpoint: global}"))
    with pytest.raises(ConfigRejected) as rejected:
        demo_with("openai", text)
    (problem,) = [problem for problem in rejected.value.problems if problem.severity == "error"]
    assert problem.path == ("deployments", "mine", "endpoint")


def test_name_that_the_file_uses_is_refused() -> None:
    text = edited(DEMO, ("chatgpt-us", "real-openai"))
    with pytest.raises(
        ConfigRejected, match="real-openai: is the name of the deployment that `--with` adds; rename it"
    ):
        demo_with("openai", text)


def test_provider_of_which_the_demo_has_no_deployment_is_refused() -> None:
    with pytest.raises(ConfigRejected, match="have no deployment of groq, so `--with` has no model to ask"):
        add_real_deployment(
            parse_document(DEMO.encode(), "demo.yaml", {}), real_deployment("groq", REGISTRY), REGISTRY, KEYS
        )


def test_scheduled_route_is_left_as_it_is() -> None:
    schedule = "    schedules: {default: {candidate: gemini, steps: 100%}}\nregions:\n"
    text = edited(DEMO, ("default: [gemini, qwen-hk, qwen-intl]", "default: [{gemini: 0, qwen-intl: 100}]"))
    config = demo_with("openai", edited(text, ("\nregions:\n", f"\n{schedule}")))
    assert territories_of(config, "assistant", "real-openai", time.time()) == {}


@pytest.mark.parametrize("name", ["opnai", "openai:mars", "", ":us", "openai-compatible"])
def test_unknown_provider_or_site_is_named_with_the_possible_ones(name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown|has no site"):
        real_deployment(name, REGISTRY)


@pytest.mark.parametrize(
    ("territory", "is_real"), [("JP", True), ("DE", False), ("US", False), ("CN", False), ("HK", False)]
)
async def test_prompts_go_to_the_real_provider_only_from_its_territories(territory: str, is_real: bool) -> None:
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(400, json={"error": {"message": "stop here", "type": "invalid_request_error"}})

    gateway = Gateway(demo_with("openai"), HttpxTransport(httpx.MockTransport(answer)))
    body = {"model": "assistant", "messages": [{"role": "user", "content": "Hello!"}]}
    transport = httpx.ASGITransport(gateway, client=("127.0.0.1", 50000))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        await client.post("/v1/chat/completions", json=body, headers={"cf-ipcountry": territory})
    assert sent
    assert {request.url.host for request in sent} == {"api.openai.com" if is_real else "127.0.0.1"}
    if is_real:
        assert sent[0].headers["authorization"] == "Bearer sk-mine"
        assert json.loads(sent[0].content)["model"] == "gpt-6-luna"
    else:
        assert all("sk-mine" not in str(request.headers.raw) for request in sent)
