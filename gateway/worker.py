"""One worker of several: serves on a socket that the supervisor bound, until it says stop, or is gone.

Started as `python -m gateway.worker LISTENER CHANNEL LEDGER SEAT`: the numbers of three open file descriptors, and
which of the workers this is (0, 1, …). It reads no config: the table comes through the channel.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys

from gateway.api.ledger import Ledger
from gateway.app import Gateway, transport_named
from gateway.channel import Channel, Ready, Serve, unpack
from gateway.serve import GatewayServer, run, server_config
from gateway.telemetry.log import configure, logger
from gateway.telemetry.whole_lines import whole_lines

__all__ = ["main"]


def main() -> None:
    """Serve to the end."""
    listener, pair_end = (_inherited(int(number)) for number in sys.argv[1:3])
    ledger = Ledger.shared(int(sys.argv[3]), int(sys.argv[4]))
    run(_work(listener, pair_end, ledger))


def _inherited(descriptor: int) -> socket.socket:
    inherited = socket.socket(fileno=descriptor)
    inherited.set_inheritable(False)
    return inherited


async def _work(listener: socket.socket, pair_end: socket.socket, ledger: Ledger) -> None:
    channel = await Channel.over(pair_end)
    order = await channel.receive()
    if not isinstance(order, Serve):
        return
    configure(order.log_format, order.log_level, whole_lines(sys.stderr.fileno()))
    application = Gateway(unpack(order.table), transport_named(order.transport), ledger)

    async def started() -> None:
        channel.send(Ready())

    server = GatewayServer(server_config(application, order.grace_s), started)
    listening = asyncio.create_task(_stop_when_told(server, channel))
    await server.serve([listener])
    listening.cancel()
    channel.close()


async def _stop_when_told(server: GatewayServer, channel: Channel) -> None:
    message = await channel.receive()
    server.should_exit = True
    if message is None:
        logger().warning("supervisor_gone", pid=os.getpid(), detail="this worker finishes what is running, and ends")


if __name__ == "__main__":
    main()
