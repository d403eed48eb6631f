"""Put a credential on a request: the only place where a secret and a request meet.

An adapter names a scheme; whoever sends calls `apply` anew for each attempt. Signing schemes need the host and
the time, so every scheme gets them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from providers.wire import WireRequest

__all__ = ["AuthScheme", "Bearer", "HeaderKey", "NoAuth", "Secret", "apply"]


class Secret:
    """A text that shows itself only to who asks by name: never in a `repr`, an f-string or a log."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)


@dataclass(frozen=True, slots=True)
class Bearer:
    """`authorization: Bearer KEY` (RFC 6750)."""


@dataclass(frozen=True, slots=True)
class HeaderKey:
    """The key alone in a header of its own, such as `x-goog-api-key`."""

    header: str


@dataclass(frozen=True, slots=True)
class NoAuth:
    """A server that asks for no key; one that is configured is sent as a bearer."""


AuthScheme = Bearer | HeaderKey | NoAuth


def apply(scheme: AuthScheme, wire: WireRequest, origin: str, secret: Secret | None, now: float) -> WireRequest:
    """The request with its credential. `origin` (`https://host`) and `now` (unix seconds) are what signatures cover."""
    if secret is None:
        return wire
    match scheme:
        case Bearer() | NoAuth():
            header = ("authorization", f"Bearer {secret.reveal()}")
        case HeaderKey(name):
            header = (name, secret.reveal())
        case _:
            assert_never(scheme)
    return WireRequest(wire.method, wire.path, (*wire.headers, header), wire.body, wire.query)
