"""The journal: its rows, calls of ended processes, its lock, and a damaged file.

`test_gate_model` compares what its operations do with the reference gate.
"""

import asyncio
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC
from pathlib import Path
from typing import Any

import lmdb
import msgspec
import pytest

from gateway.model.budget import Window
from gateway.operator_errors import StateError
from gateway.usage import journal as journal_module
from gateway.usage import journal_file, journal_queue
from gateway.usage.gate import LARGEST_AMOUNT, CounterKind, GateUnavailable, HoldGranted, HoldRefused, HoldRequest
from gateway.usage.journal import FOLDER, Journal
from gateway.usage.journal_reading import former_files, former_rows, waiting_rows
from gateway.usage.ledger import Ledger, ledger_file
from gateway.usage.ledger_writer import LedgerRules, LedgerWriter
from gateway.usage.lost_call import RunningCost
from gateway.usage.reports import UsageQuery, UsageReader
from gateway.usage.usage_row import CallOutcome, decode_row, encode_row
from gateway.usage.windows import FOREVER_NS, MINUTE_NS, SECOND_NS
from tests.gateway.clocks import SetClock
from tests.gateway.usage.reference_gate import at_once, budget, rate, windows_at
from tests.kit.usage_rows import keep_rows, usage_row
from tests.kit.waiting import eventually

NOW_NS = 1_795_000_000 * SECOND_NS  # 2026-11-18 in Berlin
DAY_NS = 86_400 * SECOND_NS


@pytest.fixture
def clock() -> SetClock:
    return SetClock(NOW_NS)


Start = Callable[..., Journal]


@pytest.fixture
def start(tmp_path: Path, clock: SetClock) -> Iterator[Start]:
    """Open gates of one directory, as processes do."""
    gates = []

    def open_gate() -> Journal:
        gates.append(Journal.open(tmp_path / FOLDER, clock))
        return gates[-1]

    yield open_gate
    for gate in gates:
        with suppress(OSError):  # it was closed
            gate.close()


@pytest.fixture
def gate(start: Start) -> Journal:
    return start()


DAILY = budget(100)


def request(
    call: str, amount: int = 10, *, tokens: int = 10, now_ns: int = NOW_NS, row: bytes = b"", **limits: Any
) -> HoldRequest:
    budgets, rates = limits.get("budgets", (DAILY,)), limits.get("rates", ())
    return HoldRequest(call, tokens, amount, budgets, rates, windows_at(now_ns), row)


def hold(gate: Journal, call: str, amount: int = 10, **more: Any) -> HoldGranted | HoldRefused:
    return at_once(gate.hold(request(call, amount, **more)))


def refused(gate: Journal, call: str, amount: int = 10, **more: Any) -> HoldRefused:
    found = hold(gate, call, amount, **more)
    assert isinstance(found, HoldRefused)
    return found


def state(gate: Journal, limit: Any = DAILY) -> tuple[int, int, int]:
    [found] = gate.do_now(gate._read, ([limit.counter], windows_at(NOW_NS)))
    return found[:3]


def test_bounds_that_were_computed_before_midnight_open_the_next_window(gate: Journal, clock: SetClock) -> None:
    clock.now = windows_at(NOW_NS)[Window.DAY].end_ns - 1
    hold(gate, "one", 100, now_ns=clock.now)
    before_ns, clock.now = clock.now, clock.now + 1
    assert isinstance(hold(gate, "two", 100, now_ns=before_ns), HoldGranted)
    refused(gate, "three", 1, now_ns=clock.now)


def test_overshoot_counts_from_the_time_of_settlement(gate: Journal, clock: SetClock) -> None:
    hold(gate, "one", tokens=6, rates=(rate(60),))
    clock.now += DAY_NS
    at_once(gate.settle("one", 66, 0))
    assert refused(gate, "two", tokens=10, rates=(rate(60),), now_ns=clock.now).wait_ns == 10 * SECOND_NS


def test_hold_above_the_whole_rate_never_fits(gate: Journal) -> None:
    assert refused(gate, "one", tokens=61, rates=(rate(60),)).wait_ns is None


