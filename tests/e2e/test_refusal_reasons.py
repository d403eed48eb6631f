"""Every reason of the closed set is reached by a request to a real gateway, or documented as reserved."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from gateway.api.errors import encode_error, from_domain
from gateway.config.sentences import known_messages
from gateway.model.refusal_reason import REASON_BY_CODE, RESERVED, RefusalReason
from providers.failures import FailureKind
from providers.testkit.scenario import Cut, HttpError, Scenario
from providers.testkit.server import SimulatorThread
from tests.e2e.conftest import KEYS, PATIENT, SITES, config_for
from tests.kit.chat_http import CHAT, body
from tests.kit.configs import key_hash
from tests.kit.gateway_process import APP_KEY, GatewayProcess, running_gateway

_BUSY_KEY = "gk-busy"
_SPENT_KEY = "gk-spent"
_RULES: dict[str, Any] = {
    "regions": {"cn": {"approvals": "required"}, "default": {"age_bands": {"adult": {}}, "age_missing": "refuse"}},
    "deployments": {"chatgpt-us": {"consent": {"mode": "per_request", "recipient": "OpenAI"}}},
    "clients": {
        "busy": {"keys": [key_hash(_BUSY_KEY)], "limits": {"rpm": 1}},
        "spent": {"keys": [key_hash(_SPENT_KEY)], "budgets": [{"tokens": 1, "per": "total"}]},
    },
}


@pytest.fixture(scope="module")
def server(providers: SimulatorThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("config")
    config = config_for(providers, PATIENT, _RULES).write(folder)
    with running_gateway(config, {**KEYS, "GATEWAY_STATE_DIR": str(folder / "state")}) as process:
        yield process


def _ask(server: GatewayProcess, territory: str = "DE", key: str = APP_KEY, **fields: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}", "cf-ipcountry": territory}
    headers["accept-language"] = "zh-TW"
    return httpx.post(f"{server.url}{CHAT}", json=body(**fields), headers=headers, trust_env=False, timeout=30)


def _ask_during(server: GatewayProcess, providers: SimulatorThread, fault: HttpError) -> httpx.Response:
    for site in ("eu", "eu2"):
        providers[site].scenario = Scenario(faults=((fault, 1.0),))
    return _ask(server)


def _ask_too_often(server: GatewayProcess) -> httpx.Response:
    _ask(server, key=_BUSY_KEY)
    return _ask(server, key=_BUSY_KEY)


_REACHED: dict[RefusalReason, Callable[[GatewayProcess, SimulatorThread], httpx.Response]] = {
    RefusalReason.TERRITORY: lambda server, _: _ask(server, "CU"),
    RefusalReason.AGE: lambda server, _: _ask(server, "JP"),
    RefusalReason.APPROVAL: lambda server, _: _ask(server, "CN"),
    RefusalReason.CONSENT: lambda server, _: _ask(server, "US"),
    RefusalReason.CAPABILITY: lambda server, _: _ask(server, "DE", modalities=["audio"]),
    RefusalReason.CAPACITY: lambda server, _: _ask_too_often(server),
    RefusalReason.BUDGET: lambda server, _: _ask(server, key=_SPENT_KEY),
    RefusalReason.OUTAGE: lambda server, providers: _ask_during(server, providers, HttpError(500)),
    RefusalReason.MODERATION: lambda server, providers: _ask_during(
        server, providers, HttpError(400, kind=FailureKind.CONTENT_FILTER)
    ),
    RefusalReason.ACCESS: lambda server, _: _ask(server, key="gk-wrong"),
    RefusalReason.REQUEST: lambda server, _: _ask(server, temperature=9),
}


@pytest.mark.parametrize("reason", sorted({*RefusalReason} - RESERVED - {RefusalReason.INTERNAL}))
def test_reason_is_in_the_error_and_in_the_log_line(
    server: GatewayProcess, providers: SimulatorThread, reason: RefusalReason
) -> None:
    for name in SITES:
        providers[name].scenario = Scenario()
    response = _REACHED[reason](server, providers)
    error = response.json()["error"]
    assert error["reason"] == reason, error
    assert error["user_message_language"] == "zh-Hant"
    assert error["user_message"] == known_messages()[reason]["zh-Hant"]
    line = server.wait_for("request", request_id=response.headers["x-request-id"])
    assert (line["code"], line["reason"]) == (error["code"], reason)
    metrics = httpx.get(f"{server.admin_url}/metrics", trust_env=False).text
    series = [text for text in metrics.splitlines() if text.startswith("gateway_requests_total{")]
    assert any(f'code="{error["code"]}"' in text and f'reason="{reason}"' in text for text in series)


GEMINI = "/v1beta/models/assistant:generateContent"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1/responses", "/v1/completions", GEMINI])
def test_every_dialect_has_the_sentence(
    server: GatewayProcess, providers: SimulatorThread, path: str, stream: bool
) -> None:
    """A stream that breaks off, and a refusal before it."""
    plain: dict[str, Any] = {
        CHAT: body(),
        "/v1/messages": {**body(), "max_tokens": 100},
        "/v1/responses": {"model": "assistant", "input": "hi"},
        "/v1/completions": {"model": "assistant", "prompt": "hi"},
        GEMINI: {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
    }[path]
    headers = {"authorization": f"Bearer {APP_KEY}", "cf-ipcountry": "DE" if stream else "CU", "accept-language": "ar"}
    for site in ("eu", "eu2"):
        providers[site].scenario = Scenario(faults=((Cut(), 1.0),)) if stream else Scenario()
    if stream and path == GEMINI:
        path = path.replace("generateContent", "streamGenerateContent?alt=sse")
    elif stream:
        plain = {**plain, "stream": True}
    text = httpx.post(f"{server.url}{path}", json=plain, headers=headers, trust_env=False, timeout=30).text
    reason = RefusalReason.OUTAGE if stream else RefusalReason.TERRITORY
    assert json.dumps(known_messages()[reason]["ar"], ensure_ascii=False) in text, text


@pytest.mark.parametrize("path", ["/v1/models", "/v1/nothing", "/v1/explain?assistant=unknown", "/v1/usage?month=x"])
def test_other_routes_have_the_sentence(server: GatewayProcess, path: str) -> None:
    headers = {"authorization": f"Bearer {APP_KEY}", "cf-ipcountry": "CU", "accept-language": "de"}
    error = httpx.get(f"{server.url}{path}", headers=headers, trust_env=False).json()["error"]
    assert error["user_message"] == known_messages()[error["reason"]]["de"]


def test_defect_has_the_reason_internal() -> None:
    envelope: Any = encode_error(from_domain(RuntimeError("broken"), []))
    assert envelope["error"]["reason"] == RefusalReason.INTERNAL


def test_every_reason_has_a_code_or_is_reserved() -> None:
    assert {*REASON_BY_CODE.values()} == {*RefusalReason} - RESERVED
    assert not RESERVED & _REACHED.keys()


def test_explain_has_the_reason_of_a_refusal(server: GatewayProcess) -> None:
    headers = {"authorization": f"Bearer {APP_KEY}", "cf-ipcountry": "CU"}
    answer = httpx.get(f"{server.url}/v1/explain", headers=headers, trust_env=False).json()
    refusal = answer["outcome"]["refusal"]
    assert (refusal["code"], refusal["reason"]) == ("region_blocked", "territory")
