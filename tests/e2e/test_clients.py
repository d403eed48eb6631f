"""Keys, limits and bindings of clients on a real process, and silent streams in the official client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import openai
import pytest

from gateway.assembly.application import Gateway
from providers.testkit.scenario import Scenario
from providers.testkit.server import SimulatorThread
from tests.e2e.conftest import KEYS, SITES, config_for, http_client
from tests.kit.chat_exchange import WHOLE
from tests.kit.chat_http import CHAT, body, events_of
from tests.kit.configs import BASE, key_hash, table_of
from tests.kit.configs import KEYS as TABLE_KEYS
from tests.kit.gateway_process import APP_KEY, GatewayProcess, running_gateway
from tests.kit.httpx_transport import HttpxTransport

pytestmark = pytest.mark.usefixtures("healthy")

DE = {"cf-ipcountry": "DE"}
OLD, NEW = "gk-old", "gk-new"


@contextmanager
def gateway_with(
    providers: SimulatorThread, folder: Path, clients: Mapping[str, Any] = MappingProxyType({}), more: str = "{}"
) -> Iterator[GatewayProcess]:
    """Run a gateway with these clients in addition to the usual ones."""
    for name in SITES:
        providers[name].scenario = Scenario()
    path = config_for(providers, {"clients": clients}, more).write(folder)
    with running_gateway(path, KEYS) as gateway:
        yield gateway


def limited(**limits: int) -> dict[str, Any]:
    """Return the section of a client with the key `gk-limited` and these limits."""
    return {"limited": {"keys": [key_hash("gk-limited")], "limits": limits}}


# --- limits ---------------------------------------------------------------------------------------


def test_official_client_waits_for_retry_after_and_succeeds(providers: SimulatorThread, tmp_path: Path) -> None:
    with (
        gateway_with(providers, tmp_path, limited(rpm=60)) as gateway,
        openai.OpenAI(
            base_url=f"{gateway.url}/v1",
            api_key="gk-limited",
            default_headers=DE,
            http_client=openai.DefaultHttpxClient(trust_env=False),
        ) as sdk,
    ):
        messages: Any = [{"role": "user", "content": "hi"}]
        with ThreadPoolExecutor(16) as threads:
            answers = list(
                threads.map(
                    lambda _: sdk.chat.completions.create(model="assistant", messages=messages).object, range(61)
                )
            )
        assert set(answers) == {"chat.completion"}
        impatient = sdk.with_options(max_retries=0)
        # One permit is refilled every second, and a slow machine sends few requests: continue until none is left.
        with pytest.raises(openai.RateLimitError) as raised, ThreadPoolExecutor(8) as threads:
            list(
                threads.map(
                    lambda _: impatient.chat.completions.create(model="assistant", messages=messages), range(150)
                )
            )
        assert raised.value.code == "rate_limited"


# --- bindings -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shops(providers: SimulatorThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("config")
    clients = {
        "shop-cn": {"keys": [key_hash("gk-cn")], "region": "cn"},
        "narrow": {"keys": [key_hash("gk-narrow"), key_hash("gk-narrow-2")], "assistants": ["other"]},
        "both": {"keys": [key_hash("gk-both")], "assistants": ["other"], "region": "us"},
        "odd": {"keys": [key_hash("gk-schön"), key_hash("gk-密")]},
    }
    other = "assistants: {other: {routes: {eu: [chatgpt-eu], cn: [qwen-cn]}}}"
    path = config_for(providers, other, {"clients": clients}).write(folder)
    with running_gateway(path, KEYS) as gateway:
        yield gateway


@pytest.mark.parametrize("key", ["gk-narrow", "gk-narrow-2"])
def test_key_bound_to_assistants_sees_no_others(shops: GatewayProcess, key: str) -> None:
    with http_client(shops, key, **DE) as client:
        assert client.post(CHAT, json={**body(), "model": "other"}).status_code == 200
        messages = set()
        for name in ("assistant", "gpt-4o", "nobody"):
            refused = client.post(CHAT, json={**body(), "model": name})
            error = refused.json()["error"]
            assert (refused.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
            messages.add(error["message"].replace(repr(name), "NAME"))
            explained = client.get("/v1/explain", params={"assistant": name})
            assert (explained.status_code, explained.json()["error"]["code"]) == (404, "model_not_found")
            assert client.get(f"/v1/models/{name}").status_code == 404
        # An assistant that the key may not use looks like one that does not exist.
        assert len(messages) == 1
        assert [item["id"] for item in client.get("/v1/models").json()["data"]] == ["other"]
        assert client.get("/v1/explain").json()["assistant"] == "other"


async def test_key_rotation_leaves_no_moment_without_a_valid_key() -> None:
    """Two hashes for a while, then only the new one. Each step activates another config in a running gateway."""

    async def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=WHOLE)

    def table(*keys: str) -> Any:
        shop = {"keys": [key_hash(key) for key in keys], "region": "us"}
        return table_of(BASE.merge({"clients": {"shop-cn": shop}}), TABLE_KEYS)

    gateway: Any = Gateway(table(OLD), HttpxTransport(httpx.MockTransport(answer)))
    seen = []
    async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway), base_url="http://gateway") as client:
        for keys in ((OLD,), (OLD, NEW), (NEW,)):
            gateway.config = table(*keys)
            for key in (OLD, NEW):
                got = await client.post(CHAT, json=body(), headers={"authorization": f"Bearer {key}"})
                seen.append(got.status_code)
    assert seen == [200, 401, 200, 200, 401, 200]


# --- silent streams -------------------------------------------------------------------------------


@pytest.mark.slow("reads two slow streams")
def test_official_client_accepts_a_stream_with_comments(providers: SimulatorThread, tmp_path: Path) -> None:
    with gateway_with(providers, tmp_path, more="resilience: {keep_alive: 40ms, idle: 10s}") as gateway:
        providers["eu"].scenario = Scenario(text="one two three", between_events_s=0.2)
        with http_client(gateway, APP_KEY, **DE) as client:
            raw = client.post(CHAT, json=body(stream=True))
        comments = raw.text.count("\n: keep-alive\n\n")
        assert comments >= 3
        assert events_of(raw)[-1] == "[DONE]"
        with openai.OpenAI(
            base_url=f"{gateway.url}/v1",
            api_key=APP_KEY,
            default_headers=DE,
            http_client=openai.DefaultHttpxClient(trust_env=False),
        ) as sdk:
            messages: Any = [{"role": "user", "content": "hi"}]
            chunks = list(sdk.chat.completions.create(model="assistant", messages=messages, stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one two three"
