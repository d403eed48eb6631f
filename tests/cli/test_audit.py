"""`gateway audit verify`: what it says of a trail, and of one whose history can't be read."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.state.audit import BEGINNING, Audit, TrailHead
from gateway.state.history import open_history
from tests.cli.conftest import Command

STATE = Path("state")


@pytest.fixture(autouse=True)
def head() -> TrailHead:
    history = open_history(STATE)
    audit = Audit(STATE, BEGINNING)
    for event in ("started", "activated", "stopped"):
        audit.append(event, datetime(2026, 11, 20, tzinfo=UTC), {"table": "t"})
    history.store_audit_head(audit.head)
    audit.close()
    history.close()
    return audit.head


def test_a_trail_is_verified_and_nothing_is_written_for_it(gateway: Command, head: TrailHead) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in STATE.iterdir()}
    shown = gateway("audit", "verify", "--state", STATE)
    assert (shown.status, shown.out) == (0, f"3 lines, as they were written; the last is 3, {head.hash}\n")
    assert {path.name: path.stat().st_mtime_ns for path in STATE.iterdir()} == before


def test_an_end_that_was_cut_off_is_known_to_the_history_and_to_a_log(gateway: Command, head: TrailHead) -> None:
    trail = STATE / "audit.jsonl"
    trail.write_bytes(b"".join(trail.read_bytes().splitlines(keepends=True)[:2]))
    shown = gateway("audit", "verify", "--state", STATE)
    assert (shown.status, "history.db has line 3" in shown.out) == (1, True)
    (STATE / "history.db").write_bytes(b"no database" * 1000)
    shown = gateway("audit", "verify", "--state", STATE)
    assert (shown.status, "history.db can't be read" in shown.err) == (2, True)
    shown = gateway("audit", "verify", "--state", STATE, "--head", head.hash)
    assert (shown.status, "--head has a line" in shown.out) == (1, True)
    assert "held to --head alone" in shown.err


def test_a_switch_that_was_never_finished_is_named(gateway: Command, head: TrailHead) -> None:
    audit = Audit(STATE, head)
    audit.append("activated", datetime(2026, 11, 20, tzinfo=UTC), {"table": "u"})
    audit.close()
    shown = gateway("audit", "verify", "--state", STATE)
    assert (shown.status, "history.db doesn't know of the switch in line 4" in shown.err) == (0, True)


def test_a_hash_that_is_none_is_no_missing_end(gateway: Command, head: TrailHead) -> None:
    shown = gateway("audit", "verify", "--state", STATE, "--head", head.hash[:12])
    assert (shown.status, "a hash has 64 hexadecimal digits" in shown.err) == (2, True)
    assert gateway("audit", "verify", "--state", STATE, "--head", head.hash.upper()).status == 0
