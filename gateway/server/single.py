"""Run the gateway as one process: the server, the config watch and the admin listener."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from gateway.api.admin import build_admin
from gateway.api.admin_control import Guard
from gateway.assembly.application import Gateway
from gateway.assembly.budget_alerts import BudgetWatch
from gateway.changes.live_config import LiveConfig
from gateway.changes.schedules import Scheduler
from gateway.model.config_version import ConfigVersion
from gateway.model.status import Reload, Status, WorkerStatus
from gateway.server.uvicorn_server import GatewayServer, duplicates_of, server_config, serving_in_background
from gateway.telemetry.exposition import expose

if TYPE_CHECKING:
    from gateway.service.client_admin import ClientAdmin

_SEAT = 1


async def serve_single(
    gateway: Gateway,
    listener: socket.socket,
    grace_s: float,
    live: LiveConfig,
    admin: tuple[socket.socket, Guard],
    on_started: Callable[[], Coroutine[Any, Any, None]],
    scheduler: Scheduler | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT. `on_started` is awaited once the server accepts connections."""
    server = GatewayServer(server_config(gateway, grace_s), on_started, gateway.drain)
    admin_listener, guard = admin
    scheduler = scheduler or Scheduler()
    control = _Control(gateway, server, live, scheduler)
    with suppress(NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, live.request)
    async with serving_in_background(build_admin(control, guard), admin_listener), _watching(live, gateway, scheduler):
        try:
            await server.serve(duplicates_of(listener))
        finally:
            gateway.flush()


@asynccontextmanager
async def _watching(live: LiveConfig, gateway: Gateway, scheduler: Scheduler) -> Any:
    async def counts() -> list[bytes]:
        return [gateway.metrics.snapshot()]

    async def activate(_: bytes, config: ConfigVersion) -> tuple[int, ...]:
        gateway.activate(config)
        return ()

    live.start(activate)
    scheduler.start(counts, live.restage)
    budgets = BudgetWatch(gateway.state_dir, lambda: gateway.config)
    gateway.metrics.live_rows["gateway_budget_used_ratio"] = budgets.used_shares
    watching = asyncio.create_task(budgets.run())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await scheduler.stop()
        await live.stop()


class _Control:
    """The state and the actions that the admin listener of a single process offers."""

    def __init__(self, gateway: Gateway, server: GatewayServer, live: LiveConfig, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._gateway = gateway
        self._server = server
        self._live = live

    async def status(self) -> Status:
        """See `gateway.api.admin_control.Control`."""
        gateway, live = self._gateway, self._live
        state = gateway.config.version, self._server.running, gateway.is_draining, gateway.unavailable_deployments()
        worker = WorkerStatus(_SEAT, os.getpid(), *state)
        return Status(
            live.config,
            live.loaded,
            live.failed,
            live.reloads,
            gateway.is_draining,
            (worker,),
            schedules=self._scheduler.status(),
            schedules_off=self._scheduler.off,
            keeps_history=live.keeps_history,
            file_is_active=live.file_is_active,
            pinned=live.pinned,
            at_s=time.time(),
        )

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """See `gateway.api.admin_control.Control`."""
        # The snapshot is taken on the event loop. Rendering it takes too long for the loop, so a thread does it.
        return await asyncio.to_thread(expose, await self.status(), [self._gateway.metrics.snapshot()], accept)

    async def reload(self, who: str) -> Reload:
        """See `gateway.api.admin_control.Control`."""
        return await self._live.reload("admin", who)

    async def rollback(self, version: str | None, who: str, signature: str | None) -> Reload:
        """See `gateway.api.admin_control.Control`."""
        return await self._live.rollback(version, who, signature)

    async def release(self, who: str, signature: str | None) -> Reload:
        """See `gateway.api.admin_control.Control`."""
        return await self._live.release(who, signature)

    def client_admin(self, who: str) -> ClientAdmin | None:
        """See `gateway.api.admin_control.Control`."""
        return self._live.clients.admin(who) if self._live.clients is not None else None
