"""The log line of a request: complete for an operator, without repetition, and without text of a user."""

import io
import json
import logging
import re
import warnings
from dataclasses import replace
from datetime import date
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.features.shadow.model import ShadowNote
from gateway.model.caller import TraceContext
from gateway.model.config_version import Region
from gateway.model.consent import ConsentKind
from gateway.model.location import Evidence, Location, LocationProblem
from gateway.model.record import AttemptRecord, Record, Resumed, Skipped
from gateway.policy.location.trusted_edge import EdgeNote
from gateway.telemetry import log
from gateway.telemetry.request_log import JsonLines, add_fields
from providers.catalogue.prices import Price, Rates
from providers.chat import Usage
from providers.failures import FailureKind
from providers.territories import ANYWHERE, Places
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


def line_of(record: Record, level: str = "info") -> dict[str, Any] | None:
    stream = io.StringIO()
    log.configure("json", level, stream)
    log.log_requests([(record, 0.0)])
    text = stream.getvalue()
    return json.loads(text) if text else None


def test_line_of_an_answer_after_a_failover_with_a_trace() -> None:
    failed = failed_attempt(FailureKind.UNAVAILABLE, status=503)
    record = answered(failed, attempt("other"), usage=Usage(3, 4, 1, 0), stream=True)
    record.trace = TraceContext("a" * 32)
    line = line_of(record)
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
        "transport": "http",
        "repeated": False,
        "marked": False,
        "config_version": "t1",
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


def test_line_names_the_deployment_for_which_a_client_did_not_wait() -> None:
    record = answered()
    record.attempts[:], record.abandoned = [], (replace(attempt("house", 0.2), is_abandoned=True),)
    line = line_of(record)
    assert (line["attempts"], line["provider_ms"]) == (
        [{"deployment": "house", "ms": 200.0, "kind": "abandoned"}],
        200.0,
    )


def test_cost_is_logged_if_a_price_is_known() -> None:
    record = answered()
    record = with_fields(record, price=Price(Rates(2_500_000, 10_000_000), "USD", date(2026, 11, 20), "a page"))
    record.count(Usage(100, 10))
    line = line_of(record)
    assert (line["cost_micros"], line["currency"]) == (350, "USD")
    record = answered()
    record.count(Usage(100, 10))
    line = line_of(record)
    assert line is not None
    assert "cost_micros" not in line


@pytest.mark.parametrize("outcome", ["ok", "interrupted"])
def test_tokens_written_to_a_cache_are_logged_if_there_are_any(outcome: str) -> None:
    for written in (0, 7):
        record = answered(usage=Usage(30, 4, cache_write_tokens=written))
        record.outcome = outcome
        line = line_of(record)
        assert line.get("cache_write_tokens", 0) == written
        assert ("cache_write_tokens" in line) == bool(written)


def test_shadow_is_logged() -> None:
    record = answered(usage=Usage(3, 4, 1, 0))
    record.notes = (ShadowNote(attempt("candidate")),)
    line = line_of(record)
    assert (line["deployment"], line["shadow"], "attempts" in line) == ("house", "candidate", False)


def test_unknown_values_are_omitted() -> None:
    line = line_of(
        record_with("r", 0, "t", location=NOWHERE_KNOWN, outcome="refused", status=451, code="region_unknown")
    )
    assert line is not None
    absent = {"trace_id", "prompt_tokens", "cached_tokens", "provider_ms", "attempts"}
    assert absent.isdisjoint(line)
    assert (line["region"], line["code"]) == (None, "region_unknown")


def test_signals_are_logged_if_none_decides_and_without_their_values() -> None:
    doubtful = Evidence("edge_header", "", note=EdgeNote.UNPROVEN)
    located = Evidence("geoip", "as the client wrote it", "FR", "eu")
    unknown = replace(NOWHERE_KNOWN, evidence=(doubtful, located))
    refused = {"outcome": "refused", "status": 451, "code": "region_unknown"}
    line = line_of(record_with("r", 0, "t", location=unknown, **refused))
    assert line["signals"] == {"edge_header": str(EdgeNote.UNPROVEN), "geoip": "FR"}
    blocked = replace(NOWHERE_KNOWN, evidence=(replace(located, decided=True),), problem=LocationProblem.BLOCKED)
    for location in (blocked, NOWHERE_KNOWN, EU):
        line = line_of(record_with("r", 0, "t", location=location, **refused))
        assert line is not None
        assert "signals" not in line


@pytest.mark.parametrize(
    ("outcome", "level"), [("ok", "info"), ("refused", "info"), ("failed", "warning"), ("interrupted", "warning")]
)
def test_level_follows_from_the_outcome(outcome: str, level: str) -> None:
    record = answered()
    record.outcome = outcome
    line = line_of(record)
    assert line["level"] == level
    assert (line_of(record, "warning") is None) == (level == "info")


def test_readable_lines_count_no_dropped_line() -> None:
    log.configure("text", "info", io.StringIO())
    assert log.dropped_lines() == 0


def test_readable_line_begins_with_the_outcome_and_omits_unknown_values() -> None:
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
    assert {"request_id", "total_ms", "config_version"} <= set(names)


def test_message_of_a_library_is_a_structured_line() -> None:
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


def test_python_warning_is_logged_without_its_text() -> None:
    """The text of a warning may quote a request: pydantic's warnings quote their input."""
    stream = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        log.configure("json", "info", stream)
        warnings.warn("can't serialise 'Anna Sommer has diabetes'", UserWarning, stacklevel=1)
    line = json.loads(stream.getvalue())
    assert (line["level"], line["event"], line["logger"]) == ("warning", "library", "warnings")
    assert re.fullmatch(r"UserWarning at test_log\.py:\d+", line["detail"])


