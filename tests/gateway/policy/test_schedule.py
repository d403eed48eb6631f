"""The stages of a schedule: when it advances, waits and rolls back, and its rate of wrong decisions."""

import random
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.model.route import WeightedSet
from gateway.model.schedule import NO_TALLY, VARIANT_BOUNDS_S, Phase, Schedule, ScheduleProgress, Stage, StopRule, Tally
from gateway.policy.canary_schedule import ALPHA, advance, begin, share_at, waits_for, with_shares
from tests.kit.configs import BASE, table_of

STAGES = (Stage(0.05, 600), Stage(0.25, 1800), Stage(1.0, None))
SCHEDULE = Schedule("b", STAGES, StopRule(0.02, 0.5, 100), "id")
FAST, SLOW = 16, 20  # classes of time: 0.32 s, and four classes (twice as long) above


def tally(ok: int, failed: int = 0, klass: int = FAST) -> Tally:
    times = [0] * (len(VARIANT_BOUNDS_S) + 1)
    times[klass] = ok
    return Tally(ok, failed, tuple(times))


def run(schedule: Schedule, *steps: tuple[float, Tally, Tally]) -> ScheduleProgress:
    progress = ScheduleProgress()
    for step in steps:
        progress = advance(schedule, progress, *step)
    return progress


GOOD = (tally(200), tally(3800))


def test_healthy_stage_advances_and_the_last_stage_ends_the_schedule() -> None:
    assert share_at(SCHEDULE, ScheduleProgress()) == 0.05
    second = run(SCHEDULE, (599, *GOOD), (1, *GOOD))
    assert (second.phase, second.stage, second.elapsed_s, second.candidate) == (Phase.RUNNING, 1, 0, NO_TALLY)
    assert share_at(SCHEDULE, second) == 0.25
    done = run(SCHEDULE, (600, *GOOD), (1800, *GOOD))
    assert (done.phase, share_at(SCHEDULE, done)) == (Phase.DONE, 1.0)
    assert advance(SCHEDULE, done, 5, tally(0, 1000), tally(1000)) == done


def test_schedule_that_begins_at_100_percent_is_done() -> None:
    complete = begin(Schedule("b", (Stage(1.0, None),), StopRule(), "id"))
    assert (complete.phase, complete.stage) == (Phase.DONE, 0)
    assert begin(SCHEDULE) == ScheduleProgress()


def test_schedule_waits_until_each_variant_has_enough_requests() -> None:
    few = run(SCHEDULE, (6000, tally(99), tally(3800)))
    assert (few.stage, waits_for(SCHEDULE, few)) == (0, "1 more requests of the variant with fewer requests")
    assert advance(SCHEDULE, few, 1, tally(1), NO_TALLY).stage == 1
    few = run(SCHEDULE, (6000, tally(3800), tally(98)))
    assert waits_for(SCHEDULE, few) == "2 more requests of the variant with fewer requests"
    assert waits_for(SCHEDULE, ScheduleProgress()) == ""
    assert waits_for(SCHEDULE, run(SCHEDULE, (600, tally(99), tally(3800)))) != ""
    assert waits_for(SCHEDULE, run(SCHEDULE, (599, tally(99), tally(3800)))) == ""


def test_ended_schedule_waits_for_nothing() -> None:
    back = run(SCHEDULE, (6000, tally(90, 10), tally(1900)))
    endless = Schedule("b", (Stage(0.5, None),), SCHEDULE.stop, "id")
    assert [waits_for(SCHEDULE, back), waits_for(endless, run(endless, (6000, tally(1), tally(1))))] == ["", ""]


def test_candidate_with_more_failures_is_rolled_back_at_once() -> None:
    back = run(SCHEDULE, (10, tally(90, 10), tally(1900)))
    assert (back.phase, share_at(SCHEDULE, back)) == (Phase.ROLLED_BACK, 0.0)
    assert back.reason == "10 of 100 requests failed (10.0%), compared with 0 of 1900 of the baseline (0.0%)"
    assert advance(SCHEDULE, back, 10_000, *GOOD) == back


def test_candidate_with_more_failures_at_the_end_of_a_stage_is_rolled_back() -> None:
    assert run(SCHEDULE, (600, tally(90, 10), tally(1900))).phase is Phase.ROLLED_BACK


def test_the_first_look_may_be_wrong_once_in_329_times() -> None:
    """0.00304 is half of ALPHA, which two rules share, times 6/pi^2: what Fisher's test gives, on either side of it."""
    assert run(SCHEDULE, (10, tally(92, 8), tally(198, 2))).phase is Phase.ROLLED_BACK  # by chance: 0.00293
    assert run(SCHEDULE, (10, tally(92, 8), tally(100))).phase is Phase.RUNNING  # by chance: 0.00338


