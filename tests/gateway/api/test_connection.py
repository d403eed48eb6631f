"""The client's connection: watchers are called once when it is lost, and not after `forget`."""

from gateway.api.connection import ClientConnection


def test_all_watchers_are_called_once() -> None:
    line, calls = ClientConnection(), []
    line.watch(lambda: calls.append("a"))
    line.watch(lambda: calls.append("b"))
    assert not line.lost
    line.lose()
    line.lose()
    assert (line.lost, calls) == (True, ["a", "b"])


def test_watcher_of_a_lost_connection_is_called_at_once() -> None:
    line, calls = ClientConnection(), []
    line.lose()
    line.watch(lambda: calls.append("late"))
    assert calls == ["late"]
    line.lose()
    assert calls == ["late"]


class Watcher:
    def __init__(self) -> None:
        self.calls = 0

    def leave(self) -> None:
        self.calls += 1


def test_forgotten_watcher_is_not_called() -> None:
    line, first, second = ClientConnection(), Watcher(), Watcher()
    line.watch(first.leave)
    line.watch(second.leave)
    line.forget(first.leave)
    line.forget(first.leave)
    line.lose()
    assert (first.calls, second.calls) == (0, 1)
    line.forget(second.leave)


def test_watcher_added_by_a_callback_is_called() -> None:
    line, calls = ClientConnection(), []
    line.watch(lambda: line.watch(lambda: calls.append("inner")))
    line.lose()
    assert calls == ["inner"]
