"""A socket to the first of several addresses that takes it, families raced (RFC 8305), or why none does."""

from __future__ import annotations

import asyncio
import errno
import socket

import aiohappyeyeballs

from providers.transport.names import Addresses

__all__ = ["first_socket"]

_DELAY_S = 0.25
_NO_WAY = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EAFNOSUPPORT})


async def first_socket(addresses: Addresses) -> socket.socket:
    """Raises OSError, RuntimeError (uvloop) or ValueError."""
    tries = _Tries(asyncio.get_running_loop())
    try:
        return await aiohappyeyeballs.start_connection(
            addresses,
            happy_eyeballs_delay=_DELAY_S,
            loop=tries,  # type: ignore[arg-type]  # it connects sockets, and is asked for nothing else
        )
    except (OSError, RuntimeError) as error:
        reason = min(tries.errors or [error], key=_rank)
    # Not as caused by the one made of all: whose fault it is would be read from that, too.
    raise reason


class _Tries:
    """The loop, remembering what went wrong at each address: of several errors start_connection makes one of none."""

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
    """How little it tells. Who refuses was reached; where there is no way, most machines merely lack IPv6."""
    if isinstance(error, ConnectionError):
        return 0
    return 2 if isinstance(error, OSError) and error.errno in _NO_WAY else 1
