"""The real Claude Code: automatic mode, `/compact` and a refusal by territory in the demo, and a spent budget."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Running
from tests.kit.gateway_process import APP_KEY
from tests.kit.metered_gateway import serving, with_budget
from tests.kit.node_clients import installed_node, installed_packages

pytestmark = pytest.mark.slow("starts Claude Code")

_LIMIT_S = 240
Ask = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """Return a function that gives words to Claude Code in a home of its own, and returns the events that it prints."""
    packages = installed_packages(installed_node()) / "node_modules" / "@anthropic-ai"
    program = next(packages.glob("claude-code-*/claude*"))
    for name in ("home", "project"):
        tmp_path.joinpath(name).mkdir()

    def run(url: str, *words: str, territory: str = "DE") -> list[dict[str, Any]]:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path / "home"),
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_AUTH_TOKEN": APP_KEY,
            "ANTHROPIC_MODEL": "claude-assistant",
            "ANTHROPIC_CUSTOM_HEADERS": f"cf-ipcountry: {territory}",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
        }
        done = subprocess.run(
            [str(program), "--print", "--output-format", "stream-json", "--verbose", *words],
            cwd=tmp_path / "project",
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
        assert done.stdout.startswith("{"), done.stdout + done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


@pytest.fixture
def demo(untouched_demo: Running) -> str:
    return untouched_demo.wait_for(r"listens on (\S+)\.")[1]


def requests_of(demo: Running) -> list[tuple[int, str | None]]:
    """Return status and reason of each request that the demo has answered."""
    lines = [json.loads(line) for line in demo.err.splitlines()]
    return [(line["status"], line.get("reason")) for line in lines if line["event"] == "request"]


def test_conversation_in_automatic_mode_is_compacted_and_goes_on(untouched_demo: Running, demo: str, ask: Ask) -> None:
    before = len(requests_of(untouched_demo))
    first = ask(demo, "--permission-mode", "auto", "Say hello.")[-1]
    assert (first["is_error"], "simulated" in first["result"]) == (False, True), first
    # It asks for the vendor's own checks, is refused by name, and goes on without.
    assert requests_of(untouched_demo)[before:] == [(400, "request"), (200, None)]
    compacted = ask(demo, "--continue", "/compact")
    assert [one["compact_result"] for one in compacted if "compact_result" in one] == ["success"]
    again = ask(demo, "--continue", "Say hello again.")[-1]
    assert (again["is_error"], "simulated" in again["result"]) == (False, True), again
    assert set(requests_of(untouched_demo)[before + 2 :]) == {(200, None)}


def test_refusal_by_territory_is_shown_in_our_words_and_ends(untouched_demo: Running, demo: str, ask: Ask) -> None:
    before = len(requests_of(untouched_demo))
    refused = ask(demo, "Say hello.", territory="CU")[-1]
    assert (refused["is_error"], refused["api_error_status"]) == (True, 451)
    assert refused["result"] == "API Error: 451 the assistant is not available in Cuba"
    assert requests_of(untouched_demo)[before:] == [(451, "territory")]


def test_spent_budget_is_shown_in_our_words_and_ends(ask: Ask, tmp_path: Path) -> None:
    named = {"assistants": {"assistant": {"aliases": ["claude-*"]}}}
    with serving(tmp_path, "ok", with_budget(tokens=100), named) as (gateway, meter):
        refused = ask(gateway.url, "Say hello.")[-1]
        assert (refused["is_error"], refused["api_error_status"]) == (True, 429)
        for words in ("budget", "ask the operator of the gateway"):
            assert words in refused["result"]
        assert "/login" not in refused["result"]
        assert len(meter.calls) == 0
