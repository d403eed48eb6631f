"""HTTP messages as values: a request without a host and without a credential, and a complete response."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping

from providers.value import Value


class Base64(Value, frozen=True):
    """A piece of a body: the base64 of these bytes, which is made while it is sent, part by part.

    Made as a whole, that of a large file would hold up all other requests for some 20 ms, and take its memory twice.
    """

    data: memoryview

    def __repr__(self) -> str:
        """Do not show the data."""
        return f"Base64({len(self.data)} bytes)"

    def __len__(self) -> int:
        """Return the length of the base64."""
        return (len(self.data) + 2) // 3 * 4

    def __bytes__(self) -> bytes:
        """Return the base64."""
        return b64encode(self.data)

    def split(self, size: int) -> Iterator[Base64]:
        """Yield pieces of at most this length, a multiple of 4, which are the same base64 together."""
        step = size // 4 * 3
        return (Base64(self.data[at : at + step]) for at in range(0, len(self.data), step))


class WireRequest(Value, frozen=True):
    """A request to send: without host, framing headers and credentials.

    Its `repr` shows neither the headers nor the body, because they contain a key and a prompt.

    Examples:
        >>> from providers.contract import WireRequest
        >>> WireRequest("POST", "/v1/chat", (("content-type", "application/json"),), b"{}").path
        '/v1/chat'
    """

    method: str
    """The HTTP method."""
    path: str
    """The path. It starts with one slash, is percent-encoded and has no `?`."""
    headers: tuple[tuple[str, str], ...]
    """Pairs of name (lower case) and value."""
    body: bytes
    """The body."""
    query: tuple[tuple[str, str], ...] = ()
    """Pairs of name and value. The sender encodes them."""
    changed: frozenset[str] = frozenset()
    """The names of what the model learns in another way than the client sent it, or not at all
    (`providers.formats.fitting`)."""
    rest: tuple[bytes | memoryview | Base64, ...] = ()
    """Further pieces of the body, which are sent after `body` without being copied: a large file among them."""

    def __repr__(self) -> str:
        """Leave out the headers, which may contain a key, and the body, which contains a prompt."""
        return f"WireRequest(method={self.method!r}, path={self.path!r}, query={self.query!r})"


class WireResponse(Value, frozen=True):
    """A response."""

    status: int
    """The HTTP status."""
    headers: Mapping[str, str]
    """Values by lower-case name. Repeated headers are joined with `, `."""
    body: bytes
    """The decompressed body."""
    received_at: float
    """When the status line arrived, in Unix seconds. Adapters have no clock."""
