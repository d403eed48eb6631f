"""A gateway that runs as it is configured, and a client that is connected to it."""

from collections.abc import AsyncIterator

import pytest

from tests.gateway.api.websocket.websocket_gateway import Connection, Running, serving


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with serving() as found:
        yield found


@pytest.fixture
async def socket(running: Running) -> Connection:
    return await running.connect()
