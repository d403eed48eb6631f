"""What the admin listener asks of the gateway that it speaks for."""

from __future__ import annotations

from typing import Protocol

from gateway.model.status import Reload, Status

__all__ = ["Control"]


class Control(Protocol):
    """One process, or the supervisor of several."""

    async def status(self) -> Status:
        """How it all is at this moment."""
        ...

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """Everything that is counted: the body and its content type, by an Accept header."""
        ...

    async def reload(self, who: str) -> Reload:
        """Load the config now, and what came of it."""
        ...

    async def rollback(self, version: str | None, who: str, signature: str | None) -> Reload:
        """Make a version of the history active, and what came of it."""
        ...
