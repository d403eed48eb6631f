"""The line to a client: who watches is told once, and who has stopped watching is not."""

from __future__ import annotations

from gateway.api.connection import ClientConnection


def test_all_who_watch_are_told_once() -> None:
    line, told = ClientConnection(), []
    line.watch(lambda: told.append("a"))
    line.watch(lambda: told.append("b"))
    assert not line.lost
    line.lose()
    line.lose()
    assert (line.lost, told) == (True, ["a", "b"])


def test_who_comes_too_late_is_told_at_once() -> None:
    line, told = ClientConnection(), []
    line.lose()
    line.watch(lambda: told.append("late"))
    assert told == ["late"]
    line.lose()
    assert told == ["late"]


class Watcher:
    def __init__(self) -> None:
        self.told = 0

    def leave(self) -> None:
        self.told += 1


def test_who_has_stopped_watching_is_not_told() -> None:
    line, first, second = ClientConnection(), Watcher(), Watcher()
    line.watch(first.leave)
    line.watch(second.leave)
    line.forget(first.leave)
    line.forget(first.leave)
    line.lose()
    assert (first.told, second.told) == (0, 1)
    line.forget(second.leave)


def test_to_watch_while_being_told_is_to_be_told() -> None:
    line, told = ClientConnection(), []
    line.watch(lambda: line.watch(lambda: told.append("inner")))
    line.lose()
    assert told == ["inner"]
