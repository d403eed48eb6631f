"""One worker of several: serves on a socket that the supervisor bound, until it says stop, or is gone.

Started as `python -m gateway.server.worker LISTENER CHANNEL LEDGER SEAT`: the numbers of three open file descriptors,
and which of the workers this is (0, 1, …). It reads no config: the table comes through the channel, and so does each
one that follows it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

from gateway.assembly.application import Gateway, transport_named
from gateway.assembly.receipts import keeping_in
from gateway.changes.pickling import unpack
from gateway.server.channel import Activate, Activated, Ask, Channel, Ready, Report, Serve, StopWorker
from gateway.server.uvicorn_server import GatewayServer, run, server_config
from gateway.telemetry.log import configure, logger
from gateway.usage.quota_store import QuotaStore

_LAST_WORDS = 0
_LAST_WORDS_S = 1.0


def main() -> None:
    """Serve to the end."""
    # The supervisor alone reloads; a service manager may send the signal to all of us.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    listener, pair_end = (_inherited(int(number)) for number in sys.argv[1:3])
    ledger = QuotaStore.shared(int(sys.argv[3]), int(sys.argv[4]))
    run(_work(listener, pair_end, ledger))


def _inherited(descriptor: int) -> socket.socket:
    inherited = socket.socket(fileno=descriptor)
    inherited.set_inheritable(False)
    return inherited


async def _work(listener: socket.socket, pair_end: socket.socket, ledger: QuotaStore) -> None:
    channel = await Channel.over(pair_end)
    order = await channel.receive()
    if not isinstance(order, Serve):
        return
    configure(order.log_format, order.log_level)
    state_dir = Path(order.state_dir) if order.state_dir is not None else None
    keeping, consent_key = keeping_in(order.state_dir, order.receipt_key), bytes.fromhex(order.consent_key)
    gateway = Gateway(
        unpack(order.table),
        transport_named(order.transport),
        ledger,
        state_dir,
        keeping,
        consent_key=consent_key,
        most_requests=order.max_requests,
    )

    async def started() -> None:
        channel.send(Ready(gateway.table.version))

    server = GatewayServer(server_config(gateway, order.grace_s), started, gateway.drain)
    obeying = asyncio.create_task(_obey(gateway, server, channel))
    # Who can't be told anything any more must not serve on.
    obeying.add_done_callback(lambda _: server.stop())
    try:
        await server.serve([listener])
    finally:
        gateway.flush()
    obeying.cancel()
    # What was counted up to the very end.
    channel.send(_report(gateway, server, _LAST_WORDS, metrics=True))
    await channel.finish(_LAST_WORDS_S)


async def _obey(gateway: Gateway, server: GatewayServer, channel: Channel) -> None:
    """Do what the supervisor says, also while the last requests are being finished."""
    while (message := await channel.receive()) is not None:
        match message:
            case Activate(number, packed):
                table = await asyncio.to_thread(unpack, packed)
                gateway.activate(table)
                channel.send(Activated(number, table.version))
            case Ask(number, metrics):
                channel.send(_report(gateway, server, number, metrics=metrics))
            case StopWorker():
                server.stop()
            case Serve() | Ready() | Activated() | Report():
                raise ValueError(f"a worker is told no {type(message).__name__}")
    logger().warning("supervisor_gone", pid=os.getpid(), detail="this worker finishes what is running, and ends")


def _report(gateway: Gateway, server: GatewayServer, number: int, *, metrics: bool) -> Report:
    counted = gateway.metrics.snapshot() if metrics else b""
    return Report(number, gateway.table.version, server.running, gateway.is_draining, gateway.unwell(), counted)


if __name__ == "__main__":
    main()
