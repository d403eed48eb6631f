"""The plain page at `/` outside a demo, and what other clients get there."""

import httpx
import pytest

from gateway import __version__
from gateway.assembly.application import Gateway
from tests.kit.configs import BASE, KEYS, table_of

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def client() -> httpx.AsyncClient:
    transport = httpx.ASGITransport(Gateway(table_of(BASE, KEYS)))
    return httpx.AsyncClient(transport=transport, base_url="http://gateway.test")


async def test_browser_gets_the_name_the_version_and_links(client: httpx.AsyncClient) -> None:
    page = await client.get("/", headers=BROWSER)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert f"Assistant gateway {__version__}" in page.text
    assert 'href="/docs"' in page.text
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]


async def test_page_has_no_configuration_and_no_state(client: httpx.AsyncClient) -> None:
    page = (await client.get("/", headers=BROWSER)).text
    for name in (*BASE.data["deployments"], *BASE.data["clients"], table_of(BASE, KEYS).version, "api_key"):
        assert name not in page


async def test_other_clients_get_the_hint(client: httpx.AsyncClient) -> None:
    for method, headers in (("GET", {"accept": "*/*"}), ("GET", {"accept": "application/json"}), ("POST", BROWSER)):
        answer = await client.request(method, "/", headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        assert "POST /v1/chat/completions" in answer.json()["error"]["message"]


async def test_head_is_answered_for_every_client(client: httpx.AsyncClient) -> None:
    for headers in ({"accept": "*/*"}, BROWSER):
        for path in ("/", "/api/hello"):
            answer = await client.head(path, headers=headers)
            assert (answer.status_code, "x-gateway-region" in answer.headers) == (200, False)
    assert (await client.get("/api/hello")).status_code == 404
