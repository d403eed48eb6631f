"""Time limits: they end blocks that take too long, and only those, and they leave no timer."""

import asyncio
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.execution.deadline import Deadline, Sweep, TimeLimit
from tests.gateway.clocks import SetClock

SOON_S = 0.01
LONG_S = 30.0


def limit(seconds: float) -> TimeLimit:
    return Deadline.start(LONG_S, LONG_S).limit(seconds)


async def for_ever() -> None:
    await asyncio.Event().wait()


async def for_ever_but_with(error: Exception) -> None:
    """Raise this when it is cancelled."""
    try:
        await for_ever()
    except asyncio.CancelledError:
        raise error from None


async def for_ever_within(inner: TimeLimit) -> None:
    with inner:
        await for_ever()


def cancelling() -> int:
    task = asyncio.current_task()
    return task.cancelling()


# --- the deadline ---------------------------------------------------------------------------------


def test_deadline_has_a_commit_time_and_a_total_time() -> None:
    clock = SetClock(100.0)
    deadline = Deadline.start(60, 20, clock)
    clock.now += 5
    assert (deadline.left_s(committed=True), deadline.left_s(committed=False)) == (55, 15)


def test_commit_time_is_limited_by_the_total_time() -> None:
    deadline = Deadline.start(10, 20, SetClock(100.0))
    assert deadline.left_s(committed=False) == 10


@given(
    total_s=st.floats(0.001, 1e6), commit_s=st.floats(0.001, 1e6), wishes=st.lists(st.floats(0.001, 1e6), max_size=5)
)
def test_deadline_can_only_be_shortened(total_s: float, commit_s: float, wishes: list[float]) -> None:
    deadline = Deadline.start(total_s, commit_s, SetClock(100.0))
    for wish_s in wishes:
        before = deadline.total_at, deadline.commit_at
        deadline.shorten(wish_s)
        assert deadline.total_at <= before[0]
        assert deadline.commit_at <= before[1]
        assert deadline.commit_at <= deadline.total_at <= deadline.started_at + wish_s


async def test_a_deadline_belongs_to_the_task_that_first_asked_for_a_limit() -> None:
    deadline = Deadline.start(LONG_S, LONG_S)
    with deadline.limit(LONG_S):
        pass
    assert deadline.task is asyncio.current_task()

    async def elsewhere() -> object:
        return deadline.task

    assert await asyncio.create_task(elsewhere()) is asyncio.current_task()


async def test_a_limit_needs_a_task() -> None:
    raised: list[BaseException] = []

    def outside() -> None:
        try:
            limit(1)
        except RuntimeError as error:
            raised.append(error)

    asyncio.get_running_loop().call_soon(outside)
    await asyncio.sleep(0)
    assert "needs a task" in str(raised[0])


# --- time limits ----------------------------------------------------------------------------------


async def test_block_that_ends_in_time_or_never_waits_is_not_cancelled() -> None:
    with limit(LONG_S):
        await asyncio.sleep(0)
    with limit(0):
        sum(range(1000))
    await asyncio.sleep(0)
    assert cancelling() == 0


@pytest.mark.parametrize("seconds", [SOON_S, 0, -1])
async def test_block_over_its_limit_raises_a_timeout(seconds: float) -> None:
    with pytest.raises(TimeoutError) as raised, limit(seconds):
        await for_ever()
    assert isinstance(raised.value.__cause__, asyncio.CancelledError)
    assert cancelling() == 0
    await asyncio.sleep(0)


async def test_error_in_the_block_is_not_changed() -> None:
    with pytest.raises(KeyError), limit(LONG_S):
        raise KeyError
    with pytest.raises(KeyError), limit(SOON_S):
        await for_ever_but_with(KeyError())
    assert cancelling() == 0


async def test_all_limits_of_a_request_share_a_timer_that_ends_with_it() -> None:
    deadline = Deadline.start(LONG_S, LONG_S)
    with deadline.limit(LONG_S):
        timer = deadline._timer
        assert timer is not None
    with pytest.raises(KeyError), deadline.limit(LONG_S + 1):
        raise KeyError
    assert deadline._timer is timer
    assert not timer.cancelled()
    with deadline.limit(LONG_S - 1):
        # A limit that ends before the timer would look needs it sooner.
        assert timer.cancelled()
        timer = deadline._timer
        assert timer is not None
    deadline.close()
    assert timer.cancelled()
    assert deadline._timer is None


