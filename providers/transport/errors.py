"""What can go wrong on a connection.

TransportError
├── ConnectFailed       DNS, TCP or TLS: nothing was sent
├── ConnectionBroken    the connection ended before the response did
├── BadResponse         what came is not HTTP/1.1, or not within bounds
│   └── TooLarge        it decompresses to more than is taken
└── NotAllowed          the origin may not be connected to; nothing was looked up, let alone sent
"""

from __future__ import annotations

import errno
import socket
import ssl

__all__ = [
    "BadResponse",
    "ConnectFailed",
    "ConnectionBroken",
    "NotAllowed",
    "TooLarge",
    "TransportError",
    "lacks_room",
]

_NO_MORE_FILES = frozenset({errno.EMFILE, errno.ENFILE})
# A connection takes a port of this machine, and memory of its system.
_NO_ROOM = _NO_MORE_FILES | {errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM}


class TransportError(Exception):
    """Root of everything that the transport raises on purpose."""


class ConnectFailed(TransportError):
    """No connection: the name doesn't resolve, nobody listens, TLS fails, or it took too long (`timed_out`).

    is_ours: this process or its machine has no room for more of them, and nobody who is called is to blame.
    """

    def __init__(self, message: str, *, timed_out: bool = False, is_ours: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out
        self.is_ours = is_ours


class ConnectionBroken(TransportError):
    """The connection ended early. `answered` says whether any byte of a response had come."""

    def __init__(self, message: str, *, answered: bool) -> None:
        super().__init__(message)
        self.answered = answered


class BadResponse(TransportError):
    """The bytes are no HTTP/1.1 response, or break a bound."""


class TooLarge(BadResponse):
    """A small body that stands for a very large one."""


class NotAllowed(TransportError):
    """The one who decides said no."""


def lacks_room(error: BaseException) -> bool:
    """Whether no connection was made because this machine has no more files, ports or memory for one.

    A look-up of a name that finds no file says something else, and not the same on each system: then it is tried.
    """
    cause: BaseException | None = error
    is_unclear, seen = False, list[BaseException]()
    # Who raises an error anew from what wrapped it makes a ring of them.
    while cause is not None and cause not in seen:
        seen.append(cause)
        if isinstance(cause, ExceptionGroup):  # of a name with several addresses, each was tried
            was_reached = any(isinstance(each, ConnectionError) for each in cause.exceptions)
            return not was_reached and any(map(lacks_room, cause.exceptions))
        if isinstance(cause, OSError):
            if cause.errno in _NO_ROOM:
                return True
            # Who refuses, or fails at TLS, was reached.
            is_unclear = not isinstance(cause, ConnectionError | TimeoutError | ssl.SSLError)
        cause = cause.__cause__ or cause.__context__
    return is_unclear and _finds_none()


def _finds_none() -> bool:
    try:
        socket.socket().close()
    except OSError as error:
        return error.errno in _NO_MORE_FILES
    return False
