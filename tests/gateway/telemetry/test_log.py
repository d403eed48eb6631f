"""The one line of a request: what an operator needs, each thing once, and nothing that a person wrote."""

from __future__ import annotations

import io
import json
import logging
from datetime import date
from typing import Any

import pytest

from gateway.model.record import Record
from gateway.model.trace import TraceContext
from gateway.telemetry import log
from providers.chat import Usage
from providers.failures import FailureKind
from providers.pricing import Price, Rates
from tests.gateway.telemetry.records import NOWHERE_KNOWN, answered, attempt, failed_attempt


def line_of(record: Record, level: str = "info") -> dict[str, Any] | None:
    stream = io.StringIO()
    log.configure("json", level, stream)
    log.log_requests([(record, 0.0)])
    text = stream.getvalue()
    return json.loads(text) if text else None


def test_an_answer_after_a_failover_in_a_trace() -> None:
    failed = failed_attempt(FailureKind.UNAVAILABLE, status=503)
    record = answered(failed, attempt("other"), usage=Usage(3, 4, 1, 0), stream=True)
    record.trace = TraceContext("a" * 32)
    line = line_of(record)
    assert line is not None
    assert line.pop("timestamp")
    assert line == {
        "level": "info",
        "event": "request",
        "request_id": "req-1",
        "trace_id": "a" * 32,
        "outcome": "ok",
        "status": 200,
        "client": "app",
        "assistant": "assistant",
        "deployment": "other",
        "provider": "openai",
        "model": "m-1",
        "stream": True,
        "table": "t1",
        "first_ms": 400.0,
        "total_ms": 1000.0,
        "provider_ms": 500.0,
        "region": "eu",
        "territory": "DE",
        "why": "edge_header",
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "cached_tokens": 1,
        "reasoning_tokens": 0,
        "attempts": [
            {
                "deployment": "house",
                "ms": 200.0,
                "model": "m-1",
                "kind": "unavailable",
                "status": 503,
                "detail": "the provider's own words",
                "provider_request_id": "req_up-1",
            },
            {"deployment": "other", "ms": 300.0},
        ],
    }


def test_what_an_answer_cost_is_told_where_a_price_is_known() -> None:
    record = answered()
    record.price = Price(Rates(2_500_000, 10_000_000), "USD", date(2026, 11, 20), "a page")
    record.count(Usage(100, 10))
    line = line_of(record)
    assert line is not None
    assert (line["cost_micros"], line["currency"]) == (350, "USD")
    record = answered()
    record.count(Usage(100, 10))
    line = line_of(record)
    assert line is not None
    assert "cost_micros" not in line


def test_what_is_unknown_is_not_made_up() -> None:
    line = line_of(Record("r", 0, "t", location=NOWHERE_KNOWN, outcome="refused", status=451, code="region_unknown"))
    assert line is not None
    absent = {"trace_id", "prompt_tokens", "cached_tokens", "provider_ms", "attempts"}
    assert absent.isdisjoint(line)
    assert (line["region"], line["code"]) == (None, "region_unknown")


@pytest.mark.parametrize(
    ("outcome", "level"), [("ok", "info"), ("refused", "info"), ("failed", "warning"), ("interrupted", "warning")]
)
def test_how_grave_it_is(outcome: str, level: str) -> None:
    record = answered()
    record.outcome = outcome
    line = line_of(record)
    assert line is not None
    assert line["level"] == level
    assert (line_of(record, "warning") is None) == (level == "info")


def test_lines_for_people_count_none_as_dropped() -> None:
    log.configure("text", "info", io.StringIO())
    assert log.dropped_lines() == 0


def test_a_line_for_people_begins_with_what_happened_and_leaves_out_what_is_not_known() -> None:
    stream, record = io.StringIO(), answered(failed_attempt(FailureKind.UNAVAILABLE), attempt("other"))
    record.client = None
    log.configure("text", "info", stream)
    log.log_requests([(record, 0.0)])
    words = stream.getvalue().split()
    begun = words.index("request") + 1
    names = [word.partition("=")[0] for word in words[begun:]]
    assert names[:4] == ["status", "outcome", "region", "why"]
    assert "None" not in stream.getvalue()
    assert "client" not in names
    assert "'kind': 'unavailable'" in stream.getvalue()
    assert {"request_id", "total_ms", "table"} <= set(names)


def test_what_a_library_says_is_a_line_like_every_other() -> None:
    stream = io.StringIO()
    log.configure("json", "info", stream)
    log.configure("json", "info", stream)
    logging.getLogger("uvicorn.error").warning("Invalid %s request received.", "HTTP")
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("asyncio").exception("of a task")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["level"], first["event"], first["logger"]) == ("warning", "library", "uvicorn.error")
    assert first["detail"] == "Invalid HTTP request received."
    assert (second["level"], second["detail"]) == ("error", "of a task")
    assert "ValueError: broken" in second["exception"]
