"""Shadow traffic on real sockets: what a candidate is sent, what is stored, and that clients are not affected."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.features.shadow.traffic import MAX_RUNNING
from providers.testkit.scenario import Scenario
from providers.testkit.server import SimulatorThread
from tests.kit.chat_http import CHAT, body, events_of
from tests.kit.configs import Config
from tests.kit.reloading_gateway import Operator, config, operated
from tests.kit.waiting import eventually

CELL = "cell: {territory: DE}"
WORDS = "My secret is a horse."

pytestmark = pytest.mark.usefixtures("healthy_pair")


def shadowed(pair: SimulatorThread, *patches: str) -> Config:
    """Return a config in which the deployment `b` gets shadow traffic, with merge patches."""
    shadow = "assistants: {assistant: {shadow: {default: {deployment: b, share: 100%}}}}"
    return config(pair, "a", 0, shadow, *patches)


@contextmanager
def started(folder: Path, config: Config, workers: int = 1) -> Iterator[Operator]:
    path = config.write(folder)
    with operated(path, workers, GATEWAY_STATE_DIR=str(folder / "state")) as operator:
        yield operator


def rows(folder: Path, table: str = "answers") -> list[dict[str, Any]]:
    path = folder / "state" / "shadow.db"
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as database:
        database.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in database.execute(f"SELECT * FROM {table} ORDER BY id")]  # noqa: S608
        except sqlite3.OperationalError:  # the file exists, but its tables do not yet
            return []


def ask(operator: Operator, **more: Any) -> Any:
    request = body(messages=[{"role": "user", "content": WORDS}], **more)
    answer = operator.client.post(CHAT, json=request)
    assert (answer.status_code, answer.headers["x-gateway-deployment"]) == (200, "a"), answer.text
    assert answer.headers["x-gateway-attempts"] == "1"
    return answer


def text_of(answer: Any, *, stream: bool) -> str:
    """Return the text that the client gets."""
    if not stream:
        return answer.json()["choices"][0]["message"]["content"]
    chunks = [chunk["choices"] for chunk in events_of(answer)[:-1]]
    return "".join(choices[0]["delta"].get("content") or "" for choices in chunks if choices)


@pytest.mark.parametrize("stream", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_answered_request_is_copied_to_the_shadow_and_the_result_is_stored(
    tmp_path: Path, pair: SimulatorThread, stream: bool
) -> None:
    with started(tmp_path, shadowed(pair)) as operator:
        answer = ask(operator, stream=stream, user="anna", safety_identifier="anna", metadata={"name": "anna"})
        assert not stream or events_of(answer)[-1] == "[DONE]"
        eventually(lambda: len(rows(tmp_path)) == 1)
        [row] = rows(tmp_path)
        expected = {"assistant": "assistant", "region": "default", "deployment": "b", "beside": "a", "outcome": "ok"}
        assert expected.items() <= row.items()
        assert row["request_id"] == answer.headers["x-request-id"]
        assert row["table_version"] == answer.headers["x-gateway-config"]
        assert (row["finish_reason"], bool(row["stream"])) == ("stop", stream)
        assert row["completion_tokens"] > 0 or stream
        assert row["answer_characters"] > 0
        assert 0 < row["first_s"] <= row["total_s"]
        assert rows(tmp_path, "texts") == []
        assert WORDS.encode() not in b"".join(
            path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file()
        )
        metrics = operator.admin.get("/metrics").text
        path = f"/v1/receipts/{answer.headers['x-request-id']}"
        eventually(lambda: operator.client.get(path).status_code == 200)
        receipt = operator.client.get(path).json()["receipt"]
        assert [one["deployment"] for one in receipt["tried"]] == ["a"]
        assert (receipt["shadow"]["deployment"], receipt["shadow"]["stores"]) == ("b", "DE")
        labels = 'assistant="assistant",deployment="b",outcome="ok",region="default"'
        assert f"gateway_shadow_requests_total{{{labels}}} 1.0" in metrics
        assert 'deployment="b",outcome="ok",provider=' not in metrics, "a shadow call is not an attempt of the request"


@pytest.mark.slow
def test_slow_shadow_delays_no_client_and_is_dropped_when_busy(tmp_path: Path, pair: SimulatorThread) -> None:
    pair["b"].scenario = Scenario(latency_s=60)
    with started(tmp_path, shadowed(pair)) as operator:
        for _ in range(12):
            ask(operator)

        def busy() -> bool:
            labels = 'assistant="assistant",deployment="b",outcome="busy",region="default"'
            return f"gateway_shadow_requests_total{{{labels}}} 4.0" in operator.admin.get("/metrics").text

        eventually(busy)
        assert operator.gateway.stop() == 0


@pytest.mark.parametrize("stream", [pytest.param(False, marks=pytest.mark.slow), True])
def test_text_is_stored_when_the_gateway_is_inside_the_boundary(
    tmp_path: Path, pair: SimulatorThread, stream: bool
) -> None:
    pair["a"].scenario = Scenario(text="The client's answer: äöü, 7.")
    keep_text = "assistants: {assistant: {shadow: {default: {keep_text: true}}}}"
    with started(tmp_path, shadowed(pair, keep_text, CELL)) as operator:
        answer = ask(operator, stream=stream)
        eventually(lambda: len(rows(tmp_path, "texts")) == 1)
        [stored] = rows(tmp_path, "texts")
        assert stored["prompt"] == f"user: {WORDS}"
        assert len(stored["answer"]) == rows(tmp_path)[0]["answer_characters"]
        [paired] = rows(tmp_path, "besides")
        assert paired == {"id": stored["id"], "beside_answer": "The client's answer: äöü, 7."}
        assert paired["beside_answer"] == text_of(answer, stream=stream)
        assert (tmp_path / "state" / "shadow.db").stat().st_mode & 0o77 == 0
    assert not any(WORDS in str(line) for line in operator.gateway.lines)


@pytest.mark.slow("starts a process for each worker")
def test_several_workers_write_to_one_file(tmp_path: Path, pair: SimulatorThread) -> None:
    with started(tmp_path, shadowed(pair), 2) as operator:
        for asked in range(1, 21):
            operator.reconnect()
            ask(operator)
            # A worker runs up to MAX_RUNNING at once, including those that wait for a slow disk, and drops the others.
            if asked % (MAX_RUNNING // 2) == 0:
                eventually(lambda: len(rows(tmp_path)) == asked)  # noqa: B023  # called at once
