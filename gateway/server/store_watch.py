"""Watch the stores of an instance for its operators: a log line at the begin and at the end of an outage, and metrics.

`database` and `valkey` are the shared stores. An instance without a shared database has `ledger`, the file of its
state directory. Usage rows wait in the `journal` meanwhile, without which no call is sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.clock_skew import store_skew_problem
from gateway.free_space import FreeSpace, Measure, free_space_of
from gateway.model.status import CLOCK, WorkerStatus
from gateway.operator_errors import StateError
from gateway.server.keepers import Keepers
from gateway.telemetry.log import logger
from gateway.telemetry.metric_snapshots import Series

if TYPE_CHECKING:
    from gateway.usage.gate import RoundTrip
    from gateway.usage.journal_reading import Backlog

LOOK_S = 1.0


@dataclass(eq=False, repr=False)
class StoreWatch:
    """Knows which stores cannot be used, and what waits for them. `valkey` returns its latest round trip."""

    _state_dir: Path | None
    _keepers: Keepers
    _valkey: Callable[[], RoundTrip | None]
    _measure: Measure = free_space_of
    _lost_at: dict[str, float] = field(default_factory=dict)

    def problems(self, workers: Iterable[WorkerStatus]) -> dict[str, str]:
        """Return why stores or their clocks cannot be used now, by kind, as any process of this instance has found."""
        found = {kind: text for worker in workers for kind, text in worker.store_problems.items()}
        cell, ledger = self._keepers.live.cell, self._keepers.ledger
        if cell is not None and cell.database_problem:
            found["database"] = cell.database_problem
        if ledger is not None and ledger.problem is not None:
            own = "ledger" if "ledger" in self.kinds() else "database"
            found["journal" if ledger.is_of_journal else own] = ledger.problem
        trip = self._valkey()
        skews_s = {"database": cell.skew_s if cell else None, "valkey": trip.skew_s if trip else None}
        if (skew := store_skew_problem(skews_s)) is not None:
            found[CLOCK] = skew
        return found

    def kinds(self) -> tuple[str, ...]:
        """Return the kinds of the stores; none without a state directory."""
        stores, ledger = self._keepers.live.config.stores, self._keepers.ledger
        shared = stores.kinds if stores is not None else ()
        if ledger is None:
            return shared
        return (*shared, "journal") if "database" in shared else (*shared, "ledger", "journal")

    def note(self, problems: Mapping[str, str]) -> None:
        """Log each store that has been lost since the last call, or has come back."""
        now_s = time.monotonic()
        for kind in self.kinds():
            if kind in problems and kind not in self._lost_at:
                self._lost_at[kind] = now_s
                logger().error("store_lost", store=kind, detail=problems[kind])
            elif kind not in problems and kind in self._lost_at:
                logger().warning("store_back", store=kind, for_s=round(now_s - self._lost_at.pop(kind), 1))

    def space(self) -> FreeSpace | None:
        """Return the free space of the state directory, or None if there is none or that is not known."""
        return self._measure(self._state_dir) if self._state_dir is not None else None

    async def backlog(self) -> Backlog | None:
        """Return the usage rows that wait, or None if that cannot be read. A thread reads the file."""
        if self._state_dir is None:
            return None
        from gateway.usage.journal_reading import backlog

        try:
            return await asyncio.to_thread(backlog, self._state_dir)
        except StateError:
            return None

    async def series(self, problems: Mapping[str, str]) -> Series:
        """Return the metrics of the stores."""
        cell = self._keepers.live.cell
        trip = self._valkey()
        answers_s = {"database": cell.answer_s if cell else None, "valkey": trip.answer_s if trip else None}
        series: Series = {
            "gateway_store_up": {(kind,): [int(kind not in problems)] for kind in self.kinds()},
            "gateway_store_answer_seconds": {
                (kind,): [round(seconds * 1_000_000)]
                for kind, seconds in answers_s.items()
                if seconds is not None and kind not in problems
            },
        }
        if (space := await asyncio.to_thread(self.space)) is not None:
            series["gateway_state_free_bytes"] = {(): [space.free]}
            series["gateway_state_size_bytes"] = {(): [space.total]}
        if self.kinds() and (waiting := await self.backlog()) is not None:
            age_s = time.time() - waiting.oldest_ns / 1e9 if waiting.oldest_ns is not None else 0.0
            series["gateway_usage_rows_waiting"] = {(): [waiting.rows]}
            series["gateway_usage_oldest_row_seconds"] = {(): [max(0, round(age_s))]}
        return series
