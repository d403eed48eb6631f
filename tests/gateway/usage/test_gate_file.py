"""The file gate: holds, settlements, windows, rates, lost calls, its lock, and a damaged or full file."""

from __future__ import annotations

import asyncio
import os
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.model.budget import Window
from gateway.operator_errors import StateError
from gateway.usage import gate_file, gate_memory
from gateway.usage.gate import (
    LARGEST_AMOUNT,
    BudgetLimit,
    CounterKind,
    CounterState,
    GateUnavailable,
    HoldGranted,
    HoldRefused,
    HoldRequest,
    RatePerMinute,
    RateState,
)
from gateway.usage.gate_file import FileGate
from gateway.usage.windows import FOREVER_NS, MINUTE_NS, SECOND_NS
from tests.kit.clocks import SetClock
from tests.kit.reference_gate import at_once, budget, rate, windows_at

NOW_NS = 1_795_000_000 * SECOND_NS  # 2026-11-18 in Berlin
DAY_NS = 86_400 * SECOND_NS


@pytest.fixture
def clock() -> SetClock:
    return SetClock(NOW_NS)


Start = Callable[..., FileGate]


@pytest.fixture
def start(tmp_path: Path, clock: SetClock) -> Iterator[Start]:
    """Open gates of one directory, as processes do."""
    gates = []

    def open_gate(rows: int = 1024, slots: int = 16) -> FileGate:
        gates.append(FileGate.open(tmp_path / "gate", clock=clock, rows=rows, slots=slots))
        return gates[-1]

    yield open_gate
    for gate in gates:
        if not gate.is_closed:
            gate.close()


@pytest.fixture
def gate(start: Start) -> FileGate:
    return start()


DAILY = budget(100)


def request(
    call: str,
    amount: int = 10,
    *,
    tokens: int = 10,
    budgets: tuple[BudgetLimit, ...] = (DAILY,),
    rates: tuple[RatePerMinute, ...] = (),
    now_ns: int = NOW_NS,
    row: bytes = b"",
) -> HoldRequest:
    return HoldRequest(call, tokens, amount, budgets, rates, windows_at(now_ns), row)


def hold(gate: FileGate, call: str, amount: int = 10, **more: object) -> HoldGranted | HoldRefused:
    return at_once(gate.hold(request(call, amount, **more)))  # type: ignore[arg-type]


def refused(gate: FileGate, call: str, amount: int = 10, **more: object) -> HoldRefused:
    found = hold(gate, call, amount, **more)
    assert isinstance(found, HoldRefused)
    return found


def state(gate: FileGate, limit: BudgetLimit = DAILY, now_ns: int = NOW_NS) -> tuple[int, int, int]:
    [found] = at_once(gate.read([limit.counter], windows_at(now_ns)))
    return found[:3]


def test_a_hold_is_replaced_by_what_the_call_used(gate: FileGate) -> None:
    assert isinstance(hold(gate, "one", 60), HoldGranted)
    assert state(gate) == (0, 60, 0)
    assert at_once(gate.settle("one", 5, 25))
    assert state(gate) == (25, 0, 0)


def test_a_second_settlement_and_an_unknown_call_change_nothing(gate: FileGate) -> None:
    hold(gate, "one", 60)
    assert at_once(gate.settle("one", 5, 25))
    assert not at_once(gate.settle("one", 5, 25))
    assert not at_once(gate.settle("two", 5, 25))
    assert state(gate) == (25, 0, 0)


def test_a_hold_takes_all_budgets_or_none(gate: FileGate) -> None:
    small = budget(5, unit="tokens", kind=CounterKind.USER, window=Window.MONTH)
    found = refused(gate, "one", 60, budgets=(DAILY, small))
    assert (found.budget, found.only_held, found.rate) == (1, False, None)
    assert found.states[1].room(5) == 5
    assert (state(gate), state(gate, small)) == ((0, 0, 0), (0, 0, 0))


def test_refusal_names_the_window_that_is_spent(gate: FileGate) -> None:
    hold(gate, "one", 90)
    at_once(gate.settle("one", 0, 95))
    found = refused(gate, "two", 10)
    assert (found.budget, found.only_held) == (0, False)
    start_ns, end_ns, _ = windows_at(NOW_NS)[Window.DAY]
    assert found.states == (CounterState(95, 0, 0, start_ns, end_ns),)


