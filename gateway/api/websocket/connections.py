"""All WebSocket connections of a worker: their number, the room for what they keep, and one timer."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

from gateway.api.chat import ChatEndpoint
from gateway.api.connection import Close
from gateway.api.errors import ApiError
from gateway.model.config_version import Client, ConfigVersion
from gateway.model.websocket import DEFAULT_WEBSOCKET, WebSocketRules

LOOK_S = 1.0
DEFAULT_CONNECTIONS = 64
_FULL_RETRY_S = 5.0
Count = Callable[[str, tuple[str, ...]], None]


class Connected(Protocol):
    """An open connection, when it was active, by the loop's time, and the bytes that it keeps."""

    client_name: str
    kept_bytes: int
    active_at: float

    @property
    def is_idle(self) -> bool:
        """Whether no turn runs or waits."""

    def look(self, now: float) -> None:
        """Look after what takes too long, at this time of the loop."""

    def close(self, why: Close) -> None:
        """Close the connection."""


class WebSockets:
    """The WebSocket connections of a worker, and the bytes that they keep of their last answers."""

    def __init__(self, endpoint: ChatEndpoint, count: Count, is_draining: Callable[[], bool]) -> None:
        self.endpoint, self.count, self.is_draining = endpoint, count, is_draining
        self.current: Callable[[], ConfigVersion] = endpoint.service.decider.current
        self.sessions: dict[Connected, None] = {}
        self.state_bytes = 0
        self._of_client: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def rules(self) -> WebSocketRules:
        """The active rules. While no new connection is offered, the last ones have the default rules."""
        return self.current().websocket or DEFAULT_WEBSOCKET

    def check_room(self) -> None:
        """Raise ApiError (overloaded) if this worker has as many connections as it may have."""
        if len(self.sessions) >= self.rules.connections:
            message = "the gateway has reached its limit of WebSocket connections: connect later, or send POST requests"
            raise ApiError("overloaded", message, retry_after_s=_FULL_RETRY_S)

    def check_client(self, client: Client | None) -> None:
        """Raise ApiError (rate_limited) if this client has as many connections as it may have."""
        if client is None:
            return
        most = (client.limits.connections if client.limits is not None else None) or DEFAULT_CONNECTIONS
        if self._of_client[client.name] >= most:
            message = f"this client has reached its limit of {most} WebSocket connections: close one"
            raise ApiError("rate_limited", message, retry_after_s=_FULL_RETRY_S)

    def add(self, session: Connected) -> None:
        """Count a connection, and look after it each second."""
        self.sessions[session] = None
        self._of_client[session.client_name] += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def remove(self, session: Connected) -> None:
        """Forget a connection that has ended."""
        if session in self.sessions:
            del self.sessions[session]
            self._of_client[session.client_name] -= 1
            if not self._of_client[session.client_name]:
                del self._of_client[session.client_name]

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self.look(loop.time())
        self._timer = loop.call_later(LOOK_S, self._look) if self.sessions else None

    def look(self, now: float) -> None:
        """Close the connections that are idle or old at this time of the loop, and ping those that are silent."""
        for session in [*self.sessions]:
            session.look(now)

    def make_room(self) -> bool:
        """Close idle connections that keep something, the longest idle ones first; return whether there is room now."""
        most = self.rules.state_total_bytes
        holding = sorted((it for it in self.sessions if it.is_idle and it.kept_bytes), key=lambda it: it.active_at)
        for session in holding:
            if self.state_bytes <= most:
                break
            session.close(Close.ROOM)
        return self.state_bytes <= most

    def status(self) -> Mapping[str, int]:
        """Return the number of connections, and the bytes that they keep."""
        return {"connections": len(self.sessions), "state_bytes": self.state_bytes}
