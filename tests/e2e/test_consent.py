"""Consent and end-user identity on the real server: when consent is required, who gets the prompt, and which data is
sent.
"""

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

from providers.testkit.scenario import HttpError, Scenario
from providers.testkit.server import SimulatorThread
from tests.e2e.conftest import KEYS, PATIENT, config_for, openai_client
from tests.kit.claim_tokens import AUDIENCE, ISSUER, jwks, public, token
from tests.kit.configs import Config
from tests.kit.gateway_process import APP_KEY, BACKEND_KEY, GatewayProcess, running_gateway

pytestmark = pytest.mark.usefixtures("healthy")

CHAT = "/v1/chat/completions"
SECRETS = {"CONSENT_SECRET": "a" * 40, "IDENTITY_SECRET": "b" * 40}
RULES = """
deployments:
  # The first of its route.
  chatgpt-us: {consent: {mode: per_request, recipient: OpenAI}}
  # Another deployment follows it in its route.
  chatgpt-eu:
    {consent: {mode: standing, on_missing: skip, recipient: OpenAI in Germany}, identity: hash, passthrough: [prompt_cache_key]}
  chatgpt-eu-2: {identity: pass}
  gemini: {consent: {mode: standing, recipient: Google}}
assistants: {other-way: {routes: {eu: [chatgpt-eu-2, chatgpt-eu]}}}
clients: {backend: {may_assert: [territory, consent]}}
location: {signals: [claim, assertion, edge_header]}
secrets: {consent: "${CONSENT_SECRET}", identity: "${IDENTITY_SECRET}"}
"""


def config_with_consents(folder: Path, providers: SimulatorThread) -> Config:
    """Return a config in which three deployments need a consent, which a backend or a claim may state."""
    (folder / "keys.json").write_bytes(jwks(public("k1")))
    claim = {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["ES256"], "jwks": str(folder / "keys.json")}
    return config_for(providers, PATIENT, RULES, {"location": {"claim": claim}})