def test_a_hold_that_only_running_calls_prevent_may_be_retried(gate: FileGate) -> None:
    hold(gate, "one", 95)
    assert refused(gate, "two", 10).only_held
    monthly = budget(5, window=Window.MONTH)
    found = refused(gate, "two", 10, budgets=(DAILY, monthly))
    assert (found.budget, found.only_held) == (1, False), "waiting does not help, so the spent window is named"
    at_once(gate.settle("one", 0, 0))
    assert isinstance(hold(gate, "two", 10), HoldGranted)


def test_overshoot_is_counted_in_full_and_admits_nothing_until_there_is_room(gate: FileGate, clock: SetClock) -> None:
    hold(gate, "one", 10)
    at_once(gate.settle("one", 0, 250))
    assert state(gate) == (250, 0, 0)
    assert isinstance(refused(gate, "two", 0), HoldRefused)
    clock.now += DAY_NS
    assert isinstance(hold(gate, "two", 100, now_ns=clock.now), HoldGranted)


def test_lowered_limit_refuses_the_next_request(gate: FileGate) -> None:
    hold(gate, "one", 60)
    assert isinstance(refused(gate, "two", 1, budgets=(budget(50),)), HoldRefused)


def test_call_belongs_to_the_window_in_which_it_was_admitted(gate: FileGate, clock: SetClock) -> None:
    hold(gate, "old", 60)
    clock.now += DAY_NS
    hold(gate, "new", 100, now_ns=clock.now)
    at_once(gate.settle("old", 0, 60))
    assert state(gate, now_ns=clock.now) == (0, 100, 0)
    at_once(gate.settle("new", 0, 7))
    assert state(gate, now_ns=clock.now) == (7, 0, 0)


def test_bounds_that_were_computed_before_midnight_open_the_next_window(gate: FileGate, clock: SetClock) -> None:
    clock.now = windows_at(NOW_NS)[Window.DAY].end_ns - 1
    hold(gate, "one", 100, now_ns=clock.now)
    before_ns, clock.now = clock.now, clock.now + 1
    assert isinstance(hold(gate, "two", 100, now_ns=before_ns), HoldGranted)
    assert isinstance(refused(gate, "three", 1, now_ns=clock.now), HoldRefused)


def test_clock_that_is_set_back_keeps_what_was_spent(gate: FileGate, clock: SetClock) -> None:
    clock.now += 1000 * DAY_NS
    hold(gate, "one", 60, now_ns=clock.now)
    clock.now = NOW_NS
    assert state(gate) == (0, 60, 0), "a budget is shown as the next hold finds it"
    found = refused(gate, "two", 50)
    assert found.only_held
    assert found.states[0].end_ns == windows_at(NOW_NS)[Window.DAY].end_ns, "the budget does not wait 1000 days"
    at_once(gate.settle("one", 0, 60))
    assert state(gate) == (60, 0, 0)


def test_top_up_adds_to_the_open_window_only(gate: FileGate, clock: SetClock) -> None:
    assert at_once(gate.top_up(DAILY.counter, windows_at(NOW_NS), 50)).room(100) == 150
    assert isinstance(hold(gate, "one", 150), HoldGranted)
    assert isinstance(refused(gate, "two", 1), HoldRefused)
    clock.now += DAY_NS
    assert isinstance(refused(gate, "three", 101, now_ns=clock.now), HoldRefused)


def test_reset_sets_what_was_spent_and_keeps_holds(gate: FileGate) -> None:
    hold(gate, "one", 60)
    hold(gate, "two", 40)
    at_once(gate.settle("two", 0, 40))
    assert at_once(gate.reset(DAILY.counter, windows_at(NOW_NS)))[:2] == (0, 60)
    at_once(gate.settle("one", 0, 50))
    assert state(gate) == (50, 0, 0)
    assert at_once(gate.reset(DAILY.counter, windows_at(NOW_NS), 7))[:2] == (7, 0)


def test_concurrent_requests_are_a_budget_of_which_nothing_is_spent(gate: FileGate) -> None:
    running = budget(2, unit="requests", window=Window.TOTAL)
    for call in ("one", "two"):
        assert isinstance(hold(gate, call, budgets=(running,)), HoldGranted)
    assert refused(gate, "three", budgets=(running,)).only_held
    at_once(gate.settle("one", 1000, 1000))
    assert state(gate, running) == (0, 1, 0)


