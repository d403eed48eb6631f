"""Encode finished requests as OTLP traces: a server span for each request, with a client span for each attempt.

The attributes are those of OpenTelemetry's semantic conventions (HTTP 1.41, generative AI, read 2026-11-20), and the
gateway's own under `gateway.`. All values come from the config or the gateway: no prompt, answer, address, name of a
person or text of a provider, and no header except those that link the span to the caller's trace (`traceparent`,
`tracestate`).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from gateway.model.caller import TraceContext
from gateway.model.record import AttemptRecord, Record
from providers.value import Value

_SCOPE = "gateway"
# By the HTTP conventions, a client's mistake is not an error of the server span.
_ERRORS = frozenset({"failed", "interrupted", "internal_error"})
_DECISION_NAMES = {
    "rule": "gateway.rule",
    "retry_after_s": "gateway.retry_after_s",
    "decision": "gateway.decision",
    "decision_reason": "gateway.decision_reason",
    "wait_s": "gateway.wait_s",
    "bound": "gateway.bound",
    "bound_value": "gateway.bound_value",
}
_Value = str | int | float | bool


class Ended(Value, frozen=True):
    """A finished request with its trace and its end (Unix time in nanoseconds)."""

    record: Record
    trace: TraceContext
    ended_ns: int


def encode(requests: Iterable[Ended], resource: Mapping[str, str]) -> bytes:
    """Return the body of one export. Concatenated bodies are valid too, because protobuf then joins their lists."""
    scope = ScopeSpans(spans=[span for ended in requests for span in _spans(ended)])
    scope.scope.name = _SCOPE
    sent = ResourceSpans(scope_spans=[scope])
    sent.resource.attributes.extend(_attributes(resource))
    body: bytes = ExportTraceServiceRequest(resource_spans=[sent]).SerializeToString()
    return body


def _spans(ended: Ended) -> list[Span]:
    record, trace = ended.record, ended.trace
    started_ns = ended.ended_ns - _ns(record.total_s or 0.0)
    trace_id, span_id = bytes.fromhex(trace.trace_id), _new_id()
    server = Span(
        trace_id=trace_id,
        span_id=span_id,
        parent_span_id=bytes.fromhex(trace.parent_id),
        trace_state=trace.state,
        name=f"POST {record.route}",
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=started_ns,
        end_time_unix_nano=ended.ended_ns,
        attributes=_attributes(_of_request(record)),
    )
    if record.outcome in _ERRORS:
        server.status.code = Status.STATUS_CODE_ERROR
    spans = [server]
    for attempt in (*record.attempts, *record.abandoned):
        began_ns = started_ns + _ns(max(attempt.started_at - record.started_at, 0.0))
        answers = attempt.failure is None
        cut = answers and record.outcome == "interrupted"
        spans.append(
            Span(
                trace_id=trace_id,
                span_id=_new_id(),
                parent_span_id=span_id,
                trace_state=trace.state,
                name=f"{record.decided.use} {attempt.model}",
                kind=Span.SPAN_KIND_CLIENT,
                start_time_unix_nano=began_ns,
                end_time_unix_nano=ended.ended_ns if answers else began_ns + _ns(attempt.duration_s),
                attributes=_attributes(_of_attempt(attempt, record)),
                status=Status(code=Status.STATUS_CODE_ERROR) if cut or attempt.failure is not None else None,
            )
        )
    return spans


def _of_request(record: Record) -> dict[str, _Value | None]:
    decided, shown = record.decided, record.shown
    location = decided.location
    return {
        "http.request.method": "POST",
        "http.route": record.route,
        "gateway.transport": record.transport,
        "http.response.status_code": shown.status or None,
        "error.type": shown.code if record.outcome in _ERRORS else None,
        "gateway.outcome": record.outcome,
        "gateway.code": shown.code,
        "gateway.reason": record.reason,
        "gateway.region": location.region.name if location is not None and location.region is not None else None,
        "gateway.why": location.why if location is not None else None,
        "gateway.assistant": decided.assistant,
        "gateway.deployment": record.answered_by.deployment,
        "gateway.client": record.client,
        "gateway.config_version": record.config_version,
        "gateway.stream": record.stream,
    }


def _of_attempt(attempt: AttemptRecord, record: Record) -> dict[str, _Value | None]:
    failure = attempt.failure
    attributes: dict[str, _Value | None] = {
        "gen_ai.operation.name": record.decided.use,
        "gen_ai.provider.name": attempt.provider,
        "gen_ai.request.model": attempt.model,
        "gen_ai.request.stream": record.stream,
        "gateway.deployment": attempt.deployment,
    }
    if failure is not None:
        decided = {_DECISION_NAMES[name]: value for name, value in attempt.decision_fields().items()}
        return attributes | {"error.type": str(failure.kind), "http.response.status_code": failure.status} | decided
    if attempt.is_abandoned:
        return attributes | {"error.type": attempt.outcome}
    if record.outcome == "interrupted":
        attributes["error.type"] = "interrupted"
    if record.stream:
        attributes["gen_ai.response.time_to_first_chunk"] = attempt.duration_s
    if (usage := record.usage) is not None:
        attributes |= {
            "gen_ai.usage.input_tokens": usage.prompt_tokens,
            "gen_ai.usage.output_tokens": usage.completion_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
            "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens,
            "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
        }
    return attributes


def _attributes(values: Mapping[str, _Value | None]) -> list[KeyValue]:
    return [KeyValue(key=name, value=_value(value)) for name, value in values.items() if value is not None]


def _value(value: _Value) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case str():
            return AnyValue(string_value=value)


def _new_id() -> bytes:
    return (random.getrandbits(64) or 1).to_bytes(8, "big")  # span ids need not be unpredictable


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
