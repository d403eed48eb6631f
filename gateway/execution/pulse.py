"""When each deployment has last answered anybody: of one that has just done so, silence needs no proof.

A request for one JSON is folded so that silence is seen (`fold`), which costs the CPU of a stream. Where others are
being answered all the time, their answers show as much, and for nothing: the request is then asked as it is, and waited
for as long as the deployment goes on answering somebody.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.model.deployment import Deployment

__all__ = ["Pulses"]

_NEVER = float("-inf")


class Pulses:
    """The last answer of each deployment of one process. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str, str], float] = {}

    def beat(self, deployment: Deployment, now: float) -> None:
        """It has answered, or begun to."""
        self._last[deployment.name, deployment.origin, deployment.model] = now

    def stop(self, deployment: Deployment) -> None:
        """It has failed somebody: what it did before shows nothing any more."""
        self._last.pop((deployment.name, deployment.origin, deployment.model), None)

    def left_s(self, deployment: Deployment, patience_s: float, now: float) -> float:
        """For how long from now on its last answer shows that it is alive; 0 or less if it doesn't."""
        last = self._last.get((deployment.name, deployment.origin, deployment.model), _NEVER)
        return last + patience_s - now

    def keep(self, deployments: Iterable[Deployment]) -> None:
        """Forget all others."""
        here = {(it.name, it.origin, it.model) for it in deployments}
        self._last = {place: at for place, at in self._last.items() if place in here}