def test_counters_survive_the_last_process(start: Start) -> None:
    first = start()
    hold(first, "one", 60)
    at_once(first.settle("one", 0, 60))
    first.close()
    assert len(list(first.directory.iterdir())) == 1, "a process that ends without open calls leaves nothing else"
    last = start()
    assert (last.recover(), state(last)) == (0, (60, 0, 0))


def test_processes_share_the_counters(start: Start) -> None:
    first, second = start(), start()
    hold(first, "one", 60)
    assert refused(second, "two", 60).only_held
    at_once(first.settle("one", 0, 10))
    assert isinstance(hold(second, "two", 60), HoldGranted)


def test_calls_of_an_ended_process_whose_cost_is_unknown_are_settled_to_their_hold_with_their_rows(
    start: Start,
) -> None:
    first, second = start(), start()
    running = budget(5, unit="requests", window=Window.TOTAL)
    hold(first, "one", 60, tokens=7, budgets=(DAILY, running), row=b"row of one")
    hold(first, "not begun", 5)
    hold(second, "two", 10, row=b"row of two")
    assert second.recover() == 0, "both run"
    first.close()
    assert start().recover() == 2
    assert second.recover() == 0
    assert second.waiting(10) == [(b"wone", b"row of one")]
    assert (state(second), state(second, running)) == ((60, 10, 0), (0, 0, 0))
    kinds = sorted(path.suffix for path in second.directory.iterdir())
    assert kinds == ["", ".lmdb"], "the file of the first process is gone"


