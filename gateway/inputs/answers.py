"""Answer requests that are not chats, call by call. Each call is decided and executed as a chat is (`ChatService`)."""

from __future__ import annotations

from functools import partial

from gateway.execution.exchange import AnswerStyle, Exchange
from gateway.execution.run import PlanExhausted, RunContext
from gateway.execution.upstream_client import Answer
from gateway.inputs.audio import AudioNote, emulated_by, judged_transcript, labelled, style_audio
from gateway.inputs.calls import InputCalls, calls_of, counted_anew, space_of, with_assistant
from gateway.model.decision import Step
from gateway.model.deployment import capabilities_for
from gateway.model.record import Record, Skipped
from gateway.model.served import measured_as_chat
from gateway.service.answer_stages import AnswerStages
from gateway.service.chat_service import OTHER_MODEL, ChatService, by_deployment
from gateway.service.moderation import judge_of
from gateway.usage.token_count import count_tokens
from providers.catalogue.prices import SEARCH
from providers.failures import Failure, FailureKind
from providers.inputs.audio.values import SpeechRequest, TranscriptionRequest
from providers.inputs.decisions.values import DecisionRequest
from providers.inputs.embeddings.values import EmbeddingAnswer, EmbeddingRequest
from providers.served import InputAnswer, InputRequest
from providers.value import Value
from providers.value import replace as change

_TOO_LONG = frozenset({FailureKind.CONTEXT_LENGTH})


async def answer_input(service: ChatService, exchange: Exchange, request: InputRequest) -> Answer:
    """Return the answer to a request that is not a chat, which is asked for call by call. It may be a stream."""
    record = exchange.record
    record.decided = change(record.decided, use=request.use)
    if isinstance(request, TranscriptionRequest | SpeechRequest):
        return await _answer_audio(service, exchange, request)
    request = exchange.request = with_assistant(request, exchange.config, exchange.caller.client)
    _log_unjudged(service, exchange, request)
    service.decider.prepare(exchange)
    calls = InputCalls(calls_of(request, exchange.assistant, exchange.location.region))
    begun = calls.answers
    try:
        while not calls.is_answered:
            with counted_anew(record):
                calls.take(by_deployment(await service.answer_decided(exchange, partial(answer_call, service, calls))))
    except BaseException:
        if (paid := calls.paid) is not None:
            _note_searches(record, paid)
            record.count(paid.usage)
        raise
    finally:
        await calls.end()
    if len({answer.step.deployment.model for answer in begun}) > 1:
        # Another version of the configuration has another model, and one answer has vectors of one model.
        raise PlanExhausted(Failure(FailureKind.UNAVAILABLE, OTHER_MODEL))
    result = calls.result
    if isinstance(result, EmbeddingAnswer):
        space = space_of(exchange, service.decider.consent_key)
        space.check(exchange.caller.values("x-gateway-embedding-space"), result.dimensions)
        record.shown.embedding_space = space.name(result.dimensions)
    _note_searches(record, result)
    assistant = exchange.assistant
    exchange.style = AnswerStyle(shown_model=None if assistant.reveal_model else assistant.name)
    return change(begun[-1], result=result)


async def _answer_audio(
    service: ChatService, exchange: Exchange, request: TranscriptionRequest | SpeechRequest
) -> Answer:
    """Return the answer to a request for a transcription or for speech, which may be a stream that has begun."""
    record = exchange.record
    record.note(AudioNote(request))
    _log_unjudged(service, exchange, request)
    calls = InputCalls((request,))
    try:
        answer = by_deployment(await service.answer_decided(exchange, partial(answer_call, service, calls)))
        if isinstance(request, TranscriptionRequest):
            record.shown.emulated = emulated_by(answer, request.response_format)
            if calls.judge is not None:
                answer = await judged_transcript(calls.judge, answer, service.passed_texts)
    except BaseException:
        if calls.paid_for is not None:
            record.count(calls.paid_for.usage)
        raise
    finally:
        await calls.end()
    style_audio(service.stages, exchange, request, answer)
    return answer


