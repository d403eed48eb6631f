"""The rules of the Responses API over WebSocket: how long a connection lasts, and how much it and its worker keep."""

from __future__ import annotations

from gateway.model.section import PlainSection, UnitError, key, section
from gateway.model.units import ByteCount, Seconds

_LEAST_S, _MOST_S, _USUAL_IDLE_S = 60.0, 3600.0, 1800.0
_LEAST_STATE_BYTES = 64 * 1024
_MB = 1024 * 1024


@section
class WebSocketRules(PlainSection):
    """The Responses API over WebSocket. Nothing is kept beyond a connection."""

    idle_s: Seconds | None = key(
        "How long a connection without a turn or a message stays open, from 1m to `age`. "
        "Default: 30m, or `age` if that is shorter.",
        default=None,
        name="idle",
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

    @property
    def most_idle_s(self) -> float:
        """How long a connection stays open without a turn or a message."""
        return self.idle_s or min(_USUAL_IDLE_S, self.age_s)

    def problem(self) -> tuple[str, UnitError] | None:
        """Return the key whose value is out of its bounds or does not fit another one, and why; None if all fit."""
        for name, seconds in (("idle", self.idle_s), ("age", self.age_s)):
            if seconds is not None and not _LEAST_S <= seconds <= _MOST_S:
                return name, UnitError("must be from 1m to 60m", "such as 30m")
        if self.state_bytes < _LEAST_STATE_BYTES:
            return "state", UnitError("must be at least 64 KB", "such as 8 MB")
        if self.most_idle_s > self.age_s:
            return "idle", UnitError("must not be longer than `age`", "shorten `idle`, or raise `age`")
        if self.state_total_bytes < self.state_bytes:
            return "state_total", UnitError("must not be less than `state`", "raise `state_total`, or lower `state`")
        return None


DEFAULT_WEBSOCKET = WebSocketRules()
