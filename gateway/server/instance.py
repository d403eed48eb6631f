"""The facts of this instance for its status: its name, its id, its traffic and the rows that wait."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from gateway.model.config_version import ConfigVersion
from gateway.model.status import Overview
from gateway.operator_errors import StateError
from gateway.telemetry.traffic import TrafficWindow


class Instance:
    """The facts of this instance that the status document has.

    Args:
        name: The setting `GATEWAY_INSTANCE`, or None.
        state_dir: The state directory, or None.
    """

    def __init__(self, name: str | None, state_dir: Path | None) -> None:
        self.traffic = TrafficWindow()
        self._name = name or socket.gethostname()
        self._state_dir = state_dir

    async def overview(self, config: ConfigVersion) -> Overview:
        """Return the facts now. The disk is read in a thread."""
        counts = self.traffic.counts()
        identity, rows = await asyncio.to_thread(self._of_state_dir, config)
        return Overview(self._name, identity, counts, rows)

    def _of_state_dir(self, config: ConfigVersion) -> tuple[str | None, int | None]:
        if self._state_dir is None:
            return None, None
        from gateway.usage.installation import instance_name
        from gateway.usage.reports import UsageReader

        try:
            identity = instance_name(self._state_dir)
            if config.stores is not None and config.stores.database is not None:
                return identity, None  # the positions of the spools are in PostgreSQL
            with UsageReader(self._state_dir) as reader:
                return identity, reader.waiting_rows
        except StateError:
            return None, None
