"""Servers between the gateway and a provider: one that ends TLS, with a private authority."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trustme

from tests.kit.scripted_server import turns


def server_context(certificate: trustme.LeafCert, clients: trustme.CA | None = None) -> ssl.SSLContext:
    """Return the context of a server. `clients`: the authority of the certificates that it requires."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    if clients is not None:
        clients.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def write_client_files(folder: Path, authority: trustme.CA, clients: trustme.CA) -> dict[str, str]:
    """Write `tls` of a deployment into a folder, as a whole or over earlier files, and return it."""
    certificate = clients.issue_cert("gateway.test")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    (folder / "client.pem").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(str(folder / "client.key"))
    return {"ca": "ca.pem", "client_certificate": "client.pem", "client_key": "client.key"}


class TlsFront:
    """A server that ends TLS and passes each connection on. `context` may be replaced while it runs."""

    def __init__(self, to: str, context: ssl.SSLContext) -> None:
        self.port = 0
        self.subjects: list[str] = []
        self._to = int(to.rpartition(":")[2])
        self.context = context
        self._tasks: set[asyncio.Task[None]] = set()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await writer.start_tls(self.context)
            subject = (writer.get_extra_info("peercert") or {}).get("subjectAltName", ())
            self.subjects += [name for _, name in subject]
            await pass_between(reader, writer, self._to)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def stop(self) -> None:
        """Cancel every connection."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await turns()


async def pass_between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """Pass the bytes of a connection on to a port of this machine, and back, until one side ends."""
    from_there, to_there = await asyncio.open_connection("127.0.0.1", port)
    ways = [asyncio.create_task(_pass(reader, to_there)), asyncio.create_task(_pass(from_there, writer))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        to_there.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()


@asynccontextmanager
async def tls_front(to: str, context: ssl.SSLContext) -> AsyncIterator[TlsFront]:
    """Run a TLS server in front of a server of this machine."""
    front = TlsFront(to, context)
    server = await asyncio.start_server(front.take, "127.0.0.1", 0)
    front.port = server.sockets[0].getsockname()[1]
    try:
        yield front
    finally:
        server.close()
        await front.stop()
