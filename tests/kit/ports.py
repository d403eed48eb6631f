"""Ports for servers that cannot choose one."""

import os
import socket
from itertools import chain

_LEAST, _END = 10_000, 32_768
"""The system gives ports from the end on to connections and to listeners on port 0, so it takes none of these away."""
_held: list[socket.socket] = []


def free_port() -> int:
    """Return a port of this machine that no server uses and that no other call returns, also in another process.

    A UDP socket of the same number stands for the claim until this process ends, and leaves TCP free.
    """
    first = _LEAST + os.getpid() * 97 % (_END - _LEAST)
    for port in chain(range(first, _END), range(_LEAST, first)):
        claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            claim.bind(("127.0.0.1", port))
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            claim.close()
        else:
            _held.append(claim)
            return port
    raise AssertionError("no port is free")
