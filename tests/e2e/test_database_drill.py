"""The drills of docs/operate/backup.md: the database is restored from a backup, and fails over to a standby."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway.cell.cell_database import CellDatabase
from gateway.cell.cell_record import CellRecord
from gateway.cell.postgres import upgrade
from gateway.operator_errors import StateError
from gateway.state.audit import AuditLine
from tests.kit.doc_pages import ROOT
from tests.kit.metered_gateway import HELD_TOKENS
from tests.kit.postgres_server import RunningPostgres
from tests.kit.store_cell import Cell, cell, instance
from tests.kit.waiting import eventually

pytestmark = pytest.mark.slow("makes a backup and a standby of PostgreSQL")
_PAGE = ROOT / "docs" / "operate" / "backup.md"
_LIMIT_S = 300


def commands_of(heading: str) -> list[str]:
    """Return the commands in a section of the page, in order."""
    section = _PAGE.read_text("utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^    (\S.*)$", section, re.MULTILINE)


def run(both: Cell, command: str) -> None:
    """Run a command of the page."""
    if command == "valkey-cli FLUSHALL":
        both.valkey.command("FLUSHALL")
    elif command.startswith("gateway "):
        both.run(*command.removesuffix(" --config gateway.yaml").split()[1:])
    else:
        both.postgres.tool(command)


def test_backup_is_restored_with_keys_ledger_and_budgets(tmp_path: Path, own_postgres: RunningPostgres) -> None:
    back_up, *restore = commands_of("Back up and restore PostgreSQL")
    with cell(tmp_path, own_postgres, {"clients": None, "clients_source": "database"}) as both, ExitStack() as later:
        # A call costs 110 tokens, and holds more. The budget is for three of them.
        both.run("clients", "create", "app", "--budget", f"{2 * 110 + HELD_TOKENS} tokens per total")
        key = json.loads(both.run("keys", "create", "--client", "app", "--json"))["key"]
        for number in range(2):
            eventually(lambda number=number: both.ask(number, key).status_code == 200, _LIMIT_S)
        eventually(lambda: len(both.rows()) == both.meter.number("ok"), _LIMIT_S)
        run(both, back_up)
        assert both.ask(1, key).status_code == 200
        assert both.ask(1, key).json()["error"]["code"] == "insufficient_quota"
        for one in both.instances:
            one.stop()
        assert len(both.rows()) == 3
        own_postgres.sql("DROP SCHEMA public CASCADE")
        own_postgres.sql("CREATE SCHEMA public")
        for command in restore:
            run(both, command)
        assert len(both.rows()) == 2
        both.instances[:] = [later.enter_context(instance(both.path, number)) for number in range(2)]
        eventually(lambda: both.ask(0, key).status_code != 503, _LIMIT_S)
        # The third call of the budget was after the backup, so it is admitted once more.
        eventually(lambda: both.ask(1, key).json().get("error", {}).get("code") == "insufficient_quota", _LIMIT_S)
        eventually(lambda: len(both.rows()) == 3, _LIMIT_S)
        assert both.meter.number("ok") == 4


def test_failover_to_a_standby_loses_no_row(tmp_path: Path, own_postgres: RunningPostgres) -> None:
    copy, synchronous, promote = commands_of("Fail over to a standby")
    with cell(tmp_path, own_postgres) as both:
        assert both.ask(0).status_code == 200
        run(both, copy)
        standby = own_postgres.start_standby()
        try:
            run(both, synchronous)
            state = "SELECT sync_state FROM pg_stat_replication"
            eventually(lambda: own_postgres.sql(state) == [("sync",)], _LIMIT_S)
            assert both.ask(1).status_code == 200
            eventually(lambda: len(both.rows()) == 2, _LIMIT_S)
            own_postgres.kill()
            assert [both.ask(number).status_code for number in range(2)] == [200, 200]
            run(both, promote)
            # The address moves to the standby.
            run(both, "pg_ctl stop --wait --pgdata standby")
        finally:
            if standby.poll() is None:
                standby.kill()
            standby.wait()
        own_postgres.continue_as_standby()
        eventually(lambda: len(both.rows()) == 4, _LIMIT_S)
        assert both.ask(0).status_code == 200
        eventually(lambda: len(both.rows()) == 5, _LIMIT_S)
        assert {row["outcome"] for row in both.rows()} == {"answered"}


def test_lines_that_a_restored_database_lacks_are_stored_before_the_next_one(own_postgres: RunningPostgres) -> None:
    upgrade(own_postgres.address())
    database, lines = CellDatabase(own_postgres.address(), "one"), [AuditLine(n, f"hash {n}", b"") for n in (1, 2, 3)]
    record = CellRecord(database)
    record.ship([], lines[:2])
    own_postgres.sql("DELETE FROM cell_audit_line WHERE number = 2")
    with pytest.raises(StateError, match="lost lines of the audit trail"):
        record.ship([], lines[2:])
    # A new connection makes the instance compare what it has stored.
    assert (record.shipped()[1:], database.connections) == ((1, "hash 1"), 2)
    record.ship([], lines[1:])
    assert record.trails() == {"one": 3}
    database.close()
