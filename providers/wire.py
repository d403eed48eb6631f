"""What goes over the wire, as values: a request before it has a host and a key, and a response that has arrived."""

from __future__ import annotations

from collections.abc import Mapping

from providers.value import Value

__all__ = ["WireRequest", "WireResponse"]


class WireRequest(Value, frozen=True):
    """Bytes to send: no host, no framing headers, no credentials.

    path: starts with one slash, already percent-encoded, without `?`; query: pairs, encoded by the sender.
    headers, body: not shown, because they come to hold a key and a prompt.
    """

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    query: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        """Show neither the headers, which may hold a key, nor the body, which holds a prompt."""
        return f"WireRequest(method={self.method!r}, path={self.path!r}, query={self.query!r})"


class WireResponse(Value, frozen=True):
    """What came back: `headers` have lower-case names (repeated ones joined with `, `), `body` is decompressed.

    received_at: unix seconds when the status line arrived; adapters have no clock of their own.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    received_at: float
