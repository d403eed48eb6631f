"""A client's end of a connection in memory, for tests of the server's protocol without a socket."""

import asyncio
from typing import Any

__all__ = ["Wire"]


class Wire(asyncio.Transport):
    """A transport that accepts every write until it is closed.

    Attributes:
        written: The bytes that were written to it.
        closed: Whether it was closed.
    """

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 50000), "sockname": ("127.0.0.1", 1)})
        self.written = bytearray()
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass
