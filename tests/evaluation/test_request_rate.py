"""The rate controller with a candidate of limited capacity, on a simulated clock."""

from __future__ import annotations

import pytest

from evaluation.work_queue import RateController


class Candidate:
    """A candidate that accepts `rps` questions per second with a burst of one second, on its own clock."""

    def __init__(self, rps: float) -> None:
        self.rps = rps
        self.now = 0.0
        self.spent_at = 0.0
        self.answered = self.turned_away = 0

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    async def ask(self, pace: RateController) -> None:
        asked_at = await pace.wait()
        spent_at = max(self.spent_at, self.now) + 1 / self.rps
        if spent_at - self.now > 1:
            self.turned_away += 1
            pace.record_rejection(asked_at, None)
        else:
            self.spent_at = spent_at
            self.answered += 1
            pace.record_answer()
        self.now += 0.002

    def pace(self, least_s: float = 0.0) -> RateController:
        return RateController(least_s, clock=lambda: self.now, sleep=self.sleep)


@pytest.mark.parametrize("rps", [2.0, 12.0, 50.0, 200.0])
async def test_rate_controller_finds_the_capacity_with_few_rejections(rps: float) -> None:
    candidate = Candidate(rps)
    pace = candidate.pace()
    while candidate.now < 60:
        await candidate.ask(pace)
    assert candidate.answered >= 0.85 * rps * 60
    assert candidate.turned_away <= 20 + 0.15 * candidate.answered, "besides those until it is found"


async def test_rate_recovers_soon_after_an_outage() -> None:
    candidate = Candidate(20)
    pace = candidate.pace()
    for _ in range(40):
        pace.record_rejection(await pace.wait(), None)
    assert pace.between_s == 4.0
    began_at = candidate.now
    while candidate.now < began_at + 60:
        await candidate.ask(pace)
    assert pace.between_s < 0.1


async def test_fast_candidate_is_slowed_only_by_the_operator_limit() -> None:
    candidate = Candidate(1_000)
    free, limited = candidate.pace(), candidate.pace(0.5)
    for _ in range(100):
        await candidate.ask(free)
    assert candidate.now == pytest.approx(0.2)
    began_at = candidate.now
    for _ in range(11):
        await candidate.ask(limited)
    assert candidate.now - began_at == pytest.approx(5.0, abs=0.01)


async def test_retry_after_is_respected() -> None:
    candidate = Candidate(1_000)
    pace = candidate.pace()
    pace.record_rejection(await pace.wait(), 7.5)
    await pace.wait()
    assert candidate.now == 7.5
