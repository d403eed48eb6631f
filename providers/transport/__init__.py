"""HTTP/1.1 to providers over a lean pool: what a request costs is bytes, not machinery.

`Pool` is the pool itself. `LeanTransport` puts it behind httpx's interface, for any httpx client, and httpx is imported
only when that is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from providers.transport.connection import Connection, Tap
from providers.transport.errors import (
    BadResponse,
    ConnectFailed,
    ConnectionBroken,
    NotAllowed,
    TooLarge,
    TransportError,
    lacks_room,
)
from providers.transport.pool import Allow, Pool, PooledResponse, Recheck, request_start, tls_context

if TYPE_CHECKING:
    from providers.transport.httpx_transport import LeanTransport

__all__ = [
    "Allow",
    "BadResponse",
    "ConnectFailed",
    "Connection",
    "ConnectionBroken",
    "LeanTransport",
    "NotAllowed",
    "Pool",
    "PooledResponse",
    "Recheck",
    "Tap",
    "TooLarge",
    "TransportError",
    "lacks_room",
    "request_start",
    "tls_context",
]


def __getattr__(name: str) -> object:
    if name == "LeanTransport":
        from providers.transport.httpx_transport import LeanTransport

        return LeanTransport
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
