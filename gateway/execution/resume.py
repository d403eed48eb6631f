"""Continue an answer that breaks off in mid-stream with the next step of its plan, once.

The text that was sent is kept for that, and only if the assistant allows it. The next step is tried like any other: it
passes fence, approval and the active config version again, and its attempts are recorded. If no step can continue the
answer, the client gets the original failure.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.execution.answer_stream import AnswerStream, LiveStream, TakeText, TextTap
from gateway.execution.overlap_trimmer import OverlapTrimmer
from gateway.execution.resume_request import (
    SentAnswer,
    added_tokens,
    is_prefilled,
    is_resumable,
    most_tokens,
    resume_request,
    summed,
    why_too_long,
)
from gateway.execution.retry import rule_of, why_spent
from gateway.execution.run import PlanExecutor, PlanExhausted, RunContext
from gateway.execution.upstream_client import Answer, ConfigChanged
from gateway.model.decision import Plan, Step
from gateway.model.record import AnsweredBy, AttemptAction, AttemptDecision, DecisionReason, Record, Resumed, Skipped
from providers import chat
from providers.failures import Failure, FailureKind
from providers.reading.folding import text_of_run
from providers.value import Value, replace

_MOST_KEPT = 1_000_000
"""Characters of an answer that are kept. No model could continue a longer one."""
_NOT_CONTINUED = Failure(FailureKind.INTERRUPTED, "the answer broke off, and another model could not continue it")
_CONTINUED = AttemptDecision(AttemptAction.FAILOVER, DecisionReason.RESUME)
_ASKED_IN_WORDS = AttemptDecision(AttemptAction.RETRY, DecisionReason.RESUME)


class Resumption(Value, frozen=True):
    """Continues a request whose answer breaks off, with the steps of the plan after the one that answered.

    `renew` returns this as another active config version decides it. Without it, nothing is continued under that one.
    """

    executor: PlanExecutor
    plan: Plan
    request: chat.ChatRequest
    context: RunContext
    renew: Callable[[Resumption], Awaitable[Resumption]] | None = None

    async def resume(self, broken: Step, sent: SentAnswer, failed: chat.Failed) -> ContinuationStream | None:
        """Return the rest of the answer; None if no step can give it."""
        context = self.context
        bounds, deadline, attempts = context.bounds, context.deadline, context.record.attempts
        steps = self.plan.steps[self.plan.steps.index(broken) + 1 :]
        if not rule_of(failed.failure).next_step or deadline.left_s(committed=True) <= 0:
            return None
        attempts[-1] = replace(attempts[-1], failure=failed.failure)
        broken_at = len(attempts) - 1
        deadline.recommit(bounds.commit_s)
        if (usage := context.usage) is not None and usage.named_cap is not None:
            usage.named_cap = max(usage.named_cap - most_tokens(sent), 1)
        return await self._try_steps(steps, broken, sent, failed, broken_at)

    async def _try_steps(
        self, steps: tuple[Step, ...], broken: Step, sent: SentAnswer, failed: chat.Failed, broken_at: int
    ) -> ContinuationStream | None:
        """Return the rest of the answer by the first step that gives it. `broken_at`: the index of its attempt."""
        context, record, prefills = self.context, self.context.record, True
        attempts, most = record.attempts, context.bounds.attempts.total
        while len(record.tries) < most and (steps := self._able(steps, broken, sent, prefills=prefills)):
            attempts[broken_at] = replace(attempts[broken_at], decision=_CONTINUED)
            try:
                answer = await self._ask(steps, sent, prefills=prefills)
            except PlanExhausted as error:
                last = next((step for step in steps if step.deployment.name == attempts[-1].deployment), None)
                if error.failure.kind is FailureKind.INVALID_REQUEST and last and prefills and is_prefilled(last, sent):
                    # It refuses a prefill despite its capabilities: ask it in words.
                    attempts[-1] = replace(attempts[-1], decision=_ASKED_IN_WORDS)
                    steps, prefills = steps[steps.index(last) :], False
                    continue
                return None
            except ConfigChanged:
                try:
                    renewed = await self.renew(self) if self.renew is not None else None
                except PlanExhausted:
                    return None
                if renewed is None:
                    return None
                others = [step for step in renewed.plan.steps if step.deployment.name != broken.deployment.name]
                return await renewed._try_steps(tuple(others), broken, sent, failed, broken_at)
            self._record(broken, answer.step)
            prefilled = prefills and is_prefilled(answer.step, sent)
            if answer.stream is None:
                return None
            trimmer = OverlapTrimmer(sent.text, self.request.stop, asked=not prefilled) if sent.text.strip() else None
            added = added_tokens(sent, prefilled=prefilled)
            return ContinuationStream(answer.stream, self.context.record, sent, failed, trimmer, added)
        return None

    async def _ask(self, steps: tuple[Step, ...], sent: SentAnswer, *, prefills: bool) -> Answer:
        def request_for(step: Step) -> chat.ChatRequest:
            return self._request(sent, prefilled=prefills and is_prefilled(step, sent))

        plan, context = replace(self.plan, steps=steps), replace(self.context, request_for=request_for)
        return await self.executor.run(plan, self.request, context)

    def _request(self, sent: SentAnswer, *, prefilled: bool) -> chat.ChatRequest:
        return resume_request(self.request, sent, prefilled=prefilled)

    def _able(self, steps: tuple[Step, ...], broken: Step, sent: SentAnswer, *, prefills: bool) -> tuple[Step, ...]:
        """Return the steps that can continue the answer; record why the others cannot."""
        able: list[Step] = []
        record, most = self.context.record, self.context.bounds.attempts.per_deployment
        attempts = tuple(record.tries) if prefills else ()
        for step in steps:
            reason = why_spent(step.deployment.name, attempts, most) or _why_in_clear(broken, step, sent)
            reason = reason or why_too_long(self._request(sent, prefilled=prefills and is_prefilled(step, sent)), step)
            if reason is None:
                able.append(step)
            else:
                record.skipped.append(Skipped(step.deployment.name, reason))
        return tuple(able)

    def _record(self, broken: Step, by: Step) -> None:
        record, deployment = self.context.record, by.deployment
        record.resumed = Resumed(broken.deployment.name, deployment.name)
        record.shown.dropped |= by.dropped
        # One price for the tokens of two deployments would be wrong, unless it is the same.
        price, tools = deployment.price_at(self.executor.clock()), record.answered_by.called_tools
        price = price if price == record.answered_by.price else None
        names = deployment.name, deployment.provider, deployment.model
        computed = broken.deployment.residency.processes.union(deployment.residency.processes)
        record.answered_by = AnsweredBy(*names, deployment.places, price, tools, computed)


def _why_in_clear(broken: Step, step: Step, sent: SentAnswer) -> str | None:
    """Return why a step that redacts must not continue an answer whose end may be a part of a value; None if it may."""
    rules, former = step.permit.wrapper, broken.permit.wrapper
    if rules is None or not sent.text.strip() or (former is not None and former.covers(rules)):
        return None
    return "it gets no values, and the answer broke off where one may have begun"


def resuming(answer: Answer, resumption: Resumption) -> Answer:
    """Return the same answer, which is continued if it breaks off and that is possible."""
    if answer.stream is None or not is_resumable(resumption.request) or answer.step is resumption.plan.steps[-1]:
        return answer
    return replace(answer, stream=ResumingStream(answer.step, answer.stream, resumption))


class ResumingStream(AnswerStream):
    """The events of one answer, which may come from two streams."""

    def __init__(self, step: Step, stream: AnswerStream, resumption: Resumption) -> None:
        self._step = step
        self._stream = stream
        self._resumption = resumption
        self._text: list[str | tuple[bytes, ...]] = []
        self._reasoning: list[str] = []
        self._left = _MOST_KEPT
        self._is_plain = True
        self._broken: chat.Failed | None = None
        self._begun: tuple[chat.StreamEvent, ...] = ()
        self._next: ContinuationStream | None = None
        self.take_back: Callable[[], SentAnswer | None] | None = None
        """Forgets what a moderation holds, and returns what the client has. None without moderation."""

    def text_tap(self) -> TextTap | None:
        """Return a tap that keeps what it passes; None if the stream below has none."""
        return self if self._stream.text_tap() is not None else None

    def pass_texts_to(self, take_text: TakeText) -> None:
        """See TextTap. A text that is taken is kept like an event."""

        def take_and_keep(text: bytes) -> bool:
            if not take_text(text):
                return False
            self._keep(chat.TextRun((text,)))
            return True

        if (tap := self._stream.text_tap()) is not None:
            tap.pass_texts_to(take_and_keep)

    def whole_events(self) -> tuple[chat.StreamEvent, ...]:
        """See TextTap. A stream that arrived as a whole does not break off."""
        tap = self._stream.text_tap()
        return tap.whole_events() if tap is not None else ()

    async def __anext__(self) -> tuple[chat.StreamEvent, ...]:
        """Return the next batch. Raises CallRefused if a limit does not admit the call that would continue it."""
        if self._next is not None:
            return await self._next.batch()
        if self._broken is not None:
            return await self._resume(self._broken)
        events = await anext(self._stream)
        last = events[-1]
        self._begun = self._begun_placeholder(events)
        for event in events[: len(events) - len(self._begun) - 1]:
            self._keep(event)
        if not isinstance(last, chat.Failed):
            self._keep(last)
            return events
        if not self._is_plain:
            return events
        self._broken = last
        return events[: -1 - len(self._begun)] or await self._resume(last)

    def _begun_placeholder(self, events: tuple[chat.StreamEvent, ...]) -> tuple[chat.StreamEvent, ...]:
        """Return the text before a failure that may be the beginning of a placeholder.

        The client does not get it if another step goes on: that one writes the whole placeholder.
        """
        match events:
            case (*_, chat.TextDelta(text, 0, None) as begun, chat.Failed()):
                wrapper = self._step.permit.wrapper
                return (begun,) if wrapper is not None and wrapper.may_begin(text) else ()
        return ()

    def _keep(self, event: chat.StreamEvent) -> None:
        """Keep what the client gets. An answer with anything but text cannot be continued."""
        match event:
            case chat.TextRun(pieces):
                self._text.append(pieces)
                self._left -= sum(map(len, pieces))
            case chat.TextDelta(text, 0, None):
                self._text.append(text)
                self._left -= len(text)
            case chat.ReasoningDelta(text, 0):
                self._reasoning.append(text)
                self._left -= len(text)
            case chat.Opened() | chat.Heartbeat() | chat.Failed():
                pass
            case _:
                self._is_plain = False
        if self._left < 0:
            self._is_plain = False
        if not self._is_plain:
            self._text.clear()
            self._reasoning.clear()

    async def _resume(self, broken: chat.Failed) -> tuple[chat.StreamEvent, ...]:
        await self._stream.close()
        pieces = [piece if isinstance(piece, str) else text_of_run(piece) for piece in self._text]
        sent = self.take_back() if self.take_back is not None else SentAnswer("".join(pieces), "".join(self._reasoning))
        self._is_plain, self._broken = False, None
        self._next = await self._resumption.resume(self._step, sent, broken) if sent is not None else None
        if self._next is None:
            return (*self._begun, broken)
        return await self._next.batch()

    async def close(self) -> None:
        """Release the providers' connections."""
        await self._stream.close()
        if self._next is not None:
            await self._next.stream.close()


