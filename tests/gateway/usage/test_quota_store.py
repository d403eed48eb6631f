"""The ledger of clients with limits: alone, and over processes that share it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gateway.model.config_version import ClientLimitRule
from gateway.usage.quota_store import MINUTE_NS, ROWS, QuotaRow, QuotaStore, open_shared_memory
from tests.gateway.killed_process import line_of, say

NOW_NS = 7 * MINUTE_NS
AT_ONCE = ClientLimitRule(concurrent=2)
LIMIT_S = 60


@contextmanager
def shared(processes: int) -> Iterator[tuple[int, list[QuotaStore]]]:
    """The memory's descriptor, and the ledger as each process sees it."""
    descriptor = open_shared_memory(processes)
    try:
        yield descriptor, [QuotaStore.shared(descriptor, one) for one in range(processes)]
    finally:
        os.close(descriptor)


def test_running_request_counts_until_it_is_released() -> None:
    row = QuotaRow(QuotaStore(), "app", NOW_NS)
    first, second = row.take(AT_ONCE, NOW_NS), row.take(AT_ONCE, NOW_NS)
    assert (first.is_granted, second.is_granted) == (True, True)
    refused = row.take(AT_ONCE, NOW_NS)
    assert (refused.is_granted, refused.wait_ns) == (False, 0)
    refused.release()
    assert not row.take(AT_ONCE, NOW_NS).is_granted
    first.release()
    first.release()
    assert row.take(AT_ONCE, NOW_NS).is_granted
    assert not row.take(AT_ONCE, NOW_NS).is_granted


def test_refusal_for_concurrency_spends_no_rpm() -> None:
    row = QuotaRow(QuotaStore(), "app", NOW_NS)
    limits = ClientLimitRule(rpm=2, concurrent=1)
    first = row.take(limits, NOW_NS)
    for _ in range(10):
        assert not row.take(limits, NOW_NS).is_granted
    first.release()
    assert row.take(limits, NOW_NS).is_granted


def test_refusal_for_rpm_counts_no_running_request() -> None:
    row = QuotaRow(QuotaStore(), "app", NOW_NS)
    row.take(ClientLimitRule(rpm=1), NOW_NS).release()
    assert row.take(ClientLimitRule(rpm=1), NOW_NS).wait_ns == MINUTE_NS
    assert row.take(ClientLimitRule(concurrent=1), NOW_NS).is_granted


def test_each_client_has_its_own_row() -> None:
    ledger = QuotaStore()
    for number in range(1000):
        row = QuotaRow(ledger, f"client-{number}", NOW_NS)
        assert row.take(ClientLimitRule(rpm=1), NOW_NS).is_granted
        assert not row.take(ClientLimitRule(rpm=1), NOW_NS).is_granted


def test_processes_share_what_is_spent_and_what_runs() -> None:
    with shared(3) as (_, stores):
        rows = [QuotaRow(ledger, "app", NOW_NS) for ledger in stores]
        limits = ClientLimitRule(rpm=5, concurrent=3)
        taken = [row.take(limits, NOW_NS) for row in rows]
        assert all(one.is_granted for one in taken)
        assert not any(row.take(limits, NOW_NS).is_granted for row in rows)
        for one in taken:
            one.release()
        assert [rows[0].take(limits, NOW_NS).is_granted for _ in range(3)] == [True, True, False]
        assert rows[2].take(limits, NOW_NS).wait_ns == MINUTE_NS // 5


def test_leaving_process_clears_only_its_running_requests() -> None:
    with shared(2) as (_, stores):
        limits = ClientLimitRule(rpm=10, concurrent=4)
        rows = [QuotaRow(ledger, "app", NOW_NS) for ledger in stores]
        kept = [rows[0].take(limits, NOW_NS), *(rows[1].take(limits, NOW_NS) for _ in range(3))]
        assert not rows[0].take(limits, NOW_NS).is_granted
        stores[0].leave(1)
        again = [rows[0].take(limits, NOW_NS) for _ in range(4)]
        assert [one.is_granted for one in again] == [True, True, True, False]
        for one in (kept[0], *again):
            one.release()
        assert [rows[0].take(ClientLimitRule(rpm=10), NOW_NS).is_granted for _ in range(4)] == [True, True, True, False]