def test_process_gives_signs_of_life_while_calls_are_open(
    gate: Journal, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_SIGN_S", 0.001)

    def last_sign() -> int:
        return int((gate.directory / gate._run.hex()).stat().st_mtime_ns)

    async def run() -> None:
        await gate.hold(request("one", row=b"row"))
        assert last_sign() == NOW_NS
        clock.now += 3 * SECOND_NS
        await asyncio.to_thread(eventually, lambda: last_sign() == clock.now)
        await gate.settle("one", 1, 1, b"row")
        await asyncio.to_thread(eventually, lambda: gate._next_sign is None)

    asyncio.run(run())


def running_request(call: str) -> HoldRequest:
    """A call with a row, of which a token of output costs 10 nano-units."""
    row = usage_row(
        call, time_ns=NOW_NS, input_tokens=500, output_tokens=500, outcome=CallOutcome.LOST, currency="EUR",
        vendor_amount_nano=5_000, amount_nano=5_000, vendor_currency="EUR", rate="1",
    )  # fmt: skip
    held = request(call, 5_000, tokens=1_000, budgets=(budget(10_000),), row=encode_row(row))
    return msgspec.structs.replace(held, running=RunningCost(20, 10.0, 10_000, 10_000))


def test_lost_call_is_charged_until_the_last_sign_of_life_of_its_process(start: Start, clock: SetClock) -> None:
    first, second = start(), start()
    at_once(first.hold(running_request("one")))
    os.utime(first._run_file or 0, ns=(NOW_NS, NOW_NS + 4 * SECOND_NS))
    clock.now += 60 * SECOND_NS
    first.close()
    assert second.recover() == 1
    ((_, row),) = second.waiting(1)
    found = decode_row(row)
    assert (found.input_tokens, found.output_tokens, found.amount_nano) == (20, 41, 610)
    assert state(second) == (610, 0, 0)


def test_lost_call_of_an_earlier_start_of_the_machine_is_charged_in_the_same_way(
    gate: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once(gate.hold(running_request("one")))
    os.utime(gate._run_file or 0, ns=(NOW_NS, NOW_NS + 4 * SECOND_NS))
    gate.close()
    monkeypatch.setattr(journal_file, "_boot", lambda: "another")
    (found,) = former_rows(tmp_path)
    assert (found.input_tokens, found.output_tokens, found.amount_nano) == (20, 41, 610)


def test_open_call_that_an_earlier_release_wrote_is_charged_its_full_hold(start: Start) -> None:
    first, second = start(), start()
    hold(first, "one", 60, row=b"row")
    place = b"o" + first._run + b"one"
    shorter = msgspec.msgpack.encode(msgspec.msgpack.decode(first.do_now(lambda txn, _: txn.get(place)))[:4])
    first.do_now(lambda txn, _: txn.put(place, shorter))
    first.close()
    assert second.recover() == 1
    assert (second.waiting(1), state(second)) == ([(b"wone", b"row")], (60, 0, 0))


def test_call_that_nothing_counts_is_recovered_too(start: Start) -> None:
    first, second = start(), start()
    hold(first, "one", 60, budgets=(), row=b"row")
    first.close()
    assert second.recover() == 1
    assert second.waiting(10) == [(b"wone", b"row")]


def test_settlement_keeps_the_row_until_it_is_removed(start: Start) -> None:
    gate, other = start(), start()
    for call in ("one", "two", "not sent"):
        hold(gate, call, 10, row=b"lost")
    at_once(gate.settle("one", 1, 1, b"row of one"))
    at_once(gate.settle("two", 1, 1, b"row of two"))
    at_once(gate.settle("not sent", 0, 0))
    assert other.waiting(1) == [(b"wone", b"row of one")]
    other.remove([b"wone"])
    assert gate.waiting(10) == [(b"wtwo", b"row of two")]
    gate.close()
    assert other.recover() == 0


def test_counters_of_ended_windows_are_forgotten_unless_a_call_holds_them(gate: Journal, clock: SetClock) -> None:
    def counters() -> int:
        return gate.do_now(lambda txn, _: len(list(journal_file.items(txn, b"c", 1000))))

    for user in range(5):
        of = (budget(100, kind=CounterKind.USER, name=f"user-{user}"),)
        hold(gate, f"call-{user}", budgets=of, rates=(rate(60, name=f"user-{user}"),))
    gate.forget()
    assert counters() == 10
    clock.now += 2 * DAY_NS
    for user in range(4):
        at_once(gate.settle(f"call-{user}", 0, 3))
    clock.now += 2 * MINUTE_NS
    gate.forget()
    assert counters() == 1
    at_once(gate.settle("call-4", 0, 3))


def test_many_counters_are_each_found_again(gate: Journal, start: Start) -> None:
    users = [budget(100, kind=CounterKind.USER, name=f"user-{number}") for number in range(2500)]
    for number, user in enumerate(users):
        hold(gate, f"call-{number}", number % 97, budgets=(user,))
    other = start()
    assert [state(other, user)[1] for user in users] == [number % 97 for number in range(2500)]


def test_total_window_never_ends(gate: Journal, clock: SetClock) -> None:
    total = budget(100, window=Window.TOTAL)
    hold(gate, "one", 60, budgets=(total,))
    at_once(gate.settle("one", 0, 60))
    clock.now += 10_000 * DAY_NS
    found = refused(gate, "two", 60, budgets=(total,), now_ns=clock.now)
    assert found.states[0].end_ns == FOREVER_NS


@pytest.mark.parametrize("number", ["amount", "tokens"])
def test_hold_of_a_negative_number_changes_nothing(gate: Journal, number: str) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        hold(gate, "one", **{number: -1})
    assert state(gate) == (0, 0, 0)


def test_call_id_is_never_held_twice(gate: Journal) -> None:
    hold(gate, "one")
    with pytest.raises(ValueError, match="must be new: one"):
        hold(gate, "one")


RUNNING = [{"limit": 3, "unit": "requests", "window": window} for window in Window if window is not Window.TOTAL]
OF_UNKNOWN_UNITS = [{"limit": 3, "unit": unit} for unit in ("", "eur", "token", "EURO")]


@pytest.mark.parametrize(
    ("make", "fields", "message"),
    [
        *((budget, fields, "running requests has the window `total`") for fields in RUNNING),
        *((budget, fields, "the code of a currency") for fields in OF_UNKNOWN_UNITS),
        *((budget, {"limit": limit}, "a budget must be from 0") for limit in (-1, LARGEST_AMOUNT + 1)),
        (rate, {"per_minute": 3, "unit": "EUR"}, "a rate counts tokens or requests, not EUR"),
    ],
)
def test_limit_of_what_no_counter_counts_is_refused(make: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**fields)


def test_spent_never_overflows(gate: Journal) -> None:
    hold(gate, "one")
    at_once(gate.settle("one", 0, 10**30))
    assert state(gate)[0] == LARGEST_AMOUNT
    refused(gate, "two", 1, budgets=(budget(LARGEST_AMOUNT),))


# The lock.


async def test_held_lock_refuses_after_a_second_and_the_event_loop_keeps_turning(start: Start) -> None:
    gate, stopped = start(), start()
    stopped._file.take()
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
    assert 1 <= loop.time() - begun_s < 10, "a second, and more on a busy machine; the lock is held for ever"
    assert turns > 100
    turning.cancel()
    stopped._file.give()
    assert isinstance(await gate.hold(request("one", 100)), HoldGranted), "the refused hold holds nothing"


async def test_lock_that_is_free_after_less_than_a_second_is_waited_for(start: Start) -> None:
    gate, other = start(), start()
    other._file.take()
    asyncio.get_running_loop().call_later(0.4, other._file.give)
    assert isinstance(await gate.hold(request("one")), HoldGranted)
    other._file.take()
    asyncio.get_running_loop().call_later(0.4, other._file.give)
    assert await gate.settle("one", 0, 10, b"row")
    assert gate.waiting(1) == [(b"wone", b"row")]


async def test_operations_that_wait_for_the_lock_run_in_order_when_it_is_free(start: Start) -> None:
    gate, other = start(), start()
    await gate.hold(request("one", 60))
    other._file.take()
    settling = asyncio.create_task(gate.settle("one", 0, 10))
    holding = [asyncio.create_task(gate.hold(request(f"call-{number}", 40))) for number in range(4)]
    await asyncio.sleep(0.01)
    assert not settling.done()
    other._file.give()
    assert await settling
    found = await asyncio.gather(*holding)
    assert [type(one) for one in found] == [HoldGranted, HoldGranted, HoldRefused, HoldRefused]


@pytest.fixture
def transactions(gate: Journal, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Return a function: how many transactions began since its last call."""
    begun, begin = 0, gate._file.begin

    def count(*arguments: object) -> lmdb.Transaction:
        nonlocal begun
        begun += 1
        return begin(*arguments)

    def taken() -> int:
        nonlocal begun
        found, begun = begun, 0
        return found

    monkeypatch.setattr(gate._file, "begin", count)
    return taken


async def test_operation_of_a_free_journal_does_not_wait(gate: Journal) -> None:
    with pytest.raises(StopIteration) as ended:
        gate.hold(request("one", 40, row=b"row")).send(None)
    assert isinstance(ended.value.value, HoldGranted)
    await asyncio.sleep(0)
    with pytest.raises(StopIteration):
        gate.settle("one", 0, 30, b"row").send(None)
    assert state(gate) == (30, 0, 0)


async def test_commits_are_shared_at_load(gate: Journal, transactions: Callable[[], int]) -> None:
    async def calls(number: int) -> None:
        for turn in range(10):
            await gate.hold(request(f"{number}-{turn}", 1, budgets=(), row=b"row"))
            await gate.settle(f"{number}-{turn}", 1, 1, b"row")

    await asyncio.gather(*map(calls, range(64)))
    assert transactions() <= 22, "one for 64 operations, apart from the first ones"
    await gate.hold(request("alone", 1, row=b"row"))
    with pytest.raises(StopIteration):
        gate.hold(request("free again", 1, row=b"row")).send(None)


async def test_hold_that_takes_the_place_of_another_one_is_in_its_transaction(
    gate: Journal, transactions: Callable[[], int]
) -> None:
    await gate.hold(request("former", 100))
    await asyncio.sleep(0)
    transactions()
    settled, held = await asyncio.gather(gate.settle("former", 0, 0), gate.hold(request("own", 100, row=b"row")))
    assert (settled, type(held), transactions()) == (True, HoldGranted, 1)


async def test_operations_that_meet_in_one_turn_of_the_event_loop_share_a_transaction(
    gate: Journal, start: Start, transactions: Callable[[], int]
) -> None:
    """Each of them is whole, and sees those before it. One that fails undoes none of the others."""
    small = budget(5, window=Window.MONTH)
    asked = [gate.hold(request(name, 40, row=b"row")) for name in ("one", "two", "three")]
    found = await asyncio.gather(*asked, gate.hold(request("four", 20, budgets=(DAILY, small))))
    assert [type(one) for one in found] == [HoldGranted, HoldGranted, HoldRefused, HoldRefused]
    assert transactions() == 2, "one for the first, which found the journal free, and one for the others"
    assert (state(gate), state(start())) == ((0, 80, 0), (0, 80, 0))
    transactions()
    failing = gate.read([DAILY.counter], {})  # without bounds of its window
    found = await asyncio.gather(
        gate.settle("one", 0, 30, b"row"), failing, gate.settle("two", 0, 0), return_exceptions=True
    )
    assert (found[0], type(found[1]), found[2]) == (True, KeyError, True)
    assert transactions() == 4, "one for all, and when it has failed, one for each"
    assert (state(gate), state(start())) == ((30, 0, 0), (30, 0, 0))
    assert gate.waiting(10) == [(b"wone", b"row")]


async def test_settlement_continues_in_the_background_while_the_lock_is_held(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_queue, "WAIT_S", 0.01)
    gate, stopped = start(), start()
    await gate.hold(request("one", 60))
    await gate.hold(request("two", 40))
    stopped._file.take()
    assert await gate.settle("one", 0, 10, b"row")
    cancelled = asyncio.create_task(gate.settle("two", 0, 30))
    await asyncio.sleep(0)
    cancelled.cancel()
    stopped._file.give()
    await asyncio.sleep(0.2)
    assert state(gate) == (40, 0, 0)
    assert gate.waiting(10) == [(b"wone", b"row")]


@pytest.mark.parametrize("executed", [False, True])
async def test_cancelled_hold_holds_nothing(start: Start, executed: bool) -> None:
    gate, other = start(), start()
    other._file.take()
    holding = asyncio.create_task(gate.hold(request("one", 60)))
    await asyncio.sleep(0)
    other._file.give()
    if executed:
        # The operation has run; the task is cancelled before it resumes.
        gate._file.take()
        gate._queue.run_queued()
        gate._file.give()
        assert state(other) == (0, 60, 0)
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    await asyncio.sleep(0.05)
    assert state(other) == (0, 0, 0)


async def test_operation_that_is_cancelled_or_fails_stops_none_after_it(start: Start) -> None:
    gate, other = start(), start()
    other._file.take()
    topping_up = asyncio.create_task(gate.top_up(DAILY.counter, windows_at(NOW_NS), 50))
    reading = asyncio.create_task(gate.read([DAILY.counter], {}))  # without bounds of its window
    await asyncio.sleep(0)
    other._file.give()
    gate._file.take()
    gate._queue.run_queued()
    gate._file.give()
    topping_up.cancel()
    reading.cancel()
    for one in (topping_up, reading):
        with pytest.raises(asyncio.CancelledError):
            await one
    assert isinstance(await gate.hold(request("one", 60)), HoldGranted)
    assert state(other) == (0, 60, 50)


async def test_closing_finishes_late_settlements(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_queue, "WAIT_S", 0.01)
    gate, other = start(), start()
    await gate.hold(request("one", 60))
    other._file.take()
    assert await gate.settle("one", 0, 10)
    other._file.give()
    gate.close()
    assert state(other) == (10, 0, 0)


# The file.


def test_files_are_private(gate: Journal) -> None:
    hold(gate, "one")
    assert {stat.S_IMODE(path.stat().st_mode) for path in gate.directory.iterdir()} == {0o600}
    assert stat.S_IMODE(gate.directory.stat().st_mode) == 0o700


def test_damaged_file_is_an_error_and_is_never_emptied(gate: Journal, start: Start) -> None:
    gate.close()
    (path,) = gate.directory.iterdir()
    path.write_bytes(b"x" * 8192)
    with pytest.raises(StateError, match="can't be used"):
        start()
    assert path.read_bytes() == b"x" * 8192


def test_path_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "gate").write_text("a file")
    with pytest.raises(StateError, match="can't be used: File exists"):
        Journal.open(tmp_path / "gate")


def test_full_disk_refuses_holds_and_keeps_settlements(gate: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    hold(gate, "one", row=b"lost")
    begin, is_full = gate._file.begin, True

    class Full:
        def __init__(self, txn: lmdb.Transaction) -> None:
            self._txn = txn

        def __getattr__(self, name: str) -> Any:
            return getattr(self._txn, name)

        def commit(self) -> None:
            if is_full:
                self._txn.abort()
                raise lmdb.DiskError("mdb_txn_commit: No space left on device")
            self._txn.commit()

    monkeypatch.setattr(gate._file, "begin", lambda *arguments: Full(begin(*arguments)))

    async def run() -> None:
        nonlocal is_full
        with pytest.raises(GateUnavailable, match="No space left on device"):
            await gate.hold(request("two"))
        assert await gate.settle("one", 0, 5, b"row")
        with pytest.raises(GateUnavailable):
            gate.check()
        is_full = False
        await asyncio.sleep(0.2)
        gate.check()
        assert isinstance(await gate.hold(request("two")), HoldGranted)

    asyncio.run(run())
    assert (state(gate), gate.waiting(10)) == ((5, 10, 0), [(b"wone", b"row")])


def test_rows_are_read_without_permission_to_write(start: Start, tmp_path: Path) -> None:
    rows = [usage_row("one"), usage_row("two")]
    assert waiting_rows(tmp_path) == []
    keep_rows(tmp_path, *rows)
    for path in (tmp_path / FOLDER).iterdir():
        path.chmod(0o400)
    assert waiting_rows(tmp_path) == rows


def test_journal_of_an_earlier_start_of_the_machine_is_another_file(
    gate: Journal, start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its rows and those of its open calls are moved into the ledger, and reported before that, as in a restored directory.

    Its counters are counted again from there.
    """

    def reported() -> dict[str, CallOutcome | None]:
        with UsageReader(tmp_path) as reader:
            return {row.call: row.outcome for row in reader.rows(UsageQuery((), "2000-01-01", "2100-01-01"))}

    Ledger(ledger_file(tmp_path), lambda: UTC).close()
    for call in ("ended", "open"):
        row = usage_row(call, outcome=CallOutcome.LOST)
        hold(gate, call, 60, tokens=30, row=encode_row(row), budgets=(budget(1000),))
    row.outcome = CallOutcome.ANSWERED
    at_once(gate.settle("ended", 0, 5, encode_row(usage_row("ended"))))
    gate.close()
    monkeypatch.setattr(journal_file, "_boot", lambda: "another")
    (former,) = former_files(gate.directory)
    assert state(start()) == (0, 0, 0)
    wanted = {"ended": CallOutcome.ANSWERED, "open": CallOutcome.LOST}
    assert reported() == wanted
    messages: list[str] = []
    with closing(LedgerWriter(tmp_path, lambda: LedgerRules(UTC), messages.append)):
        pass
    assert reported() == wanted
    assert not former.exists()
    assert messages == []


def test_row_of_an_earlier_start_that_is_no_row_is_reported(
    gate: Journal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hold(gate, "one", 60, row=b"no row", budgets=(budget(1000),))
    gate.close()
    monkeypatch.setattr(journal_file, "_boot", lambda: "another")
    with pytest.raises(StateError, match=r"\.lmdb can't be read: "):
        former_rows(tmp_path)


def test_damaged_journal_of_an_earlier_start_is_reported_and_kept(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "earlier.lmdb").write_bytes(b"x" * 8192)
    with pytest.raises(StateError, match=r"earlier\.lmdb can't be read; the next start of the gateway sets it aside"):
        former_rows(tmp_path)
    messages: list[str] = []
    with closing(LedgerWriter(tmp_path, lambda: LedgerRules(UTC), messages.append)):
        pass
    assert len(messages) == 1
    assert "earlier.lmdb.damaged can't be read" in messages[0]
