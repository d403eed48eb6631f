"""HTTP/1.1 to providers over a lean connection pool, without httpx."""

from __future__ import annotations

from providers.transport.connection import Connection, Tap
from providers.transport.errors import (
    BadResponse,
    ConnectFailed,
    ConnectionBroken,
    NotAllowed,
    TransportError,
    lacks_room,
)
from providers.transport.pool import Allow, Pool, PoolRequest, Recheck, request_start
from providers.transport.tls import Link, tls_context

__all__ = [
    "Allow",
    "BadResponse",
    "ConnectFailed",
    "Connection",
    "ConnectionBroken",
    "Link",
    "NotAllowed",
    "Pool",
    "PoolRequest",
    "Recheck",
    "Tap",
    "TransportError",
    "lacks_room",
    "request_start",
    "tls_context",
]
