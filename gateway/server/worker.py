"""A worker: the gateway with its HTTP server, as its host asks for it, directly or from another process.

As a process it is started as `python -m gateway.server.worker SEAT INDEX WORKERS LISTENER CHANNEL QUOTAS [LOCK]`: the
index of this worker (0, 1, …), and open file descriptors. A
worker reads no config file: every config version arrives from its host.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from gateway.api.raw_responses import Application
from gateway.assembly.application import Gateway
from gateway.changes.pickling import unpack
from gateway.execution.failure_observations import EVERYBODY, Asker
from gateway.model.config_version import ConfigVersion
from gateway.model.held_token import TokenNote
from gateway.model.status import WorkerStatus
from gateway.server.channel import Channel
from gateway.server.uvicorn_server import GatewayServer, duplicates_of, grace_s_of, run, server_config
from gateway.server.workers import OVERTIME_S, WorkerSettings
from gateway.telemetry.log import configure, logger
from gateway.usage.quota_store import QuotaStore

_FINAL_REPORT_S = 1.0
_LAST_REQUESTS_S = 0.4
_LAST_S = 0.9
"""How long a worker outlives its host. The next process books the calls that it could not book."""


class Worker:
    """One serving process. `lock` is its descriptor of the locked state directory.

    Attributes:
        makes_exchanges: Whether it gets the tokens of sign-ins itself. If not, its host hands them to it.
        is_retired: Whether the next gateway serves, so that this worker may outlive its host.
    """

    is_retired = False

    def __init__(
        self,
        index: int,
        config: ConfigVersion,
        settings: WorkerSettings,
        quotas: QuotaStore,
        lock: int | None = None,
        makes_exchanges: bool = True,
    ) -> None:
        self.gateway = gateway = Gateway.with_receipts(
            settings.state_dir, settings.receipt_key,
            config=config, quota_store=quotas, consent_key=settings.consent_key, most_requests=settings.max_requests,
        )  # fmt: skip
        gateway.makes_exchanges = makes_exchanges
        self._index, self._lock = index, lock
        self._setting_s = settings.grace_s
        self._server = GatewayServer(server_config(gateway), gateway.drain, gateway.cut, self.grace_s)
        self._server.spread_websockets(settings.drain_delay_s)
        watch = self._server.descriptors
        gateway.metrics.live["gateway_no_descriptors_seconds_total"] = lambda: watch.seconds_without
        self.drain, self.stop, self.cut = self._server.drain, self._server.stop, self._server.cut

    def grace_s(self) -> float:
        """Return the seconds in which its running requests may finish."""
        return grace_s_of(self._setting_s, self.gateway.config)

    def serve_application(self, application: Application) -> None:
        """Serve an application that calls the gateway, in place of the gateway itself."""
        self._server.config.app = application

    async def serve(
        self, listeners: Sequence[socket.socket], on_started: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        """Serve until the worker is stopped. `on_started` is awaited once it accepts connections."""
        self._server.on_started = on_started
        try:
            await self._server.serve([*listeners])
        finally:
            self.gateway.flush()

    async def activate(self, packed: bytes) -> str:
        """Use another config version for new requests, and return its name."""
        self.gateway.activate(await asyncio.to_thread(unpack, packed), is_loaded=False)
        return self.gateway.config.version

    def look(self, has_metrics: bool = True, asker: Asker = EVERYBODY) -> tuple[WorkerStatus, bytes]:
        """Return the state of this worker as it concerns an asker, and a snapshot of its metrics."""
        gateway, unavailable = self.gateway, self.gateway.unavailable_deployments(asker)
        state = gateway.config.version, self._server.running, gateway.is_draining, unavailable
        stated, without_room = gateway.quota_state()
        status = WorkerStatus(
            self._index + 1,
            os.getpid(),
            *state,
            store_problems=gateway.store_problems(),
            closed_callers=gateway.closed_callers(),
            vendor_limits=stated,
            without_room=without_room,
            unavailable_to=gateway.unavailable_to_clients(),
            websocket=gateway.websockets.status(),
        )
        return status, gateway.metrics.snapshot() if has_metrics else b""

    def take_token(self, sign_in: str, note: TokenNote) -> None:
        """Take the result of an exchange of a sign-in, by its id. The host has made it."""
        self.gateway.sign_in_tokens.take(sign_in, note)

    def retire(self) -> None:
        """Leave new connections to the next gateway, and end when the own ones have ended."""
        self.is_retired = True
        if self._lock is not None:  # the next gateway has it
            os.close(self._lock)
            self._lock = None
        self._server.retire()


class OwnWorker:
    """The only worker, in the process of its host. See `Workers`."""

    wanted, restarts = 1, 0

    def __init__(self, worker: Worker, listener: socket.socket) -> None:
        self.events, self.sign_ins = worker.gateway.events, worker.gateway.sign_ins
        self._worker = worker
        self._listener = listener
        self.drain, self.stop, self.retire, self.cut = worker.drain, worker.stop, worker.retire, worker.cut

    def leave(self) -> bool:
        """See Workers. The requests run in this process."""
        return False

    async def run(self, on_started: Callable[[], Coroutine[Any, Any, None]]) -> int:
        await self._worker.serve(duplicates_of(self._listener), on_started)
        return 0

    async def activate(self, _: bytes, config: ConfigVersion) -> tuple[int, ...]:
        self._worker.gateway.activate(config, is_loaded=False)
        return ()

    async def status(self, asker: Asker = EVERYBODY) -> tuple[WorkerStatus, ...]:
        return (self._worker.look(False, asker)[0],)

    async def snapshots(self) -> list[bytes]:
        return [self._worker.look()[1]]

    async def requests(self) -> list[dict[str, object]]:
        return self._worker.gateway.recent_requests()

    async def resume(self, deployment: str) -> bool:
        return self._worker.gateway.resume(deployment)

    def renew_keys(self) -> None:
        self._worker.gateway.renew_keys()


def main() -> None:
    """Serve until the host stops this worker."""
    # Only the host reloads, but a service manager may send the signal to every process.
    for number in (signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    index, listening, pair, memory, *lock = map(int, sys.argv[1:])
    quotas = QuotaStore.shared(memory, index)
    run(_work(index, _inherited(listening), _inherited(pair), quotas, lock[0] if lock else None))


def _inherited(descriptor: int) -> socket.socket:
    inherited = socket.socket(fileno=descriptor)
    inherited.set_inheritable(False)
    return inherited


async def _work(
    index: int, listener: socket.socket, pair_end: socket.socket, quotas: QuotaStore, lock: int | None
) -> None:
    channel = await Channel.over(pair_end)
    first = await channel.receive()
    if first is None:
        return
    packed, settings, notes = first[2]
    configure(settings.log_format, settings.log_level)
    worker = Worker(index, unpack(packed), settings, quotas, lock, makes_exchanges=False)
    for sign_in, note in notes.items():
        worker.take_token(sign_in, note)
    worker.gateway.sign_in_tokens.refused = lambda sign_in, secret: channel.tell("note_refused_token", sign_in, secret)
    for number in (signal.SIGTERM, signal.SIGINT):  # a service manager may send them to every process
        asyncio.get_running_loop().add_signal_handler(number, worker.stop)

    async def started() -> None:
        channel.tell("note_ready", worker.gateway.config.version)

    following = asyncio.create_task(_follow(worker, channel))

    def followed(_: object) -> None:
        if not worker.is_retired:
            worker.stop()

    following.add_done_callback(followed)
    await worker.serve([listener], started)
    following.cancel()
    channel.tell("note_look", worker.look())
    await channel.finish(_FINAL_REPORT_S)


async def _follow(worker: Worker, channel: Channel) -> None:
    """Carry out the calls of the host, also while the last requests finish.

    Without the host, this worker gets no further config versions, and the next gateway cannot start before it has
    ended. So it ends within a second, unless it has made way for the next gateway.
    """
    functions = (
        worker.activate,
        worker.look,
        worker.gateway.recent_requests,
        worker.gateway.resume,
        worker.gateway.renew_keys,
        worker.drain,
        worker.stop,
        worker.cut,
        worker.retire,
        worker.take_token,
    )
    async for _ in channel.calls({function.__name__: function for function in functions}):
        pass
    if worker.is_retired:
        last_s = worker.grace_s() + OVERTIME_S
    else:
        detail = f"this worker ends its running requests after {_LAST_REQUESTS_S:g} s, and exits"
        logger().warning("supervisor_gone", pid=os.getpid(), detail=detail)
        asyncio.get_running_loop().call_later(_LAST_REQUESTS_S, worker.cut)
        last_s = _LAST_S
    watchdog = threading.Timer(last_s, os._exit, [1])
    watchdog.daemon = True
    watchdog.start()


if __name__ == "__main__":
    main()
