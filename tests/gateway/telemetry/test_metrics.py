"""The counts of requests, the sum over processes, and the format for Prometheus, which a plan reads back."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from datetime import date

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gateway.model.hand_off import HandOff, HandOffCause
from gateway.model.record import AttemptAction, Record, Resumed
from gateway.model.wrapper import WrapperNote
from gateway.telemetry import metrics as module
from gateway.telemetry.exposition import read_requests, render
from gateway.telemetry.metric_definitions import METRIC_DEFINITIONS, REQUEST_BOUNDS_S
from gateway.telemetry.metric_snapshots import EMPTY, Series, merge, unpack, without_gauges
from gateway.telemetry.metrics import Metrics
from providers.catalogue.prices import Price, Rates
from providers.chat import Usage
from providers.failures import FailureKind
from providers.value import replace
from tests.kit.case_files import cases
from tests.kit.request_records import (
    EU,
    NOWHERE_KNOWN,
    US,
    answered,
    attempt,
    failed_attempt,
    record_with,
    records,
    with_fields,
)

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def counted(observed: Iterable[Record]) -> Metrics:
    metrics = Metrics()
    for record in observed:
        metrics.observe(record)
    return metrics


def samples(snapshot: bytes) -> Samples:
    """Return every sample of the exposition, as Prometheus reads it."""
    body, kind = render(snapshot)
    assert kind.startswith("text/plain; version=0.0.4")
    read: Samples = {}
    for family in parse_text(body.decode()):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in read, "a series appears twice"
            read[key] = sample.value
    return read


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Return the sum over the series with these labels, or None if there are none."""
    wanted = set(labels.items())
    found = [
        value for (have, pairs), value in samples(metrics.snapshot()).items() if have == name and wanted <= set(pairs)
    ]
    return sum(found) if found else None


# --- counted values -------------------------------------------------------------------------------


def test_answer_is_counted() -> None:
    metrics = counted([answered(usage=Usage(10, 20, 3, 5, 2), stream=True)] * 2)
    eu = {"region": "eu", "assistant": "assistant"}
    assert value(metrics, "gateway_requests_total", **eu, outcome="ok", status="200", code="") == 2
    assert value(metrics, "gateway_request_duration_seconds_sum", **eu, outcome="ok", stream="true") == 2.0
    assert value(metrics, "gateway_request_duration_seconds_bucket", **eu, le="0.64") == 0
    assert value(metrics, "gateway_request_duration_seconds_bucket", **eu, le="1.28") == 2
    assert value(metrics, "gateway_time_to_first_token_seconds_sum", **eu, deployment="house") == pytest.approx(0.8)
    assert (
        value(metrics, "gateway_attempts_total", region="eu", deployment="house", provider="openai", outcome="ok") == 2
    )
    assert value(metrics, "gateway_attempt_duration_seconds_sum", deployment="house", outcome="ok") == pytest.approx(
        0.6
    )
    for kind, tokens in {"prompt": 20, "completion": 40, "cached": 6, "cache_write": 4, "reasoning": 10}.items():
        assert value(metrics, "gateway_tokens_total", **eu, deployment="house", provider="openai", type=kind) == tokens
    assert value(metrics, "gateway_answers_without_usage_total") is None
    assert value(metrics, "gateway_retries_total") is None
    assert value(metrics, "gateway_failovers_total") is None


def priced(usage: Usage | None, currency: str = "USD") -> Record:
    record = answered()
    record = with_fields(
        record, price=Price(Rates(2_500_000, 10_000_000, 250_000), currency, date(2026, 11, 20), "a page")
    )
    record.count(usage)
    return record


def test_costs_are_summed_by_currency() -> None:
    usage = Usage(1000, 10, 400)
    unknown = priced(None)
    metrics = counted([priced(usage), priced(usage), priced(usage, "EUR"), unknown, answered(usage=usage)])
    labels = {"region": "eu", "assistant": "assistant", "deployment": "house", "provider": "openai"}
    each = 600 * 2.5 + 400 * 0.25 + 10 * 10
    assert value(metrics, "gateway_cost_micros_total", **labels, currency="USD") == 2 * each
    assert value(metrics, "gateway_cost_micros_total", **labels, currency="EUR") == each
    assert (unknown.cost_micros, unknown.usage) == (None, None)


def test_json_answer_has_no_first_token_time() -> None:
    assert value(counted([answered()]), "gateway_time_to_first_token_seconds_count") is None