@pytest.fixture(scope="module")
def server(providers: SimulatorThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("consent")
    with running_gateway(config_with_consents(folder, providers).write(folder), KEYS | SECRETS) as process:
        yield process


HELLO: Any = [{"role": "user", "content": "what nobody else may know"}]


def ask(
    client: openai.OpenAI, territory: str, messages: Any = HELLO, assistant: str = "assistant", **headers: str
) -> Any:
    """Send a request and return the headers of the answer."""
    sent = {"cf-ipcountry": territory, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return client.chat.completions.with_raw_response.create(
        model=assistant, messages=messages, extra_headers=sent
    ).headers


def required_consent(client: openai.OpenAI, territory: str, messages: Any = HELLO, **headers: str) -> dict[str, Any]:
    """Return the consent that the official SDK reports as required."""
    with pytest.raises(openai.PermissionDeniedError) as caught:
        ask(client, territory, messages, **headers)
    assert caught.value.code == "consent_required"
    body: Any = caught.value.body
    consent: dict[str, Any] = body["consent"]
    return consent


def claim(**claims: Any) -> str:
    return token(**{"exp": time.time() + 600, **claims})


def test_consent_token_of_the_error_makes_the_request_succeed(
    server: GatewayProcess, providers: SimulatorThread
) -> None:
    before = providers["us"].accepted
    with openai_client(server) as client:
        asked = required_consent(client, "US")
        assert providers["us"].accepted == before
        assert asked["recipient"] == "OpenAI"
        assert asked["place"] == {"stores": "US", "processes": "US"}
        assert asked["would_send"] == ["messages"]
        assert 200 < asked["expires_at"] - time.time() <= 300
        for _ in range(2):
            answer = ask(client, "US", x_gateway_consent=asked["token"])
            assert answer["x-gateway-deployment"] == "chatgpt-us"
            line = server.wait_for("request", request_id=answer["x-request-id"])
            assert line["consent"] == "token"
            assert asked["token"] not in json.dumps(line)
        streamed = client.chat.completions.create(
            model="assistant",
            messages=HELLO,
            stream=True,
            extra_headers={"cf-ipcountry": "US", "x-gateway-consent": asked["token"]},
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed)


def test_standing_consent_is_read_from_a_claim_or_a_backend(server: GatewayProcess) -> None:
    with openai_client(server) as client, openai_client(server, BACKEND_KEY) as backend:
        required_consent(client, "GB")
        required_consent(client, "GB", x_gateway_claim=claim(territory="GB", consents=["OpenAI"]))
        answer = ask(client, "GB", x_gateway_claim=claim(territory="GB", consents=["OpenAI", "Google"]))
        assert answer["x-gateway-deployment"] == "gemini"
        assert server.wait_for("request", request_id=answer["x-request-id"])["consent"] == "standing:claim"
        answer = ask(backend, "GB", x_gateway_consent="granted")
        assert answer["x-gateway-deployment"] == "gemini"
        assert server.wait_for("request", request_id=answer["x-request-id"])["consent"] == "standing:assertion"
        # A deployment that requires consent for each request does not accept a standing consent.
        assert (
            required_consent(backend, "US", x_gateway_consent="granted")["note"]
            == "this deployment does not accept standing consent"
        )
        assert required_consent(client, "US", x_gateway_claim=claim(territory="US", consents=["OpenAI"]))["note"]
        # A token does where a standing consent would.
        sent = required_consent(client, "GB")["token"]
        assert ask(client, "GB", x_gateway_consent=sent)["x-gateway-deployment"] == "gemini"


def test_consent_that_was_not_needed_is_not_reported_with_the_answer(
    server: GatewayProcess, providers: SimulatorThread
) -> None:
    agreed = claim(territory="DE", consents=["OpenAI in Germany"])

    def answered_by(client: openai.OpenAI) -> tuple[str, str | None]:
        answer = ask(client, "DE", assistant="other-way", x_gateway_claim=agreed)
        line = server.wait_for("request", request_id=answer["x-request-id"])
        return answer["x-gateway-deployment"], line.get("consent")

    with openai_client(server) as client:
        assert answered_by(client) == ("chatgpt-eu-2", None)
        providers["eu2"].scenario = Scenario(faults=((HttpError(500), 1.0),))
        assert answered_by(client) == ("chatgpt-eu", "standing:claim")


def test_explain_and_disclosure_show_the_required_consent(server: GatewayProcess) -> None:
    def get(path: str, **headers: str) -> Any:
        sent = {"authorization": f"Bearer {APP_KEY}", "cf-ipcountry": "US", **headers}
        return httpx.get(f"{server.url}{path}?assistant=assistant", headers=sent, trust_env=False).json()

    explained = get("/v1/explain")
    assert explained["outcome"]["refusal"]["code"] == "consent_required"
    [considered] = explained["considered"]
    assert (considered["reason"], considered["eligible"]) == ("consent", False)
    rule = {"mode": "per_request", "on_missing": "refuse", "recipient": "OpenAI"}
    assert considered["consent"] == rule
    [disclosed] = get("/v1/disclosure")["data"]
    assert (disclosed["deployment"], disclosed["consent"]) == ("chatgpt-us", rule)
    sent = claim(territory="GB", consents=["Google"])
    answered = get("/v1/explain", **{"x-gateway-claim": sent, "cf-ipcountry": "GB"})
    assert answered["outcome"]["plan"][0]["deployment"] == "gemini"


@pytest.mark.slow
def test_workers_accept_tokens_of_each_other(providers: SimulatorThread, tmp_path: Path) -> None:
    config = config_with_consents(tmp_path, providers).merge("secrets: {consent: null}").write(tmp_path)
    with running_gateway(config, {**KEYS, **SECRETS, "GATEWAY_WORKERS": "2"}) as server:
        with openai_client(server) as client:
            sent = required_consent(client, "US")["token"]
        for _ in range(12):
            with openai_client(server) as client:
                assert ask(client, "US", x_gateway_consent=sent)["x-gateway-deployment"] == "chatgpt-us"


# --- identity -------------------------------------------------------------------------------------

SAID: dict[str, Any] = {
    "user": "anna@example.org",
    "safety_identifier": "anna-safety",
    "prompt_cache_key": "anna-cache",
    "metadata": {"person": "anna-metadata"},
}
HEADERS = {
    "x-forwarded-for": "198.51.100.7",
    "x-real-ip": "198.51.100.7",
    "forwarded": "for=198.51.100.7",
    "cf-connecting-ip": "198.51.100.7",
    "cookie": "session=anna-cookie",
    "user-agent": "anna-agent",
    "referer": "https://anna.example/",
    "origin": "https://anna.example",
    "accept-language": "de-anna",
    "x-request-id": "anna-request",
    "traceparent": "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-aaaaaaaaaaaaaaaa-01",
    "tracestate": "anna=1",
    "baggage": "person=anna",
    "openai-organization": "anna-org",
    "idempotency-key": "anna-once",
    "x-gateway-user": "anna-user",
    "x-stainless-lang": "anna-lang",
    "x-unknown": "anna-unknown",
}
# Headers that the provider's API needs, and those that any HTTP client sends.
OURS = set("host accept accept-encoding authorization connection content-length content-type user-agent".split())


def received(
    server: GatewayProcess, providers: SimulatorThread, site: str, territory: str, **more: Any
) -> tuple[Any, Any]:
    """Return the request as the provider got it, and the answer."""
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        sent = {"authorization": f"Bearer {APP_KEY}", "cf-ipcountry": territory, **HEADERS, **more}
        answer = client.post(CHAT, json={"model": "assistant", "messages": HELLO, **SAID}, headers=sent)
    assert answer.status_code == 200, answer.text
    return providers[site].requests[-1], answer


def test_no_client_header_reaches_a_provider(server: GatewayProcess, providers: SimulatorThread) -> None:
    sites = {"CN": "cn", "DE": "eu2", "GB": "gemini", "HK": "intl"}
    for territory, site in sites.items():
        sent = claim(territory=territory, consents=["Google"], sub="anna-subject")
        got, _ = received(server, providers, site, territory, **{"x-gateway-claim": sent})
        leaked = {name for name in got.headers if name not in OURS and not name.startswith(("x-goog-", "x-dashscope-"))}
        assert leaked == set(), site
        shown = json.dumps(dict(got.headers)) + got.path + got.query
        assert "anna" not in shown
        assert "198.51.100.7" not in shown
        assert "a" * 16 not in shown


def test_end_user_is_removed_and_reported(server: GatewayProcess, providers: SimulatorThread) -> None:
    got, answer = received(server, providers, "cn", "CN")
    assert b"anna" not in got.body
    dropped = set(answer.headers["x-gateway-dropped"].split(", "))
    assert dropped >= set(SAID)


def test_pseudonym_of_an_end_user_is_stable(server: GatewayProcess, providers: SimulatorThread) -> None:
    sent = {"x-gateway-claim": claim(territory="DE", consents=["OpenAI in Germany"])}
    first, answer = received(server, providers, "eu", "DE", **sent)
    again, _ = received(server, providers, "eu", "DE", **sent)
    body = json.loads(first.body)
    # The operator states that this field contains no personal data.
    assert body.pop("prompt_cache_key") == SAID["prompt_cache_key"]
    assert "anna" not in json.dumps(body)
    assert json.loads(again.body)["user"] == body["user"]
    key = SECRETS["IDENTITY_SECRET"]
    assert body["user"].startswith("p_")
    assert body["user"] != body["safety_identifier"]
    assert hashlib.sha256(SAID["user"].encode()).hexdigest()[:32] not in body["user"]
    assert key not in first.body.decode()
    assert answer.headers["x-gateway-dropped"] == "metadata"
