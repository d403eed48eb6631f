"""What goes over the wire, as values: a request before it has a host and a key, and a response that has arrived."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from providers.values import quick

__all__ = ["WireRequest", "WireResponse"]


@quick
@dataclass(frozen=True, slots=True)
class WireRequest:
    """Bytes to send: no host, no framing headers, no credentials.

    path: starts with one slash, already percent-encoded, without `?`; query: pairs, encoded by the sender.
    headers, body: not shown, because they come to hold a key and a prompt.
    """

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    query: tuple[tuple[str, str], ...] = ()


@quick
@dataclass(frozen=True, slots=True)
class WireResponse:
    """What came back: `headers` have lower-case names (repeated ones joined with `, `), `body` is decompressed.

    received_at: unix seconds when the status line arrived; adapters have no clock of their own.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    received_at: float
