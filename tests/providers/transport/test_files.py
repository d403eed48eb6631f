"""A machine without free files or ports opens no connection, and the error is not counted against the provider."""

from __future__ import annotations

import errno
import os
import socket
import ssl

import pytest

from providers.transport import errors
from providers.transport.errors import lacks_room

FULL = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
NO_PORT = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
NO_WAY = OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
BUSY = OSError(errno.EBUSY, os.strerror(errno.EBUSY))
NO_NAME = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


def caused(error: Exception, by: BaseException) -> Exception:
    error.__cause__ = by
    return error


@pytest.mark.parametrize(
    ("error", "finds_none", "lacks"),
    [
        (FULL, False, True),
        (OSError(errno.ENFILE, "x"), False, True),
        (NO_PORT, False, True),
        (OSError(errno.ENOBUFS, "x"), False, True),
        (OSError(errno.ENOMEM, "x"), False, True),
        (caused(OSError("All connection attempts failed"), ExceptionGroup("x", [NO_PORT, NO_WAY])), False, True),
        (caused(RuntimeError("x"), caused(OSError("All connection attempts failed"), FULL)), False, True),
        (NO_NAME, True, True),
        (BUSY, True, True),
        (NO_NAME, False, False),
        (BUSY, False, False),
        # These were reached, whatever there is now.
        (REFUSED, True, False),
        (caused(OSError("All connection attempts failed"), REFUSED), True, False),
        (caused(OSError("All connection attempts failed"), ExceptionGroup("x", [NO_PORT, REFUSED])), True, False),
        (NO_WAY, False, False),
        (ssl.SSLError(1, "handshake failure"), True, False),
        (TimeoutError(), True, False),
        (ValueError("no address"), True, False),
    ],
)
def test_lack_of_files_is_distinguished_from_provider_failures(
    monkeypatch: pytest.MonkeyPatch, error: Exception, finds_none: bool, lacks: bool
) -> None:
    monkeypatch.setattr(errors, "_has_no_descriptor", lambda: finds_none)
    assert lacks_room(error) is lacks


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ECONNREFUSED])
def test_an_error_that_was_raised_anew_from_its_wrapping_is_looked_at_once(number: int) -> None:
    """A cycle of causes, as raised by respx, must not be followed without end."""
    error = OSError(number, "words")
    wrapping = ValueError("wrapped")
    error.__cause__, wrapping.__cause__ = wrapping, error
    assert lacks_room(wrapping) is (number == errno.EMFILE)
