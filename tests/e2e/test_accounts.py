"""The accounts: one row for each call that a provider saw, with its numbers, in whatever way the call ended."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.e2e.usage_accounts import ACCOUNTS, REQUESTS, ROUTE_OF_ACCOUNTS, ask_in_all_ways, compare_accounts
from tests.e2e.worker_processes import WORKERS
from tests.kit.case_files import cases
from tests.kit.chat_http import CHAT, body
from tests.kit.gateway_process import GatewayProcess
from tests.kit.metered_gateway import (
    CAP,
    HELD_TOKENS,
    INPUT_BOUND,
    LIMIT_S,
    OWN_COUNT,
    client_of,
    in_money,
    rows_of,
    serving,
    serving_file,
    with_budget,
)
from tests.kit.metered_provider import PROMPT_TOKENS, metered_config, metered_provider
from tests.kit.waiting import eventually


@pytest.mark.parametrize("workers", WORKERS)
def test_every_call_that_a_provider_saw_has_one_row(tmp_path: Path, workers: int) -> None:
    with serving(tmp_path, ROUTE_OF_ACCOUNTS, *ACCOUNTS, workers=workers) as (gateway, meter):
        ask_in_all_ways([gateway], REQUESTS)
        assert gateway.stop() == 0
        rows = rows_of(tmp_path)
        # The provider may not have read the last calls yet.
        eventually(lambda: len(meter.calls) >= len(rows))
    print(compare_accounts(rows, meter.calls))


@cases("behaviour", "outcome", "source")
@pytest.mark.parametrize("stream", [False, True])
def test_row_names_the_outcome_and_the_source_of_its_numbers(
    tmp_path: Path, behaviour: str, outcome: str, source: str, stream: bool
) -> None:
    times = "first_token: 1s, total: 1s, commit: 1s," if behaviour == "silent" else ""
    resilience = f"resilience: {{{times} attempts: {{total: 1}}}}"
    with serving(tmp_path, behaviour, resilience) as (gateway, _), client_of(gateway) as client:
        client.post(CHAT, json=body(max_tokens=20, stream=stream))
    [row] = rows_of(tmp_path)
    assert (row["outcome"], row["usage_source"], row["client"]) == (outcome, source, "app")
    if source == "provider":
        assert (row["input_tokens"], row["output_tokens"], row["amount"]) == (PROMPT_TOKENS, 20, "0.00005")


def test_each_sending_on_a_connection_that_closes_has_a_hold_and_a_row(tmp_path: Path) -> None:
    """The provider reads each request that follows on a connection, and closes it."""
    answer, unanswered = PROMPT_TOKENS + 2 * CAP, OWN_COUNT
    room = (2 * answer + unanswered + INPUT_BOUND + 2 * CAP) / 1_000_000
    patches = with_budget(amount=f"{room:.6f} EUR"), "resilience: {attempts: {total: 1}}"
    with serving(tmp_path, "closes", *patches) as (gateway, meter), client_of(gateway) as client:
        answers = [client.post(CHAT, json=body(max_tokens=CAP)) for _ in range(3)]
        # The budget admits the third request, but not its second sending.
        assert [answer.status_code for answer in answers] == [200, 200, 429]
    rows = sorted(rows_of(tmp_path), key=lambda row: row["time"])
    assert len(meter.calls) == len(rows)
    assert [row["outcome"] for row in rows] == ["answered", "failed", "answered", "failed"]
    failed = [row for row in rows if row["outcome"] == "failed"]
    assert {(row["usage_source"], row["input_tokens"], row["output_tokens"]) for row in failed} == {
        ("estimated", OWN_COUNT, 0)
    }


def test_client_that_leaves_pays_for_what_was_generated(tmp_path: Path) -> None:
    with serving(tmp_path, "slow") as (gateway, meter), client_of(gateway) as client:
        with client.stream("POST", CHAT, json=body(max_tokens=200, stream=True)) as answer:
            for _ in answer.iter_raw():
                if meter.calls[0].completion_tokens >= 10:
                    break
        eventually(lambda: len(rows_of(tmp_path)) == 1)
    [row] = rows_of(tmp_path)
    assert (row["outcome"], row["usage_source"]) == ("disconnected", "estimated")
    assert 9 <= row["output_tokens"] <= 200
    assert row["input_tokens"] == OWN_COUNT


def test_connection_that_fails_has_no_row(tmp_path: Path) -> None:
    patch = {"deployments": {"ok": {"endpoint": "http://127.0.0.1:9/v1"}}}
    with serving(tmp_path, "ok", patch, in_money(2)) as (gateway, _), client_of(gateway) as client:
        for _ in range(3):
            assert client.post(CHAT, json=body(max_tokens=CAP)).json()["error"]["code"] == "provider_error"
    assert rows_of(tmp_path) == []


@pytest.mark.parametrize("workers", WORKERS)
def test_killed_process_loses_no_row(tmp_path: Path, workers: int) -> None:
    with metered_provider("ok") as (provider, meter):
        path = metered_config(provider, tmp_path, "ok", in_money(1000)).write(tmp_path)
        with serving_file(path, workers) as gateway:
            answered = 0
            with client_of(gateway) as client:
                for _ in range(5):
                    answered += client.post(CHAT, json=body(max_tokens=CAP)).status_code == 200
            meter.hold("ok")
            threads = [threading.Thread(target=_ask_in_vain, args=(gateway,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            eventually(lambda: meter.number("ok") == 9)
            if workers == 1:
                gateway.process.send_signal(signal.SIGKILL)
                gateway.process.wait(timeout=LIMIT_S)
            else:
                for worker in _worker_pids(gateway):
                    os.kill(worker, signal.SIGKILL)
                eventually(lambda: len(rows_of(tmp_path)) == 9)
            meter.release()
            for thread in threads:
                thread.join(LIMIT_S)
        if workers == 1:
            with serving_file(path):
                pass
    rows = rows_of(tmp_path)
    assert Counter(row["outcome"] for row in rows) == {"answered": answered, "lost": 4}
    lost = [row for row in rows if row["outcome"] == "lost"]
    assert {row["usage_source"] for row in lost} == {"estimated"}
    assert all(PROMPT_TOKENS < row["total_tokens"] < HELD_TOKENS for row in lost), "input and time, not the hold"


def _ask_in_vain(gateway: GatewayProcess) -> None:
    with client_of(gateway, connection="close") as client, suppress(httpx.TransportError):
        client.post(CHAT, json=body(max_tokens=CAP))


def _worker_pids(gateway: GatewayProcess) -> list[int]:
    with httpx.Client(base_url=gateway.admin_url, trust_env=False, timeout=LIMIT_S) as admin:
        return [worker["pid"] for worker in admin.get("/readyz").json()["workers"]["running"]]


def test_calls_that_a_shutdown_cuts_are_recorded_as_cancelled(tmp_path: Path) -> None:
    patient = "resilience: {first_token: 90s, idle: 90s, commit: 100s, total: 120s}"
    with serving(tmp_path, "pauses", in_money(1000), patient, GATEWAY_GRACE_S="1") as (gateway, meter):
        begun: list[str] = []
        asking = [threading.Thread(target=_read_words, args=(gateway, begun)) for _ in range(2)]
        asking += [threading.Thread(target=_ask_in_vain, args=(gateway,)) for _ in range(2)]
        for thread in asking:
            thread.start()
        eventually(lambda: meter.number("pauses") == 4 and len(begun) == 10)
        assert gateway.stop() == 0
        for thread in asking:
            thread.join(LIMIT_S)
    rows = rows_of(tmp_path)
    assert [(row["outcome"], row["usage_source"]) for row in rows] == [("cancelled", "estimated")] * 4
    assert all(row["input_tokens"] == OWN_COUNT for row in rows)
    assert all(1 <= row["output_tokens"] <= CAP for row in rows)
    # The next process finds no call open that it would settle a second time.
    with serving_file(tmp_path / "gateway.yaml", 1):
        pass
    assert len(rows_of(tmp_path)) == 4


def _read_words(gateway: GatewayProcess, begun: list[str]) -> None:
    """Read a stream to its end, and note each word."""
    with (
        suppress(httpx.TransportError),
        client_of(gateway, connection="close") as client,
        client.stream("POST", CHAT, json=body(max_tokens=CAP, stream=True)) as answer,
    ):
        for line in answer.iter_lines():
            if "word" in line:
                begun.append(line)  # another thread reads the list meanwhile
