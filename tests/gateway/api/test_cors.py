"""CORS: allowed origins, preflights, and the responses that a page may read, also errors."""

import io
from dataclasses import replace
from typing import Any

import httpx
import pytest

from gateway.api.cors import _allow_origin
from gateway.assembly.application import Gateway
from gateway.config.examples import example_path
from gateway.model.config_version import Cors
from gateway.public_names import RESPONSE_HEADERS, names_in
from gateway.telemetry import log
from gateway.telemetry.background_writer import flush_all
from tests.kit.chat_exchange import CONFIG, Handler, answer_completely
from tests.kit.configs import Config, key_hash
from tests.kit.configs import table_of as compiled
from tests.kit.httpx_transport import HttpxTransport

KEY = "gk-app"
CHAT = "/v1/chat/completions"
ORIGIN = "https://app.example"
OFF = CONFIG.merge({"clients": {"app": {"keys": [key_hash(KEY)], "limits": {"rpm": 1}}}})
LISTED = OFF.merge({"cors": {"origins": [ORIGIN, "http://localhost:5173", "capacitor://localhost"]}})
ANY = OFF.merge({"cors": {"origins": ["*"]}})
# Headers of the official JavaScript client in a browser (up to version 6; Firefox and Safari also ask for
# user-agent), and headers of our own API.
ASKED = (
    "authorization,content-type,user-agent,x-stainless-arch,x-stainless-lang,x-stainless-os,x-stainless-package-version,"
    "x-stainless-retry-count,x-stainless-runtime,x-stainless-runtime-version,x-stainless-timeout,openai-organization,"
    "openai-project,x-request-id,traceparent,x-gateway-timeout-ms"
)
# The headers that the official SDKs of JavaScript send (@anthropic-ai/sdk, openai 6, @google/genai, run on 2026-11-26), and a page
# that compresses its bodies.
STAINLESS = "x-stainless-" + ",x-stainless-".join(
    "arch lang os package-version retry-count runtime runtime-version timeout helper-method".split()
)
OF_SDKS = {
    "anthropic": "accept,anthropic-beta,anthropic-dangerous-direct-browser-access,anthropic-version,authorization,"
    f"content-type,user-agent,x-api-key,{STAINLESS}",
    "openai": f"accept,authorization,content-type,openai-organization,openai-project,user-agent,{STAINLESS}",
    "google": "content-type,user-agent,x-goog-api-client,x-goog-api-key,x-goog-user-project,x-server-timeout",
    "compressed": "authorization,content-encoding,content-type,x-client-request-id",
}
HELLO = {"model": "assistant", "messages": [{"role": "user", "content": "hello"}]}
EVERYWHERE = [("POST", CHAT), ("GET", "/v1/models"), ("GET", "/v1/explain"), ("GET", "/docs"), ("GET", "/nothing")]


def client_of(config: Config, handler: Handler = answer_completely, **changes: Any) -> httpx.AsyncClient:
    table = replace(compiled(config, {"KEY": "sk"}), **changes)
    app: Any = Gateway(table, HttpxTransport(httpx.MockTransport(handler)))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway")


async def preflight(
    config: Config, origin: str, headers: str = ASKED, path: str = CHAT, method: str = "POST"
) -> httpx.Response:
    lines = {"origin": origin, "access-control-request-method": method}
    more = {"access-control-request-headers": headers} if headers else {}
    return await asked(config, "OPTIONS", path, **lines, **more)