def test_zero_is_counted_and_unknown_is_not() -> None:
    zero = counted([answered(usage=Usage(0, 0))])
    assert value(zero, "gateway_tokens_total", type="completion") == 0
    assert value(zero, "gateway_answers_without_usage_total") is None
    unknown = counted([answered()])
    assert value(unknown, "gateway_tokens_total") is None
    assert value(unknown, "gateway_answers_without_usage_total", deployment="house", provider="openai") == 1


def test_unanswered_request_is_not_counted_as_missing_usage() -> None:
    refused = record_with(
        "r", 0, "t", location=NOWHERE_KNOWN, outcome="refused", status=451, code="region_unknown", total_s=0.001
    )
    metrics = counted([refused])
    assert (
        value(metrics, "gateway_requests_total", region="", outcome="refused", code="region_unknown", status="451") == 1
    )
    assert value(metrics, "gateway_answers_without_usage_total") is None
    assert value(metrics, "gateway_attempts_total") is None


def test_request_cancelled_before_the_status_line_has_no_status() -> None:
    cancelled = record_with("r", 0, "t", location=EU, outcome="cancelled", total_s=1)
    assert value(counted([cancelled]), "gateway_requests_total", region="eu", outcome="cancelled", status="") == 1


def test_retries_and_failovers_are_counted_separately() -> None:
    first = failed_attempt(FailureKind.UNAVAILABLE, action=AttemptAction.RETRY)
    again = failed_attempt(FailureKind.SILENT, action=AttemptAction.FAILOVER)
    metrics = counted([answered(first, again, attempt("other"))])
    assert value(metrics, "gateway_retries_total", region="eu", deployment="house") == 1
    assert value(metrics, "gateway_failovers_total", region="eu", deployment="house") == 1
    assert value(metrics, "gateway_attempts_total", deployment="house", outcome="unavailable") == 1
    assert value(metrics, "gateway_attempts_total", deployment="house", outcome="silent") == 1
    assert value(metrics, "gateway_attempts_total", deployment="other", outcome="ok") == 1
    assert value(metrics, "gateway_overhead_seconds_count") is None, "a wait between attempts is not overhead"


def test_calls_of_a_batch_are_no_retries() -> None:
    metrics = counted([answered(attempt(), attempt(), attempt("other"))])
    assert value(metrics, "gateway_retries_total") is None
    assert value(metrics, "gateway_failovers_total") is None
    retried = failed_attempt(FailureKind.UNAVAILABLE, action=AttemptAction.RETRY)
    metrics = counted([answered(attempt(), retried, attempt(), attempt())])
    assert value(metrics, "gateway_retries_total", region="eu", deployment="house") == 1


def test_overhead_excludes_provider_and_upload_time() -> None:
    record = answered(attempt(duration_s=0.3))
    record.upload_s = 0.09
    assert value(counted([record]), "gateway_overhead_seconds_sum", deployment="house") == pytest.approx(0.01)


def test_live_values_are_read_for_each_snapshot() -> None:
    metrics, streams = Metrics(), [3]
    metrics.live["gateway_open_streams"] = lambda: streams[0]
    assert value(metrics, "gateway_open_streams") == 3
    streams[0] = 1
    assert value(metrics, "gateway_open_streams") == 1


@given(st.lists(records, max_size=5), st.sampled_from([1, 70]))
@settings(max_examples=30, deadline=None)
def test_each_attempt_and_time_is_counted_once(observed: list[Record], times: int) -> None:
    """This holds for each way of counting an attempt, and before and after its bucket is computed."""
    attempts: Counter[tuple[str, ...]] = Counter()
    buckets: Counter[int] = Counter()
    for record in observed:
        region = (
            record.decided.location.region.name if record.decided.location and record.decided.location.region else ""
        )
        for made in record.attempts:
            attempts[region, made.deployment, made.provider, made.outcome] += times
        buckets[bisect_left(REQUEST_BOUNDS_S, int((record.total_s or 0) * 1e6) / 1e6)] += times
    series = unpack(counted(observed * times).snapshot())
    assert {labels: count for labels, (count,) in series["gateway_attempts_total"].items()} == attempts
    held = [0] * (len(REQUEST_BOUNDS_S) + 1)
    for row in series["gateway_request_duration_seconds"].values():
        held = [before + more for before, more in zip(held, row, strict=False)]
    assert held == [buckets[number] for number in range(len(held))]
    sums = {labels[1:]: 0 for labels in attempts}
    for made in (made for record in observed for made in record.attempts):
        sums[made.deployment, made.provider, made.outcome] += int(made.duration_s * 1e6) * times
    assert {labels: row[-1] for labels, row in series["gateway_attempt_duration_seconds"].items()} == sums


# --- number of series -----------------------------------------------------------------------------


