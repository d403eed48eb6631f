"""Track how long each deployment takes to answer, per worker process, to know whether silence is suspicious.

A request for one JSON answer is normally sent as a stream and folded, because only a stream shows that a provider is
still working. Folding costs the CPU of a stream. A deployment that is answering other requests quickly does not need it
(`LatencyTracker.answers_quickly`), nor does a simulator. Times are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.model.deployment import Deployment
from gateway.model.resilience import Resilience
from gateway.model.served import ServedRequest
from providers.chat import ChatRequest
from providers.matching.capability_matching import reasons_unseen

SLOW_ANSWER_REMEMBERED_S = 600.0
"""After a slow answer a deployment is not "quick" for this long: only a stream would show the next slow one."""

_QUICK_FRACTION = 0.5
_NEVER = float("-inf")


class RecentAnswers:
    """The last answer of one deployment, and the slowest recent one.

    It is sending `live` streams now. A failure may have come after the last answer.
    """

    __slots__ = ("has_failed", "last_at", "live", "slowest_at", "slowest_s")

    def __init__(self) -> None:
        self.last_at = self.slowest_at = _NEVER
        self.slowest_s = 0.0
        self.live = 0
        self.has_failed = False

    def since(self, at: float) -> bool:
        """Return whether it has answered anybody since that time, or is answering now."""
        return self.last_at > at or self.live > 0

    def record(self, now: float, whole_s: float | None) -> None:
        """Record an answer; `whole_s` is None for a stream that has only begun."""
        self.last_at, self.has_failed = now, False
        if whole_s is not None:
            self.took(whole_s, now)

    def took(self, whole_s: float, now: float) -> None:
        """Record how long a whole answer takes, also if it did not arrive."""
        if whole_s >= self.slowest_s or now - self.slowest_at > SLOW_ANSWER_REMEMBERED_S:
            self.slowest_s, self.slowest_at = whole_s, now

    def stream_ended(self) -> None:
        """Record that a stream has ended, or was given up."""
        self.live -= 1


class LatencyTracker:
    """Latencies of all deployments.

    A deployment is identified by name, origin and model, so an edit of one starts anew.
    """

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str, str], RecentAnswers] = {}

    def of(self, deployment: Deployment) -> RecentAnswers:
        """Return the answers of a deployment."""
        answers = self._answers.get(deployment.asked_at)
        if answers is None:
            answers = self._answers[deployment.asked_at] = RecentAnswers()
        return answers

    def record_failure(self, deployment: Deployment) -> None:
        """After a failure, earlier answers no longer show that the deployment works."""
        if (answers := self._answers.get(deployment.asked_at)) is not None:
            answers.has_failed = True

    def answers_quickly(self, deployment: Deployment, timeout_s: float, now: float) -> bool:
        """Return whether it answered within the last `timeout_s`, and every recent whole answer took less than half of
        it.

        At least one recent whole answer is needed: the time to the first event of a stream does not predict its end. A
        simulator needs none: it answers at once unless it has shown otherwise. Its streams have the pace of a reader,
        so a fold would take half a second.
        """
        answers, is_simulated = self._answers.get(deployment.asked_at), deployment.simulates is not None
        if answers is None:
            return is_simulated
        has_answered = is_simulated or answers.last_at + timeout_s > now
        is_timed = is_simulated or now - answers.slowest_at <= SLOW_ANSWER_REMEMBERED_S
        return has_answered and is_timed and not answers.has_failed and answers.slowest_s <= timeout_s * _QUICK_FRACTION

    def prune(self, deployments: Iterable[Deployment]) -> None:
        """Forget every deployment that is not in `deployments`. Called after a configuration change."""
        current = {deployment.asked_at for deployment in deployments}
        self._answers = {key: value for key, value in self._answers.items() if key in current}


def first_token_timeout_s(deployment: Deployment, request: ServedRequest, bounds: Resilience) -> float:
    """Return the seconds to the first real event: the deployment's own setting, or the general one.

    A model that thinks without showing it has a multiple of the general one.
    """
    if request.__class__ is not ChatRequest and not isinstance(request, ChatRequest) and request.heard_s:
        return min((deployment.first_token_s or bounds.first_token_s) + request.heard_s, bounds.commit_s)
    if deployment.first_token_s is not None:
        return deployment.first_token_s
    facts = deployment.target.facts
    if facts.first_token_factor != 1 and isinstance(request, ChatRequest) and reasons_unseen(request, facts):
        return bounds.first_token_s * facts.first_token_factor
    return bounds.first_token_s
