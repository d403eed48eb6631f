"""The host of a gateway: it owns the live config, the schedules and the listeners of operators, and runs workers."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any

from gateway.api.admin import build_admin
from gateway.api.admin_control import Control, Review, SimulatorFaults, change_report, fault_report, no_faults
from gateway.api.admin_guard import Guard
from gateway.api.admin_status import problem_counts
from gateway.api.raw_responses import Application
from gateway.assembly.budget_watch import BudgetWatch
from gateway.execution.failure_observations import EVERYBODY, Asker
from gateway.execution.transport import PoolTransport, SimulatorsOnly
from gateway.identity.operator_tokens import OperatorTokens
from gateway.installation import instance_name
from gateway.model.status import Overview, SimulatedSite, Status
from gateway.operator_errors import StateError
from gateway.server.keepers import Keepers
from gateway.server.request_feed import publish_requests
from gateway.server.service_manager import ServiceManager
from gateway.server.store_watch import LOOK_S, StoreWatch
from gateway.server.uvicorn_server import DrainDelay, serving_in_background
from gateway.server.workers import Workers
from gateway.settings import Settings
from gateway.telemetry.exposition import expose
from gateway.telemetry.log import logger
from gateway.telemetry.metric_snapshots import Series, pack
from gateway.telemetry.traffic import SAMPLE_S, TrafficWindow
from providers.value import Value, replace

if TYPE_CHECKING:
    from gateway.changes.stored_clients import ClientDatabase
    from gateway.service.client_admin import ClientAdmin

BuildOperatorConsole = Callable[[Application, Guard, Control], Application]
"""Returns the console over the admin API. The map reads the state of the gateway as the admin API does."""


class ConsoleListener(Value, frozen=True):
    """The listener of the console."""

    listener: socket.socket
    build: BuildOperatorConsole


class Operators(Value, frozen=True):
    """The listeners of operators: the admin listener with its guard, and the console if there is one."""

    admin: socket.socket
    guard: Guard
    console: ConsoleListener | None = None

    def with_tokens(self, clients: ClientDatabase | None, console: ConsoleListener | None = None) -> Operators:
        """Return the listeners with the console, which also accept the stored admin tokens."""
        guard = self.guard
        if clients is not None:
            guard = replace(guard, tokens=clients.tokens)
        return Operators(self.admin, guard, console)


class Host:
    """Runs a gateway until it is stopped, or until it has handed over. See `gateway.api.admin_control.Control`.

    Args:
        keepers: The live config and the schedules.
        operators: The listeners of operators.
        is_replaced: Waits until the next gateway serves (True) or this one has ended, or None if it never hands over.
        faults: The faults of a demo's simulated providers, or None.

    Attributes:
        stopped_at: When the process was asked to stop, as `time.monotonic()`, or None before that.
    """

    def __init__(
        self,
        workers: Workers,
        keepers: Keepers,
        operators: Operators,
        settings: Settings,
        service: ServiceManager | None = None,
        is_replaced: Callable[[asyncio.Task[int]], Awaitable[bool]] | None = None,
        faults: SimulatorFaults | None = None,
    ) -> None:
        self._workers, self._operators = workers, operators
        self._live, self._scheduler = keepers.live, keepers.scheduler
        self._state_dir, self._name = settings.state_dir, settings.instance or socket.gethostname()
        # These operations are those of the workers and of the live config, as they are.
        self.snapshots, self.requests, self.events = workers.snapshots, workers.requests, workers.events.subscribe
        self.reload, self.rollback, self.release = self._live.reload_for_all, self._live.rollback, self._live.release
        self._delay = DrainDelay(settings.drain_delay_s)
        self._service = service or ServiceManager({})
        self._is_replaced, self._faults = is_replaced, faults
        transport = PoolTransport()
        self._tokens = OperatorTokens(
            lambda: keepers.live.config.token_issuers,
            SimulatorsOnly(transport, lambda: self._live.config) if self._live.config.simulated else transport,
            lambda it: logger().warning("client_tokens", detail=it),
            lambda: keepers.live.config.blocked_keys,
        )
        self._loaded = self._live.loaded
        self._budgets = BudgetWatch(settings.state_dir, lambda: keepers.live.config)
        self._stores = StoreWatch(settings.state_dir, keepers, lambda: self._budgets.valkey)
        self._traffic = TrafficWindow()
        self._is_draining = self._is_stopping = self._is_leaving = False
        self.stopped_at: float | None = None
        self._is_listening = asyncio.Event()

    async def run(self, on_started: Callable[[], Coroutine[Any, Any, None]]) -> int:
        """Serve; return the exit status. `on_started` is awaited once all workers accept connections."""
        loop, live = asyncio.get_running_loop(), self._live

        async def started() -> None:
            self._is_listening.set()
            await on_started()

        with suppress(NotImplementedError):
            for number in (signal.SIGINT, signal.SIGTERM):
                # Of two signals that wait, the system delivers the later one first. `_leave` must come before SIGTERM.
                loop.add_signal_handler(number, loop.call_soon, self._on_signal, number)
            loop.add_signal_handler(signal.SIGHUP, self._service.reloading(live.request))
            loop.add_signal_handler(signal.SIGUSR1, self._leave)
        live.on_change = self._note_change
        live.is_draining = lambda: self._is_draining
        live.start(self._workers.activate)
        self._tokens.prepare()
        self._scheduler.start(self._workers.snapshots, live.restage)
        alerting = asyncio.create_task(self._budgets.run())
        works = (
            self._sample(),
            self._watch_stores(),
            self._service.beat(),
            publish_requests(self._workers.events, self.requests),
        )
        background = [alerting, *(asyncio.create_task(work) for work in works)]
        try:
            async with AsyncExitStack() as stack:
                ends = [await stack.enter_async_context(served) for served in self._operator_listeners()]
                serving = asyncio.create_task(self._workers.run(started))
                stack.push_async_callback(_ended, serving)
                if self._is_replaced is not None and await self._is_replaced(serving):
                    alerting.cancel()
                    for end in ends:
                        end()
                    self._note_draining()
                    self._workers.retire()
                return await serving
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await self._scheduler.stop()
            await live.stop()
            await self._tokens.aclose()

    def _operator_listeners(self) -> list[Any]:
        guard, console = self._operators.guard, self._operators.console
        if guard.own:
            self._live.note_own_tokens()
        guard = replace(guard, issued=self._tokens, is_closed=self._live.listener_is_closed)
        guard.note_closed()
        admin = build_admin(self, guard)
        served = [serving_in_background(admin, self._operators.admin)]
        if console is not None:
            served.append(serving_in_background(console.build(admin, guard, self), console.listener))
        return served

    async def _sample(self) -> None:
        while True:
            await self._sampled()
            await asyncio.sleep(SAMPLE_S)

    async def _sampled(self) -> list[bytes]:
        """Count the traffic until now, and return the snapshots."""
        snapshots = await self.snapshots()
        self._traffic.sample(time.monotonic(), snapshots)
        return snapshots

    async def _watch_stores(self) -> None:
        await self._is_listening.wait()
        while True:
            await asyncio.sleep(LOOK_S)
            if self._stores.kinds():
                self._stores.note(self._stores.problems(await self._workers.status()))

    # --- the end ----------------------------------------------------------------------------------

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGTERM and self._is_leaving:
            return
        if number == signal.SIGTERM and self._delay.then(self._stop):
            self.drain()
        elif not self._is_stopping:
            self._stop()
        elif number == signal.SIGINT:
            self._workers.cut()

    def drain(self) -> float:
        self._delay.begin()
        self._note_draining()
        self._workers.drain()
        return self._delay.delay_s

    def _stop(self) -> None:
        self._note_draining()
        self._is_stopping = True
        self.stopped_at = time.monotonic()
        self._workers.stop()

    def _leave(self) -> None:
        """Make way for the next gateway, which the service manager starts when this process has ended."""
        self._is_leaving = self._workers.leave()
        if self._is_leaving:
            # The service manager sends it next. The end of this process waits for nothing.
            asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def _note_draining(self) -> None:
        self._is_draining = True
        self._service.note_stopping()

    # --- what operators see -----------------------------------------------------------------------

    async def status(self, asker: Asker = EVERYBODY) -> Status:
        live, workers = self._live, await self._workers.status(asker)
        return Status(
            live.config,
            live.loaded,
            live.failed,
            live.reloads,
            self._is_draining,
            workers,
            self._workers.wanted,
            self._workers.restarts,
            schedules=self._scheduler.status(),
            schedules_off=self._scheduler.off,
            keeps_history=live.keeps_history,
            file_is_active=live.file_is_active,
            pinned=live.pinned,
            store_problems=self._stores.problems(workers),
            traffic=self._traffic.counts(),
            sign_ins=self._workers.sign_ins(),
            quotas=await self._budgets.quotas(),
            at_s=time.time(),
        )

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        used = {labels: [share] for labels, share in self._budgets.used_shares().items()}
        counted = await self._sampled()
        status = await self.status()
        own: Series = {"gateway_budget_used_ratio": used, **await self._stores.series(status.store_problems)}
        own["gateway_quota_used_ratio"] = {
            (it.name, it.unit, it.window): [int(it.share * 1_000_000)] for it in status.quotas
        }
        if self._live.cell is not None:
            own["gateway_cell_instances"] = {labels: [count] for labels, count in self._live.cell.counts().items()}
        problems = self._live.cell.problems if self._live.cell is not None else ()

        def render() -> tuple[bytes, str]:
            own["gateway_problems"] = {(kind,): [count] for kind, count in problem_counts(status, problems).items()}
            return expose(status, [*counted, pack(own)], accept)

        # This decides for every region and writes much text, which takes too long for the loop.
        return await asyncio.to_thread(render)

    async def overview(self) -> Overview:
        """See Control. The disk and the shared database are read in a thread."""
        await self._sampled()
        identity, waiting = await asyncio.to_thread(self._identity), await self._stores.backlog()
        rows = waiting.rows if waiting is not None else None
        cell = await self._live.cell.state() if self._live.cell is not None else None
        return Overview(self._name, identity, rows, cell, await asyncio.to_thread(self._stores.space))

    def _identity(self) -> str | None:
        if self._state_dir is None:
            return None

        try:
            return instance_name(self._state_dir)
        except StateError:
            return None

    def review(self) -> Review:
        return self._live.review

    # --- what operators do ------------------------------------------------------------------------

    async def resume(self, deployment: str, who: str) -> bool:
        was_out = await self._workers.resume(deployment)
        if was_out:
            logger().info("deployment_resumed", deployment=deployment, operator=who)
        return was_out

    async def stop_schedule(self, assistant: str, region: str, who: str) -> bool:
        return await self._scheduler.stop_schedule(assistant, region, who, self._live.restage)

    def client_admin(self, who: str) -> ClientAdmin | None:
        return self._live.clients.admin(who) if self._live.clients is not None else None

    def _note_change(self) -> None:
        live = self._live
        self._tokens.prepare()
        if live.loaded is not self._loaded:
            self._loaded = live.loaded
            self._tokens.renew()
            self._workers.renew_keys()
        self._service.note_change(live.config.version)
        self._workers.events.publish("config", change_report(live.config.version, live.loaded, live.failed))

    # --- the faults of a demo ---------------------------------------------------------------------

    async def faults(self) -> tuple[SimulatedSite, ...]:
        return self._switch().sites()

    async def set_fault(self, deployment: str, fault: str) -> None:
        self._switch().set(deployment, fault)
        self._publish_faults()

    async def clear_faults(self) -> None:
        self._switch().clear()
        self._publish_faults()

    async def arrived(self, deployment: str) -> str | None:
        return self._switch().arrived(deployment)

    async def clock(self, ahead_s: int | None = None) -> int:
        return self._switch().clock(ahead_s)

    def _switch(self) -> SimulatorFaults:
        if self._faults is None:
            raise no_faults()
        return self._faults

    def _publish_faults(self) -> None:
        self._workers.events.publish("faults", {"sites": [*map(fault_report, self._switch().sites())]})


async def _ended(task: asyncio.Task[int]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