def test_number_of_series_is_bounded_over_many_reloads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_ROWS", 10)
    metrics = Metrics()
    for number in range(500):
        name = f"d{number}"
        record = answered(failed_attempt(FailureKind.SILENT, name, action=AttemptAction.RETRY), attempt(name))
        metrics.observe(record)
    assert value(metrics, "gateway_requests_total") == 500
    assert value(metrics, "gateway_attempts_total", outcome="ok") == 500
    assert value(metrics, "gateway_retries_total") == 500
    for name, rows in unpack(metrics.snapshot()).items():
        assert len(rows) <= 10 + len(FailureKind), name


# --- adding up ------------------------------------------------------------------------------------

some = st.lists(records, max_size=4)


@given(some, some, some)
@settings(max_examples=20, deadline=None)
def test_merged_snapshots_equal_those_of_one_process_in_any_order(
    one: list[Record], two: list[Record], three: list[Record]
) -> None:
    a, b, c = (counted(part).snapshot() for part in (one, two, three))
    merged = unpack(merge([a, b, c]))
    assert unpack(merge([merge([a, b]), c])) == merged
    assert unpack(merge([a, merge([b, c])])) == merged
    assert unpack(merge([c, a, b])) == merged
    assert unpack(merge([a, EMPTY])) == unpack(a)
    assert unpack(counted([*one, *two, *three]).snapshot()) == {
        name: merged.get(name, {}) for name in METRIC_DEFINITIONS
    }


@given(st.lists(records, max_size=5), st.lists(st.integers(0, 2), max_size=5))
@settings(max_examples=20, deadline=None)
def test_counter_never_falls_when_a_worker_ends(observed: list[Record], ended: list[int]) -> None:
    """The supervisor adds the snapshots of running workers to the counts of ended ones."""
    workers, past = [Metrics(), Metrics(), Metrics()], EMPTY
    before: Series = {}
    for turn, record in enumerate(observed):
        workers[turn % 3].live["gateway_requests_in_flight"] = lambda: 7
        workers[turn % 3].observe(record)
        if turn < len(ended):
            past = merge([past, without_gauges(workers[ended[turn]].snapshot())])
            workers[ended[turn]] = Metrics()
        now = unpack(merge([past, *(worker.snapshot() for worker in workers)]))
        for name, rows in before.items():
            for labels, held in rows.items():
                if METRIC_DEFINITIONS[name].kind != "gauge":
                    assert all(more >= less for more, less in zip(now[name][labels], held, strict=True))
        assert now.get("gateway_requests_in_flight", {}).get((), [0])[0] <= 21
        before = now


def test_gauges_of_an_ended_process_are_removed() -> None:
    metrics = counted([answered()])
    metrics.live["gateway_open_streams"] = lambda: 5
    series = unpack(without_gauges(metrics.snapshot()))
    assert "gateway_open_streams" not in series
    assert series["gateway_requests_total"]


@cases("rows")
def test_series_of_another_version_are_ignored(rows: dict[str, object]) -> None:
    mine = counted([answered()]).snapshot()
    assert samples(merge([orjson.dumps(rows), mine])) == samples(mine)


# --- the exposition -------------------------------------------------------------------------------


@given(st.lists(records, max_size=5))
@settings(max_examples=20, deadline=None)
def test_exposition_is_valid_in_both_formats(observed: list[Record]) -> None:
    snapshot = counted(observed).snapshot()
    body, kind = render(snapshot, "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5")
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    # This parser is strict: it refuses histograms whose buckets fall, lack +Inf or contradict their count.
    strict = {family.name: family for family in parse_openmetrics(body.decode())}
    assert {name.removesuffix("_total") for name in METRIC_DEFINITIONS} == set(strict)
    openly = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in strict.values()
        for sample in family.samples
    }
    assert openly == samples(snapshot)


@pytest.mark.parametrize("accept", ["", "*/*", "text/plain;version=0.0.4", "application/openmetrics-textual", ";;,,q="])
def test_exposition_is_plain_text_unless_openmetrics_is_accepted(accept: str) -> None:
    assert render(EMPTY, accept)[1].startswith("text/plain; version=0.0.4")


def test_label_values_are_escaped() -> None:
    record = answered()
    record = with_fields(record, assistant='a"b\\c\nd')
    assert value(counted([record]), "gateway_requests_total", assistant='a"b\\c\nd') == 1


