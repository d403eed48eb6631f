"""Answers that break off in mid-stream, on real sockets: the client gets one complete answer or a clear error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from providers.testkit.scenario import Cut, ErrorEvent, Fault, Garbage, HttpError, Reset, Scenario, Silent, Stall
from providers.testkit.server import SimulatorServer, SimulatorThread
from tests.kit.chat_http import CHAT, body, events_of
from tests.kit.configs import Config
from tests.kit.gateway_process import GatewayProcess, running_gateway
from tests.kit.vendor_checks import checked_simulators

TEXT = (
    "The harbour was quiet when the last ferry came in, and nobody on the pier looked up from what they did. "
    "Rain had fallen since noon; it made small rings on the water. 船已经开走了，码头上只剩下几盏灯。"
)
# The deployments that break off, and those that continue the answer: by prefill of its beginning, or by an instruction.
BROKEN = {
    "openai": "gpt-4o",
    "gemini": "gemini-2.5-flash",
    "dashscope": "qwen-plus",
    "anthropic": "claude-haiku-4-5",
    "bedrock": "anthropic.claude-haiku-4-5",
    "mistral": "mistral-large-4",
}
PREFILLED = {
    "gemini": "gemini-2.5-flash",
    "anthropic": "claude-haiku-4-5",
    "bedrock": "anthropic.claude-haiku-4-5",
    "mistral": "mistral-large-4",
    "moonshot": "moonshot-v1-8k",
    "deepseek": "deepseek-v4",
    "vllm": "m",
}
ASKED = {"openai": "gpt-4o", "dashscope": "qwen-plus", "gemini": "gemini-3.8-flash", "zhipu": "glm-5.5"}
FAULTS = [Cut(after_events=9), Reset(after_events=9), Stall(after_events=9), Garbage(9), ErrorEvent(after_events=9)]
BASE = {"gemini": "/v1beta", "dashscope": "/api/v1", "bedrock": ""}
FAST = "{first_token: 3s, idle: 1500ms, total: 20s, commit: 15s, breaker: off, retry_budget: off, keep_alive: 200ms}"


def deployment(provider: str, model: str, origin: str) -> dict[str, Any]:
    facts = {"provider": provider, "model": model, "endpoint": f"{origin}{BASE.get(provider, '/v1')}"}
    facts |= {"stores": "DE", "processes": "DE", "api_key": "${KEY}", "accept_ended": True}
    return facts | {"capabilities": ["prefill"]} if provider == "vllm" else facts


def config(origins: dict[str, str]) -> Config:
    """Return a config with an assistant for each pair of a provider that breaks off and one that resumes its answer."""
    nexts = {f"prefilled-{name}": (name, model) for name, model in PREFILLED.items()}
    nexts |= {f"asked-{name}": (name, model) for name, model in ASKED.items()}
    deployments = {
        f"broken-{name}": deployment(name, model, origins[f"broken-{name}"]) for name, model in BROKEN.items()
    }
    deployments |= {name: deployment(*settings, origins[name.partition("-")[2]]) for name, settings in nexts.items()}
    assistants: dict[str, Any] = {
        f"{broken}-{name}": {"resume": True, "routes": {"default": [f"broken-{broken}", name]}}
        for broken in BROKEN
        for name in nexts
    }
    assistants["never"] = {"routes": {"default": ["broken-openai", "asked-openai"]}}
    assistants["alone"] = {"resume": True, "routes": {"default": ["broken-openai"]}}
    return Config(
        {
            "version": 1,
            "assistants": assistants,
            "regions": {"default": {"territories": ["*"], "boundary": ["*"]}},
            "deployments": deployments,
            "location": {"unknown": "default"},
        }
    ).merge(f"resilience: {FAST}")


@pytest.fixture(scope="module")
def providers() -> Iterator[SimulatorThread]:
    dialects = checked_simulators()
    servers = {f"broken-{name}": SimulatorServer(dialects[name], f"site {name}") for name in BROKEN}
    servers |= {name: SimulatorServer(dialects[name], f"site {name}") for name in {*PREFILLED, *ASKED}}
    with SimulatorThread(servers) as thread:
        thread.names = list(servers)  # type: ignore[attr-defined]
        yield thread


def origins_of(providers: SimulatorThread) -> dict[str, str]:
    return {name: providers[name].origin for name in providers.names}  # type: ignore[attr-defined]


@contextmanager
def serving(path: Path) -> Iterator[GatewayProcess]:
    with running_gateway(path, {"KEY": "sk-secret:secret"}) as process:
        yield process


@pytest.fixture(scope="module")
def gateway(providers: SimulatorThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    path = config(origins_of(providers)).write(tmp_path_factory.mktemp("config"))
    with serving(path) as process:
        yield process


def reset_scenarios(providers: SimulatorThread) -> None:
    for name in origins_of(providers):
        providers[name].scenario = Scenario(text=TEXT)


@pytest.fixture
def client(gateway: GatewayProcess, providers: SimulatorThread) -> Iterator[httpx.Client]:
    reset_scenarios(providers)
    with httpx.Client(base_url=gateway.url, trust_env=False, timeout=30) as client:
        yield client


def breaks(providers: SimulatorThread, broken: str, fault: Fault) -> None:
    providers[f"broken-{broken}"].scenario = Scenario(text=TEXT, faults=((fault, 1.0),), between_events_s=0.002)


def ask(client: httpx.Client, model: str, **more: Any) -> list[Any]:
    return ask_until(lambda _: True, client, model, **more)


def ask_until(is_expected: Callable[[list[Any]], bool], client: httpx.Client, model: str, **more: Any) -> list[Any]:
    """Return the first answer that meets the condition, or the last of several.

    A busy machine may read a provider's text and the error after it at once. The gateway then discards the text, no
    stream has broken off, and the next deployment answers alone, or there is an ordinary error.
    """
    asked = {**body(stream=True, stream_options={"include_usage": True}, **more), "model": model}
    events: list[Any] = []
    for _ in range(10):
        response = client.post(CHAT, json=asked)
        events = events_of(response)
        if response.status_code == 200 and is_expected(events):
            break
    assert response.status_code == 200, response.text
    return events


def is_resumed(events: list[Any]) -> bool:
    return any("resumed" in event.get("x_gateway", {}) for event in events if event != "[DONE]")


def is_cut(events: list[Any]) -> bool:
    return bool(events[-1] != "[DONE]")


def ask_until_resumed(client: httpx.Client, model: str, **more: Any) -> list[Any]:
    return ask_until(is_resumed, client, model, **more)


def text_of(events: list[Any]) -> str:
    chunks = [event for event in events if event != "[DONE]" and event.get("choices")]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)


def check_whole(events: list[Any], broken: str, by: str) -> None:
    assert text_of(events) == TEXT
    assert events[-1] == "[DONE]"
    chunks = events[:-1]
    assert {(chunk["id"], chunk["model"], chunk["created"]) for chunk in chunks} == {
        (chunks[0]["id"], chunks[0]["model"], chunks[0]["created"])
    }
    assert [
        c["choices"][0]["delta"]["role"] for c in chunks if c["choices"] and "role" in c["choices"][0]["delta"]
    ] == ["assistant"]
    if broken == "openai":
        # The setup (role, ID) is that of the first answer only.
        assert chunks[0]["system_fingerprint"] == "fp_simulated"
        assert "system_fingerprint" not in chunks[-2]
    finish = chunks[-2]
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert finish["x_gateway"]["resumed"] == {"from": f"broken-{broken}", "by": by}
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["prompt_tokens"] > 0


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
def test_answer_is_resumed_after_every_kind_of_break(
    client: httpx.Client, providers: SimulatorThread, fault: Fault
) -> None:
    """After a stall, each of the two answers waits for `idle`, a second."""
    breaks(providers, "openai", fault)
    check_whole(ask_until_resumed(client, "openai-prefilled-mistral"), "openai", "prefilled-mistral")
    check_whole(ask_until_resumed(client, "openai-asked-dashscope"), "openai", "asked-dashscope")


@pytest.mark.parametrize("broken", BROKEN)
def test_answer_of_every_wire_format_is_resumed(client: httpx.Client, providers: SimulatorThread, broken: str) -> None:
    breaks(providers, broken, Reset(after_events=9))
    check_whole(ask_until_resumed(client, f"{broken}-prefilled-deepseek"), broken, "prefilled-deepseek")
    check_whole(ask_until_resumed(client, f"{broken}-asked-openai"), broken, "asked-openai")


@pytest.mark.parametrize("name", [*(f"prefilled-{one}" for one in PREFILLED), *(f"asked-{one}" for one in ASKED)])
def test_every_wire_format_can_resume_an_answer(client: httpx.Client, providers: SimulatorThread, name: str) -> None:
    breaks(providers, "openai", Cut(after_events=12))
    site = providers[name.partition("-")[2]]
    check_whole(ask_until_resumed(client, f"openai-{name}"), "openai", name)
    asked = site.requests[-1].body.decode()
    assert ("Your answer above broke off" in asked) == name.startswith("asked")
    assert "The harbour was quiet when" in asked


@pytest.mark.parametrize("after", range(1, 24, 2))
def test_answer_is_resumed_at_every_position(client: httpx.Client, providers: SimulatorThread, after: int) -> None:
    breaks(providers, "openai", Reset(after_events=after))
    for name in ("prefilled-anthropic", "asked-dashscope"):
        events = ask(client, f"openai-{name}")
        assert text_of(events) == TEXT
        assert events[-1] == "[DONE]"


def test_official_client_gets_one_answer(gateway: GatewayProcess, client: httpx.Client, providers: Any) -> None:
    breaks(providers, "openai", Stall(after_events=10))
    http_client = openai.DefaultHttpxClient(trust_env=False)
    sdk = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=0, http_client=http_client)
    request: Any = {"model": "openai-asked-dashscope", "messages": [{"role": "user", "content": "Tell me"}]}
    with sdk, sdk.chat.completions.stream(**request) as stream:
        answer = stream.get_final_completion()
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("model", ["never", "alone"])
def test_break_without_permission_or_a_next_step_is_an_error(
    client: httpx.Client, providers: SimulatorThread, model: str
) -> None:
    breaks(providers, "openai", Reset(after_events=9))
    events = ask_until(is_cut, client, model)
    assert events[-1]["error"]["code"] == "stream_interrupted"
    assert TEXT.startswith(text_of(events[:-1]))


@pytest.mark.parametrize(
    "fault", [HttpError(500), HttpError(401), Silent(), HttpError(429, retry_after_s=60)], ids=repr
)
def test_break_without_a_deployment_that_can_resume_is_an_error(
    client: httpx.Client, providers: SimulatorThread, fault: Fault
) -> None:
    breaks(providers, "openai", Reset(after_events=9))
    providers["zhipu"].scenario = Scenario(faults=((fault, 1.0),))
    events = ask_until(is_cut, client, "openai-asked-zhipu")
    assert events[-1]["error"]["code"] == "stream_interrupted"
    assert "[DONE]" not in events


def test_rejected_prefill_is_replaced_by_an_instruction(client: httpx.Client, providers: SimulatorThread) -> None:
    breaks(providers, "openai", Reset(after_events=9))
    providers["moonshot"].scenario = Scenario(text=TEXT, script=(HttpError(400),))
    check_whole(ask_until_resumed(client, "openai-prefilled-moonshot"), "openai", "prefilled-moonshot")
    assert "Your answer above broke off" in providers["moonshot"].requests[-1].body.decode()


def test_keep_alive_comments_are_sent_while_resuming(client: httpx.Client, providers: SimulatorThread) -> None:
    """The next provider begins after two seconds, in which there must be a comment."""
    breaks(providers, "openai", Reset(after_events=9))
    providers["openai"].scenario = Scenario(text=TEXT, latency_s=2.0)
    request = {**body(stream=True), "model": "openai-asked-openai"}
    # A machine that stalls sends nothing, and a busy one reads the text and the break at once.
    for _ in range(5):
        times, text = [time.monotonic()], ""
        with client.stream("POST", CHAT, json=request) as response:
            for piece in response.iter_text():
                times.append(time.monotonic())
                text += piece
        longest_s = max(after - before for before, after in pairwise(times[1:]))
        if longest_s < 1.5 and ": keep-alive" in text:
            break
    assert "data: [DONE]" in text
    assert ": keep-alive" in text
    assert longest_s < 1.5
