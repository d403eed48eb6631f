"""`gateway simulate`: simulated providers with faults."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable

import pytest

from tests.cli.conftest import Command, Running
from tests.kit.case_files import cases

Start = Callable[..., Running]


def ask(url: str, place: str) -> dict[str, object]:
    body = json.dumps({"model": "assistant", "messages": [{"role": "user", "content": "Hi"}]})
    command = [
        "curl",
        "-sS",
        "--noproxy",
        "*",
        f"{url}/v1/chat/completions",
        "-H",
        f"cf-ipcountry: {place}",
        "-d",
        body,
    ]
    headers = ["-H", "content-type: application/json"]
    explanation: dict[str, object] = json.loads(
        subprocess.run([*command, *headers], check=True, capture_output=True).stdout
    )
    return explanation


@pytest.mark.slow("waits for slow answers")
def test_fault_of_one_site_leaves_the_others_working(start: Start) -> None:
    running = start("simulate", "--port", "0", "--fault-at", "chatgpt-eu", "503", "--fault", "slow=0.01:0.5")
    running.wait_for("Ctrl-C")
    assert [line.split(maxsplit=3) for line in running.out.splitlines() if line.startswith("openai  ")] == [
        ["openai", "eu", "100%", "http error: status 503"],
        ["openai", "us", "50%", "slow: wait 0.01 s"],
    ]
    url = running.wait_for(r"listens on (\S+)\.")[1]
    assert "choices" in ask(url, "CN")
    error = ask(url, "DE")["error"]
    assert isinstance(error, dict)
    assert (error["code"], [attempt["status"] for attempt in error["attempts"]]) == ("provider_error", [503, 503])
    running.wait_for('"kind":"unavailable"')
    assert running.end(signal.SIGTERM).status == 0


@cases("options", "message")
def test_simulate_rejects_an_invalid_fault(gateway: Command, options: tuple[str, ...], message: str) -> None:
    shown = gateway("simulate", "--port", "0", *options)
    assert shown.status == 2
    assert message in shown.err
