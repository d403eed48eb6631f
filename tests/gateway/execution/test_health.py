"""Benches: which key of which deployment, for how long, and when all of a deployment's keys are on one."""

from dataclasses import replace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.execution.health import Health
from gateway.model.config_version import ConfigVersion
from gateway.model.decision import Unavailable
from gateway.model.deployment import Deployment
from gateway.policy.canary_assignment import sticky_key
from providers.auth import Secret
from providers.failures import Failure, FailureKind
from tests.gateway.clocks import SetClock
from tests.gateway.execution.conftest import CONFIG, FIRST, SECOND, TWO_KEYS, Bench, answer_json, bench_of
from tests.kit.configs import table_of

REFUSED = Failure(FailureKind.CREDENTIALS, "the provider refuses our key")
LIMITED = Failure(FailureKind.RATE_LIMITED, "the provider's rate limit is reached")
BOTH = frozenset({FailureKind.CREDENTIALS, FailureKind.RATE_LIMITED})
SUSPECTED: frozenset[FailureKind | None] = frozenset({None})
KEYS = (Secret("k1"), Secret("k2"), Secret("k3"))


TABLE = table_of(CONFIG, {"FIRST": "k1", "SECOND": "k2"})


def deployment(*keys: Secret, name: str = "first") -> Deployment:
    return replace(TABLE.deployments["first"], name=name, credentials=keys)


def table(*deployments: Deployment) -> ConfigVersion:
    """A table that has these."""
    return replace(TABLE, deployments={deployment.name: deployment for deployment in deployments})


@pytest.fixture
def clock() -> SetClock:
    return SetClock(1000.0)


@pytest.fixture
def health(clock: SetClock) -> Health:
    return Health(clock)


def fail_often(health: Health, one: Deployment) -> None:
    """Open the breaker of a deployment."""
    rule = TABLE.resilience.breaker
    evidence = health.evidence(one, rule)
    assert rule is not None
    assert evidence is not None
    for number in range(rule.failures):
        evidence.failed((), (), bytes([number]), 1000.0, "down")


def test_suspicion_is_confirmed_by_three_different_requests_for_those_who_made_them(health: Health) -> None:
    two = deployment(*KEYS[:2])

    def suspect(client: str, *contents: str, key: Secret = KEYS[0]) -> None:
        for content in contents:
            health.suspect(two, key, (f"client {client}",), content.encode(), 300, "status 403 alone")

    def usable(client: str) -> tuple[Secret | None, ...]:
        return health.usable_keys(two, (f"client {client}",))

    suspect("a", "1", "1", "1", "1", "2")
    assert usable("a") == KEYS[:2], "the same content is the same observation"
    suspect("a", "3")
    assert (usable("a"), usable("b"), usable("c")) == (KEYS[1:2], KEYS[:2], KEYS[:2])
    suspect("b", "1")
    assert usable("c") == KEYS[1:2], "two clients have shown it"
    suspect("a", "1", "2", "3", key=KEYS[1])
    assert health.snapshot(table(two), ("client a",))["first"] == Unavailable(
        "benched for all: 4 different requests failed, the last: status 403 alone",
        pytest.approx(300),
        False,
        is_callers=True,  # others have its second key
        kinds=SUSPECTED,
    )
    assert "first" not in health.snapshot(table(two), ("client c",)), "its second key"
    health.succeeded(two, KEYS[0])
    assert usable("a") == KEYS[:1]
    assert len(health.suspicions) == 1


def test_resumed_deployment_is_used_as_if_nothing_had_failed_and_no_other_is(health: Health) -> None:
    first, second = deployment(*KEYS[:1]), deployment(*KEYS[:1], name="second")
    assert not health.resume("first")
    for one in (first, second):
        health.cool_down(one, KEYS[0], 300, REFUSED)
        fail_often(health, one)
    assert set(health.snapshot(table(first, second))) == {"first", "second"}
    assert health.resume("first")
    assert set(health.snapshot(table(first, second))) == {"second"}
    assert health.usable_keys(first) == KEYS[:1]
    assert not health.resume("first")


def test_reason_of_a_deployment_is_that_of_the_key_that_recovers_first(health: Health) -> None:
    two = deployment(*KEYS[:2])
    health.cool_down(two, KEYS[0], 60, REFUSED)
    health.cool_down(two, KEYS[1], 20, LIMITED)
    assert health.snapshot(table(two))["first"] == Unavailable(
        "benched: the provider's rate limit is reached", 20, False, kinds=BOTH
    )


@pytest.mark.parametrize(("failures", "limited"), [((LIMITED, LIMITED), True), ((LIMITED, REFUSED), False)])
def test_deployment_is_rate_limited_only_if_every_key_is(
    health: Health, failures: tuple[Failure, Failure], limited: bool
) -> None:
    two = deployment(*KEYS[:2])
    for key, failure in zip(two.credentials, failures, strict=True):
        health.cool_down(two, key, 30, failure)
    assert health.snapshot(table(two))["first"].is_rate_limit is limited


