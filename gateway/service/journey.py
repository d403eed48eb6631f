"""From a parsed request and a decided location to an answer that has begun."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from difflib import get_close_matches

from gateway.execution.deadline import Deadline
from gateway.execution.run import Answer, Runner
from gateway.model.decision import Plan, Refusal, Step
from gateway.model.location import Location
from gateway.model.record import Record
from gateway.model.table import Assistant, Client, Table
from gateway.policy.renewal import why_not_now
from gateway.policy.routing import decide
from gateway.service.signals import Signals
from providers.chat import ChatRequest
from providers.fitting import Needs, needs_of

__all__ = ["AssistantNotFound", "Journeys", "Refused", "assistants_of", "find_assistant", "not_found"]

_MOST_NEAREST = 3


class AssistantNotFound(Exception):
    """The client asks for an assistant that it doesn't have; `nearest` are names of those that it has."""

    def __init__(self, name: str, nearest: tuple[str, ...]) -> None:
        super().__init__(name)
        self.name = name
        self.nearest = nearest


class Refused(Exception):
    """Routing refuses the request."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def assistants_of(table: Table, client: Client | None) -> dict[str, Assistant]:
    """What this caller may ask for, by every name that works."""
    return {
        name: assistant
        for name, assistant in table.assistants.items()
        if client is None or client.may_ask(assistant.name)
    }


def find_assistant(table: Table, client: Client | None, name: str) -> Assistant:
    """The assistant of that name or alias; raises AssistantNotFound, which knows only this caller's assistants."""
    assistant = table.assistants.get(name)
    if assistant is not None and (client is None or client.may_ask(assistant.name)):
        return assistant
    raise not_found(name, assistants_of(table, client))


def not_found(name: str, known: Iterable[str]) -> AssistantNotFound:
    """What to raise for a name that is none of the known ones."""
    return AssistantNotFound(name, tuple(get_close_matches(name[:200], sorted(known), n=_MOST_NEAREST, cutoff=0.5)))


class Journeys:
    """Carries requests through decision and execution. `current` gives the table that is active at that moment;
    `signals` checks what tells a place and is no plain header; `clock` is Unix time."""

    def __init__(
        self, current: Callable[[], Table], runner: Runner, signals: Signals, clock: Callable[[], float] = time.time
    ) -> None:
        self.current = current
        self.signals = signals
        self.clock = clock
        self._runner = runner

    @property
    def runner(self) -> Runner:
        """Who carries out the plans."""
        return self._runner

    async def answer(
        self,
        table: Table,
        client: Client | None,
        location: Location,
        request: ChatRequest,
        deadline: Deadline,
        record: Record,
    ) -> Answer:
        """An answer that has begun; raises AssistantNotFound, Refused or PlanExhausted."""
        assistant = find_assistant(table, client, request.model)
        record.assistant = assistant.name
        needs = needs_of(request)
        decision = decide(table, assistant, location, needs, self._runner.health.snapshot(table), self.clock())
        if not isinstance(decision.outcome, Plan):
            raise Refused(decision.outcome)
        still_allowed = self._still_allowed(assistant, client, location, needs)
        answer = await self._runner.run(decision.outcome, request, table.resilience, deadline, record, still_allowed)
        deployment = answer.step.deployment
        record.deployment, record.provider = deployment.name, deployment.provider
        record.model, record.dropped = deployment.model, answer.step.dropped
        return answer

    def _still_allowed(
        self, assistant: Assistant, client: Client | None, location: Location, needs: Needs
    ) -> Callable[[Step], str | None]:
        return lambda step: why_not_now(step, self.current(), assistant.name, client, location, needs, self.clock())