async def test_timer_of_an_earlier_limit_is_rescheduled() -> None:
    deadline = Deadline.start(LONG_S, LONG_S)
    with deadline.limit(SOON_S):
        pass
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(TimeoutError), deadline.limit(4 * SOON_S):
        await for_ever()
    assert loop.time() - began >= 4 * SOON_S - 0.002
    # The remaining timer fires without a limit, and is not set again.
    with deadline.limit(SOON_S):
        pass
    while deadline._timer is not None:  # noqa: ASYNC110  # a timer has no event to wait for
        await asyncio.sleep(0.001)
    assert cancelling() == 0
    # The next limit still works.
    within = deadline.limit(SOON_S)
    async with asyncio.timeout(LONG_S):
        with pytest.raises(TimeoutError):
            await for_ever_within(within)
    assert within.expired


async def test_swept_deadline_ends_in_time_and_starts_without_a_timer() -> None:
    sweep, loop = Sweep(every_s=SOON_S), asyncio.get_running_loop()
    timers: list[asyncio.TimerHandle | None] = []
    deadline = Deadline.start(LONG_S, LONG_S, sweep=sweep)
    began = loop.time()
    loop.call_soon(lambda: timers.append(deadline._timer))
    within = deadline.limit(10 * SOON_S)
    with pytest.raises(TimeoutError):
        await for_ever_within(within)
    assert loop.time() - began >= 10 * SOON_S - 0.002
    assert cancelling() == 0
    assert timers == [None]
    assert not sweep._watched, "what has nearly come watches itself"


