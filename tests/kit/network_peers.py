"""Servers between the gateway and a provider: one that ends TLS, with a private authority, and an HTTP proxy."""

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes

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


def expired_authority() -> trustme.CA:
    """Return an authority whose own certificate has expired."""
    authority = trustme.CA()
    known, yesterday = authority._certificate, datetime.now(UTC) - timedelta(days=1)
    builder = x509.CertificateBuilder(known.issuer, known.subject, known.public_key(), known.serial_number)
    builder = builder.not_valid_before(yesterday - timedelta(days=1)).not_valid_after(yesterday)
    for extension in known.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    authority._certificate = builder.sign(authority._private_key, hashes.SHA256())
    return authority


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


class ConnectProxy:
    """An HTTP proxy for tunnels on this machine, which records every byte that it reads.

    Attributes:
        credentials: The value of `proxy-authorization` that it requires. Empty: none.
        heads: The heads of the requests for tunnels.
        passed: Everything that clients sent through tunnels.
        reply: Sent in place of opening a tunnel; empty bytes for no answer at all.
        inspecting: The context with which it ends TLS and reads what is sent, as a proxy of a company does.
    """

    def __init__(self, credentials: str = "") -> None:
        self.credentials = credentials
        self.origin = ""
        self.heads: list[bytes] = []
        self.passed = bytearray()
        self.reply: bytes | None = None
        self.inspecting: ssl.SSLContext | None = None
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def open(self) -> int:
        """The number of connections that have not ended."""
        return len(self._tasks)

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            if self.reply is not None:
                writer.write(self.reply)
                if not self.reply:
                    await reader.read()
            elif f"\r\nproxy-authorization: {self.credentials}\r\n".encode() not in head and self.credentials:
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
            else:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await self._pass_on(int(head.split(b" ")[1].rpartition(b":")[2]), reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _pass_on(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.inspecting is not None:
            await writer.drain()
            await writer.start_tls(self.inspecting)
        await pass_between(reader, writer, port, self.passed)

    async def stop(self) -> None:
        """Cancel every connection."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await turns()


@asynccontextmanager
async def connect_proxy(credentials: str = "", tls: ssl.SSLContext | None = None) -> AsyncIterator[ConnectProxy]:
    """Run a proxy. `tls`: the context of an https:// proxy."""
    proxy = ConnectProxy(credentials)
    server = await asyncio.start_server(proxy.take, "127.0.0.1", 0, ssl=tls)
    proxy.origin = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.stop()


@contextmanager
def proxy_thread() -> Iterator[ConnectProxy]:
    """Run a proxy in a thread with a loop of its own, for tests without one."""
    loop, ready, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    running: list[ConnectProxy] = []

    async def serve() -> None:
        async with connect_proxy() as proxy:
            running.append(proxy)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        yield running[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


async def pass_between(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, record: bytearray | None = None
) -> None:
    """Pass the bytes of a connection on to a port of this machine, and back, until one side ends.

    `record` gets the bytes of the client.
    """
    from_there, to_there = await asyncio.open_connection("127.0.0.1", port)
    ways = [asyncio.create_task(_pass(reader, to_there, record)), asyncio.create_task(_pass(from_there, writer))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        to_there.close()  # before the wait, which the end of a test may cancel
        await asyncio.gather(*ways, return_exceptions=True)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: bytearray | None = None) -> None:
    while data := await reader.read(65_536):
        if record is not None:
            record += data
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
