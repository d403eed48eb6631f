"""The errors of a connection.

TransportError
├── ConnectFailed       DNS, TCP or TLS: nothing was sent
├── ConnectionBroken    the connection ended before the response did
├── BadResponse         the response is not valid HTTP/1.1, or exceeds a limit
└── NotAllowed          the origin may not be connected to; nothing was resolved or sent
"""

from __future__ import annotations

import errno
import os
import socket
import ssl

_NO_MORE_FILES = frozenset({errno.EMFILE, errno.ENFILE})
# A connection takes a port of this machine, and memory of its system.
_NO_ROOM = _NO_MORE_FILES | {errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM}


class TransportError(Exception):
    """The root of this tree."""


class ConnectFailed(TransportError):
    """No connection: the name does not resolve, the port refuses, TLS fails, or it took too long (`timed_out`).

    With `is_ours`, this process or its machine cannot open more connections, and the other side is not to blame. With
    `is_refused`, a proxy refuses the tunnel, and would refuse it again.
    """

    def __init__(
        self, message: str, *, timed_out: bool = False, is_ours: bool = False, is_refused: bool = False
    ) -> None:
        super().__init__(message)
        self.timed_out = timed_out
        self.is_ours = is_ours
        self.is_refused = is_refused


class ConnectionBroken(TransportError):
    """The connection ended early: after a byte of a response (`answered`), or after the request may have been sent.

    If it `was_kept`, a kept connection ended soon and without a byte: its server may have closed it before the request
    came (RFC 9112, section 9.3.1). The same request may be answered on a new connection.
    """

    def __init__(self, message: str, *, answered: bool, is_sent: bool = True) -> None:
        super().__init__(message)
        self.answered = answered
        self.is_sent = is_sent
        self.was_kept = False


class BadResponse(TransportError):
    """The bytes are not an HTTP/1.1 response, or exceed a limit."""


class NotAllowed(TransportError):
    """The pool's `allow` refused the origin."""


def lacks_room(error: BaseException) -> bool:
    """Return whether there is no connection because this machine has no more files, ports or memory for one.

    A name look-up that gets no file descriptor reports another error, which differs between systems. In unclear cases a
    socket is opened to find out.
    """
    cause: BaseException | None = error
    is_unclear, seen = False, list[BaseException]()
    # Code that raises an error again from its wrapper makes a cycle.
    while cause is not None and cause not in seen:
        seen.append(cause)
        if isinstance(cause, ExceptionGroup):  # of a name with several addresses, each was tried
            was_reached = any(isinstance(each, ConnectionError) for each in cause.exceptions)
            return not was_reached and any(map(lacks_room, cause.exceptions))
        if isinstance(cause, OSError):
            if cause.errno in _NO_ROOM:
                return True
            # A host that refuses, or fails at TLS, was reached.
            is_unclear = not isinstance(cause, ConnectionError | TimeoutError | ssl.SSLError)
        cause = cause.__cause__ or cause.__context__
    return is_unclear and _has_no_descriptor()


def _has_no_descriptor() -> bool:
    try:
        socket.socket().close()
    except OSError as error:
        return error.errno in _NO_MORE_FILES
    return False


def reason_of(error: Exception) -> str:
    """Return the error's text without the address. Failures reach clients, but only the operator may know the hosts."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError | socket.gaierror):
        return error.strerror or "no reason was given"
    if isinstance(error, OSError):
        # Its own text is asyncio's, which contains the address.
        return os.strerror(error.errno) if error.errno else "no reason was given"
    return "invalid address"
