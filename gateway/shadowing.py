"""Assembly of shadow traffic: who calls, who counts, and where what comes of it is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.execution.attempt import Caller
from gateway.execution.health import Health
from gateway.execution.load import Load
from gateway.execution.send import Sender
from gateway.model.shadow import ShadowRecord
from gateway.model.table import Table
from gateway.service.shadows import Shadows
from gateway.state.errors import StateError
from gateway.telemetry.log import logger
from gateway.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from gateway.state.shadows import ShadowStore

__all__ = ["Shadowing"]


class Shadowing:
    """shadows: those of this process; None without a state directory."""

    def __init__(
        self,
        current: Callable[[], Table],
        sender: Sender,
        health: Health,
        load: Load,
        metrics: Metrics,
        state_dir: Path | None,
    ) -> None:
        self._store: ShadowStore | None = None
        self._is_lost = False
        self.shadows: Shadows | None = None
        if state_dir is not None:
            from gateway.state.shadows import ShadowStore

            self._store = ShadowStore(state_dir)
            count = partial(metrics.count, "gateway_shadow_requests_total")
            took = partial(metrics.time, "gateway_shadow_answer_seconds")
            keep = partial(self._keep, self._store)
            self.shadows = Shadows(current, Caller(sender), health, keep, count, took, load)

    async def _keep(self, store: ShadowStore, record: ShadowRecord) -> None:
        try:
            await asyncio.to_thread(store.keep, record)
        except StateError as error:
            if not self._is_lost:
                logger().error("shadow_not_kept", detail=f"{error}; the metrics go on")
            self._is_lost = True
        else:
            self._is_lost = False

    async def aclose(self) -> None:
        """Give up what runs, and let go of the file."""
        if self.shadows is not None and self._store is not None:
            await self.shadows.aclose()
            self._store.close()
