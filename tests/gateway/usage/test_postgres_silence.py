"""A database that swallows packets is waited for once, and not by each of its uses anew."""

import asyncio
from contextlib import suppress
from types import SimpleNamespace

import pytest

from gateway.cell import postgres
from gateway.model.budget import StoreServer
from gateway.operator_errors import DatabaseUnreachable


async def test_uses_after_a_connect_without_an_answer_fail_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start has several uses in a row, and a stop too. Each waited 5 s, so a stop took 20 s longer than its grace."""
    monkeypatch.setattr(postgres, "CONNECT_S", 0.05)
    now = [100.0]
    monkeypatch.setattr(postgres, "time", SimpleNamespace(monotonic=lambda: now[0]))
    connected = 0

    served: list[asyncio.Task[object] | None] = []

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connected
        connected += 1
        served.append(asyncio.current_task())
        with suppress(ConnectionError):
            await reader.read()
            writer.close()
            await writer.wait_closed()

    async with await asyncio.start_server(swallow, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        server = StoreServer("database", "127.0.0.1", port, "DE", "gateway", "gateway", uses_tls=False)
        for after_s, connects in ((0, 1), (0.5, 1), (0.4, 1), (0.2, 2), (0, 2)):
            now[0] += after_s
            with pytest.raises(DatabaseUnreachable, match="did not answer in time"):
                await postgres.connect(server)
            assert connected == connects
        await asyncio.gather(*filter(None, served))
