"""Track how long each deployment takes to answer, per worker process, to know whether silence is suspicious.

A request for one JSON answer is normally sent as a stream and folded, because only a stream shows that a provider is
still working. Folding costs the CPU of a stream. A deployment that is answering other requests quickly does not need it
(`LatencyTracker.answers_quickly`). Times are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.model.deployment import Deployment

SLOW_ANSWER_REMEMBERED_S = 600.0
"""After a slow answer a deployment is not "quick" for this long: only a stream would show the next slow one."""

_QUICK_FRACTION = 0.5
_NEVER = float("-inf")


class _Answers:
    """The last answer of one deployment, and the slowest recent one."""

    __slots__ = ("last_at", "slowest_at", "slowest_s")

    def __init__(self) -> None:
        self.last_at = self.slowest_at = _NEVER
        self.slowest_s = 0.0


class LatencyTracker:
    """Latencies of all deployments.

    A deployment is identified by name, origin and model, so an edit of one starts anew.
    """

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str, str], _Answers] = {}

    def record_answer(self, deployment: Deployment, now: float, whole_answer_s: float | None) -> None:
        """Record that the deployment answered. `whole_answer_s` is None for a stream that has only begun."""
        answers = self._answers.get(deployment.asked_at)
        if answers is None:
            answers = self._answers[deployment.asked_at] = _Answers()
        answers.last_at = now
        if whole_answer_s is not None and (
            whole_answer_s >= answers.slowest_s or now - answers.slowest_at > SLOW_ANSWER_REMEMBERED_S
        ):
            answers.slowest_s, answers.slowest_at = whole_answer_s, now

    def record_failure(self, deployment: Deployment) -> None:
        """After a failure, earlier answers no longer show that the deployment works."""
        if (answers := self._answers.get(deployment.asked_at)) is not None:
            answers.last_at = _NEVER

    def answers_quickly(self, deployment: Deployment, timeout_s: float, now: float) -> bool:
        """Return whether it answered within the last `timeout_s`, and every recent whole answer took less than half of
        it.

        At least one recent whole answer is needed: the time to the first event of a stream does not predict its end.
        """
        answers = self._answers.get(deployment.asked_at)
        if answers is None or answers.last_at + timeout_s <= now:
            return False
        return answers.slowest_s <= timeout_s * _QUICK_FRACTION and now - answers.slowest_at <= SLOW_ANSWER_REMEMBERED_S

    def answered_since(self, deployment: Deployment, since: float) -> bool:
        """Return whether the deployment has answered any request since that time."""
        answers = self._answers.get(deployment.asked_at)
        return answers is not None and answers.last_at > since

    def prune(self, deployments: Iterable[Deployment]) -> None:
        """Forget every deployment that is not in `deployments`. Called after a configuration change."""
        current = {deployment.asked_at for deployment in deployments}
        self._answers = {key: value for key, value in self._answers.items() if key in current}
