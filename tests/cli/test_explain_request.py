"""`gateway explain --request ID`: a request that has ended is explained from its receipt or from the log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.cli.past_requests import _WORDS
from gateway.model.record import DecisionReason
from providers.testkit.scenario import HttpError, Scenario
from providers.testkit.server import SimulatorServer, SimulatorThread
from tests.cli.conftest import Command
from tests.e2e.conftest import KEYS, SITES, config_for
from tests.kit.chat_http import CHAT, EU, body
from tests.kit.gateway_process import APP_KEY, running_gateway
from tests.kit.vendor_checks import checked_simulators
from tests.kit.waiting import eventually


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, Path]]:
    """Yield the id of a request whose first provider named a wait of 3 s, the state directory, and the log."""
    folder = tmp_path_factory.mktemp("past")
    state, log = folder / "state", folder / "gateway.log"
    dialects = checked_simulators()
    servers = {name: SimulatorServer(dialects[provider], f"site {name}") for name, provider in SITES.items()}
    with SimulatorThread(servers) as providers:
        providers["eu"].scenario = Scenario(faults=((HttpError(429, retry_after_s=3), 1.0),))
        config = config_for(providers).write(folder)
        environ = {**KEYS, "GATEWAY_STATE_DIR": str(state), "GATEWAY_LOG_FORMAT": "json"}
        with running_gateway(config, environ) as gateway:
            headers = {"authorization": f"Bearer {APP_KEY}", **EU}
            answer = httpx.post(f"{gateway.url}{CHAT}", json=body(), headers=headers, trust_env=False, timeout=30)
            assert answer.headers["x-gateway-deployment"] == "chatgpt-eu-2"
            request_id = answer.headers["x-request-id"]
            line = gateway.wait_for("request", request_id=request_id)
            log.write_text(f"a line of another program\n{json.dumps(line)}\n")
            url = f"{gateway.url}/v1/receipts/{request_id}"
            eventually(lambda: httpx.get(url, headers=headers, trust_env=False).status_code == 200)
            yield request_id, state, log


@pytest.mark.parametrize("source", ["receipts", "log"])
def test_wait_that_was_not_made_is_explained_with_its_bound(
    gateway: Command, ended: tuple[str, Path, Path], source: str
) -> None:
    request_id, state, log = ended
    where = ["--state", state] if source == "receipts" else ["--log", log]
    shown = gateway("explain", "--request", request_id, *where)
    assert (shown.status, shown.err) == (0, "")
    text = " ".join(shown.out.split())
    assert "region eu, decided by edge_header" in text
    assert "chatgpt-eu: rate_limited" in text
    assert "the provider named a wait of 3 s" in text
    assert "-> next step: the wait is longer than the bound (failover_after: 2s)" in text
    assert "2. chatgpt-eu-2: ok" in text
    data: list[dict[str, Any]] = json.loads(gateway("explain", "--request", request_id, "--json", *where).out)
    [attempt, _] = data[0]["tried" if source == "receipts" else "attempts"]
    assert (attempt["decision"], attempt["decision_reason"], attempt["retry_after_s"]) == (
        "failover",
        "wait_too_long",
        3.0,
    )


def test_mistakes_name_the_option_to_change(
    gateway: Command, ended: tuple[str, Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    request_id, state, log = ended
    monkeypatch.delenv("GATEWAY_STATE_DIR", raising=False)
    text_log = tmp_path / "text.log"
    text_log.write_text(f"request request_id={request_id}\n")
    for arguments, hint in (
        (["--request", "none", "--state", state], "x-request-id"),
        (["--request", request_id], "--log FILE"),
        (["--request", request_id, "--state", tmp_path / "no"], "--log FILE"),
        (["--request", request_id, "--log", tmp_path / "no.log"], "No such file"),
        (["--request", request_id, "--log", text_log], "GATEWAY_LOG_FORMAT=json"),
        (["--request", request_id, "--log", log, "--from", "DE"], "--from"),
        (["--log", log], "--request ID"),
    ):
        shown = gateway("explain", *arguments)
        assert shown.status != 0
        assert hint in shown.err, arguments


REFUSED = {"outcome": "refused", "status": 451, "code": "region_blocked"}
GOT = {"outcome": "ok", "status": 200, "tried": [], "judges": [{"deployment": "judge", "outcome": "ok"}]}
SENT = ("none: no other deployment got the request", "also sent to\n  - judge: ok, judge\n  - shade, shadow\n")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (REFUSED, ("outcome      refused, status 451, region_blocked (reason: territory)", "none: no deployment got the request")),
        ({**GOT, "shadow": "shade"}, SENT),
        ({**GOT, "shadow": {"deployment": "shade"}}, SENT),
        ({"outcome": "ok", "status": 200, "config_version": "b0b7d81e6d30"}, ("\nconfig       b0b7d81e6d30\n",)),
    ],
    ids=["refusal", "shadow by name", "shadow", "version"],
)  # fmt: skip
def test_line_of_the_log_is_explained(
    gateway: Command, tmp_path: Path, fields: dict[str, Any], words: tuple[str, ...]
) -> None:
    (tmp_path / "log").write_text(json.dumps({"event": "request", "request_id": "r-1", **fields}))
    shown = gateway("explain", "--request", "r-1", "--log", tmp_path / "log")
    assert [text for text in words if text not in shown.out] == []


def test_every_reason_of_a_decision_has_words() -> None:
    assert set(_WORDS["reasons"]) == set(DecisionReason)
