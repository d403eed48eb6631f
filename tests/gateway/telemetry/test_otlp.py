"""The OTLP spans of a request: times, names and attributes, without text of a user."""

from dataclasses import replace

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from gateway.model.caller import TraceContext
from gateway.model.record import AttemptAction, AttemptDecision, Bound, DecisionReason, Record
from gateway.model.served import Use
from gateway.telemetry.otlp import Ended, encode
from providers.chat import Usage
from providers.failures import FailureKind
from providers.value import replace as change
from tests.kit.otlp_collector import attributes_of, spans_in
from tests.kit.request_records import NOWHERE_KNOWN, answered, attempt, failed_attempt, record_with

TRACE = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", True, "a=1")
END_NS = 1_800_000_000_000_000_000


def spans(record: Record, trace: TraceContext = TRACE) -> list[Span]:
    return spans_in(encode([Ended(record, trace, END_NS)], {"service.name": "assistant-gateway"}))


def test_spans_of_an_answer_after_a_failover() -> None:
    failed = failed_attempt(FailureKind.UNAVAILABLE, status=503, started_at=100.1)
    record = answered(failed, attempt("other", 0.2, 100.5), usage=Usage(3, 4, 1, 2), stream=True, total_s=1.0)
    server, first, second = spans(record)
    assert {span.trace_id.hex() for span in (server, first, second)} == {TRACE.trace_id}
    assert {span.trace_state for span in (server, first, second)} == {"a=1"}
    assert server.parent_span_id.hex() == TRACE.parent_id
    assert first.parent_span_id == second.parent_span_id == server.span_id
    assert len({server.span_id, first.span_id, second.span_id}) == 3
    assert (server.kind, first.kind) == (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT)
    start = END_NS - 1_000_000_000
    assert (server.start_time_unix_nano, server.end_time_unix_nano) == (start, END_NS)
    assert (first.start_time_unix_nano - start, first.end_time_unix_nano - start) == (100_000_000, 300_000_000)
    assert (second.start_time_unix_nano - start, second.end_time_unix_nano) == (500_000_000, END_NS)
    assert [span.status.code for span in (server, first, second)] == [
        Status.STATUS_CODE_UNSET,
        Status.STATUS_CODE_ERROR,
        Status.STATUS_CODE_UNSET,
    ]
    assert server.name == "POST /v1/chat/completions"
    assert attributes_of(server) == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "gateway.outcome": "ok",
        "gateway.region": "eu",
        "gateway.why": "edge_header",
        "gateway.assistant": "assistant",
        "gateway.deployment": "other",
        "gateway.client": "app",
        "gateway.config_version": "t1",
        "gateway.stream": True,
        "gateway.transport": "http",
    }
    assert first.name == second.name == "chat m-1"
    call = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m-1",
        "gen_ai.request.stream": True,
    }
    failure = {"gateway.deployment": "house", "error.type": "unavailable", "http.response.status_code": 503}
    assert attributes_of(first) == call | failure
    assert attributes_of(second) == call | {
        "gateway.deployment": "other",
        "gen_ai.response.time_to_first_chunk": 0.2,
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 4,
        "gen_ai.usage.cache_read.input_tokens": 1,
        "gen_ai.usage.cache_creation.input_tokens": 0,
        "gen_ai.usage.reasoning.output_tokens": 2,
    }


