"""The commands that an instance gives and follows, against a table of commands in memory."""

import asyncio
from pathlib import Path
from typing import cast
from unittest.mock import MagicMock

from gateway.cell.cell_database import CellCommand, CellDatabase
from gateway.cell.kept_commands import KeptCommands
from gateway.changes.cell import CellMember
from gateway.model.budget import StoreServer
from tests.kit.waiting import eventually


class Table:
    """The commands of a cell, as one of its instances sees them."""

    owner, connections = "a/1", 0

    def __init__(self) -> None:
        self.rows = [CellCommand(1, "rollback", "v2", "bob", "", "b/1", 1000.0)]
        self.looks = 0

    def now_s(self) -> float:
        return 1001.0

    def last_commands(self) -> tuple[int, CellCommand]:
        self.looks += 1
        return len(self.rows), self.rows[-1]

    def add_command(self, command: CellCommand) -> None:
        self.rows.append(command)


class Live:
    """An instance whose operator rolls back to `v1`."""

    pinned = ""
    config = loaded = MagicMock()

    async def roll_back_here(self, version: str, who: str, signature: str | None) -> MagicMock:
        self.pinned = version
        return MagicMock(activated=True)


async def test_pin_of_the_cell_does_not_come_between_a_rollback_and_its_sharing(tmp_path: Path) -> None:
    table, live = Table(), Live()
    member = CellMember(StoreServer("database", "host", 1, "DE"), MagicMock(), tmp_path, "a")
    member.database = cast(CellDatabase, table)
    member._commands = KeptCommands(tmp_path, member.database)
    member.ship = member.fetch_version = member._sign = MagicMock()  # type: ignore[method-assign]
    async with member.one_command:
        live.pinned = "v1"
        member.start(live, lambda: False)  # type: ignore[arg-type]
        await asyncio.to_thread(eventually, lambda: member._sign.called)  # type: ignore[attr-defined]
        await asyncio.sleep(0.05)  # it would follow now
        assert await member.share("rollback", "v1", "ada", None) == "cell"
    looks = table.looks
    await asyncio.to_thread(eventually, lambda: table.looks > looks + 1)
    assert (live.pinned, table.rows[-1].version) == ("v1", "v1")
    await member.stop()
