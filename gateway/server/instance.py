"""The facts of this instance for its status: its name, its id, its traffic and the rows that wait."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.model.status import Overview
from gateway.operator_errors import StateError
from gateway.telemetry.traffic import TrafficWindow

if TYPE_CHECKING:
    from gateway.changes.cell import CellMember


class Instance:
    """The facts of this instance that the status document has.

    Args:
        name: The setting `GATEWAY_INSTANCE`, or None.
        state_dir: The state directory, or None.
        cell: This instance as a member of its cell, or None.
    """

    def __init__(self, name: str | None, state_dir: Path | None, cell: CellMember | None = None) -> None:
        self.traffic = TrafficWindow()
        self._name = name or socket.gethostname()
        self._state_dir = state_dir
        self._cell = cell

    async def overview(self) -> Overview:
        """Return the facts now. The disk and the shared database are read in a thread."""
        counts = self.traffic.counts()
        identity, rows = await asyncio.to_thread(self._of_state_dir)
        cell = await asyncio.to_thread(self._cell.state) if self._cell is not None else None
        return Overview(self._name, identity, counts, rows, cell)

    def _of_state_dir(self) -> tuple[str | None, int | None]:
        if self._state_dir is None:
            return None, None
        from gateway.usage.installation import instance_name
        from gateway.usage.reports import UsageReader

        try:
            identity = instance_name(self._state_dir)
            if self._cell is not None:
                return identity, self._cell.rows_waiting()
            with UsageReader(self._state_dir) as reader:
                return identity, reader.waiting_rows
        except StateError:
            return None, None
