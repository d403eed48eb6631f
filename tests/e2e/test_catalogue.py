"""An operator's own catalogue on the real server: costs, last days, and changes of the file."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from providers.testkit.server import SimulatorThread
from tests.kit.chat_http import CHAT, body
from tests.kit.reloading_gateway import LIMIT_S, Operator, config, operated
from tests.kit.waiting import eventually

# The day is counted anywhere on Earth, so it may be one nearer.
LAST = datetime.now(UTC).date() + timedelta(days=20)
PRICE = "{input: %s, output: 3, currency: EUR, as_of: 2026-11-01}"


def catalogue(input_price: int) -> str:
    model = f"{{retires_on: {LAST}, price: {PRICE % input_price}}}"
    return f"version: 1\nmodels: {{openai-compatible: {{m: {model}}}}}"


@pytest.fixture
def path(tmp_path: Path, pair: SimulatorThread) -> Path:
    (tmp_path / "models.yaml").write_text(catalogue(1), "utf-8")
    return config(pair, "a", 0, "catalogue: {models: models.yaml}").write(tmp_path)


def cost(operator: Operator) -> float:
    """Return the cost that the metric has counted."""
    start = "gateway_cost_micros_total{"
    rows = [line for line in operator.admin.get("/metrics").text.splitlines() if line.startswith(start)]
    assert all('currency="EUR"' in row and 'deployment="a"' in row for row in rows)
    return sum(float(row.rpartition(" ")[2]) for row in rows)


def ask(operator: Operator, *, stream: bool = False) -> tuple[int, int]:
    """Send a request and return the tokens of its answer."""
    more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    answer = operator.client.post(CHAT, json=body(**more))
    assert answer.status_code == 200, answer.text
    if stream:
        usage = json.loads([line for line in answer.text.splitlines() if '"usage":{' in line][-1][len("data: ") :])[
            "usage"
        ]
    else:
        usage = answer.json()["usage"]
    return usage["prompt_tokens"], usage["completion_tokens"]


@pytest.mark.slow
def test_costs_and_last_days_follow_the_catalogue_file(path: Path) -> None:
    with operated(path) as operator:
        prompt, completion = ask(operator)
        assert prompt > 0
        expected = prompt + 3 * completion
        eventually(lambda: cost(operator) == expected, LIMIT_S)
        prompt, completion = ask(operator, stream=True)
        expected += prompt + 3 * completion
        eventually(lambda: cost(operator) == expected, LIMIT_S)

        [ready, *_] = operator.ready()["retirements"]
        assert (ready["model"], ready["retires_on"], ready["warned_days"]) == ("m", str(LAST), 30)
        assert 19 <= ready["days_left"] <= 21
        metric = f'gateway_model_days_left{{deployment="a",model="m"}} {float(ready["days_left"])}'
        assert metric in operator.admin.get("/metrics").text.splitlines()

        version = operator.version()
        (path.parent / "models.yaml").write_text(catalogue(100), "utf-8")
        operator.wait_for_another(version)
        prompt, completion = ask(operator)
        expected += 100 * prompt + 3 * completion
        eventually(lambda: cost(operator) == expected, LIMIT_S)

        version = operator.version()
        (path.parent / "models.yaml").write_text("version: 1\nmodels: {openai-compatible: {m: {price: free}}}", "utf-8")
        eventually(lambda: operator.ready()["last_failed_reload"] is not None, LIMIT_S)
        [finding] = [one for one in operator.ready()["last_failed_reload"]["findings"] if one["severity"] == "error"]
        assert finding["file"] == str(path.parent / "models.yaml")
        assert (finding["line"], finding["path"]) == (2, "models.openai-compatible.m.price")
        assert operator.version() == version

    lines = [line for line in operator.gateway.lines if isinstance(line, dict)]
    costs = [line["cost_micros"] for line in lines if line.get("event") == "request"]
    assert sum(costs) == expected
    assert {line["currency"] for line in lines if line.get("event") == "request"} == {"EUR"}
    assert any(f"is retired on {LAST}" in str(line.get("detail", "")) for line in lines)