class StillLoop:
    """An event loop with a fixed clock that the test sets, and a record of its timers."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, after_s: float, look: Callable[..., None], *given: object) -> None:
        self.timers.append((after_s, partial(look, *given)))


class RecordedDeadline:
    """A replacement for a swept deadline. It records when the sweep asks it to set its own timer."""

    def __init__(self, check_at: float, checked: list[float]) -> None:
        self.check_at = check_at
        self.watch_itself = partial(checked.append, check_at)


def test_one_timer_checks_every_swept_deadline_in_time() -> None:
    sweep, loop = Sweep(every_s=1.0), StillLoop()
    checked: list[float] = []
    deadlines = [RecordedDeadline(check_at, checked) for check_at in (101.0, 102.0, 102.1, 101.0)]
    for deadline in deadlines:
        sweep.watch(deadline, loop)  # type: ignore[arg-type]
    for remaining_timers in (1, 0):
        ((after_s, look),) = loop.timers
        assert after_s == 1.0
        loop.timers.clear()
        look()
        # A deadline that is not near is checked again before it is.
        assert (sorted(checked), len(loop.timers)) == ([101.0, 101.0, 102.0], remaining_timers)
        sweep.forget(deadlines[2])  # type: ignore[arg-type]


@given(due=st.lists(st.floats(0.5, 30.0), min_size=1, max_size=8), every_s=st.sampled_from([0.25, 0.5, 1.0]))
def test_a_swept_deadline_has_its_own_timer_before_it_is_due(due: list[float], every_s: float) -> None:
    sweep, loop = Sweep(every_s), StillLoop()
    checked: list[float] = []
    for check_at in (loop.time() + after_s for after_s in due):
        # As `Deadline._watch` does: a deadline that is near is not swept.
        if check_at > loop.time() + sweep.soon_s:
            sweep.watch(RecordedDeadline(check_at, checked), loop)  # type: ignore[arg-type]
        else:
            checked.append(check_at)
    while loop.timers:
        ((after_s, look),) = loop.timers
        loop.timers.clear()
        loop.now += after_s
        look()
        assert all(
            look_at in checked for look_at in (100.0 + after_s for after_s in due) if look_at <= loop.now + every_s
        )
    assert sorted(checked) == sorted(100.0 + after_s for after_s in due)


async def test_closed_deadline_is_no_longer_swept_and_an_idle_sweep_has_no_timer() -> None:
    sweep = Sweep(every_s=SOON_S)
    deadlines = [Deadline.start(LONG_S, LONG_S, sweep=sweep) for _ in range(3)]
    for deadline in deadlines:
        with deadline.limit(LONG_S):
            assert deadline in sweep._watched
        deadline.close()
    assert not sweep._watched
    while sweep._loop is not None:  # noqa: ASYNC110  # a timer has no event to wait for
        await asyncio.sleep(SOON_S)
    # A deadline that was not closed is removed when its time is over.
    with Deadline.start(LONG_S, LONG_S, sweep=sweep).limit(5 * SOON_S):
        pass
    while sweep._loop is not None:  # noqa: ASYNC110
        await asyncio.sleep(SOON_S)
    assert not sweep._watched


def test_a_sweep_works_in_one_loop_after_another() -> None:
    sweep = Sweep(every_s=SOON_S)

    async def once() -> None:
        with pytest.raises(TimeoutError), Deadline.start(LONG_S, LONG_S, sweep=sweep).limit(5 * SOON_S):
            await for_ever()

    for _ in range(2):
        asyncio.run(once())


async def test_block_with_progress_is_extended_by_left_s() -> None:
    measure = limit(SOON_S)
    remaining_s = [2 * SOON_S, SOON_S, 0.0]
    measure.left_s = lambda: remaining_s.pop(0)
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(TimeoutError), measure:
        await for_ever()
    assert loop.time() - began >= 4 * SOON_S - 0.006
    assert remaining_s == []
    assert cancelling() == 0


async def test_extended_inner_limit_does_not_hide_the_outer_limit() -> None:
    deadline = Deadline.start(LONG_S, LONG_S)
    inner = deadline.limit(SOON_S)
    inner.left_s = lambda: LONG_S
    with pytest.raises(TimeoutError), deadline.limit(2 * SOON_S):
        await for_ever_within(inner)
    assert not inner.expired
    assert cancelling() == 0


async def test_external_cancellation_is_not_a_timeout() -> None:
    async def block() -> None:
        with limit(LONG_S):
            await for_ever()

    task = asyncio.create_task(block())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


@pytest.mark.parametrize("first", ["time", "someone"])
async def test_external_cancellation_wins_over_a_timeout(first: str) -> None:
    async def block() -> None:
        measure = limit(LONG_S)
        with measure:
            started.append(measure)
            await for_ever()

    started: list[TimeLimit] = []
    task = asyncio.create_task(block())
    await asyncio.sleep(0)
    # Both in one turn of the loop, in either order.
    actions = [started[0].expire, task.cancel]
    for action in actions if first == "time" else reversed(actions):
        action()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


@pytest.mark.parametrize("sweep", [None, Sweep()], ids=["own timer", "swept"])
async def test_the_inner_limit_ends_the_inner_block(sweep: Sweep | None) -> None:
    deadline = Deadline.start(LONG_S, LONG_S, sweep=sweep)
    with deadline.limit(LONG_S):
        with pytest.raises(TimeoutError), deadline.limit(SOON_S):
            await for_ever()
        await asyncio.sleep(0)
    assert cancelling() == 0


async def test_the_outer_limit_ends_both() -> None:
    deadline = Deadline.start(LONG_S, LONG_S)
    inner = deadline.limit(LONG_S)
    with pytest.raises(TimeoutError), deadline.limit(SOON_S):
        await for_ever_within(inner)
    assert not inner.expired
    assert deadline._innermost is None
    assert cancelling() == 0


async def test_two_limits_that_end_at_once_are_one_timeout_of_the_outer() -> None:
    deadline = Deadline.start(LONG_S, LONG_S)
    outer, inner = deadline.limit(LONG_S), deadline.limit(LONG_S)

    def end_both() -> None:
        inner.expire()
        outer.expire()

    asyncio.get_running_loop().call_soon(end_both)
    with pytest.raises(TimeoutError), outer:
        await for_ever_within(inner)
    assert cancelling() == 0
    await asyncio.sleep(0)


async def test_inner_limit_expires_before_the_outer_one() -> None:
    """The loop was blocked until both were over. The inner block can still send its last event."""
    deadline = Deadline.start(LONG_S, LONG_S)
    with deadline.limit(0), pytest.raises(TimeoutError), deadline.limit(0):
        await for_ever()
    assert cancelling() == 0

    async def go_on() -> None:
        with pytest.raises(TimeoutError), deadline.limit(0):
            await for_ever()
        await for_ever()

    with pytest.raises(TimeoutError), deadline.limit(0):
        await go_on()
    assert cancelling() == 0


async def test_a_task_can_have_many_limits_one_after_another() -> None:
    deadline = Deadline.start(LONG_S, LONG_S)
    for number in range(20):
        if number % 3:
            with deadline.limit(LONG_S):
                await asyncio.sleep(0)
        else:
            with pytest.raises(TimeoutError), deadline.limit(0):
                await for_ever()
    assert cancelling() == 0


async def test_limit_and_asyncio_timeout_each_end_their_own_block() -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(for_ever(), SOON_S)
    inner = limit(LONG_S)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SOON_S):
            await for_ever_within(inner)
    async with asyncio.timeout(LONG_S):
        with pytest.raises(TimeoutError), limit(SOON_S):
            await for_ever()
    assert cancelling() == 0
