"""Collect finished requests for a moment, and report them to logs, metrics and traces together.

Processing many records in a row costs half as much as processing each between two requests, whose code and data evict
it from the processor's caches. A batch is processed after 50 ms, at 64 records, before metrics are read, and when the
server ends. Only a kill loses records.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from gateway.model.record import Record

_WAIT_S = 0.05
_MOST = 64
Ended = tuple[Record, float]
"""A finished request, and its end (Unix time)."""


class Batcher:
    """Passes each record once to `process`, in batches. Outside an event loop it does so at once."""

    def __init__(self, process: Callable[[Sequence[Ended]], None], clock: Callable[[], float] = time.time) -> None:
        self._process = process
        self._clock = clock
        self._ended: list[Ended] = []

    def add(self, record: Record) -> None:
        """Add the record of a finished request. It must not change any more."""
        ended = self._ended
        ended.append((record, self._clock()))
        if len(ended) == 1:
            try:
                asyncio.get_running_loop().call_later(_WAIT_S, self.flush)
            except RuntimeError:
                self.flush()
        elif len(ended) >= _MOST:
            self.flush()

    def flush(self) -> None:
        """Process the collected records now."""
        if self._ended:
            ended, self._ended = self._ended, []
            self._process(ended)
