"""Every metric that there is: its name, its kind, its labels and what it counts. The one list of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["FAMILIES", "FIRST_TOKEN_BOUNDS_S", "OVERHEAD_BOUNDS_S", "REQUEST_BOUNDS_S", "Family"]

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
class Family:
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


FAMILIES: Mapping[str, Family] = {
    "gateway_requests_total": Family(
        "counter",
        "Chat requests that have ended, however they ended.",
        ("region", "assistant", "outcome", "status", "code"),
    ),
    "gateway_request_duration_seconds": Family(
        "histogram",
        "From the end of a request's headers to the end of its answer.",
        ("region", "assistant", "outcome", "stream"),
        REQUEST_BOUNDS_S,
    ),
    "gateway_time_to_first_token_seconds": Family(
        "histogram",
        "From the end of a request's headers to the first real event of its stream.",
        ("region", "assistant", "deployment"),
        FIRST_TOKEN_BOUNDS_S,
    ),
    "gateway_overhead_seconds": Family(
        "histogram",
        "The gateway's own time before an answer began, of requests that took one attempt.",
        ("deployment", "stream"),
        OVERHEAD_BOUNDS_S,
    ),
    "gateway_attempts_total": Family(
        "counter",
        "Calls to a deployment that began to answer (ok) or failed (the kind of failure).",
        ("region", "deployment", "provider", "outcome"),
    ),
    "gateway_attempt_duration_seconds": Family(
        "histogram",
        "A provider's time until it began to answer or failed; a whole JSON answer.",
        ("deployment", "provider", "outcome"),
        REQUEST_BOUNDS_S,
    ),
    "gateway_retries_total": Family(
        "counter", "Attempts on the deployment that had just failed.", ("region", "deployment")
    ),
    "gateway_failovers_total": Family(
        "counter",
        "Attempts on another deployment than the one that had just failed, which is the one named.",
        ("region", "deployment"),
    ),
    "gateway_retries_refused_total": Family(
        "counter", "Retries on a deployment that were not made, because the budget was spent.", ("region", "deployment")
    ),
    "gateway_breaker_state": Family(
        "gauge",
        "In how many workers a deployment's breaker is in a state (closed, open, half_open).",
        ("deployment", "state"),
    ),
    "gateway_breaker_transitions_total": Family(
        "counter", "Changes of a deployment's breaker: to which state.", ("deployment", "to")
    ),
    "gateway_tokens_total": Family(
        "counter",
        "Tokens as providers counted them; cached is a part of prompt, reasoning a part of completion.",
        ("region", "assistant", "deployment", "provider", "type"),
    ),
    "gateway_answers_without_usage_total": Family(
        "counter", "Answers, whole or begun, for which no count of tokens came.", ("deployment", "provider")
    ),
    "gateway_traces_total": Family(
        "counter",
        "Traces of requests: exported, or dropped (queue_full, failed, discarded).",
        ("exporter", "outcome"),
    ),
    "gateway_requests_in_flight": Family("gauge", "Chat requests that have begun and not ended."),
    "gateway_open_streams": Family("gauge", "Those of them that are streams."),
    "gateway_config_reloads_total": Family(
        "counter",
        "Tries to change the config: by what (file, sighup, admin), and what came of it (activated, rejected).",
        ("cause", "result"),
    ),
    "gateway_config_last_reload_successful": Family("gauge", "0 while the last try to load the config was rejected."),
    "gateway_config_loaded_timestamp_seconds": Family("gauge", "When the active config was loaded (Unix time)."),
    "gateway_config_info": Family("gauge", "1, for the version of the active config.", ("table",)),
    "gateway_workers": Family("gauge", "Processes that serve, and answer the supervisor."),
    "gateway_worker_restarts_total": Family("counter", "Workers that ended though nobody told them to."),
    "gateway_benched_deployments": Family("gauge", "In how many workers a deployment is benched.", ("deployment",)),
    "gateway_approval_days_left": Family(
        "gauge",
        "Days until the last day of a deployment's approval for a region; below 0 where it is over.",
        ("deployment", "region"),
    ),
    "gateway_log_lines_dropped_total": Family("counter", "Lines of the log that could not be written."),
}
