"""HTTP messages as values: a request without a host and without a credential, and a complete response."""

from __future__ import annotations

from collections.abc import Mapping

from providers.value import Value


class WireRequest(Value, frozen=True):
    """A request to send: without host, framing headers and credentials.

    Its `repr` shows neither the headers nor the body, because they contain a key and a prompt.

    Attributes:
        method: The HTTP method.
        path: The path. It starts with one slash, is percent-encoded and has no `?`.
        headers: Pairs of name (lower case) and value.
        body: The body.
        query: Pairs of name and value. The sender encodes them.
        changed: The names of what the model learns in another way than the client sent it, or not at all
            (`providers.formats.fitting`).
        rest: Further pieces of the body, which are sent after `body` without being copied: a large file among them.

    Examples:
        >>> from providers.contract import WireRequest
        >>> WireRequest("POST", "/v1/chat", (("content-type", "application/json"),), b"{}").path
        '/v1/chat'
    """

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    query: tuple[tuple[str, str], ...] = ()
    changed: frozenset[str] = frozenset()
    rest: tuple[bytes | memoryview, ...] = ()

    def __repr__(self) -> str:
        """Leave out the headers, which may contain a key, and the body, which contains a prompt."""
        return f"WireRequest(method={self.method!r}, path={self.path!r}, query={self.query!r})"


class WireResponse(Value, frozen=True):
    """A response.

    Attributes:
        status: The HTTP status.
        headers: Values by lower-case name. Repeated headers are joined with `, `.
        body: The decompressed body.
        received_at: When the status line arrived, in Unix seconds. Adapters have no clock.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    received_at: float
