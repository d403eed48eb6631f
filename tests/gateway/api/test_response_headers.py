"""The headers of an answer contain the known values. No value can inject another header."""

import time
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.api.response_headers import pairs_of, response_lines
from gateway.model.location import Location
from gateway.model.record import AttemptRecord, Record
from gateway.public_names import RESPONSE_HEADERS, names_in
from providers.chat import Usage
from providers.failures import Failure, FailureKind
from tests.kit.configs import BASE, table_of
from tests.kit.request_records import EU, record_with, with_fields

TABLE = table_of(BASE)
FAILED = Failure(FailureKind.UNAVAILABLE, "busy")


def headers_of(record: Record) -> dict[str, str]:
    pairs = pairs_of(response_lines(record))
    assert len({name for name, _ in pairs}) == len(pairs)
    return {name.decode(): value.decode("latin-1") for name, value in pairs}


def test_response_of_an_unrouted_request_has_an_id() -> None:
    assert headers_of(Record("req-1", 0.0, "t-1")) == {"x-request-id": "req-1", "x-gateway-config": "t-1"}


def test_all_known_values_are_sent() -> None:
    record = Record("req-1", 0.0, "t-1")
    record = with_fields(record, location=Location(TABLE.regions["eu"], "DE", "edge_header", ()))
    record = with_fields(record, deployment="chatgpt-eu", labels=("cn-gb45438", "house"))
    record.attempts = [AttemptRecord("a", "p", "m", 0.2, FAILED), AttemptRecord("b", "p", "m", 0.1)]
    record.shown.dropped = frozenset({"seed", "logprobs"})
    record.shown.emulated = frozenset({"response_format"})
    record.first_s = 0.304
    assert headers_of(record) == {
        "x-request-id": "req-1",
        "x-gateway-config": "t-1",
        "x-gateway-why": "edge_header",
        "x-gateway-region": "eu",
        "x-gateway-deployment": "chatgpt-eu",
        "x-gateway-attempts": "2",
        "x-gateway-dropped": "logprobs, seed",
        "x-gateway-emulated": "response_format",
        "x-gateway-labels": "cn-gb45438, house",
        "server-timing": "provider;dur=100.0, gateway;dur=4.0",
        "openai-processing-ms": "304",
    }


def test_location_without_a_region_has_a_reason() -> None:
    record = Record("req-1", 0.0, "t-1")
    record = with_fields(record, location=Location(None, None, "unknown", ()))
    assert headers_of(record)["x-gateway-why"] == "unknown"
    assert "x-gateway-region" not in headers_of(record)


@pytest.mark.parametrize("name", ["a\r\nx-evil: b", "a\nb", "a\0b", "名", "a, b", "x" * 5000, ""])
def test_dropped_field_name_cannot_break_the_header(name: str) -> None:
    record = record_with("req-1", 0.0, "t-1", dropped=frozenset({name, "seed"}))
    value = headers_of(record)["x-gateway-dropped"]
    assert all(value.split(", ")), "features without a name are reported too"
    assert value.isprintable()
    assert value.isascii()
    assert len(value) < 100
    assert value.count(", ") == 1


@given(names=st.frozensets(st.text(max_size=80), max_size=30))
@example(names=frozenset(f"{number:064}" for number in range(100)))
def test_header_of_many_dropped_fields_is_truncated(names: frozenset[str]) -> None:
    for _, value in pairs_of(response_lines(record_with("req-1", 0.0, "t-1", dropped=names))):
        assert len(value) <= 1024
        assert not set(value) & set(b"\r\n\0")


def test_time_is_sent_after_all_deployments_failed_too() -> None:
    failed = AttemptRecord("a", "p", "m", 0.2, FAILED)
    record = Record("req-1", time.monotonic() - 0.3, "t-1", attempts=[failed])
    provider, own = (float(part.partition("dur=")[2]) for part in headers_of(record)["server-timing"].split(", "))
    assert provider == 200.0
    assert own >= 100.0
    assert "server-timing" not in headers_of(Record("req-1", 0.0, "t-1"))


def test_headers_that_the_answer_changes_are_known_late() -> None:
    """The head of a stream may leave before its answer has begun. Such a header would then be missing, or wrong."""
    before = record_with(location=EU, labels=("house",), dropped=frozenset({"seed"}), max_tokens=5, variant="b")
    after = replace(before, attempts=[AttemptRecord("a", "p", "m", 0.2, FAILED), AttemptRecord("b", "p", "m", 0.1)])
    after = replace(after, first_s=0.3, total_s=0.5, upload_s=0.1, queued_s=0.1, usage=Usage(1, 2), cost_micros=9)
    changed = headers_of(before).items() ^ headers_of(after).items()
    assert {name for name, _ in changed} == {*names_in(RESPONSE_HEADERS, "late")}, "gateway/public_names.json"


def test_our_own_time_is_never_below_nothing() -> None:
    record = Record("req-1", 0.0, "t-1", first_s=0.1, attempts=[AttemptRecord("a", "p", "m", 0.2)])
    assert headers_of(record)["server-timing"] == "provider;dur=200.0, gateway;dur=0.0"
