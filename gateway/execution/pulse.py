"""When each deployment has last answered anybody, and how long it took lately: of a quick one silence needs no proof.

A request for one JSON is folded so that silence is seen (`fold`), which costs the CPU of a stream. A deployment that is
answering others, and never took long about it, shows as much for nothing: the request is then asked as it is, and who
hasn't got its answer when others would have theirs is taken to be in silence, whoever else is answered meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.model.deployment import Deployment

REMEMBERED_S = 600.0
"""For so long a slow answer is remembered: meanwhile another one may be slow, too, and only a stream would show it."""
_QUICK = 0.5
_NEVER = float("-inf")


class _Pulse:
    __slots__ = ("last_at", "slowest_at", "slowest_s")

    def __init__(self) -> None:
        self.last_at = self.slowest_at = _NEVER
        self.slowest_s = 0.0


class Pulses:
    """The last answer of each deployment of one process, and the slowest. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str, str], _Pulse] = {}

    def beat(self, deployment: Deployment, now: float, took_s: float | None) -> None:
        """It has answered, which took so long, or begun to (None): how long that will take, nobody knows yet."""
        pulse = self._held.get(deployment.asked_at)
        if pulse is None:
            pulse = self._held[deployment.asked_at] = _Pulse()
        pulse.last_at = now
        if took_s is not None and (took_s >= pulse.slowest_s or now - pulse.slowest_at > REMEMBERED_S):
            pulse.slowest_s, pulse.slowest_at = took_s, now

    def stop(self, deployment: Deployment) -> None:
        """It has failed somebody: what it did before shows nothing any more."""
        if (pulse := self._held.get(deployment.asked_at)) is not None:
            pulse.last_at = _NEVER

    def is_quick(self, deployment: Deployment, patience_s: float, now: float) -> bool:
        """Whether it has answered somebody within `patience_s`, and all whole answers of late took a part of that."""
        pulse = self._held.get(deployment.asked_at)
        if pulse is None or pulse.last_at + patience_s <= now:
            return False
        # A stream's first word comes soon where the last takes minutes: without a whole answer nothing is known.
        return pulse.slowest_s <= patience_s * _QUICK and now - pulse.slowest_at <= REMEMBERED_S

    def has_answered_since(self, deployment: Deployment, then: float) -> bool:
        """Whether it has answered anybody since that moment."""
        pulse = self._held.get(deployment.asked_at)
        return pulse is not None and pulse.last_at > then

    def keep(self, deployments: Iterable[Deployment]) -> None:
        """Forget all others."""
        here = {deployment.asked_at for deployment in deployments}
        self._held = {place: pulse for place, pulse in self._held.items() if place in here}