def test_deployment_without_keys_is_benched_as_one(health: Health, clock: SetClock) -> None:
    bare = deployment()
    health.cool_down(bare, None, 5, LIMITED)
    assert health.usable_keys(bare) == ()
    assert health.snapshot(table(bare)) == {
        "first": Unavailable(
            "benched: the provider's rate limit is reached", 5, True, kinds=frozenset({FailureKind.RATE_LIMITED})
        )
    }
    clock.now += 5
    assert health.usable_keys(bare) == (None,)


def test_key_benched_at_one_deployment_is_usable_at_another(health: Health) -> None:
    here, there = deployment(KEYS[0]), deployment(KEYS[0], name="second")
    health.cool_down(here, KEYS[0], 60, REFUSED)
    assert health.usable_keys(there) == KEYS[:1]
    assert set(health.snapshot(table(here, there))) == {"first"}


@pytest.mark.parametrize("order", [1, -1])
def test_longer_of_two_cooldowns_counts_in_either_order(health: Health, order: int) -> None:
    """Concurrent calls: a rate limit that arrives after the refusal belongs to an earlier call and must not shorten it."""
    one = deployment(KEYS[0])
    for for_s, failure in [(60, REFUSED), (10, LIMITED)][::order]:
        health.cool_down(one, KEYS[0], for_s, failure)
    assert health.snapshot(table(one))["first"] == Unavailable(f"benched: {REFUSED.message}", 60, False, kinds=BOTH)


def test_keys_take_turns_and_benched_ones_have_none(health: Health) -> None:
    three = deployment(*KEYS)
    assert [health.keys_in_turn(three)[0] for _ in range(6)] == [*KEYS, *KEYS]
    assert set(health.keys_in_turn(three)) == set(KEYS)
    health.cool_down(three, KEYS[1], 60, REFUSED)
    begun = [health.keys_in_turn(three)[0] for _ in range(4)]
    assert set(begun) == {KEYS[0], KEYS[2]}
    assert begun[:2] == begun[2:]
    assert health.keys_in_turn(deployment()) == (None,)
    assert health.keys_in_turn(deployment(KEYS[1])) == ()


@pytest.mark.parametrize(("for_s", "reason"), [(1.0, "breaker open"), (3000.0, "benched")])
def test_longer_of_a_cooldown_and_an_open_breaker_counts(health: Health, for_s: float, reason: str) -> None:
    one = deployment(KEYS[0])
    fail_often(health, one)
    health.cool_down(one, KEYS[0], for_s, REFUSED)
    found = health.snapshot(table(one))["first"]
    assert found.reason.startswith(reason)
    assert found.for_s > 2


def test_no_key_is_shown(health: Health) -> None:
    one = deployment(Secret("sk-very-secret"))
    health.cool_down(one, one.credentials[0], 60, REFUSED)
    assert "sk-very-secret" not in f"{health.snapshot(table(one))} {health._cooldowns}"


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["bench", "wait"]), st.integers(0, 2), st.integers(1, 50)), min_size=1, max_size=30
    )
)
def test_deployment_is_unavailable_exactly_while_no_key_is_usable(steps: list[tuple[str, int, int]]) -> None:
    clock = SetClock(1000.0)
    health, three = Health(clock), deployment(*KEYS)
    until = dict.fromkeys(KEYS, 0.0)
    for action, number, seconds in steps:
        if action == "bench":
            health.cool_down(three, KEYS[number], seconds, REFUSED)
            until[KEYS[number]] = max(until[KEYS[number]], clock.now + seconds)
        else:
            clock.now += seconds
        usable = tuple(key for key in KEYS if until[key] <= clock.now)
        assert health.usable_keys(three) == usable
        unwell = health.snapshot(table(three))
        assert (unwell == {}) == bool(usable)
        if not usable:
            assert unwell["first"].for_s == min(until.values()) - clock.now
    clock.now += 50
    assert health.usable_keys(three) == KEYS
    assert health._cooldowns == {}, "no expired entry remains"


# --- reloads ---------------------------------------------------------------------------------------


def test_deployment_is_judged_by_the_keys_of_the_asking_config(health: Health) -> None:
    old = deployment(KEYS[0])
    health.cool_down(old, KEYS[0], 300, REFUSED)
    for mended in (deployment(KEYS[1]), deployment(*KEYS[:2])):
        assert health.snapshot(table(mended)) == {}
        assert health.usable_keys(mended) == KEYS[1:2]
        assert health.unavailable(mended) is None
    # A request that still runs by the old table, and a reload that goes back to it, know what they knew.
    assert set(health.snapshot(table(old))) == {"first"}
    assert health.unavailable(old) == Unavailable(
        "benched: the provider refuses our key", 300, kinds=frozenset({FailureKind.CREDENTIALS})
    )


