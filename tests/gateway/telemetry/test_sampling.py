"""Samples of log lines and receipts: only successful requests are left out, and every process decides alike."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from gateway.model.config_version import Region
from gateway.model.decision import Decision, Exclusion, Refusal, RefusalCode, SkipReason
from gateway.model.location import Location
from gateway.model.record import Record, Resumed, Skipped
from gateway.model.sampling import is_id_kept, is_kept
from gateway.state.receipts import receipt_of
from gateway.telemetry import log
from gateway.telemetry.recent_requests import describe_request
from gateway.telemetry.request_log import add_fields
from providers.failures import FailureKind
from providers.territories import ANYWHERE, Places
from tests.kit.request_records import EU, answered, attempt, failed_attempt, with_fields
from tests.kit.virtual_time import table_for

SMALLEST = 0.000001
DEPLOYMENT = table_for("a").deployments["a"]
IDS = [f"req_{number}" for number in range(10_000)]


def with_outcome(outcome: str) -> Record:
    return with_fields(answered(), outcome=outcome)


def in_region_with_prompts() -> Record:
    region = Region("eu", Places(frozenset({"DE"})), ANYWHERE, log_prompts=True)
    return with_fields(answered(), location=Location(region, "DE", "edge_header", ()))


def with_exclusion(reason: SkipReason) -> Record:
    verdicts = ((DEPLOYMENT, Exclusion(reason, "why")),)
    return with_fields(answered(), decision=Decision(Refusal(RefusalCode.NO_ELIGIBLE_DEPLOYMENT, ""), verdicts))


ALWAYS_KEPT: dict[str, Callable[[], Record]] = {
    "refused": lambda: replace(with_outcome("refused"), attempts=[]),
    "failed": lambda: with_outcome("failed"),
    "interrupted": lambda: with_outcome("interrupted"),
    "cancelled": lambda: with_outcome("cancelled"),
    "internal error": lambda: with_outcome("internal_error"),
    "retried": lambda: answered(failed_attempt(FailureKind.UNAVAILABLE), attempt()),
    "failed over": lambda: answered(failed_attempt(FailureKind.RATE_LIMITED, "first"), attempt("second")),
    "continued by another deployment": lambda: with_fields(answered(), resumed=Resumed("house", "other")),
    "a step was skipped": lambda: with_fields(answered(), skipped=[Skipped("first", "its breaker is open")]),
    "routing missed a credential": lambda: with_exclusion(SkipReason.CREDENTIAL),
    "routing missed a healthy deployment": lambda: with_exclusion(SkipReason.HEALTH),
    "a queue was full": lambda: with_fields(answered(), shed=(("first", "queue_full"),)),
    "its prompt is logged": in_region_with_prompts,
    "no attempt": lambda: with_fields(answered(), attempts=[]),
}


@pytest.mark.parametrize("kind", ALWAYS_KEPT)
def test_request_that_is_not_plainly_successful_is_always_kept(kind: str) -> None:
    record = ALWAYS_KEPT[kind]()
    assert all(is_kept(with_fields(record, request_id=name), SMALLEST) for name in IDS[:1000])


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9])
def test_sample_keeps_its_share_of_successful_requests(share: float) -> None:
    kept = sum(is_kept(with_fields(answered(), request_id=name), share) for name in IDS)
    assert abs(kept / len(IDS) - share) < 0.02
    assert kept


def test_share_of_one_keeps_every_request() -> None:
    assert all(is_id_kept(name, 1.0) for name in IDS)


def test_smaller_share_keeps_a_part_of_what_a_larger_one_keeps() -> None:
    kept = [{name for name in IDS if is_id_kept(name, share)} for share in (0.01, 0.1, 0.5, 1.0)]
    assert all(smaller < larger for smaller, larger in pairwise(kept))


@pytest.mark.parametrize(
    ("request_id", "threshold"),
    # The first eight bytes of the SHA-256 of the id, divided by 2**64, as an auditor computes them.
    [("invoice-42", 0.23511), ("req_1", 0.87463)],
)
def test_decision_is_the_documented_function_of_the_request_id(request_id: str, threshold: float) -> None:
    assert not is_id_kept(request_id, threshold - 0.0001)
    assert is_id_kept(request_id, threshold + 0.0001)


@pytest.mark.parametrize("form", ["json", "text"])
def test_log_has_the_sampled_lines_and_all_lines_of_failures(form: log.LogFormat) -> None:
    stream = io.StringIO()
    log.configure(form, "info", stream)
    successful = [with_fields(answered(), request_id=f"good_{name}.") for name in IDS[:200]]
    failed = [replace(with_outcome("failed"), request_id=f"bad_{name}.") for name in IDS[:200]]
    log.log_requests([(record, 0.0) for pair in zip(successful, failed, strict=True) for record in pair], 0.1)
    text = stream.getvalue()
    assert all(record.request_id in text for record in failed)
    kept = {record.request_id for record in successful if record.request_id in text}
    assert kept == {record.request_id for record in successful if is_id_kept(record.request_id, 0.1)}
    assert 0 < len(kept) < 60
    if form == "json":
        lines = [json.loads(line) for line in text.splitlines()]
        assert {line.get("sample") for line in lines if line["outcome"] == "ok"} == {0.1}
        assert {line.get("sample") for line in lines if line["outcome"] == "failed"} == {None}


def test_line_without_a_sample_does_not_name_one() -> None:
    stream = io.StringIO()
    log.configure("json", "info", stream)
    log.log_requests([(answered(), 0.0)])
    assert "sample" not in json.loads(stream.getvalue())


@pytest.mark.parametrize("reason", sorted(set(SkipReason) - {SkipReason.CREDENTIAL, SkipReason.HEALTH}))
def test_rule_of_the_configuration_that_excludes_a_deployment_keeps_no_line(reason: SkipReason) -> None:
    assert with_exclusion(reason).is_successful


@pytest.mark.parametrize("reason", sorted(SkipReason))
def test_what_routing_and_execution_passed_over_is_one_list_everywhere(reason: SkipReason) -> None:
    record = with_fields(with_exclusion(reason), location=EU, skipped=[Skipped("second", "its breaker is open")])
    receipt, described = receipt_of(record, 0.0, "DE"), describe_request(record, 0.0)
    line: dict[str, object] = {}
    add_fields(line, record)
    assert receipt is not None
    words = "no credential" if reason is SkipReason.CREDENTIAL else "why"
    assert line["skipped"] == {DEPLOYMENT.name: words, "second": "its breaker is open"}
    assert line["skipped"] == receipt["passed_over"] == described["skipped"] == described["passed_over"]


def test_attempt_whose_answer_broke_off_is_not_successful() -> None:
    assert not with_fields(answered(), outcome="interrupted", location=EU).is_successful
    assert answered().is_successful
