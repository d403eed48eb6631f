"""CORS: allowed origins, preflights, and the responses that a page may read, also errors."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from gateway.assembly.application import Gateway
from gateway.execution.httpx_transport import HttpxTransport
from tests.kit.chat_exchange import CONFIG, WHOLE
from tests.kit.configs import Config, key_hash
from tests.kit.configs import table_of as compiled
from tests.kit.doc_pages import docs_table

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
HELLO = {"model": "assistant", "messages": [{"role": "user", "content": "hello"}]}
EVERYWHERE = [("POST", CHAT), ("GET", "/v1/models"), ("GET", "/v1/explain"), ("GET", "/docs"), ("GET", "/nothing")]


def client_of(config: Config) -> httpx.AsyncClient:
    async def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=WHOLE)

    app: Any = Gateway(compiled(config, {"KEY": "sk"}), HttpxTransport(httpx.MockTransport(answer)))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway")


async def preflight(text: str, origin: str, asked: str = ASKED, path: str = CHAT, method: str = "POST") -> Any:
    headers = {"origin": origin, "access-control-request-method": method}
    if asked:
        headers["access-control-request-headers"] = asked
    async with client_of(text) as client:
        return await client.options(path, headers=headers)


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


@pytest.mark.parametrize(
    ("asked", "allowed"),
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
async def test_no_other_header_is_allowed(asked: str, allowed: str | None) -> None:
    got = (await preflight(LISTED, ORIGIN, asked)).headers.get("access-control-allow-headers")
    assert got == allowed or (
        len(asked) > 4096 and got is not None and got.startswith(str(allowed)) and len(got) < 8192
    )


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
    async with client_of(LISTED) as client:
        headers = {"origin": origin, "authorization": f"Bearer {KEY}"}
        answered = await client.post(CHAT, json=HELLO, headers=headers)
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
    async with client_of(LISTED) as client:
        response = await client.get("/healthz", headers={"origin": ORIGIN})
    cells = [row[0] for row in docs_table("| response header")]
    names = {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    assert names <= set(response.headers["access-control-expose-headers"].split(", "))


@pytest.mark.parametrize("origin", [*OTHERS[:4], "null"])
async def test_any_page_only_where_it_is_written_so(origin: str) -> None:
    asked = await preflight(ANY, origin)
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (204, "*")
    async with client_of(ANY) as client:
        answered = await client.get("/v1/models", headers={"origin": origin})
    assert (answered.status_code, answered.headers["access-control-allow-origin"]) == (401, "*")
    assert "vary" not in answered.headers


async def test_response_without_an_origin_has_only_the_vary_header() -> None:
    async with client_of(LISTED) as client:
        answered = await client.get("/healthz")
        options = await client.options(CHAT)
    assert (crossing_of(answered), answered.headers["vary"]) == ({}, "Origin")
    assert (options.status_code, options.headers["allow"]) == (405, "POST")
    async with client_of(ANY) as client:
        answered = await client.get("/healthz")
    assert (answered.status_code, crossing_of(answered), "vary" in answered.headers) == (200, {}, False)


async def test_cors_is_off_by_default() -> None:
    response = await preflight(OFF, ORIGIN)
    assert response.status_code == 405
    async with client_of(OFF) as client:
        answered = await client.post(CHAT, json=HELLO, headers={"origin": ORIGIN, "authorization": f"Bearer {KEY}"})
    assert answered.status_code == 200
    assert {**crossing_of(response), **crossing_of(answered)} == {}
    assert "vary" not in answered.headers


async def test_internal_error_has_cors_headers() -> None:
    async def broken(_: httpx.Request) -> httpx.Response:
        raise RuntimeError

    app: Any = Gateway(compiled(LISTED, {"KEY": "sk"}), HttpxTransport(httpx.MockTransport(broken)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        headers = {"origin": ORIGIN, "authorization": f"Bearer {KEY}"}
        response = await client.post(
            CHAT, content=json.dumps(HELLO), headers={**headers, "content-type": "application/json"}
        )
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (500, ORIGIN)