def test_rate_of_tokens_refills_evenly_and_is_settled(gate: FileGate, clock: SetClock) -> None:
    found = hold(gate, "one", tokens=60, rates=(rate(60),))
    assert isinstance(found, HoldGranted)
    assert found.rates == (RateState(0, MINUTE_NS),)
    found = refused(gate, "two", tokens=30, rates=(rate(60),))
    assert (found.rate, found.wait_ns, found.budget) == (0, 30 * SECOND_NS, None)
    at_once(gate.settle("one", 40, 0))
    assert refused(gate, "two", tokens=30, rates=(rate(60),)).wait_ns == 10 * SECOND_NS
    clock.now += 10 * SECOND_NS
    assert isinstance(hold(gate, "two", tokens=30, rates=(rate(60),)), HoldGranted)


def test_overshoot_of_a_rate_delays_the_next_hold(gate: FileGate) -> None:
    hold(gate, "one", tokens=6, rates=(rate(60),))
    at_once(gate.settle("one", 90, 0))
    assert refused(gate, "two", tokens=10, rates=(rate(60),)).wait_ns == 40 * SECOND_NS


def test_overshoot_counts_from_the_time_of_settlement(gate: FileGate, clock: SetClock) -> None:
    hold(gate, "one", tokens=6, rates=(rate(60),))
    clock.now += DAY_NS
    at_once(gate.settle("one", 66, 0))
    assert refused(gate, "two", tokens=10, rates=(rate(60),), now_ns=clock.now).wait_ns == 10 * SECOND_NS


def test_hold_above_the_whole_rate_never_fits(gate: FileGate) -> None:
    assert refused(gate, "one", tokens=61, rates=(rate(60),)).wait_ns is None


def test_rate_of_requests_is_not_given_back(gate: FileGate, clock: SetClock) -> None:
    requests = rate(2, unit="requests")
    for call in ("one", "two"):
        hold(gate, call, tokens=10**9, rates=(requests,))
        at_once(gate.settle(call, 0, 0))
    assert refused(gate, "three", rates=(requests,)).wait_ns == 30 * SECOND_NS
    clock.now += 30 * SECOND_NS
    assert isinstance(hold(gate, "three", rates=(requests,)), HoldGranted)


def test_rate_is_kept_when_the_clock_is_set_back(gate: FileGate, clock: SetClock) -> None:
    hold(gate, "one", tokens=60, rates=(rate(60),))
    clock.now -= DAY_NS
    assert refused(gate, "two", tokens=30, rates=(rate(60),)).wait_ns == 30 * SECOND_NS


def test_budgets_refuse_before_rates(gate: FileGate) -> None:
    found = refused(gate, "one", 101, tokens=61, rates=(rate(60),))
    assert (found.budget, found.rate) == (0, None)


def test_counters_survive_the_last_process(start: Start) -> None:
    first = start()
    hold(first, "one", 60)
    at_once(first.settle("one", 0, 60))
    first.close()
    assert state(start()) == (60, 0, 0)


def test_processes_share_the_counters(start: Start) -> None:
    first, second = start(), start()
    hold(first, "one", 60)
    assert refused(second, "two", 60).only_held
    at_once(first.settle("one", 0, 10))
    assert isinstance(hold(second, "two", 60), HoldGranted)


def test_open_calls_of_an_ended_process_are_lost_until_they_are_settled(start: Start) -> None:
    first, second = start(), start()
    running = budget(5, unit="requests", window=Window.TOTAL)
    hold(first, "one", 60, tokens=7, budgets=(DAILY, running), row=b'{"call":"one"}')
    hold(second, "two", 10)
    assert at_once(second.lost_calls()) == [], "both run"
    first.close()
    for _ in range(2):
        [lost] = at_once(second.lost_calls())
        assert (lost.call, lost.row, lost.tokens, lost.amount_nano) == ("one", b'{"call":"one"}', 7, 60)
    third = start()
    assert at_once(third.settle_lost(lost))
    assert not at_once(second.settle_lost(lost))
    assert (state(third), state(third, running)) == ((60, 10, 0), (0, 0, 0))
    assert at_once(third.lost_calls()) == []


def uncounted(gate: FileGate, call: str) -> HoldGranted | HoldRefused:
    return hold(gate, call, 60, budgets=(), row=f'{{"call":"{call}"}}'.encode())


