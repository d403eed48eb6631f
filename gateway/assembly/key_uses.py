"""Record when API keys were used last, to the minute, in the database of clients."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.model.config_version import ConfigVersion
from gateway.operator_errors import StateError
from gateway.telemetry.batching import Ended
from gateway.telemetry.log import logger

if TYPE_CHECKING:
    from gateway.state.client_store import ClientStore

_INTERVAL_S = 60.0
"""A key that is used all the time is written once in this time."""


class KeyUses:
    """The keys that this process has seen, and when. A thread writes each at most once a minute."""

    def __init__(self, directory: Path, current: Callable[[], ConfigVersion]) -> None:
        self._directory = directory
        self._current = current
        self._written_at_s: dict[str, float] = {}
        self._waiting: dict[str, float] = {}
        self._store: ClientStore | None = None
        self._writing: asyncio.Future[None] | None = None
        self._one_at_a_time = threading.Lock()
        self._is_lost = False

    def note(self, ended: Sequence[Ended]) -> None:
        """Note the keys of finished requests."""
        for record, at_s in ended:
            if record.key_id and at_s - self._written_at_s.get(record.key_id, 0.0) >= _INTERVAL_S:
                self._written_at_s[record.key_id] = at_s
                self._waiting[record.key_id] = at_s
        if self._waiting and (self._writing is None or self._writing.done()):
            try:
                self._writing = asyncio.get_running_loop().run_in_executor(None, self.write)
            except RuntimeError:
                self.write()

    def write(self) -> None:
        """Write the uses that wait."""
        # Not imported at the top: a gateway without clients needs neither.
        from gateway.installation import client_store
        from gateway.state.client_store import has_clients

        with self._one_at_a_time:
            waiting, self._waiting = self._waiting, {}
            if not waiting or not has_clients(self._directory):
                return
            try:
                config = self._current()
                self._store = self._store or client_store(config, self._directory)
                if config.clients_source == "database":
                    self._store.note_uses(waiting)
                elif of_file := {name: at_s for name, at_s in waiting.items() if name in config.clients}:
                    self._store.note_file_uses(of_file)
            except StateError as error:
                # They are written after the next request.
                self._waiting = waiting | self._waiting
                if not self._is_lost:
                    logger().warning("key_uses_not_kept", detail=str(error))
                self._is_lost = True
            else:
                self._is_lost = False

    async def aclose(self) -> None:
        """Write the uses that wait, and close the database."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
        await asyncio.to_thread(self.write)
        if self._store is not None:
            self._store.close()
            self._store = None
