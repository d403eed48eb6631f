"""The addresses that a name stands for: asked anew each time, each name in a thread of its own.

The loops have few threads for all names, uvloop no more than two, and it has addresses looked up there, too. Where the
servers of two names are silent, for half a minute each, nobody could be connected to.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress

import aiohappyeyeballs

from providers.transport.errors import ConnectFailed

__all__ = ["Addresses", "Names"]

Addresses = Sequence[aiohappyeyeballs.AddrInfoType]
_Answer = asyncio.Future[Addresses]


class Names:
    """The names that are being looked up, for one event loop. Who asks for one of them waits for the same answer."""

    def __init__(self) -> None:
        self._asked: dict[tuple[str, int], _Answer] = {}

    async def addresses(self, host: str, port: int) -> Addresses:
        """Raises OSError, ValueError for what can't be a name, or ConnectFailed where nobody can be asked. No end of a
        caller's is that of the look-up."""
        with suppress(socket.gaierror):
            # An address stands for itself, and nobody is asked.
            return _look_up(host, port, socket.AI_NUMERICHOST)
        answer = self._asked.get((host, port))
        if answer is None:
            answer = self._ask(host, port)
        # It goes on where who asks is cancelled, as with `shield`, which from Python 3.14 on reports its failure then.
        await asyncio.wait((answer,))
        return answer.result()

    def _ask(self, host: str, port: int) -> _Answer:
        loop = asyncio.get_running_loop()
        answer: _Answer = loop.create_future()

        def tell(found: Addresses, error: Exception | None) -> None:
            del self._asked[host, port]
            if error is None:
                answer.set_result(found)
            else:
                answer.set_exception(error)
                # All who asked may have given up.
                answer.exception()

        def work() -> None:
            found: Addresses = ()
            error = None
            try:
                found = _look_up(host, port)
            except Exception as raised:
                error = raised
            with suppress(RuntimeError):  # the loop is closed, and nobody waits
                loop.call_soon_threadsafe(tell, found, error)

        try:
            # Nothing waits for it at the process's end.
            threading.Thread(target=work, name="name", daemon=True).start()
        except RuntimeError as error:
            # The system has its reasons (a bound of processes, memory), of which Python tells none.
            raise ConnectFailed("no thread can be started to look the name up", is_ours=True) from error
        self._asked[host, port] = answer
        return answer


def _look_up(host: str, port: int, flags: int = 0) -> Addresses:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=flags)
