"""The part of what the admin listener asks for that one process and a supervisor answer in the same way."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from gateway.api.admin_control import Review
from gateway.changes.live_config import LiveConfig
from gateway.changes.schedules import Scheduler
from gateway.model.status import Overview, Reload, Status, WorkerStatus
from gateway.server.instance import Instance

if TYPE_CHECKING:
    from gateway.service.client_admin import ClientAdmin


class LiveControl(ABC):
    """The state of the live config, and the actions that change it. See `gateway.api.admin_control.Control`."""

    def __init__(self, live: LiveConfig, scheduler: Scheduler, instance: Instance) -> None:
        self._live = live
        self._scheduler = scheduler
        self.instance = instance

    @abstractmethod
    async def snapshots(self) -> list[bytes]:
        """See Control."""

    def status_with(
        self, workers: tuple[WorkerStatus, ...], *, is_draining: bool, wanted: int = 1, restarts: int = 0
    ) -> Status:
        """Return the state of the whole gateway.

        Args:
            workers: The state of each worker.
            is_draining: Whether the gateway is about to end.
            wanted: The number of workers that should run.
            restarts: The number of workers that were started again.
        """
        live = self._live
        return Status(
            live.config,
            live.loaded,
            live.failed,
            live.reloads,
            is_draining,
            workers,
            wanted,
            restarts,
            schedules=self._scheduler.status(),
            schedules_off=self._scheduler.off,
            keeps_history=live.keeps_history,
            file_is_active=live.file_is_active,
            pinned=live.pinned,
            at_s=time.time(),
        )

    async def overview(self) -> Overview:
        """See Control."""
        self.instance.traffic.sample(time.monotonic(), await self.snapshots())
        return await self.instance.overview()

    def review(self) -> Review:
        """See Control."""
        return self._live.review

    async def stop_schedule(self, assistant: str, region: str, who: str) -> bool:
        """See Control."""
        return await self._scheduler.stop_schedule(assistant, region, who, self._live.restage)

    async def reload(self, who: str) -> Reload:
        """See Control."""
        return await self._live.reload_for_all(who)

    async def rollback(self, version: str | None, who: str, signature: str | None) -> Reload:
        """See Control."""
        return await self._live.rollback(version, who, signature)

    async def release(self, who: str, signature: str | None) -> Reload:
        """See Control."""
        return await self._live.release(who, signature)

    def client_admin(self, who: str) -> ClientAdmin | None:
        """See Control."""
        return self._live.clients.admin(who) if self._live.clients is not None else None
