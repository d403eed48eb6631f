"""Labels, profiles and refusals on the real server: what the official SDK gets, and what each provider is sent."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from providers.testkit.server import SimulatorThread
from tests.e2e.conftest import KEYS, PATIENT, config_for
from tests.kit.claim_tokens import AUDIENCE, ISSUER, jwks, public, token
from tests.kit.gateway_process import GatewayProcess, running_gateway

CN_WORDS = "内容由AI生成\n\n"
EU_WORDS = "Sie sprechen mit einem KI-System; seine Antworten sind von KI erzeugt.\n\n"
HELLO: Any = [{"role": "user", "content": "Hello!"}]
# One territory for each wire format: the site used there, and the first words of its answer.
PLACES = {"CN": ("cn", CN_WORDS), "DE": ("eu", EU_WORDS), "JP": ("gemini", "")}
LABELS = """
regions:
  cn:
    labels: [{name: cn-gb45438, producer: "00119101"}]
    profile: {locale: zh-Hans-CN, locales: [en], timezone: Asia/Shanghai}
  eu: {labels: [eu-art50], profile: {locale: de, locales: [en], form: formal}}
  default: {profile: {locale: ja-JP}}
location: {signals: [claim, edge_header]}
"""


@pytest.fixture(scope="module")
def gateway(providers: SimulatorThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("config")
    (folder / "keys.json").write_bytes(jwks(public("k1")))
    claim = {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["ES256"], "jwks": str(folder / "keys.json")}
    config = config_for(providers, PATIENT, LABELS, {"location": {"claim": {**claim, "preferences": "prefers"}}})
    with running_gateway(config.write(folder), KEYS) as process:
        yield process


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
    [system_text] = [one["content"] for one in sent_to(providers, "cn")["input"]["messages"] if one["role"] == "system"]
    for words in ("English (en)", "US customary", "Europe/Berlin", "informally"):
        assert words in system_text
    assert "Asia/Shanghai" not in system_text
    assert gateway.wait_for("request", request_id="wish-1")["profile"].endswith("+time_zone+units+form")
    assert "Europe/Berlin" not in json.dumps([line for line in gateway.lines if isinstance(line, dict)])
    assert "xyzzy" not in json.dumps(sent_to(providers, "cn"))


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
    # Label text is not counted: a stream and a JSON answer cost what the provider reports.
    assert final.usage.completion_tokens == plain.usage.completion_tokens
