"""The stored results of shadow traffic, and their limits."""

import json
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.features.shadow.model import ShadowRecord
from gateway.features.shadow.state import ShadowStore, read_shadow_records
from gateway.free_space import FreeSpace
from gateway.operator_errors import StateError
from providers.chat import Usage

RECORD = ShadowRecord(1.5, "t", "r", "a", "eu", "new", "m-2", True, "ok", 0.25, 0.75, Usage(3, 4), "stop", 10, 1, "old")


_STORES: list[ShadowStore] = []


def opened(folder: Path, **bounds: int) -> ShadowStore:
    _STORES.append(ShadowStore(folder, **bounds))
    return _STORES[-1]


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Close the databases of a test, because Python 3.13 warns of unclosed ones."""
    yield
    while _STORES:
        _STORES.pop().close()


def rows(folder: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(folder / "shadow.db")) as database:
        return database.execute(query).fetchall()


def test_record_is_stored_as_a_row(tmp_path: Path) -> None:
    store = opened(tmp_path)
    assert not (tmp_path / "shadow.db").exists(), "no record, no file"
    store.store(replace(RECORD, beside_first_s=0.1, beside_total_s=0.2, beside_usage=Usage(3, 5)))
    columns = (1.5, "t", "r", "a", "eu", "new", "m-2", 1, "ok", 0.25, 0.75, 3, 4, "stop", 10, 1, "old", 0.1, 0.2, 3, 5)
    assert rows(tmp_path, "SELECT * FROM answers") == [(1, *columns)]
    assert rows(tmp_path, "SELECT * FROM texts") == []


def test_oldest_records_are_deleted_first(tmp_path: Path) -> None:
    store = opened(tmp_path, most_rows=5, most_texts=2)
    for number in range(9):
        store.store(replace(RECORD, request_id=str(number), prompt=f"p{number}", answer="" if number % 2 else "said"))
    assert rows(tmp_path, "SELECT request_id FROM answers") == [(str(number),) for number in range(4, 9)]
    assert rows(tmp_path, "SELECT prompt, answer FROM texts") == [("p7", ""), ("p8", "said")]


def test_refusal_and_tool_calls_are_deleted_with_their_text(tmp_path: Path) -> None:
    store = opened(tmp_path, most_texts=2)
    with_refusal = replace(RECORD, prompt="p", answer="", refusal="no", calls=(("look", '{"at": "é"}'), ("look", "")))
    for record in (
        with_refusal,
        replace(with_refusal, refusal=None),
        replace(RECORD, prompt="p", answer="only text"),
        with_refusal,
    ):
        store.store(record)
    calls = [{"name": "look", "arguments": '{"at": "é"}'}, {"name": "look", "arguments": ""}]
    assert [(number, json.loads(text)) for number, text in rows(tmp_path, "SELECT id, calls FROM extras")] == [
        (4, calls)
    ]
    assert rows(tmp_path, "SELECT id, refusal FROM extras JOIN texts USING (id)") == [(4, "no")]


def test_refusal_alone_and_prompt_without_an_answer_are_stored(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for record in (replace(RECORD, prompt="p", answer="", refusal="no"), replace(RECORD, prompt="p", answer=None)):
        store.store(record)
        # The store opens the file again for a later record.
        store.close()
    assert [(record.answer, record.refusal) for _, record in read_shadow_records(tmp_path, "a", "eu")] == [
        ("", "no"),
        ("", None),
    ]


def test_record_is_stored_with_its_texts_or_not_at_all(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.store(RECORD)
    with closing(sqlite3.connect(tmp_path / "shadow.db", isolation_level=None)) as database:
        database.execute(
            "CREATE TRIGGER full BEFORE INSERT ON texts BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        )
    with pytest.raises(StateError, match=r"^shadow\.db can't be written: database or disk is full$"):
        store.store(replace(RECORD, prompt="p", answer="a"))
    store.store(RECORD)
    assert len(rows(tmp_path, "SELECT * FROM answers")) == 2


def test_record_is_not_stored_while_the_rest_of_the_disk_is_for_usage_rows(tmp_path: Path) -> None:
    space = [FreeSpace(64 * 1024**2 - 1, 1024**3)]
    with closing(ShadowStore(tmp_path, measure=lambda _: space[0])) as store:
        with pytest.raises(StateError, match=r"^shadow\.db is not written: fewer than 64 MB are free"):
            store.store(RECORD)
        space[0] = FreeSpace(64 * 1024**2, 1024**3)
        store.store(RECORD)
    assert len(rows(tmp_path, "SELECT * FROM answers")) == 1


def test_answer_of_the_client_is_deleted_with_the_texts(tmp_path: Path) -> None:
    store = opened(tmp_path, most_texts=2)
    with_client_answer = replace(RECORD, prompt="p", answer="a", beside_answer="told")
    for record in (
        with_client_answer,
        replace(with_client_answer, beside_answer=None),
        with_client_answer,
        RECORD,
        with_client_answer,
    ):
        store.store(record)
    assert rows(tmp_path, "SELECT id, beside_answer FROM besides") == [(3, "told"), (5, "told")]
    assert [record.beside_answer for _, record in read_shadow_records(tmp_path, "a", "eu")] == [
        None,
        None,
        "told",
        None,
        "told",
    ]


def test_file_without_answers_of_clients_is_read(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.store(replace(RECORD, prompt="p", answer="a"))
    store.close()
    with closing(sqlite3.connect(tmp_path / "shadow.db")) as database:
        database.execute("DROP TABLE besides")
    [(_, record)] = read_shadow_records(tmp_path, "a", "eu")
    assert (record.answer, record.beside_answer) == ("a", None)
    store = opened(tmp_path)
    store.store(replace(RECORD, prompt="p", answer="a", beside_answer="told"))
    assert [record.beside_answer for _, record in read_shadow_records(tmp_path, "a", "eu")] == [None, "told"]


def test_documentation_has_every_column(tmp_path: Path) -> None:
    opened(tmp_path).store(replace(RECORD, prompt="p", answer="a"))
    page = (Path(__file__).parents[3] / "docs" / "operate" / "shadow.md").read_text("utf-8")
    for table in ("answers", "texts", "extras", "besides"):
        for (name,) in rows(tmp_path, f"SELECT name FROM pragma_table_info('{table}')"):  # noqa: S608  # constants
            assert f"`{name}`" in page


def test_several_threads_can_write_at_once(tmp_path: Path) -> None:
    stores = [opened(tmp_path), opened(tmp_path)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: stores[number % 2].store(RECORD), range(60)))
    assert rows(tmp_path, "SELECT count(*) FROM answers") == [(60,)]


def test_unusable_directory_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=r"shadow\.db"):
        opened(tmp_path / "file").store(RECORD)


def test_repr_contains_no_text() -> None:
    assert "secret" not in repr(
        replace(
            RECORD,
            prompt="secret",
            answer="secret",
            refusal="secret",
            calls=(("secret", "secret"),),
            beside_answer="secret",
        )
    )


def test_records_can_be_read_while_others_are_written(tmp_path: Path) -> None:
    store = opened(tmp_path)
    plain = replace(RECORD, beside_first_s=0.1, beside_total_s=0.2, beside_usage=Usage(3, 5))
    fields = {"refusal": "I can't", "calls": (("look", '{"at": 1}'),)}
    with_text = replace(RECORD, usage=None, finish_reason=None, prompt="user: a", answer="b", **fields)
    for record in (plain, with_text, replace(RECORD, region="us"), replace(RECORD, assistant="other")):
        store.store(record)
    assert list(read_shadow_records(tmp_path, "a", "eu")) == [(1, plain), (2, with_text)]
    with pytest.raises(StateError, match=r"shadow\.db can't be read"):
        list(read_shadow_records(tmp_path / "nowhere", "a", "eu"))
    assert not (tmp_path / "nowhere").exists()


def test_invalid_tool_calls_are_reported_as_damage(tmp_path: Path) -> None:
    opened(tmp_path).store(replace(RECORD, prompt="p", answer="", calls=(("look", "{}"),)))
    with closing(sqlite3.connect(tmp_path / "shadow.db", isolation_level=None)) as database:
        for calls in ("{", "[5]", '[{"name": "look"}]'):
            database.execute("UPDATE extras SET calls = ?", (calls,))
            with pytest.raises(StateError, match=r"shadow\.db can't be read: .* move it away"):
                list(read_shadow_records(tmp_path, "a", "eu"))
