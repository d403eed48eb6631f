"""A gateway that may open no more files blames no provider for it."""

import subprocess
import sys

SCRIPT = """
import asyncio, resource, socket
from gateway.execution.upstream_request import upstream_request
from gateway.execution.transport import PoolTransport
from gateway.model.permit import ServicePermit
from providers.adapter import WireRequest
from providers.failures import ProviderFailed


async def ask(transport, host):
    origin = f"http://{host}:1"
    try:
        await transport.send(upstream_request(ServicePermit(origin), WireRequest("GET", "/", (), b""), 5.0))
    except ProviderFailed as error:
        print(error.failure.kind)


async def main():
    # What is done for the first time opens files of its own.
    transport = PoolTransport()
    await ask(transport, "localhost")
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    taken = []
    try:
        while True:
            taken.append(socket.socket())
    except OSError:
        pass
    for host in ("localhost", "127.0.0.1"):
        await ask(transport, host)


asyncio.run(main())
"""


def test_transport_does_not_take_it_for_a_provider_that_is_down() -> None:
    """By name too, which is looked up with a file."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["connect"] + ["overloaded"] * 2, done.stderr