# --- reuse of rows --------------------------------------------------------------------------------


def test_a_row_outlives_the_name_that_found_it() -> None:
    ledger = QuotaStore()
    assert QuotaRow(ledger, "app", NOW_NS).take(ClientLimitRule(rpm=1), NOW_NS).is_granted
    assert not QuotaRow(ledger, "app", NOW_NS).take(ClientLimitRule(rpm=1), NOW_NS).is_granted


def test_many_names_use_no_more_memory_and_keep_active_rows() -> None:
    ledger = QuotaStore(rows=8)
    busy = QuotaRow(ledger, "busy", NOW_NS)
    spent = QuotaRow(ledger, "spent", NOW_NS)
    running = busy.take(AT_ONCE, NOW_NS)
    assert spent.take(ClientLimitRule(rpm=1), NOW_NS).is_granted
    idle = QuotaRow(ledger, "idle", NOW_NS)
    for number in range(100):
        passing = QuotaRow(ledger, f"passing-{number}", NOW_NS)
        for _ in range(3):
            passing.take(AT_ONCE, NOW_NS).release()
    assert not spent.take(ClientLimitRule(rpm=1), NOW_NS).is_granted
    assert busy.take(AT_ONCE, NOW_NS).is_granted
    assert not busy.take(AT_ONCE, NOW_NS).is_granted
    running.release()
    # Its place went to another: it takes a new one, and counts there.
    assert [idle.take(AT_ONCE, NOW_NS).is_granted for _ in range(3)] == [True, True, False]


def test_client_without_a_free_row_is_counted_per_process() -> None:
    ledger = QuotaStore(rows=2)
    rows = [QuotaRow(ledger, name, NOW_NS) for name in ("a", "b", "c")]
    for row in rows:
        assert [row.take(AT_ONCE, NOW_NS).is_granted for _ in range(3)] == [True, True, False]


# --- real processes -------------------------------------------------------------------------------

ASKING = """
import sys
from gateway.usage.quota_store import QuotaRow, QuotaStore
from gateway.model.config_version import ClientLimitRule
ledger = QuotaStore.shared(int(sys.argv[1]), int(sys.argv[2]))
row = QuotaRow(ledger, "app", 1)
print("ready", flush=True)
sys.stdin.readline()
through = 0
for _ in range(int(sys.argv[3])):
    taken = row.take(ClientLimitRule(rpm=%d), 1)
    through += taken.is_granted
    if taken.is_granted and sys.argv[4] == "return":
        taken.release()
print(through, flush=True)
sys.stdin.readline()
"""


def asking(descriptor: int, number: int, times: int, rpm: int, then: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", ASKING % rpm, str(descriptor), str(number), str(times), then]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[descriptor])


@pytest.mark.slow("starts several processes")
def test_concurrent_processes_together_respect_the_limit() -> None:
    rpm, times = 6000, 5000
    with shared(2) as (descriptor, stores):
        processes = [asking(descriptor, number, times, rpm, "return") for number in range(2)]
        assert [line_of(process) for process in processes] == ["ready", "ready"]
        for process in processes:
            say(process)
        through = [int(line_of(process)) for process in processes]
        for process in processes:
            process.communicate(timeout=LIMIT_S)
        # One or the other may have been suspended by the system in the middle of a count.
        assert rpm <= sum(through) <= rpm * 1.01
        assert not QuotaRow(stores[0], "app", 1).take(ClientLimitRule(rpm=rpm), 1).is_granted


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda how: how.name)
def test_dead_process_blocks_no_other(how: signal.Signals) -> None:
    with shared(2) as (descriptor, stores):
        dying = asking(descriptor, 1, 5, ROWS, "keep")
        assert line_of(dying) == "ready"
        say(dying)
        assert line_of(dying) == "5"
        dying.send_signal(how)
        dying.communicate(timeout=LIMIT_S)
        row = QuotaRow(stores[0], "app", 1)
        assert not row.take(ClientLimitRule(concurrent=5), 1).is_granted
        stores[0].leave(1)
        assert row.take(ClientLimitRule(concurrent=5), 1).is_granted
