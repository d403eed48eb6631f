"""HTTP/1.1 to providers over a lean pool: what a request costs is bytes, not machinery.

`Pool` is the pool itself; `LeanTransport` puts it behind httpx's interface, for any httpx client.
"""

from providers.transport.errors import BadResponse, ConnectFailed, ConnectionBroken, NotAllowed, TransportError
from providers.transport.httpx_transport import LeanTransport
from providers.transport.pool import Allow, Pool, PooledResponse, tls_context

__all__ = [
    "Allow",
    "BadResponse",
    "ConnectFailed",
    "ConnectionBroken",
    "LeanTransport",
    "NotAllowed",
    "Pool",
    "PooledResponse",
    "TransportError",
    "tls_context",
]
