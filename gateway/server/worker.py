"""A worker process: serve on a socket that the supervisor has bound, until the supervisor stops it or is gone.

Started as `python -m gateway.server.worker SEAT INDEX WORKERS LISTENER CHANNEL QUOTAS [LOCK]`: the seat in the shared
memory, the index of this worker (0, 1, …) and the number of workers, and open file descriptors. A worker reads no
config file: every config version arrives through the channel.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from gateway.assembly.application import Gateway, transport_named
from gateway.assembly.receipts import read_receipt_settings
from gateway.changes.pickling import unpack
from gateway.server.channel import (
    Activate,
    Activated,
    Ask,
    AskRequests,
    Channel,
    DrainWorker,
    LastRequests,
    Ready,
    Report,
    RetireWorker,
    Serve,
    StopWorker,
)
from gateway.server.uvicorn_server import GatewayServer, grace_s_of, run, server_config
from gateway.telemetry.log import configure, logger
from gateway.usage.quota_store import QuotaStore

_FINAL_REPORT = 0
_FINAL_REPORT_S = 1.0
_LAST_REQUESTS_S = 0.4
_LAST_S = 0.9
"""How long a worker outlives its supervisor. The next process books the calls that it could not book."""


def main() -> None:
    """Serve until the supervisor stops this worker."""
    # Only the supervisor reloads, but a service manager may send the signal to every process.
    for number in (signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    seat, index, workers, listening, pair, memory, *lock = map(int, sys.argv[1:])
    quotas = QuotaStore.shared(memory, seat, (index, workers))
    run(_work(_inherited(listening), _inherited(pair), quotas, lock))


def _inherited(descriptor: int) -> socket.socket:
    inherited = socket.socket(fileno=descriptor)
    inherited.set_inheritable(False)
    return inherited


async def _work(listener: socket.socket, pair_end: socket.socket, quotas: QuotaStore, lock: list[int]) -> None:
    channel = await Channel.over(pair_end)
    serve = await channel.receive()
    if not isinstance(serve, Serve):
        return
    configure(serve.log_format, serve.log_level)
    state_dir = Path(serve.state_dir) if serve.state_dir is not None else None
    receipt_settings, consent_key = (
        read_receipt_settings(serve.state_dir, serve.receipt_key),
        bytes.fromhex(serve.consent_key),
    )
    gateway = Gateway(
        unpack(serve.packed_config),
        transport_named(serve.transport),
        quotas,
        state_dir,
        receipt_settings,
        consent_key=consent_key,
        most_requests=serve.max_requests,
    )

    async def started() -> None:
        channel.send(Ready(gateway.config.version))

    server = GatewayServer(
        server_config(gateway),
        started,
        gateway.drain,
        gateway.cut,
        lambda: grace_s_of(serve.grace_s, gateway.config),
    )
    receiving = asyncio.create_task(_receive_messages(gateway, server, channel, lock))
    receiving.add_done_callback(lambda _: server.stop())
    try:
        await server.serve([listener])
    finally:
        gateway.flush()
    receiving.cancel()
    # The final counts.
    channel.send(_report(gateway, server, _FINAL_REPORT, metrics=True))
    await channel.finish(_FINAL_REPORT_S)


async def _receive_messages(gateway: Gateway, server: GatewayServer, channel: Channel, lock: list[int]) -> None:
    """Carry out the supervisor's messages, also while the last requests finish.

    Without the supervisor, this worker gets no further config versions, and the next gateway cannot start before it has
    ended. So it ends within a second.
    """
    while (message := await channel.receive()) is not None:
        match message:
            case Activate(number, packed):
                config = await asyncio.to_thread(unpack, packed)
                gateway.activate(config)
                channel.send(Activated(number, config.version))
            case Ask(number, metrics):
                channel.send(_report(gateway, server, number, metrics=metrics))
            case AskRequests(number):
                channel.send(LastRequests(number, json.dumps(gateway.recent_requests()).encode()))
            case DrainWorker():
                server.drain()
            case StopWorker():
                server.stop()
            case RetireWorker():
                while lock:  # the next gateway has it
                    os.close(lock.pop())
                server.retire()
            case Serve() | Ready() | Activated() | Report() | LastRequests():
                raise ValueError(f"unexpected message from the supervisor: {type(message).__name__}")
    detail = f"this worker ends its running requests after {_LAST_REQUESTS_S:g} s, and exits"
    logger().warning("supervisor_gone", pid=os.getpid(), detail=detail)
    asyncio.get_running_loop().call_later(_LAST_REQUESTS_S, server.cut)
    watchdog = threading.Timer(_LAST_S, os._exit, [1])
    watchdog.daemon = True
    watchdog.start()


def _report(gateway: Gateway, server: GatewayServer, number: int, *, metrics: bool) -> Report:
    counted = gateway.metrics.snapshot() if metrics else b""
    state = gateway.config.version, server.running, gateway.is_draining, gateway.unavailable_deployments()
    return Report(number, *state, counted, gateway.store_problems())


if __name__ == "__main__":
    main()