@dataclass(slots=True)
class ContinuationStream:
    """The second part of an answer, so that the client sees one answer.

    It has no second opening, no reasoning after the first text, no repeated text, and the usage of both parts.
    """

    stream: AnswerStream
    record: Record
    sent: SentAnswer
    """The first part, as the client has it."""
    broken: chat.Failed
    """The failure that ended the first part."""
    trimmer: OverlapTrimmer | None
    """Removes the repeated overlap. None if the first part has no text."""
    added: int
    """About how many tokens its prompt is longer than the first one."""

    async def batch(self) -> tuple[chat.StreamEvent, ...]:
        """Return the next events for the client; raise StopAsyncIteration at the end."""
        while True:
            events = tuple([shown for event in await anext(self.stream) for shown in self._shown(event)])
            if self._is_over():
                if isinstance(self.stream, LiveStream) and self.stream.call is not None:
                    self.stream.call.is_unwanted = True
                await self.stream.close()
            if events:
                return events

    def _is_over(self) -> bool:
        """Return whether the answer has ended here, whatever else the provider sends."""
        return self.trimmer is not None and (self.trimmer.stopped or self.trimmer.lost)

    def _shown(self, event: chat.StreamEvent) -> tuple[chat.StreamEvent, ...]:
        """Return what the client gets for an event."""
        trimmer = self.trimmer
        if self._is_over():
            return ()
        match event:
            case chat.Opened() | chat.Heartbeat():
                return ()
            case chat.ReasoningDelta() | chat.AnnotationsDelta() if trimmer is not None:
                # Positions in the second part are wrong in the whole.
                return ()
            case chat.TextRun(pieces) if trimmer is not None and not trimmer.settled:
                return self._joined(trimmer, trimmer.feed(text_of_run(pieces)))
            case chat.TextDelta(text) if trimmer is not None and not trimmer.settled:
                return self._joined(trimmer, trimmer.feed(text))
            case chat.ChoiceFinish() if trimmer is not None and not trimmer.settled:
                shown = self._joined(trimmer, trimmer.close())
                return shown if self._is_over() else (*shown, event)
            case chat.UsageReport(usage):
                total, is_estimated = summed(self.broken.usage, self.sent, self.added, usage)
                self.record.shown.usage_is_estimated |= is_estimated
                return (chat.UsageReport(total),)
            case _:
                return (event,)

    def _joined(self, trimmer: OverlapTrimmer, text: str) -> tuple[chat.StreamEvent, ...]:
        """Return new text, and the end of the answer if a stop sequence ends it at the joint."""
        if trimmer.lost:
            return (chat.Failed(_NOT_CONTINUED),)
        shown = (chat.TextDelta(text),) if text else ()
        return (*shown, chat.ChoiceFinish("stop"), chat.Finished()) if trimmer.stopped else shown
