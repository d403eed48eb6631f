"""Connect to a host: resolve its name, and race its addresses (RFC 8305).

A name is resolved again for each connection, in a thread of its own. The loops have few threads for all names (uvloop
has two): if the DNS servers of two names were silent, each for half a minute, no other host could be connected to.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address, ip_network

import aiohappyeyeballs

from providers.transport.errors import ConnectFailed

Addresses = Sequence[aiohappyeyeballs.AddrInfoType]
_Answer = asyncio.Future[Addresses]
_DELAY_S = 0.25
_METADATA_OF_AWS = ip_network("fd00:ec2::/32")
_NO_WAY = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EAFNOSUPPORT})


class Names:
    """Resolves names for one event loop. Concurrent look-ups of one name share an answer."""

    def __init__(self) -> None:
        self._asked: dict[tuple[str, int], _Answer] = {}

    async def addresses(self, host: str, port: int) -> Addresses:
        """Return the addresses of a name. A caller that is cancelled does not end the look-up.

        Raises OSError if it cannot be resolved, ValueError for another text, and ConnectFailed without a look-up.
        """
        with suppress(socket.gaierror):
            # An address needs no look-up.
            return _look_up(host, port, socket.AI_NUMERICHOST)
        answer = self._asked.get((host, port))
        if answer is None:
            answer = self._ask(host, port)
        # The look-up goes on if a caller is cancelled. (`shield` would report its failure then, from Python 3.14 on.)
        await asyncio.wait((answer,))
        return answer.result()

    def _ask(self, host: str, port: int) -> _Answer:
        loop = asyncio.get_running_loop()
        answer: _Answer = loop.create_future()

        def deliver(addresses: Addresses, error: Exception | None) -> None:
            del self._asked[host, port]
            if error is None:
                answer.set_result(addresses)
            else:
                answer.set_exception(error)
                # All callers may have been cancelled.
                answer.exception()

        def work() -> None:
            addresses: Addresses = ()
            error = None
            try:
                addresses = _look_up(host, port)
            except Exception as raised:
                error = raised
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(deliver, addresses, error)

        try:
            # A daemon: the process's end does not wait for it.
            threading.Thread(target=work, name="name", daemon=True).start()
        except RuntimeError as error:
            # The system refuses (limit of threads, memory); Python does not report why.
            raise ConnectFailed("no thread can be started to look the name up", is_ours=True) from error
        self._asked[host, port] = answer
        return answer


def _look_up(host: str, port: int, flags: int = 0) -> Addresses:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=flags)


def check_remote(addresses: Addresses) -> None:
    """Raise ConnectFailed if an address is one of this machine or of its link, such as that of a metadata server."""
    for *_, address in addresses:
        ip = ip_address(str(address[0]).partition("%")[0])
        ip = getattr(ip, "ipv4_mapped", None) or ip
        if ip in _METADATA_OF_AWS or ip.is_loopback or ip.is_link_local or ip.is_unspecified:
            raise ConnectFailed("its name has an address of this machine or of its link", is_refused=True)


async def first_socket(addresses: Addresses) -> socket.socket:
    """Return a socket that is connected to the first address that accepts.

    If none accepts, the most specific of OSError, RuntimeError (uvloop's) and ValueError is raised.
    """
    tries = _Tries(asyncio.get_running_loop())
    try:
        return await aiohappyeyeballs.start_connection(
            addresses,
            happy_eyeballs_delay=_DELAY_S,
            loop=tries,  # type: ignore[arg-type]  # it connects sockets, and is asked for nothing else
        )
    except (OSError, RuntimeError) as error:
        reason = min(tries.errors or [error], key=_rank)
    # Raised outside the handler, so that its context is not the combined error, from which `lacks_room` would read,
    # too.
    raise reason


class _Tries:
    """The loop with a record of each address's error. start_connection combines them into one without a number."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.errors: list[Exception] = []

    async def sock_connect(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """See asyncio's loops."""
        try:
            await self._loop.sock_connect(sock, address)
        except (OSError, RuntimeError) as error:
            self.errors.append(error)
            raise


def _rank(error: Exception) -> int:
    """Rank an error, most specific first. A refusal means the host was reached; no route often just means no IPv6."""
    if isinstance(error, ConnectionError):
        return 0
    return 2 if isinstance(error, OSError) and error.errno in _NO_WAY else 1
