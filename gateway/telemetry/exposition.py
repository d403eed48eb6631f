"""A snapshot -> what Prometheus reads, by prometheus_client's own writers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from gateway.telemetry.metric_definitions import METRIC_DEFINITIONS, MetricDefinition
from gateway.telemetry.metric_snapshots import unpack

_OPENMETRICS = "application/openmetrics-text"


def render(snapshot: bytes, accept: str = "") -> tuple[bytes, str]:
    """The body and its content type: OpenMetrics where the Accept header names it, else Prometheus' text format."""
    collector = _Snapshot(snapshot)
    if any(part.partition(";")[0].strip().lower() == _OPENMETRICS for part in accept.split(",")):
        body: bytes = openmetrics.generate_latest(collector)  # type: ignore[no-untyped-call]  # the library's
        return body, openmetrics.CONTENT_TYPE_LATEST
    return generate_latest(collector), CONTENT_TYPE_PLAIN_0_0_4


def read_requests(text: str) -> dict[tuple[str, str], float]:
    """What the text of a gateway's metrics says of requests: how many for each assistant in each region.

    Raises ValueError for a text that is none of metrics.
    """
    found: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "gateway_requests_total":
                place = sample.labels.get("assistant", ""), sample.labels.get("region", "")
                found[place] = found.get(place, 0.0) + sample.value
    return found


class _Snapshot(Collector):
    """A snapshot as prometheus_client reads it."""

    def __init__(self, snapshot: bytes) -> None:
        self._series = unpack(snapshot)

    def collect(self) -> Iterator[Metric]:
        """Every family, also one that has no series yet: its name and help can be looked up from the start."""
        for name, family in METRIC_DEFINITIONS.items():
            metric = _metric(name, family)
            for labels, value in sorted(self._series.get(name, {}).items()):
                _add(metric, family, labels, value)
            yield metric


def _metric(name: str, family: MetricDefinition) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily:
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
    if isinstance(metric, HistogramMetricFamily):
        *counts, sum_us = value
        bounds = (*map(floatToGoString, family.bounds_s), "+Inf")
        metric.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), sum_us / 1e6)
    else:
        metric.add_metric(labels, value[0])
