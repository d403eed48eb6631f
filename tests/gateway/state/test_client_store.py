"""The stored clients: what stays of a revoked key and of the last admin token, and roles of earlier releases."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from gateway.model.stored_client import AdminToken, Role
from gateway.operator_errors import StateError
from gateway.state.client_store import ClientStore
from gateway.state.database import SqliteDatabase, Statements
from tests.gateway.client_store_checks import CHECKS, ENTRY, uses_of_file_keys_are_kept


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ClientStore]:
    with closing(ClientStore(tmp_path)) as store:
        yield store


def test_uses_of_keys_of_the_file_are_kept(store: ClientStore, tmp_path: Path) -> None:
    with closing(ClientStore(tmp_path)) as other:
        uses_of_file_keys_are_kept(store, other)


@pytest.mark.parametrize("holds", CHECKS, ids=lambda holds: holds.__name__)
def test_rule_holds_for_this_store(store: ClientStore, holds: Callable[[ClientStore], None]) -> None:
    holds(store)


def test_token_of_a_former_role_is_that_of_a_viewer_and_keeps_its_row(store: ClientStore, tmp_path: Path) -> None:
    store.add_token(AdminToken("t1", Role.ADMIN, "", 1.0), "digest", ENTRY)
    with closing(sqlite3.connect(tmp_path / "clients.db")) as database, database:
        database.execute("UPDATE admin_tokens SET role = 'approver'")
    assert store.tokens() == {"digest": AdminToken("t1", Role.VIEWER, "", 1.0, was="approver")}
    with closing(sqlite3.connect(tmp_path / "clients.db")) as database:
        assert database.execute("SELECT role FROM admin_tokens").fetchall() == [("approver",)]


class SilentDatabase(SqliteDatabase):
    """A shared database that does not answer before `answers` is set. `is_asked`: a thread waits for it."""

    def __init__(self, is_asked: threading.Event, answers: threading.Event) -> None:
        self._is_asked, self._answers = is_asked, answers

    @contextmanager
    def transaction(self, *, reads_only: bool = False) -> Iterator[Statements]:
        self._is_asked.set()
        self._answers.wait(20)
        raise StateError("the database did not answer in time")
        yield

    def close(self) -> None:
        pass


def test_silent_shared_database_delays_no_reader_of_the_file(tmp_path: Path) -> None:
    is_asked, answers = threading.Event(), threading.Event()
    with closing(ClientStore(tmp_path, SilentDatabase(is_asked, answers), shares_clients=False)) as store:
        waiting = threading.Thread(target=_asked_in_vain, args=[store])
        waiting.start()
        assert is_asked.wait(60)
        try:
            store.add_token(AdminToken("t1", Role.VIEWER, "", 1.0), "digest", ENTRY)
            assert list(store.tokens()) == ["digest"]
            assert waiting.is_alive()
        finally:
            answers.set()
            waiting.join()


def _asked_in_vain(store: ClientStore) -> None:
    with suppress(StateError):
        store.generation()
