"""Labels, profiles and refusals on the real server: what the official SDK gets, and what each provider is sent."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from providers.testkit.scenario import Scenario
from providers.testkit.server import SimulatorServer, SimulatorThread
from tests.kit.claim_tokens import AUDIENCE, ISSUER, jwks, public, token
from tests.kit.gateway_process import APP_KEY, GatewayProcess, running_gateway
from tests.kit.vendor_checks import checked_simulators

SITES = {"qwen": "dashscope", "gpt": "openai", "gpt2": "openai", "gemini": "gemini"}
PATHS = {"dashscope": "/api/v1", "openai": "/v1", "gemini": "/v1beta"}
MODELS = {"dashscope": "qwen-plus", "openai": "gpt-6-luna", "gemini": "gemini-3.8-flash"}
CN_WORDS = "内容由AI生成\n\n"
EU_WORDS = "Sie sprechen mit einem KI-System; seine Antworten sind von KI erzeugt.\n\n"
HELLO: Any = [{"role": "user", "content": "Hello!"}]
# One territory for each deployment: the deployment used there, and the first words of its answer.
PLACES = {"CN": ("qwen", CN_WORDS), "DE": ("gpt", EU_WORDS), "JP": ("gemini", "")}


def config(folder: Path, providers: SimulatorThread) -> Path:
    (folder / "keys.json").write_bytes(jwks(public("k1")))
    anywhere = {"stores": "any", "processes": "any"}
    where = {"qwen": {"stores": "CN", "processes": "CN"}, "gpt": {"stores": "DE", "processes": "DE"}}
    where |= {"gpt2": where["gpt"]}
    document = {
        "version": 1,
        "assistants": {
            "assistant": {
                "aliases": ["gpt-4o"],
                "routes": {"cn": ["qwen"], "eu": ["gpt", "gpt2"], "default": ["gemini"]},
            },
            "hidden": {"reveal_model": False, "routes": {"cn": ["qwen"], "eu": ["gpt"]}},
        },
        "regions": {
            "cn": {
                "territories": ["CN"],
                "boundary": ["CN"],
                "labels": [{"name": "cn-gb45438", "producer": "00119101"}],
                "profile": {"locale": "zh-Hans-CN", "locales": ["en"], "timezone": "Asia/Shanghai"},
                "refusals": {"content_filter": {"zh": "换个话题吧。", "en": "Let us talk of something else."}},
            },
            "eu": {
                "territories": ["@EEA", "CH"],
                "boundary": ["@EEA", "CH"],
                "labels": ["eu-art50"],
                "profile": {"locale": "de", "locales": ["en"], "form": "formal"},
            },
            "default": {"territories": ["*"], "boundary": ["*"], "profile": {"locale": "ja-JP"}},
        },
        "deployments": {
            name: {
                "provider": provider,
                "model": MODELS[provider],
                "endpoint": providers[name].origin + PATHS[provider],
                "api_key": "${KEY}",
                **where.get(name, anywhere),
            }
            for name, provider in SITES.items()
        },
        "clients": {"app": {"keys": ["sha256:" + hashlib.sha256(APP_KEY.encode()).hexdigest()]}},
        "location": {
            "signals": ["claim", "edge_header"],
            "edges": [{"from": ["127.0.0.0/8"], "country": "CF-IPCountry"}],
            "claim": {
                "issuer": ISSUER,
                "audience": AUDIENCE,
                "algorithms": ["ES256"],
                "jwks": str(folder / "keys.json"),
                "preferences": "prefers",
            },
        },
        "resilience": {"breaker": "off", "retry_budget": "off", "first_token": "2s", "idle": "2s"},
    }
    path = folder / "gateway.yaml"
    path.write_text(json.dumps(document, ensure_ascii=False), "utf-8")
    return path


@pytest.fixture(scope="module")
def providers() -> Iterator[SimulatorThread]:
    dialects = checked_simulators()
    with SimulatorThread(
        {name: SimulatorServer(dialects[one], f"site {name}") for name, one in SITES.items()}
    ) as thread:
        yield thread


@pytest.fixture(scope="module")
def gateway(providers: SimulatorThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with running_gateway(config(tmp_path_factory.mktemp("config"), providers), {"KEY": "sk-secret"}) as process:
        yield process


@pytest.fixture
def healthy(providers: SimulatorThread) -> None:
    for name in SITES:
        providers[name].scenario = Scenario()


def options(territory: str, messages: Any = None, **more: Any) -> dict[str, Any]:
    headers = {"cf-ipcountry": territory, **more.pop("headers", {})}
    return {"model": "assistant", "messages": messages or HELLO, "extra_headers": headers, **more}


def extras(answer: Any) -> Any:
    return (answer.model_extra or {}).get("x_gateway", {})


def stream_of(sdk: openai.OpenAI, territory: str, **more: Any) -> tuple[str, list[Any], str | None]:
    """Return the text, every `x_gateway.labels` of a chunk, and the error if the stream broke off."""
    text, labels_of_chunks = "", []
    try:
        for chunk in sdk.chat.completions.create(**options(territory, stream=True, **more)):
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
            labels_of_chunks += [extras(chunk)["labels"]] if "labels" in extras(chunk) else []
    except openai.APIError as error:
        return text, labels_of_chunks, error.code
    return text, labels_of_chunks, None


def sent_to(providers: SimulatorThread, name: str) -> Any:
    return json.loads(providers[name].requests[-1].body)


@pytest.mark.parametrize("territory", PLACES)
def test_stream_and_json_answer_have_the_same_labels(sdk: openai.OpenAI, territory: str) -> None:
    _, words = PLACES[territory]
    raw = sdk.chat.completions.with_raw_response.create(**options(territory))
    answer = raw.parse()
    text, labels_of_chunks, broken = stream_of(sdk, territory)
    assert broken is None
    content = answer.choices[0].message.content or ""
    assert text == content
    assert content.startswith(words)
    assert len(content) > len(words)
    assert ("x-gateway-labels" in raw.headers) is bool(words) is ("labels" in extras(answer))
    if words:
        labels = extras(answer)["labels"]
        assert [one["name"] for one in labels] == [raw.headers["x-gateway-labels"]]
        assert (labels[0]["text"], labels[0]["in_content"]) == (words.strip(), True)
        assert [len(one) for one in labels_of_chunks] == [1, 1]


def test_labels_in_the_history_are_not_sent_to_a_provider(sdk: openai.OpenAI, providers: SimulatorThread) -> None:
    first = sdk.chat.completions.create(**options("CN")).choices[0].message.content or ""
    history = [*HELLO, {"role": "assistant", "content": first}, {"role": "user", "content": f"You said: {CN_WORDS}"}]
    for territory in ("CN", "DE"):
        sdk.chat.completions.create(**options(territory, history))
        sent = json.dumps(sent_to(providers, PLACES[territory][0]), ensure_ascii=False)
        # Once: in the user's own message, which the gateway does not change.
        assert sent.count(CN_WORDS.strip()) == 1
        assert first.removeprefix(CN_WORDS)[:10] in sent


# --- the profile ----------------------------------------------------------------------------------


def preference_claim(**wishes: Any) -> dict[str, str]:
    return {"x-gateway-claim": token(territory="CN", exp=time.time() + 600, prefers=wishes)}


def test_user_preferences_refine_the_profile(
    sdk: openai.OpenAI, providers: SimulatorThread, gateway: GatewayProcess
) -> None:
    wishes = preference_claim(language="en", units="us", time_zone="Europe/Berlin", form="informal", secret="xyzzy-1")
    sdk.chat.completions.create(**options("CN", headers={**wishes, "x-request-id": "wish-1"}))
    [system_text] = [
        one["content"] for one in sent_to(providers, "qwen")["input"]["messages"] if one["role"] == "system"
    ]
    for words in ("English (en)", "US customary", "Europe/Berlin", "informally"):
        assert words in system_text
    assert "Asia/Shanghai" not in system_text
    assert gateway.wait_for("request", request_id="wish-1")["profile"].endswith("+time_zone+units+form")
    assert "Europe/Berlin" not in json.dumps([line for line in gateway.lines if isinstance(line, dict)])
    assert "xyzzy" not in json.dumps(sent_to(providers, "qwen"))


# --- refusals, disclosure, a hidden model ---------------------------------------------------------


def test_disclosure_lists_the_labels_an_app_must_show(client: httpx.Client) -> None:
    def shown_labels(territory: str, language: str) -> Any:
        headers = {"cf-ipcountry": territory, "accept-language": language}
        return client.get("/v1/disclosure", params={"assistant": "assistant"}, headers=headers).json()["labels"]

    assert shown_labels("CN", "zh") == [{"name": "cn-gb45438", "text": "内容由AI生成", "show": "always"}]
    assert [one["text"][:12] for one in (*shown_labels("DE", "de"), *shown_labels("DE", "en"))] == [
        "Sie sprechen",
        "You are talk",
    ]
    assert shown_labels("JP", "ja") == []


@pytest.mark.parametrize("territory", ["CN", "DE"])
def test_sdk_stream_helper_assembles_a_labelled_stream(sdk: openai.OpenAI, territory: str) -> None:
    more: Any = {"stream_options": {"include_usage": True}, "n": 1}
    with sdk.chat.completions.stream(**options(territory, **more)) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert (final.choices[0].message.content or "").startswith(PLACES[territory][1])
    assert final.usage is not None
    plain = sdk.chat.completions.create(**options(territory))
    assert plain.usage is not None
    # Label text is not counted: a stream and a JSON answer cost what the provider reports.
    assert final.usage.completion_tokens == plain.usage.completion_tokens
