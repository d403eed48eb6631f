"""An answer that breaks off in mid-stream is continued by the next step of its plan, once.

What was sent is kept for that, and only where the assistant allows it. The next step is asked like any other: it passes
fence, approval and the current table again, and its attempts are noted. If nobody can go on, the client gets the
failure that there was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from gateway.execution.attempt import Answer, StillAllowed
from gateway.execution.continuation import Sent, added_tokens, continuation, is_prefilled, is_resumable, why_too_long
from gateway.execution.deadline import Deadline
from gateway.execution.retry import RULES, why_spent
from gateway.execution.run import PlanExhausted, Runner
from gateway.execution.seam import Seam
from gateway.execution.second_part import SecondPart
from gateway.execution.stream import AnswerStream, TakeText, all_of, pass_on
from gateway.model.config_version import Resilience
from gateway.model.decision import Plan, Step
from gateway.model.record import Record, Resumed, Skipped
from providers.chat import ChatRequest, Failed, Heartbeat, Opened, ReasoningDelta, StreamEvent, TextDelta, TextRun
from providers.failures import Failure, FailureKind
from providers.folding import text_of_run

_MOST_KEPT = 1_000_000
"""Characters of an answer; behind a longer one nobody could go on."""


@dataclass(frozen=True, slots=True)
class Resumption:
    """How one request goes on if its answer breaks off: with the steps of the plan behind the one that answered."""

    runner: Runner
    plan: Plan
    request: ChatRequest
    bounds: Resilience
    deadline: Deadline
    record: Record
    still_allowed: StillAllowed

    async def go_on(self, broken: Step, sent: Sent, failed: Failed) -> SecondPart | None:
        """The rest of the answer; None if nobody can give it."""
        steps = self.plan.steps[self.plan.steps.index(broken) + 1 :]
        attempts = self.record.attempts
        if not RULES[failed.failure.kind].next_step or self.deadline.left_s(committed=True) <= 0:
            return None
        attempts[-1] = replace(attempts[-1], failure=failed.failure)
        self.deadline.recommit(self.bounds.commit_s)
        prefills = True
        while len(attempts) < self.bounds.attempts_total and (steps := self._able(steps, sent, prefills=prefills)):
            try:
                answer = await self._ask(steps, sent, prefills=prefills)
            except PlanExhausted as error:
                last = next((step for step in steps if step.deployment.name == attempts[-1].deployment), None)
                if error.failure.kind is FailureKind.INVALID_REQUEST and last and prefills and is_prefilled(last, sent):
                    # It refuses its own beginning, whatever is known of it: ask it in words.
                    steps, prefills = steps[steps.index(last) :], False
                    continue
                return None
            finally:
                self._note_consent()
            self._note(broken, answer.step)
            return self._next(answer, sent, failed, prefilled=prefills and is_prefilled(answer.step, sent))
        return None

    def _next(self, answer: Answer, sent: Sent, failed: Failed, *, prefilled: bool) -> SecondPart | None:
        if answer.stream is None:
            return None
        seam = Seam(sent.text, self.request.stop, asked=not prefilled) if sent.text.strip() else None
        return SecondPart(answer.stream, self.record, sent, failed, seam, added_tokens(sent, prefilled=prefilled))

    async def _ask(self, steps: tuple[Step, ...], sent: Sent, *, prefills: bool) -> Answer:
        def ask(step: Step) -> ChatRequest:
            return self._form(sent, prefilled=prefills and is_prefilled(step, sent))

        plan = replace(self.plan, steps=steps)
        return await self.runner.run(
            plan, self.request, self.bounds, self.deadline, self.record, self.still_allowed, ask
        )

    def _form(self, sent: Sent, *, prefilled: bool) -> ChatRequest:
        return continuation(self.request, sent, prefilled=prefilled)

    def _able(self, steps: tuple[Step, ...], sent: Sent, *, prefills: bool) -> tuple[Step, ...]:
        """The steps that can go on with what was sent; of the others it is noted why not."""
        able: list[Step] = []
        most, attempts = self.bounds.attempts_per_deployment, tuple(self.record.attempts) if prefills else ()
        for step in steps:
            reason = why_spent(step.deployment.name, attempts, most)
            reason = reason or why_too_long(self._form(sent, prefilled=prefills and is_prefilled(step, sent)), step)
            if reason is None:
                able.append(step)
            else:
                self.record.skipped.append(Skipped(step.deployment.name, reason))
        return tuple(able)

    def _note_consent(self) -> None:
        """Who was sent the prompt only now may rest on one, too."""
        if self.record.consent is None:
            self.record.note_consent(self.plan.steps)

    def _note(self, broken: Step, by: Step) -> None:
        record, deployment = self.record, by.deployment
        record.resumed = Resumed(broken.deployment.name, deployment.name)
        record.deployment, record.provider, record.model = deployment.name, deployment.provider, deployment.model
        record.places = deployment.places
        record.dropped |= by.dropped
        # One price for two deployments' tokens would be a wrong sum, unless it is the same.
        record.price = deployment.price if deployment.price == broken.deployment.price else None


def resuming(answer: Answer, resumption: Resumption) -> Answer:
    """The same answer, continued if it breaks off and can be."""
    if answer.stream is None or not is_resumable(resumption.request) or answer.step is resumption.plan.steps[-1]:
        return answer
    return replace(answer, stream=ResumingStream(answer.step, answer.stream, resumption))


class ResumingStream:
    """Batches of events as of one stream, though it may be of two. See LiveStream."""

    def __init__(self, step: Step, stream: AnswerStream, resumption: Resumption) -> None:
        self._step = step
        self._stream = stream
        self._resumption = resumption
        self._text: list[str | tuple[bytes, ...]] = []
        self._reasoning: list[str] = []
        self._left = _MOST_KEPT
        self._is_plain = True
        self._broken: Failed | None = None
        self._next: SecondPart | None = None

    def pass_on(self, take_text: TakeText) -> None:
        """See `gateway.execution.stream.pass_on`. What is taken is kept like an event."""

        def take_and_keep(text: bytes) -> bool:
            if not take_text(text):
                return False
            self._keep(TextRun((text,)))
            return True

        pass_on(self._stream, take_and_keep)

    def all_of(self) -> tuple[StreamEvent, ...]:
        """See `gateway.execution.stream.all_of`. What came as a whole doesn't break off."""
        return all_of(self._stream)

    def tell(self, told: Callable[[Failure | None], None]) -> None:
        """See LiveStream."""
        self._stream.tell(told)

    def hold(self, let_go: Callable[[], None]) -> None:
        """See LiveStream."""
        self._stream.hold(let_go)

    def __aiter__(self) -> ResumingStream:
        return self

    async def __anext__(self) -> tuple[StreamEvent, ...]:
        """The next batch."""
        if self._next is not None:
            return await self._next.batch()
        if self._broken is not None:
            return await self._go_on(self._broken)
        events = await anext(self._stream)
        for event in events:
            self._keep(event)
        last = events[-1]
        if not isinstance(last, Failed) or not self._is_plain:
            return events
        self._broken = last
        return events[:-1] or await self._go_on(last)

    def _keep(self, event: StreamEvent) -> None:
        """Remember what the client gets; an answer with anything but text is nothing to go on with."""
        match event:
            case TextRun(pieces):
                self._text.append(pieces)
                self._left -= sum(map(len, pieces))
            case TextDelta(text, 0, None):
                self._text.append(text)
                self._left -= len(text)
            case ReasoningDelta(text, 0):
                self._reasoning.append(text)
                self._left -= len(text)
            case Opened() | Heartbeat() | Failed():
                pass
            case _:
                self._is_plain = False
        if self._left < 0:
            self._is_plain = False
        if not self._is_plain:
            self._text.clear()
            self._reasoning.clear()

    async def _go_on(self, broken: Failed) -> tuple[StreamEvent, ...]:
        await self._stream.close()
        pieces = [piece if isinstance(piece, str) else text_of_run(piece) for piece in self._text]
        sent = Sent("".join(pieces), "".join(self._reasoning))
        self._is_plain, self._broken = False, None
        self._next = await self._resumption.go_on(self._step, sent, broken)
        if self._next is None:
            return (broken,)
        return await self._next.batch()

    async def close(self) -> None:
        """Let go of the providers' connections."""
        await self._stream.close()
        if self._next is not None:
            await self._next.close()
