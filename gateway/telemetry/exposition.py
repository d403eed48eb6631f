"""Render the metrics of the whole gateway in Prometheus' text format.

`prometheus_client` is imported inside the functions, so that a process whose metrics are not read does not load it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, cast

from gateway.model.approval import days_at
from gateway.model.endings import endings_of, retirements_in
from gateway.model.schedule import Phase
from gateway.model.status import Status
from gateway.telemetry.metric_definitions import METRIC_DEFINITIONS, MetricDefinition
from gateway.telemetry.metric_snapshots import Series, merge, pack, unpack

if TYPE_CHECKING:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
    from prometheus_client.registry import Collector

_OPENMETRICS = "application/openmetrics-text"


def render(snapshot: bytes, accept: str = "") -> tuple[bytes, str]:
    """Return the body and its content type: OpenMetrics if the Accept header names it, else Prometheus' text format."""
    from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
    from prometheus_client.openmetrics import exposition as openmetrics

    collector = cast("Collector", _Snapshot(snapshot))  # the library calls only `collect`
    if any(part.partition(";")[0].strip().lower() == _OPENMETRICS for part in accept.split(",")):
        body: bytes = openmetrics.generate_latest(collector)  # type: ignore[no-untyped-call]  # the library's
        return body, openmetrics.CONTENT_TYPE_LATEST
    return generate_latest(collector), CONTENT_TYPE_PLAIN_0_0_4


def read_requests(text: str) -> dict[tuple[str, str], float]:
    """Return the number of requests by assistant and region, from a text of metrics. Raises ValueError."""
    from prometheus_client.parser import text_string_to_metric_families

    requests: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "gateway_requests_total":
                key = sample.labels.get("assistant", ""), sample.labels.get("region", "")
                requests[key] = requests.get(key, 0.0) + sample.value
    return requests


class _Snapshot:
    """A snapshot in the form that prometheus_client reads."""

    def __init__(self, snapshot: bytes) -> None:
        self._series = unpack(snapshot)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric, including those without a series, so that names and help texts are visible at once."""
        for name, family in METRIC_DEFINITIONS.items():
            metric = _metric(name, family)
            for labels, value in sorted(self._series.get(name, {}).items()):
                _add(metric, family, labels, value)
            yield metric


def _metric(name: str, family: MetricDefinition) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    match family.kind:
        case "counter":
            return CounterMetricFamily(name, family.help, labels=family.labels)
        case "gauge":
            return GaugeMetricFamily(name, family.help, labels=family.labels)
        case "histogram":
            return HistogramMetricFamily(name, family.help, labels=family.labels)


def _add(
    metric: CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily,
    family: MetricDefinition,
    labels: tuple[str, ...],
    value: list[int],
) -> None:
    from prometheus_client.utils import floatToGoString

    if family.kind == "histogram":
        metric = cast("HistogramMetricFamily", metric)
        *counts, sum_us = value
        bounds = (*map(floatToGoString, family.bounds_s), "+Inf")
        metric.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), sum_us / 1e6)
    else:
        cast("CounterMetricFamily | GaugeMetricFamily", metric).add_metric(labels, value[0] / family.per)


def expose(status: Status, snapshots: Iterable[bytes], accept: str) -> tuple[bytes, str]:
    """Return the metrics of all processes and of the gateway itself, with their content type for this Accept header."""
    return render(merge([*snapshots, pack(_gateway_series(status))]), accept)


def _gateway_series(status: Status) -> Series:
    endings = endings_of(status.config, days_at(status.at_s))
    cooldowns = Counter(
        name for worker in status.workers for name, it in worker.unavailable.items() if not it.by_breaker
    )
    return {
        "gateway_config_reloads_total": {labels: [count] for labels, count in status.reloads.items()},
        "gateway_config_last_reload_successful": {(): [int(status.failed is None)]},
        "gateway_config_loaded_timestamp_seconds": {(): [int(status.loaded.at.timestamp())]},
        "gateway_config_file_active": {(): [int(status.file_is_active)]},
        "gateway_config_info": {(status.config.version,): [1]},
        "gateway_workers": {(): [sum(worker.answers for worker in status.workers)]},
        "gateway_worker_restarts_total": {(): [status.worker_restarts]},
        "gateway_benched_deployments": {(name,): [count] for name, count in cooldowns.items()},
        "gateway_schedule_share_percent": {
            (it.assistant, it.region, it.schedule.candidate): [round(100 * it.share)] for it in status.schedules
        },
        "gateway_schedule_rolled_back": {
            (it.assistant, it.region, it.schedule.candidate): [int(it.progress.phase is Phase.ROLLED_BACK)]
            for it in status.schedules
        },
        "gateway_approval_days_left": {
            tuple(it.subject.values()): [it.days_left] for it in endings if it.kind == "approval"
        },
        "gateway_model_days_left": {tuple(it.subject.values()): [it.days_left] for it in retirements_in(endings)},
        "gateway_model_stage_days_left": {
            (*it.subject.values(), it.stage.stage, it.stage.certainty): [it.days_left]
            for it in endings
            if it.kind == "model"
        },
        "gateway_recent_answer_seconds": {
            (region, part): [round(seconds * 1_000_000)]
            for region, times in status.traffic.times.items()
            for part, seconds in (("first", times.first_s), ("end", times.end_s))
            if seconds is not None
        },
        "gateway_recent_requests": {
            (region, result): [getattr(counts, result)]
            for region, counts in status.traffic.recent.items()
            for result in ("answered", "errors", "cancelled", "refused")
        },
    }
