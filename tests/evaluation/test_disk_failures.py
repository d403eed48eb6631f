"""A directory that becomes unwritable or unreadable: one line of error, and no stored answer is lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluation import store
from gateway.cli import main
from gateway.state.database import open_database
from providers.testkit.scenario import Scenario
from providers.testkit.server import SimulatorThread
from tests.evaluation.candidates import config_of, servers, suite_in
from tests.kit.case_files import cases

SUITE = "performance: {sets: [{name: a, file: many.yaml}]}"
ITEMS = 60


class Evaluation:
    """The command with one candidate and sixty questions. `asked` is the number of questions that the last call sent."""

    def __init__(self, folder: Path, candidate: SimulatorThread) -> None:
        self.folder, self.candidate, self.asked = folder, candidate, 0
        suite_in(folder, SUITE, items=ITEMS)
        (folder / "gateway.yaml").write_text(config_of({"one": candidate["one"].origin}).text)

    def __call__(self, *more: str) -> int:
        before = self.candidate["one"].received
        named = ["--config", str(self.folder / "gateway.yaml"), "--suite", str(self.folder / "suite.yaml")]
        named += ["--region", "cn", "--candidates", "one", "--out", str(self.folder / "out")]
        status = main(["evaluate", *named, *more])
        self.asked = self.candidate["one"].received - before
        return status


@pytest.fixture
def evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Evaluation]:
    monkeypatch.setenv("KEY", "sk-test")
    with servers({"one": Scenario(text="x")}) as thread:
        yield Evaluation(tmp_path, thread)


@pytest.mark.slow
def test_full_disk_prints_one_line_and_keeps_stored_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], evaluate: Evaluation
) -> None:

    def small(*named: object) -> sqlite3.Connection:
        database = open_database(*named)  # type: ignore[arg-type]
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count = {pages + 1}")
        return database

    with monkeypatch.context() as patched:
        patched.setattr(store, "open_database", small)
        assert evaluate() == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message == f"gateway: {tmp_path / 'out' / 'run.db'} can't be used: database or disk is full"

    database = sqlite3.connect(tmp_path / "out" / "run.db")
    (kept,) = database.execute("SELECT count(*) FROM answer WHERE answered").fetchone()
    database.close()
    assert 0 < kept < ITEMS
    assert evaluate() == 0
    assert evaluate.asked == ITEMS - kept


@pytest.mark.slow
@cases("statement", "message")
def test_damaged_run_file_prints_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], evaluate: Evaluation, statement: str, message: str
) -> None:
    assert evaluate() == 0
    database = sqlite3.connect(tmp_path / "out" / "run.db", isolation_level=None)
    database.execute(statement)
    database.close()

    assert evaluate() == 2
    shown = capsys.readouterr().err.strip().splitlines()[-1]
    assert shown.startswith(f"gateway: {tmp_path / 'out' / 'run.db'} can't be used: {message}")


def test_unwritable_report_keeps_all_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], evaluate: Evaluation
) -> None:
    (tmp_path / "out" / "report.html").mkdir(parents=True)
    assert evaluate() == 2
    assert "the report can't be written to" in capsys.readouterr().err
    (tmp_path / "out" / "report.html").rmdir()
    assert evaluate() == 0
    assert evaluate.asked == 0
    for name in ("run.db", "report.json", "report.html", "report.md"):
        assert (tmp_path / "out" / name).stat().st_mode & 0o077 == 0, "what candidates wrote is its owner's alone"
