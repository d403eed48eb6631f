"""When each deployment has last answered anybody, and how long it took lately: of a quick one silence needs no proof.

A request for one JSON is folded so that silence is seen (`fold`), which costs the CPU of a stream. A deployment that is
answering others, and never took long about it, shows as much for nothing: the request is then asked as it is, and who
hasn't got its answer when others would have theirs is taken to be in silence, whoever else is answered meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.model.deployment import Deployment

__all__ = ["REMEMBERED_S", "Pulses"]

REMEMBERED_S = 600.0
"""For so long a slow answer is remembered: meanwhile another one may be slow, too, and only a stream would show it."""
_QUICK = 0.5
_NEVER = float("-inf")


class Pulses:
    """The last answer of each deployment of one process, and the slowest. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str, str], float] = {}
        self._slowest: dict[tuple[str, str, str], tuple[float, float]] = {}

    def beat(self, deployment: Deployment, now: float, took_s: float | None) -> None:
        """It has answered, which took so long, or begun to (None): how long that will take, nobody knows yet."""
        place = deployment.name, deployment.origin, deployment.model
        self._last[place] = now
        if took_s is None:
            return
        held = self._slowest.get(place)
        if held is None or took_s >= held[0] or now - held[1] > REMEMBERED_S:
            self._slowest[place] = took_s, now

    def stop(self, deployment: Deployment) -> None:
        """It has failed somebody: what it did before shows nothing any more."""
        self._last.pop((deployment.name, deployment.origin, deployment.model), None)

    def is_quick(self, deployment: Deployment, patience_s: float, now: float) -> bool:
        """Whether it has answered somebody within `patience_s`, and all whole answers of late took a part of that."""
        place = deployment.name, deployment.origin, deployment.model
        if self._last.get(place, _NEVER) + patience_s <= now:
            return False
        held = self._slowest.get(place)
        # A stream's first word comes soon where the last takes minutes: without a whole answer nothing is known.
        return held is not None and held[0] <= patience_s * _QUICK and now - held[1] <= REMEMBERED_S

    def has_answered_since(self, deployment: Deployment, then: float) -> bool:
        """Whether it has answered anybody since that moment."""
        return self._last.get((deployment.name, deployment.origin, deployment.model), _NEVER) > then

    def keep(self, deployments: Iterable[Deployment]) -> None:
        """Forget all others."""
        here = {(it.name, it.origin, it.model) for it in deployments}
        self._last = {place: at for place, at in self._last.items() if place in here}
        self._slowest = {place: held for place, held in self._slowest.items() if place in here}