def test_call_that_nothing_counts_needs_no_lock_after_the_first(start: Start) -> None:
    gate, other = start(), start()
    for call in ("zeroth", "first"):
        uncounted(gate, call)
    assert other.lock.take()
    for call in ("zeroth", "first"):
        assert at_once(gate.settle(call, 0, 0))
    assert isinstance(uncounted(gate, "second"), HoldGranted)
    with pytest.raises(ValueError, match="must be new"):
        uncounted(gate, "second")
    with pytest.raises(ValueError, match="bytes"):
        hold(gate, "third", budgets=(), row=b"x" * 4096)
    assert at_once(gate.settle("second", 0, 0))
    assert isinstance(uncounted(gate, "fourth"), HoldGranted)
    other.lock.release()
    assert not at_once(gate.settle("second", 0, 0))
    gate.close()
    assert [lost.call for lost in at_once(other.lost_calls())] == ["fourth"]


@pytest.mark.parametrize("killed", [False, True])
def test_slots_that_an_ended_process_kept_are_free(start: Start, killed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, other = start(), start()
    calls = [f"call-{number}" for number in range(16)]
    for call in calls:
        uncounted(gate, call)
    for call in calls[1:]:
        at_once(gate.settle(call, 0, 0))
    with pytest.raises(GateUnavailable, match="16 calls are open"):
        hold(other, "no slot is free", 0)
    if killed:
        monkeypatch.setattr(gate, "_leave_seat", lambda: None)
    gate.close()
    [lost] = at_once(other.lost_calls())
    assert (lost.call, lost.row) == ("call-0", b'{"call":"call-0"}')
    assert at_once(other.settle_lost(lost))
    for call in calls:
        assert isinstance(hold(other, call, 0), HoldGranted)


def test_slots_beyond_those_that_are_kept_are_free(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_file, "_MOST_KEPT", 1)
    gate, other = start(), start()
    for number in range(16):
        uncounted(gate, f"call-{number}")
    for number in range(16):
        at_once(gate.settle(f"call-{number}", 0, 0))
    for number in range(15):
        assert isinstance(hold(other, f"call-{number}", 0), HoldGranted)


def test_process_that_ends_without_open_calls_leaves_nothing(start: Start) -> None:
    first, second = start(), start()
    hold(first, "one", 60)
    at_once(first.settle("one", 0, 60))
    first.close()
    assert at_once(second.lost_calls()) == []
    assert os.listdir(second.directory).count("seat-0") == 1


def test_slots_are_used_again(gate: FileGate) -> None:
    for number in range(50):
        assert isinstance(hold(gate, f"call-{number}", 1), HoldGranted)
        if number >= 10:
            assert at_once(gate.settle(f"call-{number - 10}", 0, 0))


def test_too_many_open_calls_are_refused(gate: FileGate) -> None:
    for number in range(16):
        hold(gate, f"call-{number}", 0)
    with pytest.raises(GateUnavailable, match="16 calls are open"):
        hold(gate, "another", 0)
    at_once(gate.settle("call-3", 0, 0))
    assert isinstance(hold(gate, "another", 0), HoldGranted)
    assert state(gate) == (0, 0, 0)


def test_full_table_is_refused_and_rows_of_ended_windows_are_used_again(start: Start, clock: SetClock) -> None:
    gate = start(rows=8)

    def of(user: int) -> tuple[BudgetLimit, ...]:
        return (budget(100, kind=CounterKind.USER, name=f"user-{user}"),)

    for user in range(8):
        hold(gate, f"call-{user}", budgets=of(user))
    with pytest.raises(GateUnavailable, match="is full: 8 counters"):
        hold(gate, "another", budgets=of(8))
    clock.now += 2 * DAY_NS
    with pytest.raises(GateUnavailable, match="is full"):  # the running calls hold their rows
        hold(gate, "another", budgets=of(8), now_ns=clock.now)
    for user in range(8):
        at_once(gate.settle(f"call-{user}", 0, 3))
    for user in range(8, 16):
        hold(gate, f"call-{user}", budgets=of(user), now_ns=clock.now)
        at_once(gate.settle(f"call-{user}", 0, 3))
        assert state(gate, of(user)[0], clock.now) == (3, 0, 0)
    with pytest.raises(GateUnavailable, match="is full"):
        hold(gate, "another", budgets=of(0), now_ns=clock.now)


def test_many_counters_are_each_found_again(start: Start) -> None:
    gate = start(rows=4096, slots=4096)
    users = [budget(100, kind=CounterKind.USER, name=f"user-{number}") for number in range(2500)]
    for number, user in enumerate(users):
        hold(gate, f"call-{number}", number % 97, budgets=(user,))
    assert [state(gate, user)[1] for user in users] == [number % 97 for number in range(2500)]
    other = start()
    assert [state(other, user)[1] for user in users] == [number % 97 for number in range(2500)]


def test_total_window_never_ends(gate: FileGate, clock: SetClock) -> None:
    total = budget(100, window=Window.TOTAL)
    hold(gate, "one", 60, budgets=(total,))
    at_once(gate.settle("one", 0, 60))
    clock.now += 10_000 * DAY_NS
    found = refused(gate, "two", 60, budgets=(total,), now_ns=clock.now)
    assert found.states[0].end_ns == FOREVER_NS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budgets": (DAILY,) * 49}, "at most 48 budgets and rates"),
        ({"amount": -1}, "must not be negative"),
        ({"tokens": -1}, "must not be negative"),
        ({"row": b"x" * 4000}, "more than 2528 bytes"),
    ],
)
def test_invalid_hold_changes_nothing(gate: FileGate, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hold(gate, "one", **changes)  # type: ignore[arg-type]
    assert state(gate) == (0, 0, 0)


def test_counter_that_occurs_twice_counts_once(gate: FileGate) -> None:
    hold(gate, "one", 60, budgets=(DAILY, DAILY))
    assert state(gate) == (0, 60, 0)
    at_once(gate.settle("one", 0, 50))
    assert state(gate) == (50, 0, 0)


def test_call_id_is_never_held_twice(gate: FileGate) -> None:
    hold(gate, "one")
    with pytest.raises(ValueError, match="must be new: one"):
        hold(gate, "one")


@pytest.mark.parametrize("window", [window for window in Window if window is not Window.TOTAL])
def test_counter_of_running_requests_in_a_window_that_ends_is_refused(window: Window) -> None:
    with pytest.raises(ValueError, match="running requests has the window `total`"):
        budget(3, unit="requests", window=window)


@pytest.mark.parametrize("unit", ["", "eur", "token", "EURO"])
def test_counter_of_an_unknown_unit_is_refused(unit: str) -> None:
    with pytest.raises(ValueError, match="the code of a currency"):
        budget(3, unit=unit)


def test_rate_of_money_is_refused() -> None:
    with pytest.raises(ValueError, match="a rate counts tokens or requests, not EUR"):
        rate(3, unit="EUR")


@pytest.mark.parametrize("limit", [-1, LARGEST_AMOUNT + 1])
def test_limit_that_a_counter_cannot_reach_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match="the limit of a budget must be from 0"):
        budget(limit)