@pytest.mark.parametrize(
    ("why", "candidate", "baseline"),
    [
        ("too few to judge", tally(0, 99), tally(1900)),
        ("the other side fails alike", tally(80, 20), tally(1520, 380)),
        ("below the limit, though more", tally(9810, 190), tally(10_000)),
        ("above the limit, by chance", tally(97, 3), tally(98, 2)),
        ("at the limit, not above", tally(98, 2), tally(1900)),
        ("slower, by chance", tally(94) + tally(6, klass=SLOW), tally(96) + tally(4, klass=SLOW)),
        ("nothing to compare it with", tally(100), tally(0, 100)),
    ],
)
def test_schedule_does_not_roll_back_without_significant_evidence(why: str, candidate: Tally, baseline: Tally) -> None:
    progress = run(SCHEDULE, (10, candidate, baseline))
    assert (progress.phase, progress.reason) == (Phase.RUNNING, ""), why


def test_slower_candidate_is_rolled_back() -> None:
    back = run(SCHEDULE, (10, tally(100, klass=SLOW), tally(1900)))
    assert back.phase is Phase.ROLLED_BACK
    assert back.reason == (
        "100 of 100 answers took longer than 0.48 s, which is 1.5 times the baseline's 95th percentile, "
        "compared with 0 of 1900 of the baseline"
    )
    just_above = run(SCHEDULE, (10, tally(100, klass=FAST + 1), tally(1900)))
    assert just_above.phase is Phase.RUNNING
    a_few = run(SCHEDULE, (10, tally(96) + tally(4, klass=SLOW), tally(1900)))
    assert a_few.phase is Phase.RUNNING


@pytest.mark.parametrize("stop", [StopRule(None, 0.5, 100), StopRule(0.02, None, 100)])
def test_a_rule_that_is_off_never_stops(stop: StopRule) -> None:
    bad = tally(100, klass=SLOW) if stop.latency_p95 is None else tally(50, 50)
    assert run(replace(SCHEDULE, stop=stop), (10, bad, tally(1900))).phase is Phase.RUNNING


def test_last_stage_below_100_percent_is_still_evaluated() -> None:
    half = Schedule("b", (Stage(0.05, 10), Stage(0.5, None)), StopRule(0.02, 0.5, 100), "id")
    there = run(half, (10, *GOOD), (10_000, *GOOD))
    assert (there.phase, there.stage) == (Phase.RUNNING, 1)
    assert advance(half, there, 10, tally(0, 300), tally(1000)).phase is Phase.ROLLED_BACK


def test_looks_grow_rare_and_strict() -> None:
    progress = ScheduleProgress()
    seen = []
    for _ in range(500):
        progress = advance(SCHEDULE, progress, 1.0, tally(1), tally(19))
        seen.append(progress.seen)
    assert list(dict.fromkeys(seen)) == [0, 100, 125, 157, 197, 247, 309, 387, 484]  # requests of the candidate
    assert progress.looks == 8


@pytest.mark.slow("simulates many schedules")
def test_few_equal_candidates_are_rolled_back() -> None:
    draw = random.Random(20261120)  # a fixed seed, for a test
    schedule = Schedule("b", (Stage(0.1, 1e9), Stage(1.0, None)), StopRule(0.01, None, 50), "id")
    backs = 0
    for _ in range(400):
        progress = ScheduleProgress()
        for _ in range(60):
            sides = [[draw.random() < 0.03 for _ in range(count)] for count in (10, 90)]
            candidate, baseline = (Tally(len(side) - sum(side), sum(side)) for side in sides)
            progress = advance(schedule, progress, 1, candidate, baseline)
        backs += progress.phase is Phase.ROLLED_BACK
    assert backs <= 400 * ALPHA + 3 * (400 * ALPHA) ** 0.5


def test_candidate_with_three_times_the_failures_is_nearly_always_rolled_back() -> None:
    draw = random.Random(20261120)  # a fixed seed, for a test
    backs = 0
    for _ in range(50):
        progress = ScheduleProgress()
        for _ in range(100):
            sides = [[draw.random() < rate for _ in range(count)] for rate, count in ((0.06, 20), (0.02, 380))]
            candidate, baseline = (Tally(len(side) - sum(side), sum(side)) for side in sides)
            progress = advance(SCHEDULE, replace(progress, elapsed_s=0), 1, candidate, baseline)
        backs += progress.phase is Phase.ROLLED_BACK
    assert backs >= 47