class TranscriptionTurn(Value, frozen=True):
    """A stream of a transcription that waits for a provider."""

    context: RunContext
    request: TranscriptionRequest

    def foresee(self, stages: AnswerStages, exchange: Exchange) -> bool:
        if self.context.awaited is None:
            return False
        awaited = Answer(self.context.awaited)
        stages.note_answer(exchange, awaited)
        style_audio(stages, exchange, self.request, awaited)
        return True


async def answer_call(service: ChatService, calls: InputCalls, exchange: Exchange) -> Answer:
    """Decide about the current call of a request, and execute its plan until an answer has begun.

    Raises OtherInput, and what `ChatService.answer` raises.
    """
    request = labelled(exchange, calls.current)
    needs = request.needs()
    plan = service.decider.decide(exchange, None, needs, None, await service.decider.consenting(exchange, None, needs))
    if not (steps := calls.steps_of(plan.steps)):
        raise PlanExhausted(Failure(FailureKind.UNAVAILABLE, OTHER_MODEL))
    if isinstance(request, DecisionRequest):
        steps = _within_context(exchange.record, request, steps)
    plan = change(plan, steps=steps)
    if exchange.caller.given and isinstance(request, EmbeddingRequest):
        space = space_of(exchange, service.decider.consent_key)
        space.check(exchange.caller.values("x-gateway-embedding-space"), request.dimensions)
    context = service.context(exchange, plan)
    if context.usage is not None:
        context.usage = exchange.account = await calls.account(context.usage)
    whole = exchange.request
    is_judged = isinstance(whole, InputRequest) and whole.is_judged
    if exchange.config.moderation and is_judged and calls.judged_by is not exchange.config:
        # Query and documents are judged as a whole, before any provider gets a part of them.
        judge = calls.judge = judge_of(service.executor, service.decider.current, exchange, context, plan.region)
        if judge is not None:
            await service.judge_request(judge, whole, exchange)
        calls.judged_by = exchange.config
    if isinstance(whole, TranscriptionRequest) and whole.stream:
        exchange.turn = TranscriptionTurn(context, whole)
    try:
        answer = await service.executor.run(plan, request, context)
    finally:
        exchange.turn = None
    calls.paid_for = answer.result
    service.stages.note_answer(exchange, answer)
    by, shown = exchange.record.answered_by, exchange.record.shown
    if by.price is not None:
        exchange.record.answered_by = change(by, price=by.price.for_use(answer.step.deployment.price_use(request.use)))
    shown.redacted = calls.note_redacted(shown.redacted)
    return answer


def _within_context(record: Record, request: DecisionRequest, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Return the steps whose context takes the input and the questions. Raises PlanExhausted if there are none."""
    sizes = [capabilities_for(step.deployment, request.use).context_tokens for step in steps]
    tokens = count_tokens(measured_as_chat(request)) if any(sizes) else 0
    why = f"its context is too small for a prompt of about {tokens} tokens"
    able = tuple(step for step, size in zip(steps, sizes, strict=True) if size is None or size >= tokens)
    skipped = (Skipped(step.deployment.name, why, _TOO_LONG) for step in steps if step not in able)
    record.skipped.extend(skipped)
    if not able:
        raise PlanExhausted(Failure(FailureKind.CONTEXT_LENGTH, why, unsent=True))
    return able


def _log_unjudged(service: ChatService, exchange: Exchange, request: InputRequest) -> None:
    """Log a request where its region wants that. One that is judged there is in no log before it has passed."""
    region = exchange.location.region
    if region is None or not region.log_prompts:
        return
    if not request.is_judged or region.name not in exchange.config.moderation:
        service.log(exchange.record, request)


def _note_searches(record: Record, result: InputAnswer | None) -> None:
    """Record the search units of a rerank, which have a price of their own."""
    if result is not None and result.search_units is not None:
        record.answered_by = change(record.answered_by, called_tools={SEARCH: result.search_units})