# --- the fast path --------------------------------------------------------------------------------

_PRICE = Price(Rates(2_500_000, 10_000_000), "USD", date(2026, 11, 20), "a page")
_times = st.floats(0, 700)
_plain = st.builds(
    record_with,
    request_id=st.text(max_size=5),
    started_at=st.just(0.0),
    config_version=st.sampled_from(["t1", "t2"]),
    trace=st.none() | st.builds(TraceContext, st.text(max_size=4)),
    client=st.sampled_from([None, "app", 'a"b\\c\nd%', "é"]),
    location=st.sampled_from([EU, US]),
    assistant=st.sampled_from(["x", "y"]),
    deployment=st.sampled_from(["a", "b"]),
    provider=st.sampled_from(["p", "q"]),
    model=st.sampled_from([None, "m", "n"]),
    stream=st.booleans(),
    status=st.sampled_from([0, 200]),
    first_s=_times,
    total_s=_times,
    attempts=st.lists(
        st.builds(
            AttemptRecord,
            st.just("a"),
            st.just("p"),
            st.just("m"),
            _times,
            consent=st.none() | st.sampled_from(list(ConsentKind)),
        ),
        min_size=1,
        max_size=1,
    ),
    dropped=st.sampled_from([frozenset(), frozenset({"seed", "user"})]),
    labels=st.sampled_from([(), ("aigc", "hint")]),
    profile=st.none() | st.just("p1"),
    usage=st.builds(Usage, *[st.integers(0, 2**62)] * 4),
    places=st.sampled_from([None, ("DE", "FR")]),
    price=st.sampled_from([None, _PRICE]),
    cost_micros=st.none() | st.integers(0, 2**62),
)
_events: tuple[dict[str, Any], ...] = (
    {"outcome": "cancelled"},
    {"outcome": "interrupted", "code": "stream_interrupted", "detail": "it broke off"},
    {"code": "provider_error"},
    {"location": None},
    {"location": NOWHERE_KNOWN},
    {"usage": None},
    {"first_s": None},
    {"total_s": None},
    {"attempts": []},
    {"attempts": [attempt(), attempt("other")]},
    {"attempts": [failed_attempt(FailureKind.SILENT)]},
    {"skipped": [Skipped("a", "benched")]},
    {"queued_s": 0.25},
    {"resumed": Resumed("a", "b")},
)
_eu = Region("eu", Places(frozenset({"DE"})), ANYWHERE)
_otherwise: tuple[dict[str, Any], ...] = (
    *(
        {name: "another"}
        for name in ("client", "assistant", "deployment", "provider", "model", "config_version", "profile")
    ),
    {"stream": True},
    {"stream": False},
    {"status": 206},
    {"places": ("IE", "IE")},
    {"attempts": [replace(attempt(), consent=ConsentKind.CLAIM)]},
    {"attempts": [replace(attempt(), consent=ConsentKind.TOKEN)]},
    {"dropped": frozenset({"n"})},
    {"emulated": frozenset({"response_format"})},
    {"labels": ("another",)},
    {"location": Location(_eu, "FR", "edge_header", ())},
    {"location": Location(_eu, "DE", "api_key", ())},
    {"location": Location(replace(_eu, name="de"), "DE", "edge_header", ())},
    {"location": Location(None, "DE", "edge_header", ())},
)


def same_as_alone(made: list[Record]) -> None:
    for record, line in zip(made, JsonLines().of([(record, 1.5) for record in made]), strict=True):
        logged = orjson.loads(line)
        level = "warning" if record.outcome in ("internal_error", "failed", "interrupted") else "info"
        head = {"timestamp": "1970-01-01T00:00:01.500000Z", "level": level, "event": "request"}
        fields: dict[str, object] = {}
        add_fields(fields, record)
        assert logged == {**head, **orjson.loads(orjson.dumps(fields, default=str))}
        assert list(logged) == [*head, *fields]


@given(st.lists(_plain | records))
@settings(deadline=None)
def test_line_does_not_depend_on_earlier_requests(made: list[Record]) -> None:
    same_as_alone(made)


@given(_plain)
@settings(deadline=None, max_examples=20)
def test_each_changed_value_of_the_next_request_is_logged(record: Record) -> None:
    for change in (*_events, *_otherwise):
        same_as_alone([record, with_fields(record, **change), record])


def test_dropped_field_with_an_unknown_name_is_counted() -> None:
    record = answered(usage=Usage(1, 1))
    record = with_fields(record, dropped=frozenset({"seed", "x" * 100_000}))
    (line,) = JsonLines().of([(record, 0.0)])
    logged = orjson.loads(line)
    assert (logged["dropped"], logged["dropped_unknown"]) == (["seed"], 1)


def test_timestamp_is_the_end_of_the_request() -> None:
    ended = [(answered(), at) for at in (1_795_233_875.25, 1_795_233_875.0625, 1_795_233_876.0)]
    logged = [orjson.loads(line)["timestamp"] for line in JsonLines().of(ended)]
    assert logged == ["2026-11-21T04:04:35.250000Z", "2026-11-21T04:04:35.062500Z", "2026-11-21T04:04:36.000000Z"]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environ", "colours"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": ""}, True), ({"TERM": "dumb"}, False),
     ({"TERM": "xterm", "NO_COLOR": "1"}, False)],
)  # fmt: skip
def test_terminal_gets_colours_unless_disabled(
    environ: dict[str, str], colours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    terminal = _Terminal()
    log.configure("text", "info", terminal)
    log.logger().info("listening")
    assert ("\x1b[" in terminal.getvalue()) == colours