class ScheduleMachine(RuleBasedStateMachine):
    """Any durations and any requests in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.progress = ScheduleProgress()
        self.past = [self.progress]

    @rule(
        by_s=st.floats(0, 4000, allow_nan=False),
        counts=st.tuples(*[st.integers(0, 400)] * 4),
        klass=st.sampled_from([FAST, SLOW]),
    )
    def pass_time(self, by_s: float, counts: tuple[int, int, int, int], klass: int) -> None:
        ok, failed, other_ok, other_failed = counts
        candidate, baseline = tally(ok, failed, klass), tally(other_ok, other_failed)
        self.past.append(self.progress)
        self.progress = advance(SCHEDULE, self.progress, by_s, candidate, baseline)
        before, now = self.past[-1], self.progress
        if before.phase is not Phase.RUNNING:
            assert now == before
        elif now.stage > before.stage:
            assert now.stage == before.stage + 1
            assert before.elapsed_s + by_s >= (SCHEDULE.stages[before.stage].for_s or 0)
            assert (before.candidate + candidate).requests >= SCHEDULE.stop.min_requests
            assert (before.baseline + baseline).requests >= SCHEDULE.stop.min_requests
        elif now.phase is Phase.ROLLED_BACK:
            assert now.candidate.requests >= SCHEDULE.stop.min_requests
            assert now.reason
        else:
            assert now.candidate == before.candidate + candidate
            assert now.elapsed_s == before.elapsed_s + by_s

    @invariant()
    def the_share_is_that_of_a_stage_or_nothing(self) -> None:
        allowed = {stage.share for stage in STAGES}
        assert share_at(SCHEDULE, self.progress) in (allowed if self.progress.phase is not Phase.ROLLED_BACK else {0.0})
        assert (self.progress.phase is Phase.DONE) == (
            self.progress.stage == len(STAGES) - 1 and self.progress.phase is not Phase.ROLLED_BACK
        )


TestScheduleMachine = ScheduleMachine.TestCase
TestScheduleMachine.pytestmark = [pytest.mark.slow("simulates many schedules")]  # type: ignore[attr-defined]
TestScheduleMachine.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)


# --- the shares in the table ----------------------------------------------------------------------

SCHEDULE_OF_DEFAULT = """
assistants:
  assistant:
    routes: {default: [{gemini: 60, qwen-intl: 30, chatgpt-us: 10}, chatgpt-us]}
    schedules: {default: {candidate: chatgpt-us, steps: "5% for 10m, 100%"}}
"""
SCHEDULE_OF_US = """
assistants:
  assistant:
    routes: {us: [{chatgpt-us: 90, second: 10}]}
    schedules: {us: {candidate: second, steps: "5% for 10m, 100%"}}
deployments:
  second: {provider: openai, model: gpt-6-sol, endpoint: us, api_key: "${OPENAI_US_API_KEY}"}
"""
SCHEDULED = BASE.merge(SCHEDULE_OF_DEFAULT)


@given(st.floats(0, 1, allow_nan=False))
@settings(deadline=None)
def test_the_candidate_has_its_share_and_the_others_keep_their_proportion(share: float) -> None:
    table = table_of(SCHEDULED)
    staged = with_shares(table, {("assistant", "default"): share})
    first = staged.assistants["assistant"].routes["default"][0]
    assert isinstance(first, WeightedSet)
    assert first.shares["chatgpt-us"] == pytest.approx(share)
    assert first.weights["gemini"] == pytest.approx(2 * first.weights["qwen-intl"])
    assert staged.assistants["gpt-4o"] is staged.assistants["assistant"]
    assert staged.assistants["assistant"].routes["cn"] == table.assistants["assistant"].routes["cn"]
    assert re.fullmatch(re.escape(table.version) + r"\+[0-9a-f]{4}", staged.version)
    assert staged.memo == {}


def test_version_depends_on_the_shares() -> None:
    table = table_of(SCHEDULED)
    versions = [with_shares(table, {("assistant", "default"): share}).version for share in (0.05, 0.25, 0.0, 0.05)]
    assert len(set(versions)) == 3
    assert versions[0] == versions[3]
    assert with_shares(table, {}) is table


def test_other_members_with_weight_0_get_equal_shares() -> None:
    route = "[{gemini: 0, qwen-intl: 0, chatgpt-us: 10}, chatgpt-us]"
    table = table_of(SCHEDULED.merge(f"assistants: {{assistant: {{routes: {{default: {route}}}}}}}"))
    first = with_shares(table, {("assistant", "default"): 0.5}).assistants["assistant"].routes["default"][0]
    assert isinstance(first, WeightedSet)
    assert first.weights == {"gemini": 25, "qwen-intl": 25, "chatgpt-us": 50}


def test_schedule_without_a_share_keeps_the_written_weights() -> None:
    table = table_of(SCHEDULED.merge(SCHEDULE_OF_US))
    staged = with_shares(table, {("assistant", "default"): 0.5}).assistants["assistant"]
    assert staged.routes["us"] == table.assistants["assistant"].routes["us"]
    assert staged.routes["default"] != table.assistants["assistant"].routes["default"]
