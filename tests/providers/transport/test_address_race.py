"""If none of several addresses accepts a connection, the most specific error is reported."""

from __future__ import annotations

import asyncio
import errno
import os
import socket

import pytest

from providers.transport.dial import first_socket
from providers.transport.errors import ConnectFailed, lacks_room
from providers.transport.pool import Pool
from tests.providers.transport.name_resolution import Names
from tests.providers.transport.pool_calls import anyone, ask


def no(number: int) -> OSError:
    return OSError(number, os.strerror(number))


REFUSED, UNREACHABLE, NO_HOST = map(no, (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH))
NO_PORT, LOOP = no(errno.EADDRNOTAVAIL), RuntimeError("uvloop's own")
CASES = [
    ([REFUSED], REFUSED),
    ([REFUSED, REFUSED], REFUSED),
    # A machine without IPv6, as most containers are.
    ([REFUSED, UNREACHABLE], REFUSED),
    ([UNREACHABLE, REFUSED], REFUSED),
    ([NO_PORT, UNREACHABLE], NO_PORT),
    ([UNREACHABLE, NO_PORT], NO_PORT),
    ([NO_HOST, LOOP], LOOP),
    ([LOOP], LOOP),
    ([UNREACHABLE, NO_HOST], UNREACHABLE),
    # Its ::1 is not to be had, and who should listen on 127.0.0.1 doesn't.
    ([NO_PORT, REFUSED], REFUSED),
]


def failing(monkeypatch: pytest.MonkeyPatch, errors: list[Exception]) -> None:
    """Let each address fail with the error that is given for its port."""

    async def sock_connect(_: socket.socket, address: tuple[str, int]) -> None:
        raise errors[address[1]]

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", sock_connect)


@pytest.mark.parametrize(("errors", "reported"), CASES)
async def test_most_specific_error_is_reported(
    monkeypatch: pytest.MonkeyPatch, errors: list[Exception], reported: Exception
) -> None:
    failing(monkeypatch, errors)
    addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in range(len(errors))]
    with pytest.raises(type(reported)) as raised:
        await first_socket(addresses)
    assert raised.value is reported
    assert lacks_room(reported) is (reported is NO_PORT)


@pytest.mark.parametrize("addresses", [1, 2])
async def test_error_of_creating_a_socket_is_reported(monkeypatch: pytest.MonkeyPatch, addresses: int) -> None:
    """The process has reached its limit of open files: no address was tried, so none has failed."""

    def full(*_: object, **__: object) -> None:
        raise no(errno.EMFILE)

    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in range(addresses)]
    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", full)
        with pytest.raises(OSError, match="Too many open files") as raised:
            await first_socket(found)
    assert raised.value.errno == errno.EMFILE
    assert lacks_room(raised.value)


async def test_pool_reports_the_error_and_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    names, pool = Names(monkeypatch), Pool(anyone)
    names.ports = range(2)
    for errors, words, is_ours in (
        ([REFUSED, UNREACHABLE], "Connection refused", False),
        ([NO_PORT, UNREACHABLE], "Cannot assign requested address", True),
    ):
        failing(monkeypatch, errors)
        with pytest.raises(ConnectFailed, match=words) as raised:
            await ask(pool, "http://provider.test")
        assert (raised.value.is_ours, pool._open) == (is_ours, 0)
