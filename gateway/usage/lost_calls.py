"""Write the rows of calls that a killed process left open, and settle them to their full hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gateway.usage.gate import GateUnavailable, UsageGate
from gateway.usage.spool import Spool, SpoolError
from gateway.usage.usage_row import decode_row


class LostCallRecovery:
    """Recovers the lost calls of a gate. One process does this: the supervisor, or the single process at its start.

    Args:
        gate: Knows the open calls of all processes.
        directory: The state directory, where the rows are written.
        failed: Called with a message if a row can't be written.
    """

    def __init__(self, gate: UsageGate, directory: Path, failed: Callable[[str], None]) -> None:
        self._gate = gate
        self._directory = directory
        self._failed = failed
        self._spool: Spool | None = None

    async def recover(self) -> int:
        """Recover the calls of processes that have ended. Return their number.

        A call whose process wrote the row and ended before it was settled keeps that row: the ledger has one row for
        each call, and inserts recovered rows last.
        """
        try:
            lost = await self._gate.lost_calls()
        except GateUnavailable:
            return 0  # tried again soon
        recovered = 0
        for call in lost:
            if call.row and not self._write(call.row):
                break
            try:
                recovered += await self._gate.settle_lost(call)
            except GateUnavailable:
                break
        return recovered

    def _write(self, encoded: bytes) -> bool:
        try:
            decode_row(encoded)
        except ValueError as error:
            self._failed(f"the row of a lost call can't be read: {error}")
            return True
        try:
            if self._spool is None:
                self._spool = Spool(self._directory, self._failed, recovered=True)
            return self._spool.append(encoded)
        except SpoolError as error:
            self._failed(f"the row of a lost call can't be written: {error}")
            return False

    def close(self) -> None:
        """Close the file of the rows."""
        if self._spool is not None:
            self._spool.close()
            self._spool = None
