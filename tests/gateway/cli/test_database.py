"""`gateway db check --wait`: how often the database is asked, and for how long."""

from argparse import Namespace
from types import SimpleNamespace

import pytest

from gateway.cell import postgres
from gateway.cell.postgres_schema import SCHEMA
from gateway.cli import database
from gateway.operator_errors import StateError


class Waiting:
    """A database that answers at a time, and a clock that only pauses advance."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answers_at_s: float) -> None:
        self.now_s, self.asked_at_s, self._answers_at_s = 100.0, list[float](), 100.0 + answers_at_s
        monkeypatch.setattr(database, "time", SimpleNamespace(monotonic=lambda: self.now_s, sleep=self._pause))
        monkeypatch.setattr(database, "_server", lambda _: None)
        monkeypatch.setattr(postgres, "current_schema", self._answer)

    def _pause(self, seconds: float) -> None:
        assert seconds > 0
        self.now_s += seconds

    def _answer(self, _: object) -> int:
        self.asked_at_s.append(self.now_s - 100.0)
        if self.now_s < self._answers_at_s:
            raise StateError("the database does not answer")
        return SCHEMA


def test_check_asks_each_second_until_the_database_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = Waiting(monkeypatch, answers_at_s=2.5)
    assert database.check(Namespace(wait=10.0)) == 0
    assert waiting.asked_at_s == [0.0, 1.0, 2.0, 3.0]


def test_check_asks_a_last_time_at_the_end_of_the_wait(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting = Waiting(monkeypatch, answers_at_s=60)
    assert database.check(Namespace(wait=2.25)) == 1
    assert waiting.asked_at_s == [0.0, 1.0, 2.0, 2.25]
    assert capsys.readouterr().out == "gateway: the database does not answer\n"


def test_check_without_a_wait_asks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = Waiting(monkeypatch, answers_at_s=60)
    assert database.check(Namespace(wait=0)) == 1
    assert waiting.asked_at_s == [0.0]
