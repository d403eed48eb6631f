"""Errors in the official OpenAI SDK for Python: its own classes, and no retry after the gateway has retried."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest

from providers.testkit.scenario import Cut, HttpError, Scenario, Silent
from providers.testkit.server import SimulatorThread
from tests.kit.gateway_process import APP_KEY

HELLO: Any = [{"role": "user", "content": "Hello!"}]
SEARCH: Any = [{"type": "function", "function": {"name": "search"}}]


def ask(sdk: openai.OpenAI, territory: str = "DE", **more: Any) -> Any:
    fields = {"model": "assistant", "messages": HELLO, "extra_headers": {"cf-ipcountry": territory}, **more}
    return sdk.chat.completions.create(**fields)


@pytest.mark.parametrize(
    ("territory", "fields", "error", "status", "code", "param"),
    [
        ("DE", {"temperature": 9}, openai.BadRequestError, 400, "invalid_request", "temperature"),
        ("DE", {"messages": [{"role": "user", "content": 5}]}, openai.BadRequestError, 400, "invalid_request", "messages[0].content"),
        ("DE", {"extra_body": {"max_token": 5}}, openai.BadRequestError, 400, "invalid_request", "max_token"),
        ("DE", {"modalities": ["audio"]}, openai.BadRequestError, 400, "unsupported_capability", "modalities[0]"),
        ("CN", {"store": True}, openai.BadRequestError, 400, "unsupported_capability", "store"),
        ("CN", {"n": 5}, openai.BadRequestError, 400, "unsupported_capability", "n"),
        ("CN", {"response_format": {"type": "json_object"}}, openai.BadRequestError, 400, "unsupported_capability", "response_format"),
        ("CN", {"tools": SEARCH}, openai.BadRequestError, 400, "unsupported_capability", "tools"),
        ("DE", {"model": "asistant"}, openai.NotFoundError, 404, "model_not_found", "model"),
        ("CU", {}, openai.APIStatusError, 451, "region_blocked", None),
        ("XX", {}, openai.APIStatusError, 451, "region_unknown", None),
        ("RU", {}, openai.APIStatusError, 451, "no_eligible_deployment", None),
    ],
)  # fmt: skip
def test_invalid_request_raises_the_sdk_error_of_its_status(
    sdk: openai.OpenAI, territory: str, fields: dict[str, Any], error: type[openai.APIStatusError], status: int, code: str, param: str | None
) -> None:  # fmt: skip
    with pytest.raises(error) as raised:
        ask(sdk, territory, **fields)
    shown = raised.value
    assert (shown.status_code, shown.code, shown.param) == (status, code, param)
    assert shown.request_id == shown.response.headers["x-request-id"]
    assert shown.type in ("invalid_request_error", "permission_error")


def test_unknown_key_is_an_authentication_error(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError) as raised:
        ask(sdk.with_options(api_key="wrong"))
    assert (raised.value.code, raised.value.type) == ("invalid_api_key", "authentication_error")
    with pytest.raises(openai.AuthenticationError):
        sdk.with_options(api_key="wrong").models.list()


def _provider_calls(providers: SimulatorThread) -> int:
    return providers["eu"].received + providers["eu2"].received


@pytest.mark.parametrize("stream", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_sdk_does_not_retry_what_the_gateway_has_retried(
    fresh: httpx.Client, providers: SimulatorThread, stream: bool
) -> None:
    for site in ("eu", "eu2"):
        providers[site].scenario = Scenario(faults=((HttpError(500), 1.0),))
    before = _provider_calls(providers)
    with _sdk_of(fresh) as sdk, pytest.raises(openai.InternalServerError) as raised:
        ask(sdk.with_options(max_retries=3), stream=stream)
    assert (raised.value.status_code, raised.value.code) == (502, "provider_error")
    assert raised.value.response.headers["x-should-retry"] == "false"
    assert _provider_calls(providers) == before + 4
    body: Any = raised.value.body
    assert len(body["attempts"]) == 4


def test_provider_rate_limit_is_a_rate_limit_error(fresh: httpx.Client, providers: SimulatorThread) -> None:
    for site in ("eu", "eu2"):
        providers[site].scenario = Scenario(faults=((HttpError(429, retry_after_s=60), 1.0),))
    with _sdk_of(fresh) as sdk, pytest.raises(openai.RateLimitError) as raised:
        ask(sdk)
    assert (raised.value.code, raised.value.type) == ("rate_limited", "rate_limit_error")
    assert int(raised.value.response.headers["retry-after"]) >= 1


def test_sdk_timeout_cancels_the_upstream_call(sdk: openai.OpenAI, providers: SimulatorThread) -> None:
    providers["cn"].scenario = Scenario(faults=((Silent(), 1.0),))
    with pytest.raises(openai.APITimeoutError):
        ask(sdk, "CN", timeout=0.3)


@pytest.mark.parametrize("territory", ["CN", "DE", "JP"])
def test_interrupted_stream_raises_in_the_sdk(sdk: openai.OpenAI, providers: SimulatorThread, territory: str) -> None:
    site = {"CN": "cn", "DE": "eu", "JP": "gemini"}[territory]
    words = "one two three four five six seven eight nine ten " * 5
    providers[site].scenario = Scenario(faults=((Cut(after_events=4), 1.0),), text=words, between_events_s=0.01)
    pieces: list[str] = []
    # A busy machine may read the text and the end after it at once. That is an ordinary failure and proves nothing.
    for _ in range(10):
        with pytest.raises(openai.APIError) as raised:
            pieces.extend(chunk.choices[0].delta.content or "" for chunk in ask(sdk, territory, stream=True))
        if pieces:
            break
    assert "".join(pieces)
    assert words.startswith("".join(pieces))
    assert raised.value.code == "stream_interrupted"
    assert not isinstance(raised.value, openai.APIStatusError)


def _sdk_of(client: httpx.Client) -> openai.OpenAI:
    return _sdk(str(client.base_url), APP_KEY)


def _sdk(url: str, key: str) -> openai.OpenAI:
    http_client = openai.DefaultHttpxClient(trust_env=False)
    return openai.OpenAI(base_url=f"{url.rstrip('/')}/v1", api_key=key, max_retries=0, http_client=http_client)