async def asked(config: Config, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
    async with client_of(config) as client:
        return await client.request(method, path, json=body, headers=headers)


def crossing_of(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.startswith("access-control-")}


@pytest.mark.parametrize(("method", "path"), EVERYWHERE)
async def test_a_preflight_needs_no_key_and_allows_what_sdks_send(method: str, path: str) -> None:
    response = await preflight(LISTED, ORIGIN, path=path, method=method)
    assert (response.status_code, response.content) == (204, b"")
    assert "Origin" in response.headers["vary"]
    crossing = crossing_of(response)
    assert crossing.pop("access-control-allow-headers").split(", ") == sorted(ASKED.split(","))
    assert crossing == {
        "access-control-allow-origin": ORIGIN,
        "access-control-allow-methods": "GET, POST",
        "access-control-max-age": "600",
    }


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1/responses", "/v1beta/models/assistant:generateContent"])
@pytest.mark.parametrize("sdk", OF_SDKS)
async def test_every_header_of_an_sdk_is_allowed_on_every_api(sdk: str, path: str) -> None:
    response = await preflight(LISTED, ORIGIN, OF_SDKS[sdk], path)
    assert set(response.headers["access-control-allow-headers"].split(", ")) == set(OF_SDKS[sdk].split(","))


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ("", None),
        ("x-evil", None),
        ("Authorization, X-Evil , CONTENT-TYPE", "authorization, content-type"),
        ("cookie,x-forwarded-for,cf-ipcountry,x-edge-auth", None),
        ("x-gateway-" + "a" * 65, None),
        ("authorization\r\nset-cookie: a", None),
        ("x-stainless-" + ",x-stainless-".join(map(str, range(5000))), "x-stainless-0, x-stainless-1, "),
    ],
)
async def test_no_other_header_is_allowed(headers: str, allowed: str | None) -> None:
    got = (await preflight(LISTED, ORIGIN, headers)).headers.get("access-control-allow-headers")
    is_cut = len(headers) > 4096 and got is not None and got.startswith(str(allowed)) and len(got) < 8192
    assert got == allowed or is_cut


OTHERS = [
    "https://evil.example",
    "http://app.example",
    "https://app.example.evil.example",
    "https://evil.app.example",
    "https://app.example:8443",
    "https://APP.example",
    "https://app.example/",
    "null",
    "*",
    "",
]


@pytest.mark.parametrize("origin", OTHERS)
async def test_origin_that_is_not_listed_gets_no_cors_headers(origin: str) -> None:
    refused = await preflight(LISTED, origin)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_denied")
    assert crossing_of(refused) == {}
    answered = await asked(LISTED, "POST", CHAT, HELLO, origin=origin, authorization=f"Bearer {KEY}")
    assert (answered.status_code, answered.headers["vary"]) == (200, "Origin")
    assert crossing_of(answered) == {}


@pytest.mark.parametrize("origin", [ORIGIN, "http://localhost:5173", "capacitor://localhost"])
async def test_pages_that_are_listed_read_answers_and_errors(origin: str) -> None:
    """401, 200, 429, 404, 405, 400: a browser hides them from the page without the CORS headers."""
    async with client_of(LISTED) as client:
        client.headers["origin"] = origin
        nobody = await client.post(CHAT, json=HELLO)
        client.headers["authorization"] = f"Bearer {KEY}"
        answers = [
            nobody,
            await client.post(CHAT, json=HELLO),
            await client.post(CHAT, json=HELLO),
            await client.get("/nothing"),
            await client.put(CHAT),
            await client.get("/v1/models"),
            await client.get("/v1/explain?assistant=x"),
        ]
    assert [answer.status_code for answer in answers] == [401, 200, 429, 404, 405, 200, 404]
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == origin
        assert answer.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in answer.headers


async def test_every_documented_response_header_may_be_read() -> None:
    response = await asked(LISTED, "GET", "/healthz", origin=ORIGIN)
    assert {*names_in(RESPONSE_HEADERS), "allow"} == set(response.headers["access-control-expose-headers"].split(", "))


async def test_page_that_hides_its_origin_is_none_of_any() -> None:
    """Sandboxed frames and local files of any author send `null`."""
    refused = await preflight(ANY, "null")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_denied")
    assert crossing_of(refused) == {}
    answered = await asked(ANY, "GET", "/v1/models", origin="null")
    assert (answered.status_code, crossing_of(answered), answered.headers["vary"]) == (401, {}, "Origin")


@pytest.mark.parametrize("origin", OTHERS[:4])
async def test_any_page_only_where_it_is_written_so(origin: str) -> None:
    allowed = await preflight(ANY, origin)
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (204, "*")
    answered = await asked(ANY, "GET", "/v1/models", origin=origin)
    assert (answered.status_code, answered.headers["access-control-allow-origin"]) == (401, "*")
    assert "vary" not in answered.headers


