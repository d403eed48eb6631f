"""`gateway audit verify` with and without a readable history."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.state.audit import Audit
from gateway.state.history import BEGINNING, TrailHead, open_history
from tests.cli.conftest import Command

STATE = Path("state")


@pytest.fixture(autouse=True)
def head() -> TrailHead:
    history = open_history(STATE)
    audit = Audit(STATE, BEGINNING)
    for event in ("started", "activated", "stopped"):
        audit.append(event, datetime(2026, 11, 20, tzinfo=UTC), {"config_version": "t"})
    history.store_audit_head(audit.head)
    audit.close()
    history.close()
    return audit.head


def test_audit_verify_accepts_an_unchanged_trail_and_writes_no_file(gateway: Command, head: TrailHead) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in STATE.iterdir()}
    shown = gateway("audit", "verify", "--state", STATE)
    assert (shown.status, shown.out) == (0, f"3 lines, as they were written; the last is 3, {head.hash}\n")
    assert {path.name: path.stat().st_mtime_ns for path in STATE.iterdir()} == before


def test_audit_verify_detects_missing_last_lines_by_the_history_or_a_logged_hash(
    gateway: Command, head: TrailHead
) -> None:
    trail = STATE / "audit.jsonl"
    trail.write_bytes(b"".join(trail.read_bytes().splitlines(keepends=True)[:2]))
    shown = gateway("audit", "verify", "--state", STATE)
    assert (shown.status, "history.db has line 3" in shown.out) == (1, True)
    (STATE / "history.db").write_bytes(b"no database" * 1000)
    shown = gateway("audit", "verify", "--state", STATE)
    assert (shown.status, "history.db can't be read" in shown.err) == (2, True)
    shown = gateway("audit", "verify", "--state", STATE, "--head", head.hash)
    assert (shown.status, "--head has a line" in shown.out) == (1, True)
    assert "compared with --head only" in shown.err


def test_audit_verify_warns_about_an_unfinished_change(gateway: Command, head: TrailHead) -> None:
    audit = Audit(STATE, head)
    audit.append("activated", datetime(2026, 11, 20, tzinfo=UTC), {"config_version": "u"})
    audit.close()
    shown = gateway("audit", "verify", "--state", STATE)
    assert (shown.status, "history.db does not contain the change of line 4" in shown.err) == (0, True)


def test_audit_verify_rejects_an_invalid_head_hash(gateway: Command, head: TrailHead) -> None:
    shown = gateway("audit", "verify", "--state", STATE, "--head", head.hash[:12])
    assert (shown.status, "a hash has 64 hexadecimal digits" in shown.err) == (2, True)
    assert gateway("audit", "verify", "--state", STATE, "--head", head.hash.upper()).status == 0
