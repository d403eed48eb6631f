"""One attempt of a walk while it runs, and all that hangs on it: the key, the place, the breaker's ticket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.execution.attempt import Answer
from gateway.execution.breaker import Breaker
from gateway.execution.form import Form
from gateway.execution.load import Slot
from gateway.model.decision import Step
from gateway.model.record import AttemptRecord
from providers.auth import Secret
from providers.failures import Failure
from providers.values import maker

_attempt = maker(AttemptRecord)


@dataclass(slots=True)
class Call:
    """An attempt: `answered`, `failed` or `given_up` settles it, whichever comes first.

    form: what is asked, and for how long. is_hedge: made beside a slow one. answer, failure: what came of it, or
    neither where it was withdrawn before anything was sent.
    """

    step: Step
    secret: Secret | None
    form: Form
    started_at: float
    breaker: Breaker | None
    ticket: int | None
    slot: Slot | None
    is_hedge: bool = False
    answer: Answer | None = None
    failure: Failure | None = None
    is_withdrawn: bool = False
    ended_at: float | None = None

    def answered(self, answer: Answer, now: float, clock: Callable[[], float]) -> None:
        """The answer has begun, or is there as a whole. The place is held until the end of a stream."""
        self.answer = answer
        self.ended_at = now
        stream, breaker, slot = answer.stream, self.breaker, self.slot
        if breaker is not None and self.ticket is not None:
            if stream is None:
                breaker.succeeded(self.ticket, now)
            else:
                stream.tell(breaker.outcome(breaker.begun(self.ticket), clock))
        if slot is not None:
            slot.answered(now - self.started_at, whole=stream is None)
            if stream is None:
                slot.release()
            else:
                stream.hold(slot.release)

    def failed(self, failure: Failure, now: float, *, counts: bool) -> None:
        """It failed; `counts`, for the breaker."""
        self.failure = failure
        self.ended_at = now
        if self.breaker is not None and self.ticket is not None:
            if counts:
                self.breaker.failed(self.ticket, now, failure.message)
            else:
                self.breaker.released(self.ticket)
        if self.slot is not None:
            self.slot.failed(failure.kind)
            self.slot.release()

    def given_up(self, now: float) -> bool:
        """Nobody waits for it any more: whether it was under way. It then tells nothing of the provider."""
        if self.ended_at is not None:
            return False
        self.ended_at = now
        if self.breaker is not None and self.ticket is not None:
            self.breaker.released(self.ticket)
        if self.slot is not None:
            self.slot.release()
        return True

    def remembered(self, *, lost: bool = False) -> AttemptRecord:
        """The attempt as the record has it, once it is settled. lost: another one answered first."""
        deployment = self.step.deployment
        duration_s = (self.ended_at or self.started_at) - self.started_at
        return _attempt(
            deployment.name,
            deployment.provider,
            deployment.model,
            duration_s,
            self.failure,
            self.started_at,
            deployment.places,
            self.is_hedge,
            lost,
        )
