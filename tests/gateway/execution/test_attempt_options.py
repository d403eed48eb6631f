"""How a step is asked, row by row: as what, for how long it may stay silent, and whether it had its time."""

from dataclasses import replace

import msgspec
import pytest

from gateway.execution.run import RunContext, had_time, options_for
from gateway.execution.upstream_client import AttemptOptions
from gateway.model.decision import Step
from gateway.model.resilience import Resilience
from providers.chat import ChatRequest, UserMessage, change_request
from tests.gateway.execution.conftest import Bench
from tests.kit.case_files import cases

BOUNDS = Resilience(first_token_s=10, commit_s=55, total_s=600)
JSON = ChatRequest("assistant", (UserMessage("hello"),))
STREAM = replace(JSON, stream=True)
NOW = 1000.0


def context_of(bench: Bench) -> RunContext:
    return RunContext(BOUNDS, bench.deadline, bench.record, bench.still_allowed)


def step_of(bench: Bench, fold: bool | None = None, first_token_s: float | None = None) -> Step:
    step = bench.plan(JSON).steps[0]
    return replace(step, deployment=replace(step.deployment, fold=fold, first_token_s=first_token_s))


@pytest.mark.parametrize(
    ("request_", "fold", "own_s", "is_last", "left_s", "form"),
    [
        (JSON, None, None, False, 600, (False, 10, True)),
        (JSON, None, None, False, 3, (False, 3, True)),
        (JSON, None, 0.1, False, 600, (True, 0.1, False)),
        (JSON, True, None, False, 600, (True, 10, False)),
        (JSON, False, None, False, 600, (False, 600, False)),
        (change_request(JSON, n=2), True, None, False, 600, (False, 600, False)),
        (JSON, None, None, True, 600, (False, 600, False)),
        (JSON, True, None, True, 600, (True, 600, False)),
        (JSON, True, 70, True, 600, (True, 600, False)),
        (STREAM, None, None, False, 55, (True, 10, False)),
        (STREAM, None, 25, False, 55, (True, 25, False)),
        (STREAM, None, None, False, 3, (True, 3, False)),
        (STREAM, None, None, True, 55, (True, 600, False)),
    ],
)
def test_quick_deployment_is_sent_the_expected_form_of_request(
    bench: Bench,
    request_: ChatRequest,
    fold: bool | None,
    own_s: float | None,
    is_last: bool,
    left_s: float,
    form: tuple[bool, float, bool],
) -> None:
    step = step_of(bench, fold, own_s)
    bench.health.latency.of(step.deployment).record(NOW, 0.1)
    options = options_for(request_, step, context_of(bench), bench.health, left_s, is_last)
    asked = options.request
    assert (asked.stream, options.limit_s, options.is_quick, options.head_s) == (*form, None)
    assert asked.folded is (asked.stream and not request_.stream)


@cases("factor", "effort", "own_s", "limit_s", "head_s")
def test_reasoning_model_gets_a_longer_first_token_timeout_and_a_head_timeout(
    bench: Bench, factor: float, effort: str | None, own_s: float | None, limit_s: float, head_s: float | None
) -> None:
    step = step_of(bench, first_token_s=own_s)
    facts = replace(step.deployment.target.facts, first_token_factor=factor, efforts=("none", "high"))
    deployment = replace(step.deployment, target=replace(step.deployment.target, facts=facts))
    step, asked = replace(step, deployment=deployment), replace(STREAM, reasoning_effort=effort)
    options = options_for(asked, step, context_of(bench), bench.health, 55, is_last_step=False)
    assert (options.limit_s, options.head_s, options.is_quick) == (limit_s, head_s, False)
    assert had_time(options, step, BOUNDS, is_last_step=False)
    assert not had_time(
        msgspec.structs.replace(options, limit_s=limit_s - 1, head_s=None), step, BOUNDS, is_last_step=False
    )


@pytest.mark.parametrize(
    ("request_", "own_s", "is_quick", "is_last", "least_s"),
    [
        (JSON, None, False, False, 300),
        (JSON, None, True, False, 10),
        (STREAM, None, False, False, 10),
        (STREAM, 25, False, False, 25),
        (STREAM, 25, False, True, 10),
        (STREAM, 4, False, True, 4),
    ],
)
def test_silence_counts_as_a_failure_only_from_a_minimum_timeout(
    bench: Bench, request_: ChatRequest, own_s: float | None, is_quick: bool, is_last: bool, least_s: float
) -> None:
    step = step_of(bench, None, own_s)
    for limit_s, had in [(least_s, True), (least_s - 0.1, False)]:
        options = AttemptOptions(request_, limit_s, 5, 30, is_quick=is_quick)
        assert had_time(options, step, BOUNDS, is_last_step=is_last) is had
