"""`gateway history`: its lists, single versions, and errors."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from gateway.state.history import Activation, Version, open_history
from tests.cli.conftest import Command
from tests.kit.case_files import cases

STATE = Path("state")
ONE, TWO = (Version(name, name + "0" * 52, f"# {name}\n".encode()) for name in ("aaaa11112222", "aaaa33334444"))


@pytest.fixture(autouse=True)
def history() -> None:
    opened = open_history(STATE)
    opened.add(ONE, Activation(ONE.version, "", "start", "", 1.0, "+all"))
    opened.add(TWO, Activation(TWO.version, ONE.version, "file", "ada", 2.0, "~some"))
    opened.close()


def test_history_lists_active_versions_newest_first(gateway: Command) -> None:
    shown = gateway("history", "--state", STATE)
    assert shown.out.splitlines() == [
        "* aaaa33334444  1970-01-01T00:00:02Z  file by ada: ~some",
        "  aaaa11112222  1970-01-01T00:00:01Z  start: +all",
    ]
    opened = open_history(STATE)
    for before, activation in ((TWO, ONE), (ONE, TWO)):
        opened.add(activation, Activation(activation.version, before.version, "rollback", "", 3.0, "~some"))
    opened.close()
    lines = gateway("history", "--state", STATE).out.splitlines()
    assert [line[:1] for line in lines] == ["*", " ", " ", " "]
    activations = json.loads(gateway("history", "--state", STATE, "--json").out)["activations"]
    assert [activation["active"] for activation in activations] == [True, False, False, False], (
        "only the last activation"
    )
    assert gateway("history", "--state", STATE, "-n", "1").out.count("\n") == 1
    assert gateway("history", "--state", STATE, "aaaa1", "--text").out == "# aaaa11112222\n"
    assert json.loads(gateway("history", "--state", STATE, "aaaa3", "--json").out)["previous"] == ONE.version


def test_config_with_errors_does_not_hide_that_the_record_is_not_that_of_a_cell(gateway: Command) -> None:
    Path("broken.yaml").write_text("version: 1\nstores: [\n", "utf-8")
    shown = gateway("history", "--state", STATE, "--config", "broken.yaml")
    assert (shown.status, shown.out.count("\n")) == (0, 2)
    assert shown.err == (
        "gateway: broken.yaml has errors; if it has `stores.database`, the record of its cell is not read\n"
    )


@cases("words", "message")
def test_history_rejects_unusable_options(gateway: Command, words: tuple[str, ...], message: str) -> None:
    shown = gateway("history", "--state", STATE, *words)
    assert (shown.status, shown.out, message in shown.err) == (2, "", True), shown.err


@pytest.mark.parametrize("words", [("history", "aaaa1"), ("history", "aaaa1", "--text"), ("rollback", "aaaa1")])
def test_edited_value_is_reported_as_a_damaged_file(gateway: Command, words: tuple[str, ...]) -> None:
    with sqlite3.connect(STATE / "history.db") as database:
        database.execute("UPDATE version SET text = 'version: 1'")
    database.close()
    shown = gateway(*words, "--state", STATE)
    assert (shown.status, shown.out) == (2, "")
    assert shown.err.startswith("gateway: history.db can't be used: a row has a value of the wrong type; move it away")


@pytest.mark.parametrize("words", [("history",), ("rollback",), ("plan", "gateway.yaml"), ("serve",)])
def test_damaged_pointer_is_reported_as_a_damaged_file(
    gateway: Command, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_STATE_DIR", str(STATE))
    monkeypatch.setenv("GATEWAY_CONFIG", "gateway.yaml")
    Path("gateway.yaml").write_text("version: 1\n")
    with sqlite3.connect(STATE / "history.db") as database:
        database.execute("UPDATE pointer SET version = x'00'")
    database.close()
    shown = gateway(*words)
    assert (shown.status, "history.db can't be used: a row has a value of the wrong type" in shown.err) == (2, True)