def test_span_of_a_failed_attempt_has_the_named_wait_and_the_decision_with_its_bound() -> None:
    limited = failed_attempt(FailureKind.RATE_LIMITED, status=429)
    assert limited.failure is not None
    too_long = replace(
        limited,
        failure=replace(limited.failure, retry_after_s=3.0),
        decision=AttemptDecision(
            AttemptAction.FAILOVER, DecisionReason.WAIT_TOO_LONG, bound=Bound("failover_after", 2.0)
        ),
    )
    retried = replace(
        limited,
        failure=replace(limited.failure, retry_after_s=1.5),
        decision=AttemptDecision(AttemptAction.RETRY, DecisionReason.NAMED_WAIT, 1.5, Bound("failover_after", 2.0)),
    )
    _, first, second, answer = spans(answered(too_long, retried, attempt("other")))
    assert own_attributes(first) == {
        "gateway.deployment": "house",
        "gateway.retry_after_s": 3.0,
        "gateway.decision": "failover",
        "gateway.decision_reason": "wait_too_long",
        "gateway.bound": "failover_after",
        "gateway.bound_value": 2.0,
    }
    assert own_attributes(second) == {
        "gateway.deployment": "house",
        "gateway.retry_after_s": 1.5,
        "gateway.decision": "retry",
        "gateway.decision_reason": "named_wait",
        "gateway.wait_s": 1.5,
        "gateway.bound": "failover_after",
        "gateway.bound_value": 2.0,
    }
    assert own_attributes(answer) == {"gateway.deployment": "other"}


def own_attributes(span: Span) -> dict[str, object]:
    return {name: value for name, value in attributes_of(span).items() if name.startswith("gateway.")}


def test_broken_stream_is_an_error_of_both_spans() -> None:
    record = answered(stream=True)
    record.outcome, record.shown.code = "interrupted", "stream_interrupted"
    server, call = spans(record)
    assert server.status.code == call.status.code == Status.STATUS_CODE_ERROR
    assert attributes_of(server)["error.type"] == "stream_interrupted"
    assert attributes_of(call)["error.type"] == "interrupted"


def test_attempt_for_which_the_client_did_not_wait_has_its_span() -> None:
    record = answered()
    left = replace(attempt("house", 0.2, 100.1), is_abandoned=True)
    record.attempts, record.abandoned, record.outcome = [], (left,), "cancelled"
    _, call = spans(record)
    assert (attributes_of(call)["gateway.deployment"], attributes_of(call)["error.type"]) == ("house", "abandoned")


def test_refusal_is_not_a_server_error_and_a_new_trace_has_no_parent() -> None:
    refused = record_with(
        "r", 0, "t", location=NOWHERE_KNOWN, outcome="refused", status=451, code="region_unknown", total_s=0.1
    )
    (server,) = spans(refused, TraceContext("f" * 32))
    assert server.status.code == Status.STATUS_CODE_UNSET
    assert server.parent_span_id == b""
    attributes = attributes_of(server)
    assert (attributes["gateway.code"], attributes["gateway.outcome"]) == ("region_unknown", "refused")
    assert "error.type" not in attributes
    assert "gateway.region" not in attributes


def test_spans_contain_no_text_of_users_or_providers() -> None:
    record = answered(failed_attempt(FailureKind.CREDENTIALS), attempt("other"))
    record.request_id, record.detail = "mail@example.org", "their words"
    record.shown.dropped = frozenset({"their field"})
    body = encode([Ended(record, TRACE, END_NS)], {})
    for text in (b"mail@example.org", b"their words", b"their field", b"the provider's own words", b"told the client"):
        assert text not in body


def test_concatenated_bodies_are_one_body() -> None:
    one = encode([Ended(answered(), TRACE, END_NS)], {"service.name": "a"})
    assert len(spans_in(one + one)) == 4
    resources = ExportTraceServiceRequest.FromString(one + one).resource_spans
    assert [sent.resource.attributes[0].value.string_value for sent in resources] == ["a", "a"]
    assert {scope.scope.name for sent in resources for scope in sent.scope_spans} == {"gateway"}


@pytest.mark.parametrize("use", ["chat", "embeddings", "moderations"])
def test_spans_name_the_path_of_the_api_and_the_use(use: Use) -> None:
    record = answered(attempt())
    record.decided, record.route = change(record.decided, use=use), "/v1beta/models/{model}:embedContent"
    server, call = spans(record)
    assert (server.name, call.name) == ("POST /v1beta/models/{model}:embedContent", f"{use} m-1")
    assert attributes_of(server)["http.route"] == "/v1beta/models/{model}:embedContent"
    assert attributes_of(call)["gen_ai.operation.name"] == use