def test_spent_never_overflows(gate: FileGate) -> None:
    hold(gate, "one")
    at_once(gate.settle("one", 0, 10**30))
    assert state(gate)[0] == LARGEST_AMOUNT
    assert isinstance(refused(gate, "two", 1, budgets=(budget(LARGEST_AMOUNT),)), HoldRefused)


# The lock.


async def test_held_lock_refuses_after_a_second_and_the_event_loop_keeps_turning(start: Start) -> None:
    gate, stopped = start(), start()
    assert stopped.lock.take()
    loop, turns = asyncio.get_running_loop(), 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.001)

    turning = asyncio.create_task(turn())
    begun_s = loop.time()
    with pytest.raises(GateUnavailable, match="locked the counters"):
        await gate.hold(request("one"))
    assert 1 <= loop.time() - begun_s < 3
    assert turns > 100
    turning.cancel()
    stopped.lock.release()
    assert isinstance(await gate.hold(request("one", 100)), HoldGranted), "the refused hold holds nothing"


async def test_operations_that_wait_for_the_lock_run_in_order_when_it_is_free(start: Start) -> None:
    gate, other = start(), start()
    await gate.hold(request("one", 60))
    assert other.lock.take()
    settling = asyncio.create_task(gate.settle("one", 0, 10))
    holding = [asyncio.create_task(gate.hold(request(f"call-{number}", 40))) for number in range(4)]
    await asyncio.sleep(0.01)
    assert not settling.done()
    other.lock.release()
    assert await settling
    found = await asyncio.gather(*holding)
    assert [type(one) for one in found] == [HoldGranted, HoldGranted, HoldRefused, HoldRefused]


