"""Probes: the same response directly and through the framework, for every method and spelling of the path."""

import json
import os
import subprocess
import sys
from itertools import product
from typing import Any

import httpx
import pytest

from gateway.api.admin import build_admin
from gateway.api.admin_guard import Guard
from gateway.api.raw_responses import Probe, ProbesFirst, json_response
from gateway.assembly.application import Gateway
from tests.gateway.admin_calls import ADMIN, PUBLIC, AdminCallbacks, answer_of
from tests.kit.configs import BASE, table_of

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
HEADERS: tuple[dict[str, str], ...] = (
    {},
    {"origin": "https://page.example"},
    {"host": "evil.example"},
    {"accept": "x/y"},
    {"content-type": "text/plain"},
)


def app_of(listener: str, *, is_draining: bool = False) -> Any:
    if listener == "admin":
        return build_admin(AdminCallbacks(), Guard())
    gateway = Gateway(table_of(BASE))
    gateway.is_draining = is_draining
    return gateway


@pytest.mark.parametrize("is_draining", [False, True])
@pytest.mark.parametrize(("listener", "paths"), [("public", PUBLIC), ("admin", ADMIN)])
async def test_every_spelling_of_a_path_gets_one_answer(
    listener: str, paths: tuple[str, ...], is_draining: bool
) -> None:
    app = app_of(listener, is_draining=is_draining)
    for path, method, headers in product(paths, METHODS, HEADERS):
        plain = await answer_of(app, method, path, headers)
        # The framework answers under a root path, and for a path with an encoded line feed.
        assert await answer_of(app, method, f"/below{path}", headers, "/below") == plain
        assert await answer_of(app, method, f"{path}\n", headers) == plain


@pytest.mark.parametrize(("listener", "paths"), [("public", PUBLIC), ("admin", ADMIN)])
async def test_unsupported_method_of_a_probe_is_answered_with_allow(listener: str, paths: tuple[str, ...]) -> None:
    app = app_of(listener)
    for path in paths:
        status, headers, body = await answer_of(app, "DELETE", path, {})
        assert (status, dict(headers)[b"allow"]) == (405, b"GET")
        assert json.loads(body)["error"]["code"] == "method_not_allowed"


async def test_draining_process_is_not_ready() -> None:
    assert (await answer_of(app_of("public"), "GET", "/readyz", {}))[::2] == (200, b'{"status":"ready"}')
    draining = await answer_of(app_of("public", is_draining=True), "HEAD", "/readyz", {})
    assert draining[::2] == (503, b'{"status":"draining"}')


async def test_only_the_exact_path_takes_the_fast_path() -> None:
    async def one(_: object) -> Any:
        return json_response("probe")

    async def rest(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})

    app = ProbesFirst({"/healthz": Probe(one)}, rest)
    assert (await answer_of(app, "GET", "/healthz", {}))[0] == 200
    for path, root_path in (("/healthz/", ""), ("/Healthz", ""), ("/below/healthz", "/below"), ("/healthz", "/below")):
        assert (await answer_of(app, "GET", path, {}, root_path))[0] == 404


async def test_internal_error_is_sent_to_the_client_and_raised_to_the_server() -> None:
    async def broken(_: object) -> Any:
        raise ZeroDivisionError

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def rest(*_: object) -> None:
        raise AssertionError

    app = ProbesFirst({"/healthz": Probe(broken)}, rest)
    with pytest.raises(ZeroDivisionError):
        await app({"type": "http", "method": "GET", "path": "/healthz", "headers": []}, rest, send)
    assert (sent[0]["status"], json.loads(sent[1]["body"])["error"]["code"]) == (500, "internal_error")


UNASKED = """
import asyncio, sys
import gateway.changes.initial_config, gateway.server.host, gateway.server.start, gateway.server.workers, gateway.server.worker
started = {*sys.modules}
from gateway.api.admin import build_admin
from gateway.api.admin_guard import Guard
from gateway.app import Gateway
from tests.gateway.admin_calls import AdminCallbacks
from tests.gateway.admin_calls import ADMIN, PUBLIC, answer_of
from tests.kit.configs import BASE, table_of

async def main():
    public, admin = Gateway(table_of(BASE)), build_admin(AdminCallbacks(), Guard())
    for app, paths in ((public, PUBLIC), (admin, ADMIN)):
        for path in paths:
            await answer_of(app, "GET", path, {})
    await answer_of(public, "POST", "/v1/chat/completions", {})
    unasked = {*sys.modules}
    await answer_of(public, "GET", "/v1/models", {})
    print(sorted({"sqlite3", "tomllib", "yaml"} & started | {"fastapi", "starlette"} & unasked), "fastapi" in sys.modules)

asyncio.run(main())
"""


def test_chat_and_health_requests_do_not_import_the_web_framework() -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "COVERAGE_"))}
    done = subprocess.run([sys.executable, "-c", UNASKED], env=environ, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["[] True"], done.stderr


async def test_the_document_still_has_health() -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app_of("public")), base_url="http://gateway") as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    assert {"/healthz", "/readyz"} < paths.keys()
    assert "/health" not in paths
    assert paths["/readyz"]["get"]["responses"].keys() == {"200", "503"}
