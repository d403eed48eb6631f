"""Answer requests that are not chats, call by call. Each call is decided and executed as a chat is (`ChatService`)."""

from __future__ import annotations

from functools import partial

from gateway.execution.exchange import AnswerStyle, Exchange
from gateway.execution.run import PlanExhausted
from gateway.execution.upstream_client import Answer
from gateway.model.input_requests import AudioRequest, InputAnswer, InputRequest, needs_of_input, use_of
from gateway.model.record import Record
from gateway.service.audio import AudioNote, emulated_by, judged_transcript, labelled
from gateway.service.chat_service import OTHER_MODEL, ChatService, by_deployment
from gateway.service.input_requests import InputCalls, calls_of, counted_anew, with_assistant
from gateway.service.moderation import judge_of
from providers.audio.values import SpeechRequest, TranscriptionRequest
from providers.catalogue.prices import SEARCH
from providers.embeddings.values import EmbeddingAnswer, EmbeddingRequest
from providers.failures import Failure, FailureKind
from providers.rerank.values import RerankAnswer, RerankRequest
from providers.value import replace as change

_JUDGED = RerankRequest, TranscriptionRequest, SpeechRequest
"""The requests other than chats whose texts are judged."""


async def answer_input(service: ChatService, exchange: Exchange, request: InputRequest) -> Answer:
    """Return the answer to a request that is not a chat, which is asked for call by call."""
    if isinstance(request, TranscriptionRequest | SpeechRequest):
        return await _answer_audio(service, exchange, request)
    record = exchange.record
    record.decided = change(record.decided, use=use_of(request))
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
        space = service.stages.space_of(exchange)
        space.check(exchange.caller.values("x-gateway-embedding-space"), result.dimensions)
        record.shown.embedding_space = space.name(result.dimensions)
    _note_searches(record, result)
    assistant = exchange.assistant
    exchange.style = AnswerStyle(shown_model=None if assistant.reveal_model else assistant.name)
    return change(begun[-1], result=result)


async def _answer_audio(service: ChatService, exchange: Exchange, request: AudioRequest) -> Answer:
    """Return the answer to a request for a transcription or for speech, which may be a stream that has begun."""
    record = exchange.record
    record.decided = change(record.decided, use=use_of(request))
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
    service.stages.style_audio(exchange, request, answer)
    return answer


async def answer_call(service: ChatService, calls: InputCalls, exchange: Exchange) -> Answer:
    """Decide about the current call of a request, and execute its plan until an answer has begun.

    Raises OtherEmbeddingSpace, and what `ChatService.answer` raises.
    """
    request = calls.current
    request = labelled(exchange, request)
    needs = needs_of_input(request)
    consenting = await service.decider.consenting(exchange, None, needs)
    plan = service.decider.decide(exchange, None, needs, None, consenting)
    if not (steps := calls.steps_of(plan.steps)):
        raise PlanExhausted(Failure(FailureKind.UNAVAILABLE, OTHER_MODEL))
    plan = change(plan, steps=steps)
    if exchange.caller.given and isinstance(request, EmbeddingRequest):
        stated = exchange.caller.values("x-gateway-embedding-space")
        service.stages.space_of(exchange).check(stated, request.dimensions)
    context = service.context(exchange, plan)
    if context.usage is not None:
        context.usage = exchange.account = await calls.account(context.usage)
    whole = exchange.request
    if exchange.config.moderation and isinstance(whole, _JUDGED) and calls.judged_by is not exchange.config:
        # Query and documents are judged as a whole, before any provider gets a part of them.
        judge = calls.judge = judge_of(service.executor, service.decider.current, exchange, context, plan.region)
        if judge is not None:
            await service.judge_request(judge, whole, exchange)
        calls.judged_by = exchange.config
    if isinstance(whole, TranscriptionRequest) and whole.stream:
        exchange.turn = context
    try:
        answer = await service.executor.run(plan, request, context)
    finally:
        exchange.turn = None
    calls.paid_for = answer.result
    service.stages.note_answer(exchange, answer)
    shown = exchange.record.shown
    shown.redacted = calls.note_redacted(shown.redacted)
    return answer


def _log_unjudged(service: ChatService, exchange: Exchange, request: InputRequest) -> None:
    """Log a request where its region wants that. One that is judged there is in no log before it has passed."""
    region = exchange.location.region
    if region is None or not region.log_prompts:
        return
    if not isinstance(request, _JUDGED) or region.name not in exchange.config.moderation:
        service.log(exchange.record, request)


def _note_searches(record: Record, result: InputAnswer) -> None:
    """Record the search units of a rerank, which have a price of their own."""
    if isinstance(result, RerankAnswer) and result.search_units is not None:
        record.answered_by = change(record.answered_by, called_tools={SEARCH: result.search_units})