@pytest.mark.parametrize("change", [{"model": "m-other"}, {"origin": "https://other.example"}], ids=str)
def test_the_same_key_for_another_model_or_place_is_not_benched(health: Health, change: dict[str, Any]) -> None:
    old = deployment(KEYS[0])
    health.cool_down(old, KEYS[0], 300, REFUSED)
    assert health.snapshot(table(replace(old, **change))) == {}
    assert set(health.snapshot(table(replace(old, enabled=False)))) == {"first"}


def test_many_reloads_leave_no_old_state(health: Health, clock: SetClock) -> None:
    for number in range(300):
        passing = deployment(*KEYS, name=f"d{number}")
        for key in health.keys_in_turn(passing):
            health.cool_down(passing, key, 60, REFUSED)
        health.prune(table(deployment(*KEYS, name=f"d{number + 1}")))
        clock.now += 61
    assert len(health._cooldowns) <= len(KEYS)
    assert health._turns == {}


# --- cooldowns during a request -------------------------------------------------------------------


def two_keys() -> Bench:
    return bench_of(CONFIG.merge(TWO_KEYS), {"FIRST": "k1", "SECOND": "k2"})


def refusing(*bad: str, status: int = 401, retry_after: str | None = None) -> object:
    """A provider that refuses these keys."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.headers["authorization"].removeprefix("Bearer ") in bad:
            headers = {"retry-after": retry_after} if retry_after else {}
            return httpx.Response(status, json={"error": {"message": "no"}}, headers=headers)
        return httpx.Response(200, json=answer_json())

    return answer


async def test_deployment_with_only_refused_keys_is_benched_and_fails_over() -> None:
    bench = two_keys()
    first = bench.router.post(FIRST).mock(side_effect=refusing("k1", "k2"))
    bench.router.post(SECOND).respond(json=answer_json(model="m2"))
    assert (await bench.ask()).step.deployment.name == "second"
    assert (bench.tried, bench.waits) == (["first", "first", "second"], [0.0, 0.0])
    assert set(bench.health.snapshot(bench.table)) == {"first"}
    await bench.ask()
    assert [call.request.headers["authorization"][-2:] for call in first.calls] == ["k1", "k2"]


async def test_single_refused_key_does_not_bench_its_deployment() -> None:
    bench = two_keys()
    first = bench.router.post(FIRST).mock(side_effect=refusing("k2"))
    for _ in range(4):
        assert (await bench.ask()).step.deployment.name == "first"
    assert bench.health.snapshot(bench.table) == {}
    used = [call.request.headers["authorization"][-2:] for call in first.calls]
    assert used.count("k2") == 1


async def test_rate_limited_key_is_replaced_by_the_next_at_once() -> None:
    bench = two_keys()
    bench.router.post(FIRST).mock(side_effect=refusing("k1", status=429, retry_after="30"))
    assert (await bench.ask()).step.deployment.name == "first"
    assert (bench.tried, bench.waits) == (["first", "first"], [0.0])
    bench.time += 31
    assert bench.health.snapshot(bench.table) == {}


async def test_refusal_of_every_key_of_every_step_is_reported() -> None:
    bench = two_keys()
    bench.router.post(FIRST).mock(side_effect=refusing("k1", "k2"))
    bench.router.post(SECOND).mock(side_effect=refusing("k2"))
    assert (await bench.failure()).kind is FailureKind.CREDENTIALS
    assert set(bench.health.snapshot(bench.table)) == {"first", "second"}


def test_conversation_keeps_its_key_and_gets_it_back(health: Health, clock: SetClock) -> None:
    three, conversations = deployment(*KEYS), [sticky_key("turns", str(number)) for number in range(60)]

    def chosen(one: Deployment, *used: Secret) -> list[Secret | None]:
        return [health.next_key(one, used, conversation=it) for it in conversations]

    first = chosen(three)
    assert set(first) == set(KEYS), "the keys share the work"
    assert chosen(three) == first
    assert chosen(deployment(*KEYS[::-1], name="second")) == first, "wherever a key is listed, and in whatever place"
    without = chosen(deployment(*KEYS[1:], name="third"))
    assert [key for key in first if key != KEYS[0]] == [
        key for key, before in zip(without, first, strict=True) if before != KEYS[0]
    ], "another number of keys moves only the conversations of a key that is gone"
    health.cool_down(three, KEYS[0], 60, LIMITED)
    assert chosen(three) == without
    clock.now += 60.1
    assert chosen(three) == first
    assert all(key not in KEYS[:2] for key in chosen(three, *KEYS[:2])), "a retry takes a key that was not used"
    assert all(key in KEYS for key in chosen(three, *KEYS))
