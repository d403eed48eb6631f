"""A request releases all that it holds, at whichever turn of the loop it is cancelled."""

import asyncio
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.model.config_version import ConfigVersion
from tests.kit.virtual_time import TEXT, Act, Client, GatewaySetup, TurningLoop, table_for

PLACES = "{concurrency: {limit: 1, queue: 3, wait: 4s}}"
WELL, FAILS, BREAKS = Act(), Act(503), Act(words=3, end="break")


@dataclass(frozen=True)
class Scene:
    """A route, what its providers do, and which requests come at once (`s`treams and `j`SON)."""

    table: ConfigVersion
    acts: dict[str, list[Act]]
    asked: str
    before: str = ""


def scenes() -> dict[str, Callable[[], Scene]]:
    """Return the factories by scenario name. A factory runs only on demand, because it compiles a table."""
    return {
        "waiting for a place": lambda: Scene(
            table_for("ab", deployment=PLACES), {"a": [Act(piece_s=0.5)], "b": [Act(piece_s=0.7)]}, "jsj"
        ),
        "asked again": lambda: Scene(
            table_for("ab", deployment=PLACES), {"a": [Act(429, retry_after_ms=300), FAILS], "b": [FAILS, WELL]}, "s"
        ),
        "continued": lambda: Scene(
            table_for("abc", "{resume: true}", PLACES), {"a": [BREAKS], "b": [FAILS], "c": [WELL]}, "s"
        ),
        "folded": lambda: Scene(
            table_for("abc", deployment=PLACES),
            {"a": [BREAKS, Act(words=3, end="silent")], "b": [WELL], "c": [WELL]},
            "j",
        ),
        "a probe": lambda: Scene(
            table_for("ab", deployment=PLACES), {"a": [FAILS, FAILS, Act(head_s=0.2)], "b": [WELL]}, "sj", before="j"
        ),
    }


def play(scene: Scene, turn: int | None, how: str, monkeypatch: pytest.MonkeyPatch) -> tuple[bool, dict[str, object]]:
    """Cancel the first request at that turn of the loop; return whether that was possible, and the remaining resources."""
    loop, wrong = TurningLoop(), []
    loop.set_exception_handler(lambda _, context: wrong.append(context))

    async def main() -> dict[str, object]:
        gateway = GatewaySetup(loop, scene.table, {name: [*acts] for name, acts in scene.acts.items()}, monkeypatch)
        for kind in scene.before:
            await Client(gateway, stream=kind == "s").run()
            await asyncio.sleep(2)
        clients = [Client(gateway, stream=kind == "s") for kind in scene.asked]
        tasks = [asyncio.ensure_future(client.run()) for client in clients]
        await asyncio.sleep(0)
        if turn is not None:
            loop.acts[loop.turns + turn] = lambda: give_up(tasks[0], clients[0])
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [client.text for client in clients[turn is not None :]] == [TEXT] * (len(clients) - (turn is not None))
        assert "internal_error" not in {record.outcome for record in gateway.log}
        assert not clients[0].stream or TEXT.startswith(clients[0].text), "nothing is said twice"
        return gateway.left_behind()

    def give_up(task: asyncio.Task[Any], client: Client) -> None:
        if how == "it leaves":
            client.line.lose()
            return
        task.cancel()
        if how == "it is cancelled twice":
            loop.call_soon(task.cancel)

    with closing(loop):
        unreleased = loop.run_until_complete(main())
    assert not wrong
    return not loop.acts, unreleased


@pytest.mark.parametrize("how", ["it leaves", "it is cancelled", "it is cancelled twice"])
@pytest.mark.parametrize("name", scenes())
def test_all_resources_are_released(name: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = scenes()[name]()
    assert play(scene, None, how, monkeypatch) == (True, {})
    turn, goes_on = 1, True
    while goes_on:
        goes_on, unreleased = play(scene, turn, how, monkeypatch)
        assert not unreleased, f"at turn {turn}"
        turn += 1
    assert turn > 15
