"""Records of finished requests, as the gateway creates them."""

from dataclasses import replace
from typing import Any

import msgspec
from hypothesis import strategies as st

from gateway.features.shadow.model import ShadowNote
from gateway.model.config_version import Region
from gateway.model.location import Location, LocationProblem
from gateway.model.record import (
    AnsweredBy,
    AttemptAction,
    AttemptDecision,
    AttemptRecord,
    Decided,
    DecisionReason,
    Record,
    Shown,
)
from providers.chat import Usage
from providers.failures import Failure, FailureKind
from providers.territories import ANYWHERE, Places

__all__ = [
    "EU",
    "NOWHERE_KNOWN",
    "US",
    "answered",
    "attempt",
    "failed_attempt",
    "record_with",
    "records",
    "with_fields",
]

EU = Location(Region("eu", Places(frozenset({"DE"})), Places(frozenset({"DE", "FR"}))), "DE", "edge_header", ())
US = Location(Region("us", Places(frozenset({"US"})), ANYWHERE), "US", "api_key", ())
NOWHERE_KNOWN = Location(None, None, "unknown", (), LocationProblem.UNKNOWN)


_PARTS = {"decided": Decided, "answered_by": AnsweredBy, "shown": Shown}


def with_fields(record: Record, **fields: Any) -> Record:
    """Return a copy with these fields, each in the value of the record that has it."""
    for part, kind in _PARTS.items():
        own = {name: fields.pop(name) for name in kind.__struct_fields__ if name in fields}
        fields[part] = msgspec.structs.replace(getattr(record, part), **own)
    return replace(record, **fields)


def record_with(request_id: str = "r", started_at: float = 0.0, config_version: str = "t", **fields: Any) -> Record:
    """Return a record with these fields, each in the value of the record that has it."""
    return with_fields(Record(request_id, started_at, config_version), **fields)


def attempt(deployment: str = "house", duration_s: float = 0.3, started_at: float = 100.1) -> AttemptRecord:
    return AttemptRecord(deployment, "openai", "m-1", duration_s, None, started_at)


def failed_attempt(
    kind: FailureKind,
    deployment: str = "house",
    status: int | None = None,
    started_at: float = 100.1,
    action: AttemptAction | None = None,
) -> AttemptRecord:
    failure = Failure(kind, "told the client", "the provider's own words", status, request_id="req_up-1")
    decision = AttemptDecision(action, DecisionReason.FAILURE_KIND) if action is not None else None
    return AttemptRecord(deployment, "openai", "m-1", 0.2, failure, started_at, decision=decision)


def answered(
    *attempts: AttemptRecord, usage: Usage | None = None, stream: bool = False, total_s: float = 1.0
) -> Record:
    """Return an answer in region eu, by the last of the attempts."""
    attempts = attempts or (attempt(),)
    return record_with(
        "req-1",
        100.0,
        "t1",
        client="app",
        location=EU,
        assistant="assistant",
        deployment=attempts[-1].deployment,
        provider=attempts[-1].provider,
        model=attempts[-1].model,
        stream=stream,
        status=200,
        first_s=0.4,
        total_s=total_s,
        attempts=list(attempts),
        usage=usage,
    )


_attempts = st.builds(
    AttemptRecord,
    deployment=st.sampled_from(["a", "b"]),
    provider=st.sampled_from(["p", "q"]),
    model=st.just("m"),
    duration_s=st.floats(0, 1000),
    failure=st.none() | st.sampled_from(list(FailureKind)).map(lambda kind: Failure(kind, "m")),
    started_at=st.floats(0, 10),
)
_usages = st.builds(Usage, *[st.integers(0, 10**7)] * 4)
records = st.builds(
    record_with,
    request_id=st.text(max_size=5),
    started_at=st.just(0.0),
    config_version=st.sampled_from(["t1", "t2"]),
    location=st.sampled_from([None, EU, US, NOWHERE_KNOWN]),
    assistant=st.none() | st.sampled_from(["x", "y"]),
    deployment=st.none() | st.sampled_from(["a", "b"]),
    provider=st.none() | st.sampled_from(["p", "q"]),
    stream=st.booleans(),
    status=st.sampled_from([0, 200, 400, 451, 502]),
    outcome=st.sampled_from(["ok", "refused", "failed", "interrupted", "cancelled"]),
    code=st.none() | st.sampled_from(["region_unknown", "provider_error"]),
    upload_s=st.floats(0, 5),
    first_s=st.none() | st.floats(0, 700),
    total_s=st.none() | st.floats(0, 700),
    attempts=st.lists(_attempts, max_size=4),
    usage=st.none() | _usages,
    notes=st.just(()) | st.builds(lambda attempt: (ShadowNote(attempt),), _attempts),
)
