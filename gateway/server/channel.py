"""Calls between the host and a worker process, over a socket pair of their own.

A message is its length in four bytes, and a pickle: the pair has no name, so no other process can write to it. The end
of the stream means that the other process is gone. An answer is a message without a name.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import pickle
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Self

_LENGTH_BYTES = 4
_NO_ANSWER = 0


class Channel:
    """One end of the socket pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}

    @classmethod
    async def over(cls, pair_end: socket.socket) -> Self:
        """Return a channel over this end of a socket pair. Closing the channel closes the socket."""
        return cls(*await asyncio.open_unix_connection(sock=pair_end))

    def tell(self, name: str, *given: object) -> None:
        """Call a function of the other process without an answer. Does nothing if the process is gone."""
        self._send(_NO_ANSWER, name, given)

    def ask(self, name: str, *given: object) -> asyncio.Future[Any]:
        """Call a function of the other process. The result is cancelled if the process ends before its answer."""
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda _: self._asked.pop(number, None))
        self._send(number, name, given)
        return answer

    async def calls(self, functions: Mapping[str, Callable[..., Any]]) -> AsyncIterator[str]:
        """Carry out the calls of the other process in their order, and yield their names, until it is gone."""
        while (message := await self.receive()) is not None:
            number, name, given = message
            if not name:
                if (asked := self._asked.get(number)) is not None and not asked.done():
                    asked.set_result(given)
            else:
                result = functions[name](*given)
                if inspect.isawaitable(result):
                    result = await result
                if number != _NO_ANSWER:
                    self._send(number, "", result)
            yield name
        for asked in (*self._asked.values(),):
            asked.cancel()

    async def receive(self) -> tuple[int, str, Any] | None:
        """Return the next message as it is, or None if the other process is gone."""
        try:
            length = int.from_bytes(await self._reader.readexactly(_LENGTH_BYTES), "big")
            packed = await self._reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError):
            return None
        message: tuple[int, str, Any] = pickle.loads(packed)  # noqa: S301  # written by our own parent or child process
        return message

    def _send(self, number: int, name: str, content: object) -> None:
        if self._writer.is_closing():  # uvloop raises an error for a write
            return
        packed = pickle.dumps((number, name, content), pickle.HIGHEST_PROTOCOL)
        self._writer.write(len(packed).to_bytes(_LENGTH_BYTES, "big") + packed)

    def close(self) -> None:
        """Close this end; the other end reads the end of the stream."""
        self._writer.close()

    async def finish(self, limit_s: float) -> None:
        """Close this end after everything has been sent, or after the time limit."""
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._writer.wait_closed()
