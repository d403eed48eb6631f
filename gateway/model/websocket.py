"""The rules of the Responses API over WebSocket: how long a connection lasts, and how much it and its worker keep."""

from __future__ import annotations

from gateway.model.section import PlainSection, UnitError, key, section
from gateway.model.units import ByteCount, Seconds

_LEAST_S, _MOST_S = 60.0, 3600.0
_LEAST_STATE_BYTES = 64 * 1024
_MB = 1024 * 1024


@section
class WebSocketRules(PlainSection):
    """The Responses API over WebSocket. Nothing is kept beyond a connection."""

    idle_s: Seconds = key(
        "How long a connection without a turn or a message stays open, from 1m to `age`.",
        default=1800.0,
        name="idle",
        written="30m",
    )
    age_s: Seconds = key(
        "How old a connection may become, from 1m to 60m. A turn that runs is finished.",
        default=_MOST_S,
        name="age",
        written="60m",
    )
    connections: int = key("The most connections of one worker.", default=2000, ge=1, le=1_000_000)
    state_bytes: ByteCount = key(
        "The most bytes that a connection keeps of its last answers, at least 64 KB.",
        default=8 * _MB,
        name="state",
        written="8 MB",
    )
    state_total_bytes: ByteCount = key(
        "The most bytes that all connections of one worker keep, at least `state`.",
        default=64 * _MB,
        name="state_total",
        written="64 MB",
    )

    def problem(self) -> tuple[str, UnitError] | None:
        """Return the key whose value is out of its bounds or does not fit another one, and why; None if all fit."""
        for name, seconds in (("idle", self.idle_s), ("age", self.age_s)):
            if not _LEAST_S <= seconds <= _MOST_S:
                return name, UnitError("must be from 1m to 60m", "such as 30m")
        if self.state_bytes < _LEAST_STATE_BYTES:
            return "state", UnitError("must be at least 64 KB", "such as 8 MB")
        if self.idle_s > self.age_s:
            return "idle", UnitError("must not be longer than `age`", "shorten `idle`, or raise `age`")
        if self.state_total_bytes < self.state_bytes:
            return "state_total", UnitError("must not be less than `state`", "raise `state_total`, or lower `state`")
        return None


DEFAULT_WEBSOCKET = WebSocketRules()