async def test_settlement_continues_in_the_background_while_the_lock_is_held(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.usage.gate_file.SETTLE_WAIT_S", 0.01)
    gate, stopped = start(), start()
    await gate.hold(request("one", 60))
    assert stopped.lock.take()
    assert await gate.settle("one", 0, 10)
    cancelled = asyncio.create_task(gate.settle("one", 0, 99))
    await asyncio.sleep(0)
    cancelled.cancel()
    assert state(gate) == (0, 60, 0)
    stopped.lock.release()
    await asyncio.sleep(0.05)
    assert state(gate) == (10, 0, 0)


@pytest.mark.parametrize("executed", [False, True])
async def test_cancelled_hold_holds_nothing(start: Start, executed: bool) -> None:
    gate, other = start(), start()
    await gate.hold(request("first", 1))
    assert other.lock.take()
    holding = asyncio.create_task(gate.hold(request("one", 60)))
    await asyncio.sleep(0)
    other.lock.release()
    if executed:
        # The timer runs the operation; the task is cancelled before it resumes.
        while state(gate)[1] == 1:
            gate.lock.run_queued()
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    await asyncio.sleep(0.05)
    assert state(gate) == (0, 1, 0)


async def test_closing_finishes_queued_settlements(start: Start) -> None:
    gate, other = start(), start()
    await gate.hold(request("one", 60))
    assert other.lock.take()
    settling = asyncio.create_task(gate.settle("one", 0, 10))
    await asyncio.sleep(0)
    other.lock.release()
    gate.close()
    assert await settling
    assert state(other) == (10, 0, 0)


# The file.


def test_files_are_private(gate: FileGate) -> None:
    hold(gate, "one")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in gate.directory.iterdir()}
    assert modes == {"counters": 0o600, "seat-0": 0o600}
    assert stat.S_IMODE(gate.directory.stat().st_mode) == 0o700


def test_file_is_sparse(tmp_path: Path) -> None:
    FileGate.open(tmp_path).close()
    found = (tmp_path / "counters").stat()
    assert found.st_size > 100_000_000
    assert found.st_blocks * 512 < 1_000_000


@pytest.mark.parametrize(
    ("offset", "data", "message"),
    [
        (0, b"x", "is not the file of the gate, or it is damaged"),
        (8, b"\x09", r"was written by another version of the gateway \(9\)"),
        (16, b"\x00" * 8, "is damaged: it has"),
        (64, struct.pack("q", 3), "is damaged: its redo record has 3 cells"),
        (64, struct.pack("q", 10**6), "is damaged: its redo record has 1000000 cells"),
        (64, struct.pack("q", 2), "is damaged: its redo record names unknown cells"),
    ],
)
def test_damaged_file_is_an_error_and_is_never_emptied(start: Start, offset: int, data: bytes, message: str) -> None:
    gate = start()
    gate.close()
    path = gate.directory / "counters"
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
    before = path.read_bytes()
    with pytest.raises(StateError, match=f"{message}.*; restore it, or move it away"):
        start()
    assert path.read_bytes() == before


@pytest.mark.parametrize("size", [0, 100, 4096, 20_000])
def test_truncated_file_is_an_error(start: Start, size: int) -> None:
    gate = start()
    gate.close()
    os.truncate(gate.directory / "counters", size)
    with pytest.raises(StateError, match="damaged"):
        start()


def test_path_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "gate").write_text("a file")
    with pytest.raises(StateError, match="gate can't be used: File exists"):
        FileGate.open(tmp_path / "gate")
    (tmp_path / "other" / "counters").mkdir(parents=True)
    with pytest.raises(StateError, match="counters can't be used"):
        FileGate.open(tmp_path / "other")


def test_full_disk_refuses_instead_of_ending_the_process(gate: FileGate, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    hold(gate, "one")
    monkeypatch.setattr(gate_memory.os, "posix_fallocate", no_space)
    with pytest.raises(GateUnavailable, match="cannot grow: No space left on device"):
        hold(gate, "two", budgets=(budget(5, name="other"),))
    at_once(gate.settle("one", 0, 5))
    assert isinstance(hold(gate, "two"), HoldGranted), "what is reserved works on"


def test_holds_are_computed_again_after_a_power_failure(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = start()
    hold(gate, "one", 60, tokens=30, rates=(rate(60),))
    hold(gate, "two", 20)
    at_once(gate.settle("two", 0, 5))
    place = gate.memory.find(DAILY.counter.tag)
    assert place is not None
    gate.memory.cells[place + gate_memory.HELD] = 99
    gate.memory.cells[gate_memory.FREE_SLOT] = 7
    gate.close()
    monkeypatch.setattr(gate_memory, "_boot", lambda: 12345)
    again = start()
    assert state(again) == (5, 60, 0)
    [lost] = at_once(again.lost_calls())
    at_once(again.settle_lost(lost))
    assert state(again) == (65, 0, 0)
    for number in range(16):
        assert isinstance(hold(again, f"call-{number}", 1), HoldGranted)
