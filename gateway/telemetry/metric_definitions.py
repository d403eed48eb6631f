"""Every metric that there is: its name, its kind, its labels and what it counts. The one list of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gateway.model.schedule import VARIANT_BOUNDS_S

REQUEST_BOUNDS_S = (
    0.01,
    0.02,
    0.04,
    0.08,
    0.16,
    0.32,
    0.64,
    1.28,
    2.56,
    5.12,
    10.24,
    20.48,
    40.96,
    81.92,
    163.84,
    327.68,
    655.36,
)
FIRST_TOKEN_BOUNDS_S = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    30.0,
)
OVERHEAD_BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


@dataclass(frozen=True, slots=True)
class MetricDefinition:
    """One metric. bounds_s: a histogram's, without infinity.

    labels: in the order in which a series gives their values. An empty value means: not known, or doesn't apply.
    """

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    bounds_s: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        """How many numbers a series of it has: one, or a histogram's buckets and its sum (in microseconds)."""
        return len(self.bounds_s) + 2 if self.bounds_s else 1


METRIC_DEFINITIONS: Mapping[str, MetricDefinition] = {
    "gateway_requests_total": MetricDefinition(
        "counter",
        "Chat requests that have ended, however they ended.",
        ("region", "assistant", "outcome", "status", "code"),
    ),
    "gateway_request_duration_seconds": MetricDefinition(
        "histogram",
        "From the end of a request's headers to the end of its answer.",
        ("region", "assistant", "outcome", "stream"),
        REQUEST_BOUNDS_S,
    ),
    "gateway_time_to_first_token_seconds": MetricDefinition(
        "histogram",
        "From the end of a request's headers to the first real event of its stream.",
        ("region", "assistant", "deployment"),
        FIRST_TOKEN_BOUNDS_S,
    ),
    "gateway_overhead_seconds": MetricDefinition(
        "histogram",
        "The gateway's own time before an answer began, of requests that took one attempt.",
        ("deployment", "stream"),
        OVERHEAD_BOUNDS_S,
    ),
    "gateway_attempts_total": MetricDefinition(
        "counter",
        "Calls to a deployment that began to answer (ok), failed (the kind of failure), or lost to another (lost).",
        ("region", "deployment", "provider", "outcome"),
    ),
    "gateway_attempt_duration_seconds": MetricDefinition(
        "histogram",
        "A provider's time until it began to answer, failed or lost; a whole JSON answer.",
        ("deployment", "provider", "outcome"),
        REQUEST_BOUNDS_S,
    ),
    "gateway_retries_total": MetricDefinition(
        "counter", "Attempts on the deployment that had just failed.", ("region", "deployment")
    ),
    "gateway_failovers_total": MetricDefinition(
        "counter",
        "Attempts on another deployment than the one that had just failed, which is the one named.",
        ("region", "deployment"),
    ),
    "gateway_resumed_total": MetricDefinition(
        "counter",
        "Streams that broke off and that another deployment went on with: whose, by whom, and how the request ended.",
        ("region", "deployment", "by", "outcome"),
    ),
    "gateway_retries_refused_total": MetricDefinition(
        "counter", "Retries on a deployment that were not made, because the budget was spent.", ("region", "deployment")
    ),
    "gateway_breaker_state": MetricDefinition(
        "gauge",
        "In how many workers a deployment's breaker is in a state (closed, open, half_open).",
        ("deployment", "state"),
    ),
    "gateway_breaker_transitions_total": MetricDefinition(
        "counter", "Changes of a deployment's breaker: to which state.", ("deployment", "to")
    ),
    "gateway_side_requests_total": MetricDefinition(
        "counter",
        "Requests of people who have this member of the weighted step that a route begins with: whether it answered "
        "them whole (ok) or not (failed), for whatever reason.",
        ("assistant", "region", "deployment", "outcome"),
    ),
    "gateway_side_answer_seconds": MetricDefinition(
        "histogram",
        "The time of those until their member began to answer, or another did beside it, retries included; a whole "
        "JSON answer.",
        ("assistant", "region", "deployment"),
        VARIANT_BOUNDS_S,
    ),
    "gateway_schedule_share_percent": MetricDefinition(
        "gauge", "The share of people that a schedule gives its candidate.", ("assistant", "region", "deployment")
    ),
    "gateway_schedule_rolled_back": MetricDefinition(
        "gauge",
        "1 where a schedule has taken its candidate back, because it was worse than the other side.",
        ("assistant", "region", "deployment"),
    ),
    "gateway_shadow_requests_total": MetricDefinition(
        "counter",
        "Requests that were to go to a shadow too: ok, the kind of failure, or why it was not asked (busy, too_large, "
        "passed_over); internal_error is ours.",
        ("assistant", "region", "deployment", "outcome"),
    ),
    "gateway_shadow_answer_seconds": MetricDefinition(
        "histogram",
        "The time until a shadow that answered began to; a whole JSON answer.",
        ("assistant", "region", "deployment"),
        REQUEST_BOUNDS_S,
    ),
    "gateway_concurrency_limit": MetricDefinition(
        "gauge", "How many calls of a deployment may run at once, where that is bounded.", ("deployment",)
    ),
    "gateway_concurrency_in_use": MetricDefinition(
        "gauge", "How many of them run, open streams among them.", ("deployment",)
    ),
    "gateway_concurrency_queued": MetricDefinition("gauge", "How many requests wait for one to end.", ("deployment",)),
    "gateway_shed_total": MetricDefinition(
        "counter",
        "Requests that got no place at a deployment (queue_full, wait_over, no_time), whoever answered them then.",
        ("region", "deployment", "reason"),
    ),
    "gateway_hedges_total": MetricDefinition(
        "counter",
        "Second attempts beside a slow one, by whom they asked: won, lost, or failed (before another answered).",
        ("region", "deployment", "outcome"),
    ),
    "gateway_tokens_total": MetricDefinition(
        "counter",
        "Tokens as providers counted them; cached and cache_write are parts of prompt, reasoning of completion.",
        ("region", "assistant", "deployment", "provider", "type"),
    ),
    "gateway_cost_micros_total": MetricDefinition(
        "counter",
        "What those tokens cost, in millionths of the currency's unit, where a price is known; see catalogue.md.",
        ("region", "assistant", "deployment", "provider", "currency"),
    ),
    "gateway_answers_without_usage_total": MetricDefinition(
        "counter", "Answers, whole or begun, for which no count of tokens came.", ("deployment", "provider")
    ),
    "gateway_traces_total": MetricDefinition(
        "counter",
        "Traces of requests: exported, or dropped (queue_full, failed, discarded).",
        ("exporter", "outcome"),
    ),
    "gateway_requests_in_flight": MetricDefinition("gauge", "Chat requests that have begun and not ended."),
    "gateway_open_streams": MetricDefinition("gauge", "Those of them that are streams."),
    "gateway_tasks": MetricDefinition(
        "gauge", "Tasks of the event loops: what grows without requests in flight is a leak."
    ),
    "gateway_config_reloads_total": MetricDefinition(
        "counter",
        "Tries to change the config: by what (file, sighup, admin, rollback), and the result (activated, rejected).",
        ("cause", "result"),
    ),
    "gateway_config_last_reload_successful": MetricDefinition(
        "gauge", "0 while the last try to load the config was rejected."
    ),
    "gateway_config_loaded_timestamp_seconds": MetricDefinition(
        "gauge", "When the active config was loaded (Unix time)."
    ),
    "gateway_config_file_active": MetricDefinition("gauge", "0 while a rollback holds, in place of the config file."),
    "gateway_config_info": MetricDefinition("gauge", "1, for the version of the active config.", ("table",)),
    "gateway_workers": MetricDefinition("gauge", "Processes that serve, and answer the supervisor."),
    "gateway_worker_restarts_total": MetricDefinition("counter", "Workers that ended though nobody told them to."),
    "gateway_benched_deployments": MetricDefinition(
        "gauge", "In how many workers a deployment is benched.", ("deployment",)
    ),
    "gateway_approval_days_left": MetricDefinition(
        "gauge",
        "Days until the last day of a deployment's approval for a region; below 0 where it is over.",
        ("deployment", "region"),
    ),
    "gateway_receipts_lost_total": MetricDefinition("counter", "Receipts of requests that could not be kept."),
    "gateway_model_days_left": MetricDefinition(
        "gauge",
        "Days until a deployment's model is retired by its vendor; 0 or below where it is. Only where a day is known.",
        ("deployment", "model"),
    ),
    "gateway_log_lines_dropped_total": MetricDefinition("counter", "Lines of the log that could not be written."),
}
