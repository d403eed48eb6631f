"""Track how long each deployment takes to answer, per worker process.

Two decisions use it:

- **When to hedge**: `LatencyTracker.hedge_after_s` reads a quantile from a histogram of recent latencies.
- **Whether silence is suspicious**: a request for one JSON answer is normally sent as a stream and folded, because only
  a stream shows that a provider is still working. Folding costs the CPU of a stream. A deployment that is answering
  other requests quickly does not need it (`LatencyTracker.answers_quickly`).

Times are monotonic seconds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate

from gateway.model.deployment import Deployment
from gateway.model.resilience import HedgeRule

SLOW_ANSWER_REMEMBERED_S = 600.0
"""After a slow answer a deployment is not "quick" for this long: only a stream would show the next slow one."""

_QUICK_FRACTION = 0.5
_MIN_SAMPLES = 20
_HALVE_AT = 1024
_BUCKETS_S: tuple[float, ...] = tuple(0.005 * 1.1**power for power in range(123))
"""Upper bounds from 5 ms to about ten minutes. Each is 10 % above the last, so a quantile is exact to 10 %."""
_NEVER = float("-inf")


class LatencyHistogram:
    """A histogram of recent latencies. When it holds 1,024 samples, all counts are halved."""

    __slots__ = ("_counts", "_total")

    def __init__(self) -> None:
        self._counts = [0.0] * (len(_BUCKETS_S) + 1)
        self._total = 0.0

    def record(self, seconds: float) -> None:
        """Add one sample."""
        self._counts[bisect_left(_BUCKETS_S, seconds)] += 1
        self._total += 1
        if self._total >= _HALVE_AT:
            self._counts = [count / 2 for count in self._counts]
            self._total /= 2

    def quantile_s(self, quantile: float) -> float | None:
        """Return the latency that this fraction (0 to 1) of samples stayed below, or None if there are too few samples.

        At least 20 samples are needed, and for high quantiles enough that one sample is expected above.
        """
        if self._total < max(_MIN_SAMPLES, 1 / (1 - quantile)):
            return None
        # Halved counts add up with rounding errors: allow for them, or the last bucket may not reach the total.
        rank = quantile * self._total - 1e-6
        bucket = bisect_left(list(accumulate(self._counts)), rank)
        return _BUCKETS_S[min(bucket, len(_BUCKETS_S) - 1)]


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
        # Only for deployments of assistants that hedge: streams (time to the first event), whole JSON answers.
        self._histograms: dict[tuple[str, str, str], tuple[LatencyHistogram, LatencyHistogram]] = {}

    def hedge_after_s(self, rule: HedgeRule, deployment: Deployment, *, stream: bool) -> float | None:
        """Return how long to wait before a second attempt is sent, or None if too little is known."""
        if rule.after_s is not None:
            return rule.after_s
        return self._histogram(deployment, stream).quantile_s(rule.share)

    def record_start(self, deployment: Deployment, seconds: float, *, stream: bool) -> None:
        """Record the time to the first event (stream) or to the whole answer, or the time after which a hedge won.

        A lost race must be recorded too: without it, every hedge would lower the measured latency.
        """
        self._histogram(deployment, stream).record(seconds)

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
        self._histograms = {key: value for key, value in self._histograms.items() if key in current}

    def _histogram(self, deployment: Deployment, stream: bool) -> LatencyHistogram:
        pair = self._histograms.get(deployment.asked_at)
        if pair is None:
            pair = self._histograms[deployment.asked_at] = (LatencyHistogram(), LatencyHistogram())
        return pair[0] if stream else pair[1]
