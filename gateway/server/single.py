"""Run the gateway as one process: the server, the config watch and the admin listener."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from gateway.api.admin_control import Control, change_report, fault_report, no_faults
from gateway.api.admin_guard import Guard
from gateway.api.raw_responses import Application
from gateway.assembly.application import Gateway
from gateway.assembly.budget_alerts import BudgetWatch
from gateway.changes.live_config import LiveConfig
from gateway.changes.schedules import Scheduler
from gateway.model.config_version import ConfigVersion
from gateway.model.status import SimulatedSite, Status, WorkerStatus
from gateway.server.instance import Instance
from gateway.server.live_control import LiveControl
from gateway.server.operator_listeners import ConsoleListener, operator_listeners
from gateway.server.request_feed import publish_requests
from gateway.server.service_manager import ServiceManager
from gateway.server.uvicorn_server import GatewayServer, duplicates_of, grace_s_of, server_config
from gateway.telemetry.event_feed import Subscription
from gateway.telemetry.exposition import expose
from gateway.telemetry.traffic import SAMPLE_S

if TYPE_CHECKING:
    from gateway.server.handover import Handover

_SEAT = 1


class Faults(Protocol):
    """The switch for the faults of simulated providers."""

    def sites(self) -> tuple[SimulatedSite, ...]:
        """Return every simulated site with its fault."""
        ...

    def set(self, name: str, words: str) -> None:
        """Set the fault of the site of this deployment, or remove it. Raises ApiError."""
        ...

    def clear(self) -> None:
        """Remove all faults."""
        ...


@dataclass(frozen=True, slots=True)
class DemoParts:
    """The parts that only a demo has.

    Attributes:
        faults: The switch for the faults of its simulated providers.
        wrap: Returns the application with the console in front of it. None: there is no console.
    """

    faults: Faults
    wrap: Callable[[Application, Control], Application] | None = None


@dataclass(frozen=True, slots=True)
class Process:
    """One serving process: the application with its live config.

    Attributes:
        grace_s: The setting `GATEWAY_GRACE_S`, or None for its default.
        drain_delay_s: How long connections are accepted after SIGTERM.
        service: The service manager that started the process.
        name: The setting `GATEWAY_INSTANCE`, or None for the name of the host.
        demo: The parts that only a demo has.
        handover: Hands over to the next gateway. None: this process never does.
        console: The listener of the console, or None.
    """

    gateway: Gateway
    live: LiveConfig
    scheduler: Scheduler
    grace_s: float | None
    drain_delay_s: float = 0.0
    service: ServiceManager = field(default_factory=lambda: ServiceManager({}))
    name: str | None = None
    demo: DemoParts | None = None
    handover: Handover | None = None
    console: ConsoleListener | None = None


async def serve_single(
    process: Process,
    listener: socket.socket,
    admin: tuple[socket.socket, Guard],
    on_started: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    """Serve until SIGTERM, SIGINT or a handover. `on_started` is awaited once the server accepts connections."""
    gateway, live, scheduler = process.gateway, process.live, process.scheduler
    control = _Control(process)
    wrap = process.demo.wrap if process.demo is not None else None
    application = wrap(gateway, control) if wrap is not None else gateway
    server = control.server = GatewayServer(
        server_config(application),
        on_started,
        control.note_draining,
        gateway.cut,
        lambda: grace_s_of(process.grace_s, gateway.config),
        process.drain_delay_s,
    )
    live.on_change = control.note_change
    if process.demo is not None:
        live.is_followed = lambda: gateway.events.has_subscribers("config")
    with suppress(NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, process.service.reloading(live.request))
    async with AsyncExitStack() as ending:
        async with (
            operator_listeners(control, admin, process.console),
            _watching(live, gateway, scheduler, process.service),
            _sampling(gateway, control.instance, control.requests),
        ):
            ending.callback(gateway.flush)
            serving = asyncio.create_task(server.serve(duplicates_of(listener)))
            ending.push_async_callback(_end, serving)
            if process.handover is None or not await _is_handed_over(process.handover, serving):
                await serving
            else:
                server.retire()
        await serving


async def _is_handed_over(handover: Handover, serving: asyncio.Task[None]) -> bool:
    """Wait until the next gateway serves, and return true, or until this one has ended."""
    handing = asyncio.create_task(handover.run())
    try:
        await asyncio.wait({handing, serving}, return_when=asyncio.FIRST_COMPLETED)
        if handing.done():
            handing.result()
        return not serving.done()
    finally:
        await _end(handing)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def _watching(live: LiveConfig, gateway: Gateway, scheduler: Scheduler, service: ServiceManager) -> Any:
    async def counts() -> list[bytes]:
        return [gateway.metrics.snapshot()]

    async def activate(_: bytes, config: ConfigVersion) -> tuple[int, ...]:
        gateway.activate(config)
        return ()

    live.is_draining = lambda: gateway.is_draining
    live.start(activate)
    scheduler.start(counts, live.restage)
    budgets = BudgetWatch(gateway.state_dir, lambda: gateway.config)
    gateway.metrics.live_rows["gateway_budget_used_ratio"] = budgets.used_shares
    if live.cell is not None:
        gateway.metrics.live_rows["gateway_cell_instances"] = live.cell.counts
    watching = [asyncio.create_task(budgets.run()), asyncio.create_task(service.beat())]
    try:
        yield
    finally:
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        await scheduler.stop()
        await live.stop()


@asynccontextmanager
async def _sampling(
    gateway: Gateway, instance: Instance, recent: Callable[[], Awaitable[list[dict[str, object]]]]
) -> Any:
    """Count the requests of the last minutes, and publish them to those who watch, while the block runs."""

    async def sample() -> None:
        while True:
            instance.traffic.sample(time.monotonic(), [gateway.metrics.snapshot()])
            await asyncio.sleep(SAMPLE_S)

    tasks = [asyncio.create_task(work) for work in (sample(), publish_requests(gateway.events, recent))]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Control(LiveControl):
    """The state and the actions that the admin listener of a single process offers."""

    def __init__(self, process: Process) -> None:
        instance = Instance(process.name, process.gateway.state_dir, process.live.cell)
        super().__init__(process.live, process.scheduler, instance)
        self._gateway = process.gateway
        self._drain_delay_s = process.drain_delay_s
        self._service = process.service
        self._faults = process.demo.faults if process.demo is not None else None
        self.server: GatewayServer | None = None

    async def status(self) -> Status:
        """See Control."""
        gateway = self._gateway
        running = self.server.running if self.server is not None else 0
        state = gateway.config.version, running, gateway.is_draining, gateway.unavailable_deployments()
        worker = WorkerStatus(_SEAT, os.getpid(), *state, store_problems=gateway.store_problems())
        return self.status_with((worker,), is_draining=gateway.is_draining)

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """See Control."""
        # The snapshot is taken on the event loop. Rendering it takes too long for the loop, so a thread does it.
        return await asyncio.to_thread(expose, await self.status(), [self._gateway.metrics.snapshot()], accept)

    async def snapshots(self) -> list[bytes]:
        """See Control."""
        return [self._gateway.metrics.snapshot()]

    def drain(self) -> float:
        """See Control."""
        if self.server is not None:
            self.server.drain()
        return self._drain_delay_s

    async def requests(self) -> list[dict[str, object]]:
        """See Control."""
        return self._gateway.recent_requests()

    def events(self) -> Subscription:
        """See Control."""
        return self._gateway.events.subscribe()

    def note_draining(self) -> None:
        """Note that the server begins to drain or to stop."""
        self._gateway.drain()
        self._service.note_stopping()

    def note_change(self) -> None:
        """Publish that the config has changed, or that a change was rejected."""
        live = self._live
        self._service.note_change(live.config.version)
        self._gateway.events.publish("config", change_report(live.config.version, live.loaded, live.failed))

    async def faults(self) -> tuple[SimulatedSite, ...]:
        """See Control."""
        return self._switch().sites()

    async def set_fault(self, deployment: str, fault: str) -> None:
        """See Control."""
        self._switch().set(deployment, fault)
        self._publish_faults()

    async def clear_faults(self) -> None:
        """See Control."""
        self._switch().clear()
        self._publish_faults()

    def _switch(self) -> Faults:
        if self._faults is None:
            raise no_faults()
        return self._faults

    def _publish_faults(self) -> None:
        self._gateway.events.publish("faults", {"sites": [*map(fault_report, self._switch().sites())]})
