"""Requests written to a socket byte by byte, for clients that disconnect early."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.kit.chat_http import CHAT
from tests.kit.gateway_process import APP_KEY, GatewayProcess


def request_bytes(payload: dict[str, Any], *, length: int | None = None, place: str = "CN") -> bytes:
    """Return a request, by default for the provider in China, the only one of its region."""
    content = json.dumps(payload).encode()
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {APP_KEY}\r\ncf-ipcountry: {place}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content) if length is None else length}\r\n\r\n"
    )
    return head.encode() + content


@contextmanager
def sent_request(gateway: GatewayProcess, data: bytes, *, resets: bool = False) -> Iterator[socket.socket]:
    """Yield a connection on which these bytes were sent. At the end of the block the client disconnects."""
    host, port = gateway.url.removeprefix("http://").split(":")
    connection = socket.socket()
    # A small window, so that the gateway soon detects a client that does not read.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    if resets:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with connection:
        connection.settimeout(10)
        connection.connect((host, int(port)))
        connection.sendall(data)
        yield connection