def test_every_metric_follows_the_naming_rules_and_is_used() -> None:
    """https://prometheus.io/docs/practices/naming/, read 2026-11-20: prefix, base units, `_total` for counters."""
    for name, family in METRIC_DEFINITIONS.items():
        assert name.startswith("gateway_")
        assert (family.kind == "counter") == name.endswith("_total")
        assert family.kind != "histogram" or name.endswith("_seconds")
        assert list(family.bounds_s) == sorted(family.bounds_s)
        assert family.help.endswith(".")
    refused_retry = answered()
    refused_retry.retries_refused = ("a",)
    refused_retry.shed = (("a", "queue_full"),)
    resumed = answered()
    resumed.resumed = Resumed("a", "b")
    weighted = with_fields(answered(attempt("b")), variant="b")
    handed_off = with_fields(answered(attempt("b")), hand_off=HandOff(HandOffCause.FAILURE, "conversation"))
    referred = answered()
    referred.note_duty("crisis")
    referred.token_issuer = "entra"
    note = WrapperNote(("personal",), {"email": 2}, restored=1, unknown=1)
    placeholders = answered(replace(attempt("b"), redacted=note))
    retried = failed_attempt(FailureKind.SILENT, action=AttemptAction.RETRY)
    failed_over = failed_attempt(FailureKind.SILENT, action=AttemptAction.FAILOVER)
    everything = counted(
        [
            resumed,
            answered(retried, failed_over, attempt("b"), stream=True),
            answered(usage=Usage(1, 1)),
            priced(Usage(1, 1)),
            refused_retry,
            weighted,
            handed_off,
            referred,
            placeholders,
        ]
    )
    configuration = {
        *(
            "gateway_config_reloads_total gateway_config_info gateway_benched_deployments "
            "gateway_schedule_share_percent gateway_schedule_rolled_back gateway_approval_days_left "
            "gateway_model_days_left gateway_model_stage_days_left"
        ).split()
    }
    breakers = {name for name in METRIC_DEFINITIONS if name.startswith("gateway_breaker_")}
    limiters = {"gateway_concurrency_limit", "gateway_concurrency_in_use", "gateway_concurrency_queued"}
    elsewhere = {
        "gateway_traces_total",
        "gateway_shadow_requests_total",
        "gateway_shadow_answer_seconds",
        "gateway_budget_used_ratio",
        "gateway_quota_used_ratio",
        "gateway_quota_skips_total",
        "gateway_unjudged_total",
        "gateway_verdicts_refused_total",
        "gateway_client_calls_total",
        "gateway_client_tokens_total",
        "gateway_client_cost_total",
        "gateway_overshoot_total",
        "gateway_usage_implausible_total",
        "gateway_sign_in_exchanges_total",
        "gateway_sign_in_seconds_left",
        "gateway_recent_answer_seconds",
        "gateway_recent_requests",
        "gateway_cell_instances",
        "gateway_problems",
        "gateway_store_up",
        "gateway_store_answer_seconds",
        "gateway_websocket_closed_total",
        "gateway_websocket_continued_total",
        "gateway_websocket_handshakes_total",
        *configuration,
        *breakers,
        *limiters,
        *(name for name, family in METRIC_DEFINITIONS.items() if not family.labels),
    }
    empty = {name for name, rows in unpack(everything.snapshot()).items() if not rows}
    assert empty == elsewhere


def test_removed_region_keeps_its_counts() -> None:
    metrics = counted([answered()])
    metrics.observe(with_fields(answered(), location=US, config_version="t2"))
    assert value(metrics, "gateway_requests_total", region="eu") == 1
    assert value(metrics, "gateway_requests_total", region="us") == 1


def test_queueing_is_not_overhead() -> None:
    queued = answered(attempt(duration_s=0.1))
    queued.queued_s, queued.shed = 0.299, (("house", "queue_full"),)
    metrics = counted([queued])
    assert value(metrics, "gateway_shed_total", deployment="house", reason="queue_full", region="eu") == 1
    # 0.4 s to the answer, of which the queue took 0.299 s and the provider 0.1 s.
    assert value(metrics, "gateway_overhead_seconds_sum", deployment="house", stream="false") < 0.002


def test_a_duty_counts_once_for_a_request() -> None:
    record = answered()
    for kind in ("notice", "crisis", "notice"):
        record.note_duty(kind)
    metrics = counted([record, answered()])
    assert value(metrics, "gateway_duties_total", region="eu", kind="notice") == 1
    assert value(metrics, "gateway_duties_total", region="eu", kind="crisis") == 1


def test_requests_are_read_back_by_assistant_and_region() -> None:
    text = render(counted([answered()] * 3).snapshot())[0].decode()
    assert read_requests(text) == {("assistant", "eu"): 3.0}
    assert read_requests("") == {}
    with pytest.raises(ValueError, match=r".+"):
        read_requests("<html><body>no metrics</body></html>")
