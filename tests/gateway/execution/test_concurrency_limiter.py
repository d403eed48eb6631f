"""Slots and waiting requests: no slot is lost or given twice, also after a cancellation or a timeout."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.execution.concurrency_limiter import ConcurrencyLimiter, ConcurrencyLimiters, Queuer, Shed, Slot, share_of
from gateway.model.deployment import Concurrency
from gateway.model.quota import Keep, Priority
from tests.gateway.clocks import SetClock
from tests.gateway.execution.conftest import CONFIG
from tests.kit.configs import Config, table_of

RULE = Concurrency(limit=2, queue=3, wait_s=5.0)


async def shed_reason(waiting: asyncio.Task[Slot]) -> str:
    with pytest.raises(Shed) as shed:
        await waiting
    return shed.value.reason


async def rounds() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def wait(limiter: ConcurrencyLimiter, left_s: float = 60.0) -> asyncio.Task[Slot]:
    return asyncio.ensure_future(limiter.acquire(left_s))


def taken(limiter: ConcurrencyLimiter, *queuer: Queuer) -> Slot:
    slot = limiter.try_acquire(*queuer)
    assert slot is not None
    return slot


async def test_released_slot_goes_to_a_waiting_request() -> None:
    limiter = ConcurrencyLimiter(RULE, SetClock(100.0))
    first, second = taken(limiter), taken(limiter)
    assert limiter.try_acquire() is None
    waiting = wait(limiter)
    await rounds()
    assert (limiter.in_use, limiter.queued) == (2, 1)
    first.release()
    assert limiter.try_acquire() is None, "nobody gets in before who waits"
    slot = await waiting
    first.release()
    assert (limiter.in_use, limiter.queued) == (2, 0), "a place is given back once"
    slot.release()
    second.release()
    assert limiter.in_use == 0


LOW, NORMAL, HIGH = (Queuer(Priority(name), name) for name in ("low", "normal", "high"))


def queue(limiter: ConcurrencyLimiter, *queuers: Queuer, left_s: float = 60.0) -> list[asyncio.Task[Slot]]:
    return [asyncio.ensure_future(limiter.acquire(left_s, queuer)) for queuer in queuers]


async def served_of(limiter: ConcurrencyLimiter, held: Slot, waiting: list[asyncio.Task[Slot]]) -> list[int]:
    """Free one slot after another, and return the order in which those who wait get it."""
    order: list[int] = []
    while len(order) < len(waiting):
        held.release()
        await rounds()
        (index,) = [index for index, it in enumerate(waiting) if it.done() and index not in order]
        order.append(index)
        held = waiting[index].result()
    return order


async def test_queue_is_served_by_priority_then_by_arrival() -> None:
    limiter = ConcurrencyLimiter(Concurrency(limit=1, queue=9), SetClock(100.0))
    held = taken(limiter, LOW)
    waiting = queue(limiter, LOW, NORMAL, HIGH, NORMAL, HIGH)
    await rounds()
    assert await served_of(limiter, held, waiting) == [2, 4, 1, 3, 0]


async def test_higher_priority_takes_the_place_of_the_last_of_the_lowest_in_a_full_queue() -> None:
    limiter = ConcurrencyLimiter(Concurrency(limit=1, queue=3), SetClock(100.0))
    held = taken(limiter)
    waiting = queue(limiter, Queuer(Priority.LOW), Queuer(Priority.LOW), NORMAL)
    await rounds()
    (high,) = queue(limiter, HIGH)
    await rounds()
    assert await shed_reason(waiting[1]) == "queue_full"
    assert await shed_reason(*queue(limiter, LOW)) == "queue_full"
    assert await served_of(limiter, held, [waiting[0], waiting[2], high]) == [2, 1, 0]


async def test_client_has_half_of_the_places() -> None:
    limiter = ConcurrencyLimiter(Concurrency(limit=1, queue=4), SetClock(100.0))
    taken(limiter)
    waiting = queue(limiter, LOW, LOW, LOW, NORMAL, NORMAL)
    await rounds()
    with pytest.raises(Shed, match="the share of its client, 2 of 4 places, is full"):
        await waiting[2]
    assert [it.done() for it in waiting] == [False, False, True, False, False]
    for it in waiting:
        it.cancel()


async def test_free_slot_that_is_kept_from_those_who_wait_is_taken_and_sheds_none_of_them() -> None:
    rule = Concurrency(limit=2, queue=2, keep=Keep(low=50, normal=50))
    limiter = ConcurrencyLimiter(rule, SetClock(100.0))
    taken(limiter, LOW)
    waiting = queue(limiter, Queuer(Priority.LOW), Queuer(Priority.NORMAL))
    await rounds()
    assert limiter.try_acquire(NORMAL) is None, "it is kept from this one too"
    assert limiter.try_acquire(HIGH) is not None
    assert not any(it.done() for it in waiting)
    for it in waiting:
        it.cancel()


async def test_expected_wait_counts_only_those_who_are_served_before() -> None:
    clock = SetClock(100.0)
    limiter = ConcurrencyLimiter(Concurrency(limit=1, queue=9), clock)
    first = taken(limiter)
    clock.now = 110.0
    first.release()
    held = taken(limiter)
    waiting = queue(limiter, LOW, LOW, LOW)
    await rounds()
    assert await shed_reason(*queue(limiter, NORMAL, left_s=9.0)) == "no_time"
    assert await shed_reason(*queue(limiter, LOW, left_s=39.0)) == "no_time"
    (high,) = queue(limiter, HIGH, left_s=11.0)
    await rounds()
    assert await served_of(limiter, held, [*waiting, high]) == [3, 0, 1, 2]


async def test_the_time_to_wait_is_bounded_by_the_rule_and_by_the_request() -> None:
    limiter = ConcurrencyLimiter(replace(RULE, limit=1, wait_s=0.02), SetClock(100.0))
    limiter.try_acquire()
    assert await shed_reason(wait(limiter)) == "wait_over"
    assert await shed_reason(wait(limiter, left_s=0.01)) == "no_time"
    assert limiter.queued == 0


async def test_request_with_too_little_time_for_the_queue_is_refused_at_once() -> None:
    time = SetClock(100.0)
    limiter = ConcurrencyLimiter(replace(RULE, limit=1), time)
    slot = taken(limiter)
    time.now += 3.0
    slot.release()
    limiter.try_acquire()
    with pytest.raises(Shed) as shed:
        await limiter.acquire(2.9)
    assert shed.value.reason == "no_time"
    assert shed.value.retry_after_s == 3.0
    waiting = wait(limiter, left_s=3.1)
    await rounds()
    assert limiter.queued == 1
    waiting.cancel()


async def test_a_reload_widens_narrows_and_lifts_the_bound() -> None:
    limiter = ConcurrencyLimiter(replace(RULE, limit=1), SetClock(100.0))
    slot = taken(limiter)
    waiting = [wait(limiter) for _ in range(3)]
    await rounds()
    limiter.apply_rule(replace(RULE, limit=2))
    await rounds()
    assert [task.done() for task in waiting] == [True, False, False]
    limiter.apply_rule(replace(RULE, limit=1))
    slot.release()
    await rounds()
    assert limiter.in_use == 1
    assert not waiting[1].done()
    limiter.apply_rule(None)
    await rounds()
    assert all(task.done() for task in waiting)
    assert limiter.try_acquire() is not None


class LimiterMachine(RuleBasedStateMachine):
    """Requests of some callers come, get places, end, leave and run out of time, while the limit changes."""

    @initialize(limit=st.integers(1, 4), queue=st.integers(0, 5))
    def begin(self, limit: int, queue: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.time = SetClock(100.0)
        self.loop.time = self.time  # type: ignore[method-assign]
        self.rule = Concurrency(limit, queue, wait_s=2.0)
        self.limiter = ConcurrencyLimiter(self.rule, self.time)
        self.waiting: list[tuple[asyncio.Task[Slot], float]] = []
        self.held: list[Slot] = []
        self.lowered = False

    def run(self, work: Callable[[], Any] = lambda: None) -> None:
        async def steps() -> None:
            work()
            for _ in range(4):
                await asyncio.sleep(0)

        self.loop.run_until_complete(steps())
        for task, until in list(self.waiting):
            if not task.done():
                assert self.time.now < until, "nobody waits longer than the rule says"
                continue
            self.waiting.remove((task, until))
            if not task.cancelled() and task.exception() is None:
                self.held.append(task.result())

    @rule(caller=st.sampled_from("abc"), left_s=st.sampled_from([0.5, 3.0, 60.0]))
    def ask(self, caller: str, left_s: float) -> None:
        slot = self.limiter.try_acquire()
        if slot is not None:
            self.held.append(slot)
            return
        until = self.time.now + min(left_s, self.rule.wait_s) + 1e-6

        def wait() -> None:
            self.waiting.append((asyncio.ensure_future(self.limiter.acquire(left_s)), until))

        self.run(wait)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), twice=st.booleans())
    def end(self, data: st.DataObject, twice: bool) -> None:
        slot = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))

        def release() -> None:
            slot.release()
            if twice:
                slot.release()

        self.run(release)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), frees=st.sampled_from(["none", "before", "after"]))
    def leave(self, data: st.DataObject, frees: str) -> None:
        """One leaves; perhaps in the very moment in which a place comes free."""
        task, _ = data.draw(st.sampled_from(self.waiting))

        def work() -> None:
            if frees == "before" and self.held:
                self.held.pop(0).release()
            task.cancel()
            if frees == "after" and self.held:
                self.held.pop(0).release()

        self.run(work)

    @rule(seconds=st.sampled_from([0.3, 1.0, 5.0]))
    def pass_time(self, seconds: float) -> None:
        self.time.now += seconds
        self.run()

    @rule(limit=st.integers(1, 4))
    def reload(self, limit: int) -> None:
        self.rule = replace(self.rule, limit=limit)
        self.run(lambda: self.limiter.apply_rule(self.rule))

    @invariant()
    def what_is_taken_is_what_is_held(self) -> None:
        if hasattr(self, "limiter"):
            assert self.limiter.in_use == len(self.held)
            assert self.limiter.queued == len(self.waiting)

    @invariant()
    def nobody_waits_beside_a_free_place(self) -> None:
        if hasattr(self, "limiter"):
            assert not self.waiting or self.limiter.in_use >= self.limiter.limit

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return

        def leave_all() -> None:
            for task, _ in self.waiting:
                task.cancel()

        self.run(leave_all)
        while self.held:
            self.held.pop().release()
        assert (self.limiter.in_use, self.limiter.queued) == (0, 0)
        self.loop.close()


TestLimiterMachine = LimiterMachine.TestCase
TestLimiterMachine.settings = settings(deadline=None)


@settings(deadline=None)
@given(limit=st.integers(1, 500), queue=st.integers(0, 500), processes=st.integers(1, 16))
def test_shares_of_all_workers_add_up_to_the_limit(limit: int, queue: int, processes: int) -> None:
    parts = [share_of(Concurrency(limit, queue, 1.0), process, processes) for process in range(processes)]
    for total, shares in ((limit, [part.limit for part in parts]), (queue, [part.queue for part in parts])):
        assert sum(shares) == total if total == 0 or total >= processes else set(shares) == {1}
        assert max(shares) - min(shares) <= 1


@given(st.integers(1, 100), st.integers(0, 99), st.integers(0, 99), st.integers(1, 8))
def test_shares_of_the_processes_leave_a_priority_what_the_whole_leaves_it(
    limit: int, low: int, normal: int, processes: int
) -> None:
    rule = Concurrency(limit, keep=Keep(low=max(low, normal), normal=normal))
    parts = [share_of(rule, process, processes) for process in range(processes)]
    for priority in Priority:
        of_all = sum(it.limit - it.limit * it.keep.percent(priority) // 100 for it in parts)
        assert of_all == max(limit - limit * rule.keep.percent(priority) // 100, processes)


def bounded(concurrency: str) -> Config:
    return CONFIG.merge(f"deployments: {{first: {{concurrency: {concurrency}}}}}")


def test_reload_keeps_used_limiters_and_removes_deleted_ones() -> None:
    environ = {"FIRST": "a", "SECOND": "b"}
    load = ConcurrencyLimiters()
    bound, wider, unbound = (
        table_of(config, environ) for config in (bounded("1"), bounded("{limit: 3, queue: 0}"), CONFIG)
    )
    limiter = load.limiter(bound.deployments["first"])
    slot = taken(limiter)
    assert limiter.try_acquire() is None
    load.prune(wider)
    assert load.limiter(wider.deployments["first"]) is limiter
    assert limiter.limit == 3
    assert load.rows(lambda limiter: limiter.in_use) == {("first",): 1}
    load.prune(unbound)
    assert load.rows(lambda limiter: limiter.in_use) == {}
    load.prune(bound)
    assert load.limiter(bound.deployments["first"]) is limiter
    assert limiter.in_use == 1, "what runs still counts"
    slot.release()
    load.prune(unbound)
    assert load.limiter(bound.deployments["first"]) is not limiter
