"""Count the tokens of a prompt, by the deployment that would be asked for the chat if its server counts."""

from __future__ import annotations

import asyncio
import time

from gateway.execution.exchange import Exchange
from gateway.model.record import AttemptRecord
from gateway.model.wrapper import WrapperNote
from gateway.policy.reasoning_seal import has_state
from gateway.service.assistants import find_assistant
from gateway.service.chat_service import ChatService, expect_route
from gateway.service.decider import ask_before_decision
from gateway.usage.token_count import count_tokens
from providers.chat import ChatRequest
from providers.failures import Failure, FailureKind


async def count_prompt(service: ChatService, exchange: Exchange) -> tuple[int, bool]:
    """Return how many tokens the prompt of a request has, and whether that is an estimate.

    The caller, its location and its limits are checked as for a chat. The prompt is sent at most to the deployment
    that would get it first, if its server counts.
    """
    request, region = exchange.request, exchange.location.region
    if region is not None and region.doors and not region.helps_first:
        ask_before_decision(exchange)
    service.decider.ask_doors_late(exchange)
    expect_route(exchange, find_assistant(exchange.config, exchange.caller.client, request.model))
    if not isinstance(request, ChatRequest):
        raise TypeError("only the tokens of a chat can be counted")
    counted = await _counted(service, exchange, request)
    return counted or count_tokens(request), counted is None


async def _counted(service: ChatService, exchange: Exchange, request: ChatRequest) -> int | None:
    """Return the count of the deployment that would be asked first, or None if no deployment may be asked.

    It is not a chat, so that schedules and the record of the request have no decision of it, but the attempt.
    """
    config, region = exchange.config, exchange.location.region
    if region is None or region.name in config.moderation or region.helps_first:
        return None  # a provider gets no text that was not judged
    if (planned := await service.unrecorded_plan(exchange, request)) is None:
        return None
    (chat, plan), record = planned, exchange.record
    step, context = plan.steps[0], service.context(exchange, plan)
    if has_state(chat):
        chat = service.stages.unsealed(config, step, chat)
    keys = service.executor.health.usable_keys(step.deployment, exchange.asker)
    if not keys:
        return None
    note = WrapperNote(wrapper.names, {}) if (wrapper := step.permit.wrapper) is not None else None
    started_at, counted = time.monotonic(), None
    try:
        counted = await service.executor.client.count(step, keys[0], chat, context.usage, context.still_allowed, note)
    except asyncio.CancelledError:
        counted = 0  # the prompt may have been sent
        raise
    finally:
        if counted is not None:
            failure = None if counted else Failure(FailureKind.UNAVAILABLE, "the deployment gave no count")
            it, took_s = step.deployment, time.monotonic() - started_at
            record.attempts.append(
                AttemptRecord(
                    it.name,
                    it.provider,
                    it.model,
                    took_s,
                    failure,
                    started_at,
                    it.places,
                    it.proxy,
                    redacted=note,
                    consent=step.consent,
                    redirected_to=it.redirected_to(service.decider.clock()),
                )
            )
            if note is not None:
                record.shown.note_redaction(note)
    return counted or None