async def test_response_without_an_origin_has_only_the_vary_header() -> None:
    answered, options = await asked(LISTED, "GET", "/healthz"), await asked(LISTED, "OPTIONS", CHAT)
    assert (crossing_of(answered), answered.headers["vary"]) == ({}, "Origin")
    assert (options.status_code, options.headers["allow"]) == (405, "POST")
    answered = await asked(ANY, "GET", "/healthz")
    assert (answered.status_code, crossing_of(answered), "vary" in answered.headers) == (200, {}, False)


async def test_cors_is_off_by_default() -> None:
    response = await preflight(OFF, ORIGIN)
    assert response.status_code == 405
    answered = await asked(OFF, "POST", CHAT, HELLO, origin=ORIGIN, authorization=f"Bearer {KEY}")
    assert answered.status_code == 200
    assert {**crossing_of(response), **crossing_of(answered)} == {}
    assert "vary" not in answered.headers


async def test_internal_error_has_cors_headers() -> None:
    async def broken(_: httpx.Request) -> httpx.Response:
        raise RuntimeError

    async with client_of(LISTED, broken) as client:
        headers = {"origin": ORIGIN, "authorization": f"Bearer {KEY}"}
        response = await client.post(CHAT, json=HELLO, headers=headers)
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (500, ORIGIN)


LOOPBACK = [
    "http://localhost:5173",
    "http://localhost",
    "https://127.0.0.1:8443",
    "http://[::1]:3000",
    "http://app.localhost:1",
]


@pytest.mark.parametrize("origin", LOOPBACK)
async def test_demo_allows_every_page_of_this_machine(origin: str) -> None:
    lines = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,cf-ipcountry,cookie",
    }
    async with client_of(OFF, cors=Cors(loopback=True)) as client:
        response = await client.options(CHAT, headers={"origin": origin, **lines})
        answered = await client.get("/healthz", headers={"origin": origin})
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (204, origin)
    assert response.headers["access-control-allow-headers"] == "cf-ipcountry, content-type"
    assert answered.headers["access-control-allow-origin"] == origin


@pytest.mark.parametrize(
    "origin",
    [
        *OTHERS,
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "http://evil.example:80@localhost",
        "http://128.0.0.1",
        "http://localhost:123456",
        "http://localhost\n",
    ],
)
async def test_demo_refuses_pages_of_other_machines(origin: str) -> None:
    assert _allow_origin(Cors(loopback=True), origin.encode()) == []


@pytest.mark.parametrize("territory", ["cors: {origins: [https://a.example]}", "{}"])
def test_only_a_demo_allows_pages_of_this_machine(territory: str) -> None:
    demo = Config.parse(example_path("demo.yaml").read_text("utf-8")).merge(territory)
    cors = compiled(demo).cors
    assert cors.loopback
    listed = compiled(LISTED, {"KEY": "sk"}).cors
    assert not listed.loopback


@pytest.fixture
def log_text() -> io.StringIO:
    """The log of a test."""
    stream = io.StringIO()
    log.configure("json", "info", stream)
    return stream


@pytest.mark.parametrize("config", [OFF, LISTED], ids=["off", "listed"])
async def test_refused_preflight_is_logged_once_with_the_setting_to_change(
    config: Config, log_text: io.StringIO
) -> None:
    lines = {b"access-control-request-method": b"POST"}
    async with client_of(config) as client:
        for origin in ["https://a.example", "https://a.example", "https://b.example", "\u00e9", *map(str, range(50))]:
            await client.options(CHAT, headers={b"origin": origin.encode("latin-1"), **lines})
    flush_all()
    lines = [line for line in log_text.getvalue().splitlines() if "preflight_refused" in line]
    assert len(lines) == 16
    assert sum("https://a.example" in line for line in lines) == 1
    assert all("`cors.origins`" in line for line in lines)
    assert "(malformed)" in lines[2]
