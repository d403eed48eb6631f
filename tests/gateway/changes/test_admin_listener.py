"""An admin listener that was closed once stays closed, in every way in which an opening could appear."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.api.admin_guard import Guard
from gateway.api.errors import ApiError
from gateway.changes.change_log import ChangeLog
from gateway.changes.compile_job import CompileJob, compile_here
from gateway.changes.initial_config import InitialConfig, _recorded
from gateway.changes.live_config import LiveConfig
from gateway.changes.pickling import unpack
from gateway.changes.stored_clients import ClientDatabase
from gateway.model.stored_client import AdminToken, Role
from gateway.operator_errors import DatabaseUnreachable
from gateway.state.backup import restore_backup, write_backup
from gateway.state.client_store import ClientStore, Entry
from gateway.state.database import SqliteDatabase
from tests.kit.configs import KEYS
from tests.kit.token_gateway import CONFIG

ENTRY = Entry("changed", {})
ROLES = CONFIG.merge({"token_issuers": {"entra": {"roles": [{"role": "operator", "where": {"groups": "g-ops"}}]}}}).text
WITHOUT = CONFIG.text
TOKEN = AdminToken("t1", Role.ADMIN, "", 1.0)
WAY_IN = ("the-token-of-the-settings", Role.ADMIN)


class Cell(SqliteDatabase):
    """The database of a cell, in a file."""

    is_shared = True
    is_down = False

    @classmethod
    def at(cls, directory: Path) -> Cell:
        from gateway.state.client_store import _LAYOUT

        directory.mkdir(exist_ok=True)
        layout = _LAYOUT.replace("fields TEXT NOT NULL\n", "fields TEXT NOT NULL, instance TEXT, noted_at REAL\n")
        opened = cls.open(directory, "cell", layout)
        opened.connection.create_function("clock_timestamp", 0, lambda: 0.0)
        assert isinstance(opened, cls)
        return opened

    def transaction(self, *, lock: int = 0, reads_only: bool = False) -> Any:
        if self.is_down:
            raise DatabaseUnreachable("the database did not answer in time")
        return super().transaction(lock=lock, reads_only=reads_only)

    def close(self) -> None:
        """It stays open for the next instance."""


class Machine:
    """The gateways that run after each other on a machine, or on those of a cell."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path, self.state = folder, folder / "gateway.yaml", folder / "state"
        self.cell: Cell | None = None
        self._undo = ExitStack()

    def start(self, text: str, *own: tuple[str, Role], state: bool = True) -> None:
        """Start a gateway with a config and tokens of the settings, in place of the previous one."""
        self.stop()
        self.path.write_text(text, "utf-8")
        job = CompileJob(str(self.path), written=state)
        log = self._undo.enter_context(closing(ChangeLog(self.state))) if state else None
        pinned = log.active_rollback() if log is not None else None
        outcome = compile_here(pinned.instead_of(job) if pinned is not None else job, KEYS)
        assert outcome.packed is not None, outcome.problems
        initial = _recorded(InitialConfig(unpack(outcome.packed), outcome, log, pinned), self.path)
        self.clients: ClientDatabase | None = None
        if log is not None:
            store = self._undo.enter_context(closing(ClientStore(self.state, self.cell, "i", shares_clients=False)))
            self.clients = ClientDatabase(self.state, store=store)
            if not store.knows_listener():
                self.clients.note_listener(closes=log.ever_gave_roles())

        async def compiled(job: CompileJob) -> Any:
            return compile_here(job, KEYS)

        self.live = LiveConfig(job, initial, clients=self.clients, compile_job=compiled)
        if own:
            self.live.note_own_tokens()
        tokens = self.clients.tokens if self.clients is not None else dict
        self.guard = Guard(own, tokens=tokens, is_closed=self.live.listener_is_closed)

    def stop(self) -> None:
        self._undo.close()

    async def load(self, text: str) -> None:
        self.path.write_text(text, "utf-8")
        done = await self.live.reload("admin")
        assert done.activated, done.findings

    def look(self) -> None:
        self.clients.refresh()

    def sql(self, statement: str) -> None:
        with closing(sqlite3.connect(self.state / "clients.db")) as file, file:
            file.execute(statement)

    async def admits_anybody(self) -> bool:
        headers = [(b"host", b"127.0.0.1:8081")]
        try:
            identity = await self.guard.check({"headers": headers, "client": ("127.0.0.1", 1)})
        except ApiError:
            return False
        assert identity.role is Role.ADMIN
        return True

    def open(self) -> None:
        """Do what `gateway admin-token open` does on the machine."""
        with closing(ClientStore(self.state)) as store:
            store.open_listener(ENTRY)


@pytest.fixture
def machine(tmp_path: Path) -> Any:
    made = Machine(tmp_path)
    yield made
    made.stop()


async def rolled_back(machine: Machine) -> None:
    machine.start(WITHOUT)
    await machine.load(ROLES)
    done = await machine.live.rollback(None)
    assert done.activated
    assert any("stays closed" in finding.message for finding in done.findings), "the answer says so"


async def reloaded(machine: Machine) -> None:
    machine.start(ROLES)
    await machine.load(WITHOUT)


