"""The definitions of all metrics: name, type, labels and help text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gateway.model.schedule import VARIANT_BOUNDS_S
from gateway.model.version_names import VERSION_NAMES

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
    """One metric.

    Attributes:
        labels: In the order in which a series has their values. An empty value means unknown or not applicable.
        bounds_s: The bucket bounds of a histogram, without infinity.
        per: Processes count in whole numbers of this part: 1,000,000 for millionths.
    """

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    bounds_s: tuple[float, ...] = ()
    per: int = 1

    @property
    def width(self) -> int:
        """The number of values in a series: one, or a histogram's buckets and its sum (in microseconds)."""
        return len(self.bounds_s) + 2 if self.bounds_s else 1


METRIC_DEFINITIONS: Mapping[str, MetricDefinition] = {
    "gateway_requests_total": MetricDefinition(
        "counter",
        "Finished chat requests, by outcome.",
        ("region", "assistant", "outcome", "status", "code", "reason"),
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
        "The gateway's own time before an answer began, for requests with one attempt.",
        ("deployment", "stream"),
        OVERHEAD_BOUNDS_S,
    ),
    "gateway_attempts_total": MetricDefinition(
        "counter",
        "Attempts at a deployment: answered (ok), the kind of failure, or cancelled because another was faster (lost).",
        ("region", "deployment", "provider", "outcome"),
    ),
    "gateway_attempt_duration_seconds": MetricDefinition(
        "histogram",
        "A provider's time until its answer began, failed or was cancelled; for JSON, the whole answer.",
        ("deployment", "provider", "outcome"),
        REQUEST_BOUNDS_S,
    ),
    "gateway_retries_total": MetricDefinition(
        "counter", "Attempts on the same deployment after a failure.", ("region", "deployment")
    ),
    "gateway_failovers_total": MetricDefinition(
        "counter",
        "Attempts on another deployment after a failure; the label names the deployment that failed.",
        ("region", "deployment"),
    ),
    "gateway_resumed_total": MetricDefinition(
        "counter",
        "Streams of a deployment that broke off and that another one (by) continued, by the outcome of the request.",
        ("region", "deployment", "by", "outcome"),
    ),
    "gateway_retries_refused_total": MetricDefinition(
        "counter", "Retries and hedges that were not made because the retry budget was spent.", ("region", "deployment")
    ),
    "gateway_breaker_state": MetricDefinition(
        "gauge",
        "The number of workers in which a deployment's breaker is in a state (closed, open, half_open).",
        ("deployment", "state"),
    ),
    "gateway_breaker_transitions_total": MetricDefinition(
        "counter", "State changes of a deployment's breaker, by the new state.", ("deployment", "to")
    ),
    "gateway_side_requests_total": MetricDefinition(
        "counter",
        "Requests assigned to a member of a route's weighted first step: fully answered by it (ok), or not (failed).",
        ("assistant", "region", "deployment", "outcome"),
    ),
    "gateway_side_answer_seconds": MetricDefinition(
        "histogram",
        "The time of these requests until an answer began, including retries and hedges; for JSON, the whole answer.",
        ("assistant", "region", "deployment"),
        VARIANT_BOUNDS_S,
    ),
    "gateway_schedule_share_percent": MetricDefinition(
        "gauge", "The share of users that a schedule gives its candidate.", ("assistant", "region", "deployment")
    ),
    "gateway_schedule_rolled_back": MetricDefinition(
        "gauge",
        "1 if a schedule has taken its candidate back because it was worse than the other members.",
        ("assistant", "region", "deployment"),
    ),
    "gateway_shadow_requests_total": MetricDefinition(
        "counter",
        "Requests selected for a shadow: ok, the kind of failure, or busy, too_large, passed_over or internal_error.",
        ("assistant", "region", "deployment", "outcome"),
    ),
    "gateway_shadow_answer_seconds": MetricDefinition(
        "histogram",
        "A shadow's time until its answer began; for JSON, the whole answer.",
        ("assistant", "region", "deployment"),
        REQUEST_BOUNDS_S,
    ),
    "gateway_concurrency_limit": MetricDefinition(
        "gauge", "The limit of concurrent calls of a deployment, if it has one.", ("deployment",)
    ),
    "gateway_concurrency_in_use": MetricDefinition(
        "gauge", "Running calls of a deployment with a limit, including open streams.", ("deployment",)
    ),
    "gateway_concurrency_queued": MetricDefinition(
        "gauge", "Requests that wait for a free slot of a deployment.", ("deployment",)
    ),
    "gateway_shed_total": MetricDefinition(
        "counter",
        "Requests that got no slot at a deployment, by reason (queue_full, wait_over, no_time).",
        ("region", "deployment", "reason"),
    ),
    "gateway_hedges_total": MetricDefinition(
        "counter",
        "Second attempts of hedging, by the deployment they were sent to: won, lost, or failed.",
        ("region", "deployment", "outcome"),
    ),
    "gateway_tokens_total": MetricDefinition(
        "counter",
        "Tokens as counted by providers; cached and cache_write are parts of prompt, reasoning of completion.",
        ("region", "assistant", "deployment", "provider", "type"),
    ),
    "gateway_cost_micros_total": MetricDefinition(
        "counter",
        "The cost of these tokens in millionths of the currency unit, if a price is known.",
        ("region", "assistant", "deployment", "provider", "currency"),
    ),
    "gateway_answers_without_usage_total": MetricDefinition(
        "counter",
        "Complete or partial answers for which the provider sent no token counts.",
        ("deployment", "provider"),
    ),
    "gateway_traces_total": MetricDefinition(
        "counter",
        "Traces of requests: exported, or dropped (queue_full, failed, discarded).",
        ("exporter", "outcome"),
    ),
    "gateway_requests_in_flight": MetricDefinition("gauge", "Running chat requests."),
    "gateway_open_streams": MetricDefinition("gauge", "Running chat requests that are streams."),
    "gateway_tasks": MetricDefinition("gauge", "Tasks of the event loops; growth without running requests is a leak."),
    "gateway_config_reloads_total": MetricDefinition(
        "counter",
        "Configuration changes, by cause (file, sighup, admin, rollback, release) and result (activated, rejected).",
        ("cause", "result"),
    ),
    "gateway_config_last_reload_successful": MetricDefinition(
        "gauge", "0 if the last reload of the configuration was rejected."
    ),
    "gateway_config_loaded_timestamp_seconds": MetricDefinition(
        "gauge", "When the active configuration was loaded (Unix time)."
    ),
    "gateway_config_file_active": MetricDefinition(
        "gauge", "0 while a rollback is active in place of the configuration file."
    ),
    "gateway_config_info": MetricDefinition("gauge", "1, for the version of the active configuration.", VERSION_NAMES),
    "gateway_workers": MetricDefinition("gauge", "Worker processes that respond to the supervisor."),
    "gateway_worker_restarts_total": MetricDefinition("counter", "Workers that ended unexpectedly."),
    "gateway_cell_instances": MetricDefinition(
        "gauge",
        "The instances of the cell, as the shared database has them. `state` is `current`, `behind`, `draining` or "
        "`silent`. Every instance reports all of them.",
        ("state",),
    ),
    "gateway_benched_deployments": MetricDefinition(
        "gauge", "The number of workers in which a deployment is in cooldown.", ("deployment",)
    ),
    "gateway_approval_days_left": MetricDefinition(
        "gauge",
        "Days until the last day of a deployment's approval for a region; negative after it.",
        ("deployment", "region"),
    ),
    "gateway_budget_used_ratio": MetricDefinition(
        "gauge",
        "The spent part of a budget of a client or a project in its present window; 1 if it is spent.",
        ("client", "project", "per"),
        per=1_000_000,
    ),
    "gateway_client_calls_total": MetricDefinition(
        "counter",
        "Calls to providers that have ended. `usage_source` is the source of their numbers, as in the ledger. An empty "
        "client: no client asked for them.",
        ("client", "project", "usage_source"),
    ),
    "gateway_client_tokens_total": MetricDefinition(
        "counter", "Tokens of these calls. `type` is `input` or `output`.", ("client", "project", "type")
    ),
    "gateway_client_cost_total": MetricDefinition(
        "counter",
        "Cost of these calls in `usage.currency`, or in the vendor's currency if there is no rate.",
        ("client", "project", "currency"),
        per=1_000_000_000,
    ),
    "gateway_overshoot_total": MetricDefinition(
        "counter", "Calls under a limit of tokens or money that used more than was held for them."
    ),
    "gateway_receipts_lost_total": MetricDefinition("counter", "Receipts that could not be stored."),
    "gateway_model_days_left": MetricDefinition(
        "gauge",
        "Days until the vendor retires a deployment's model, if the date is known; 0 or negative if it is retired.",
        ("deployment", "model"),
    ),
    "gateway_log_lines_dropped_total": MetricDefinition("counter", "Log lines that could not be written."),
}
