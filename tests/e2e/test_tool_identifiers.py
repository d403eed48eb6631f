"""Identifiers of devices, accounts and sessions that tools add reach no provider, at any path."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from providers.testkit.server import SimulatorThread
from tests.e2e.conftest import KEYS, SITES, config_with_inputs
from tests.kit.gateway_process import APP_KEY, GatewayProcess, running_gateway
from tests.kit.prompt_paths import PROMPT_FORMS

SECRET = "secret-4711"
PLACES = ["CN", "DE", "US", "JP"]
HEADERS = [
    # Claude Code and the SDKs of Anthropic and OpenAI
    "x-claude-code-session-id",
    "x-app",
    *(f"x-stainless-{name}" for name in ("lang", "arch", "os", "runtime", "runtime-version", "package-version")),
    "openai-organization",
    "openai-project",
    # Codex
    "session-id",
    "thread-id",
    "session_id",
    "conversation_id",
    "originator",
    "x-codex-installation-id",
    "x-codex-turn-metadata",
    # Gemini CLI
    "x-gemini-api-privileged-user-id",
    "x-goog-user-project",
    "x-goog-api-client",
    # any of them
    "user-agent",
    "cookie",
    "referer",
    "x-forwarded-for",
]
"""Headers that tools send. None of their values may reach a provider."""
FIELDS: dict[str, dict[str, Any]] = {
    "chat": {"user": SECRET, "safety_identifier": SECRET, "prompt_cache_key": SECRET, "metadata": {"a": SECRET}},
    "responses": {
        "client_metadata": {"x-codex-installation-id": SECRET},
        "user": SECRET,
        "safety_identifier": SECRET,
        "prompt_cache_key": SECRET,
        "metadata": {"a": SECRET},
    },
    "messages": {"metadata": {"user_id": json.dumps({"device_id": SECRET, "account_uuid": SECRET})}},
    "gemini": {"labels": {"session": SECRET}},
    "completions": {"user": SECRET},
}
"""Fields of a body that tools add, by the form of the request."""
INPUTS = [
    ("/v1/embeddings", {"model": "assistant", "input": "Hi", "user": SECRET}),
    ("/v1/moderations", {"model": "assistant", "input": "Hi", "user": SECRET}),
    ("/v1beta/models/assistant:embedContent", {"content": {"parts": [{"text": "Hi"}]}, "title": SECRET}),
]


def requests_of_tools() -> Iterator[Any]:
    """Yield the path and the body of a request at each path that accepts a prompt."""
    for form in PROMPT_FORMS:
        for stream in form.shapes:
            path, body = form.write("assistant", "Hi", stream)
            fields = FIELDS.get(form.name.partition("-")[0], {})
            yield pytest.param(path, {**body, **fields}, id=f"{form}-{stream}")
    yield from (pytest.param(path, body, id=path.rpartition("/")[2]) for path, body in INPUTS)


@pytest.fixture(scope="module")
def server(providers: SimulatorThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with running_gateway(config_with_inputs(providers).write(tmp_path_factory.mktemp("tools")), KEYS) as process:
        yield process


@pytest.mark.parametrize("territory", PLACES)
@pytest.mark.parametrize(("path", "body"), list(requests_of_tools()))
def test_identifiers_that_tools_add_reach_no_provider(
    server: GatewayProcess, providers: SimulatorThread, path: str, body: dict[str, Any], territory: str
) -> None:
    before = {name: providers[name].received for name in SITES}
    headers = {**dict.fromkeys(HEADERS, SECRET), "authorization": f"Bearer {APP_KEY}", "cf-ipcountry": territory}
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        response = client.post(path, json=body, headers=headers)
    assert response.status_code == 200, response.text
    received: list[Any] = []
    for name in SITES:
        if new := providers[name].received - before[name]:
            received += providers[name].requests[-new:]
    assert bool(received) is not path.lower().endswith(("count_tokens", "counttokens", "input_tokens"))
    for request in received:
        assert SECRET not in repr((request.path, request.query, request.headers, request.body))
        assert APP_KEY not in repr((request.headers, request.body))