async def restarted_without_roles(machine: Machine) -> None:
    machine.start(ROLES)
    machine.start(WITHOUT)


async def restarted_without_the_setting(machine: Machine) -> None:
    machine.start(WITHOUT, WAY_IN)
    machine.start(WITHOUT)


async def last_token_revoked(machine: Machine) -> None:
    machine.start(WITHOUT)
    machine.clients.store.add_token(TOKEN, "digest", ENTRY)
    machine.clients.store.remove_token(TOKEN.id, ENTRY)


async def tokens_lost(machine: Machine) -> None:
    machine.start(WITHOUT)
    machine.clients.store.add_token(TOKEN, "digest", ENTRY)
    machine.look()
    machine.sql("DELETE FROM admin_tokens")
    machine.start(WITHOUT)


async def restored_from_a_backup(machine: Machine) -> None:
    machine.start(ROLES)
    write_backup(machine.state, machine.folder / "backup", "0", "2026-11-28", with_keys=False)
    machine.stop()
    machine.state = machine.folder / "restored"
    restore_backup(machine.folder / "backup", machine.state)
    machine.start(WITHOUT)


async def directory_of_the_release_before(machine: Machine) -> None:
    machine.start(ROLES)
    machine.stop()
    machine.sql("DELETE FROM settings WHERE name LIKE 'admin_listener_%'")
    machine.start(WITHOUT)


async def new_instance_of_a_cell(machine: Machine) -> None:
    machine.cell = Cell.at(machine.folder / "cell")
    machine.start(ROLES)
    machine.state = machine.folder / "empty"
    machine.start(WITHOUT)


async def new_instance_of_a_cell_that_is_down(machine: Machine) -> None:
    await new_instance_of_a_cell(machine)
    machine.state, machine.cell.is_down = machine.folder / "another", True
    machine.start(WITHOUT)


async def running_instance_of_a_cell(machine: Machine) -> None:
    machine.cell = Cell.at(machine.folder / "cell")
    machine.start(WITHOUT)
    assert await machine.admits_anybody()
    with closing(ClientStore(machine.folder, machine.cell, "other", shares_clients=False)) as other:
        other.settle_listener(closes=True)
    machine.look()


async def database_lost(machine: Machine) -> None:
    machine.cell = Cell.at(machine.folder / "cell")
    machine.start(ROLES)
    machine.cell = Cell.at(machine.folder / "new")
    machine.start(WITHOUT)


async def state_directory_that_cannot_be_written(machine: Machine) -> None:
    machine.start(WITHOUT)
    machine.sql(
        "CREATE TRIGGER full BEFORE INSERT ON settings WHEN new.name LIKE 'admin_listener_closed' "
        "BEGIN SELECT raise(ABORT, 'disk full'); END"
    )
    await machine.load(ROLES)
    await machine.load(WITHOUT)
    assert not await machine.admits_anybody()
    machine.sql("DROP TRIGGER full")
    machine.look()


WAYS = [
    rolled_back,
    reloaded,
    restarted_without_roles,
    restarted_without_the_setting,
    last_token_revoked,
    tokens_lost,
    restored_from_a_backup,
    directory_of_the_release_before,
    new_instance_of_a_cell,
    new_instance_of_a_cell_that_is_down,
    running_instance_of_a_cell,
    database_lost,
    state_directory_that_cannot_be_written,
]


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=[] if number % 4 == 0 else pytest.mark.slow) for number, way in enumerate(WAYS)]
)
async def test_listener_that_was_closed_opens_only_by_the_command(
    machine: Machine, way: Callable[[Machine], Awaitable[None]]
) -> None:
    await way(machine)
    assert not await machine.admits_anybody()
    if machine.cell is not None:
        machine.cell.is_down = False
    machine.look()
    assert not await machine.admits_anybody()
    with capture_logs() as log:
        machine.guard.note_closed()
    assert [line["event"] for line in log] == ["admin_closed"]
    machine.open()
    machine.look()
    assert await machine.admits_anybody()
    machine.start(WITHOUT)
    assert await machine.admits_anybody(), "it stays open after a restart"
    if machine.cell is not None:
        machine.state = machine.folder / "third"
        machine.start(WITHOUT)
        assert await machine.admits_anybody(), "the act on one machine of a cell is for each instance"
    machine.start(WITHOUT, WAY_IN)
    machine.start(WITHOUT)
    assert not await machine.admits_anybody(), "it can be closed again"


async def test_process_without_a_state_directory_stays_closed_until_it_ends(machine: Machine) -> None:
    machine.start(ROLES, state=False)
    await machine.load(WITHOUT)
    assert not await machine.admits_anybody()
    machine.start(WITHOUT, state=False)
    assert await machine.admits_anybody()


async def test_listener_that_never_had_a_token_stays_open(machine: Machine) -> None:
    for _ in range(2):
        machine.start(WITHOUT)
        await machine.load(WITHOUT + "# edited\n")
        await machine.live.rollback(None)
        machine.look()
        assert await machine.admits_anybody()


async def test_opening_while_a_rule_gives_roles_lasts_no_longer_than_the_rule(machine: Machine) -> None:
    machine.start(ROLES)
    machine.open()
    machine.look()
    await machine.load(WITHOUT)
    assert not await machine.admits_anybody()
