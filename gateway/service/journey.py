"""From a parsed request and a decided location to an answer that has begun."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Protocol

from gateway.execution.attempt import Answer
from gateway.execution.deadline import Deadline
from gateway.execution.resume import Resumption, resuming
from gateway.execution.run import PlanExhausted, Runner
from gateway.model.config_version import Assistant, Client, ConfigVersion
from gateway.model.consent import NO_CONSENT, NO_STATEMENT, ConsentRequest, ConsentStatement
from gateway.model.decision import Plan, Refusal, Step
from gateway.model.location import Location
from gateway.model.record import Record
from gateway.model.region_text import Locale
from gateway.policy.canary_assignment import sticky_key_of
from gateway.policy.consent import Consenting
from gateway.policy.renewal import why_not_now
from gateway.policy.routing import decide
from gateway.service.places import as_written
from gateway.service.signals import Signals
from gateway.service.speaking import spoken
from providers.chat import ChatRequest
from providers.needs import Needs, needs_of

_MOST_NEAREST = 3


class AssistantNotFound(Exception):
    """The client asks for an assistant that it doesn't have; `nearest` are names of those that it has. param: where
    it said the name."""

    def __init__(self, name: str, nearest: tuple[str, ...], param: str = "model") -> None:
        super().__init__(name)
        self.name = name
        self.nearest = nearest
        self.param = param

    @property
    def question(self) -> str:
        """Whether one of the nearest was meant; empty if there is none."""
        return f"did you mean {' or '.join(map(repr, self.nearest))}?" if self.nearest else ""


class Refused(Exception):
    """Routing refuses the request. consent: what the person is to be asked, where that is what is missing."""

    def __init__(self, refusal: Refusal, consent: ConsentRequest | None = None) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
        self.consent = consent


def assistants_of(table: ConfigVersion, client: Client | None) -> dict[str, Assistant]:
    """What this caller may ask for, by every name that works."""
    return {
        name: assistant
        for name, assistant in table.assistants.items()
        if client is None or client.may_ask(assistant.name)
    }


def find_assistant(table: ConfigVersion, client: Client | None, name: str, param: str = "model") -> Assistant:
    """The assistant of that name or alias; raises AssistantNotFound, which knows only this caller's assistants."""
    assistant = table.assistants.get(name)
    if assistant is not None and (client is None or client.may_ask(assistant.name)):
        return assistant
    raise not_found(name, assistants_of(table, client), param)


def not_found(name: str, known: Iterable[str], param: str = "model") -> AssistantNotFound:
    """What to raise for a name that is none of the known ones."""
    from difflib import get_close_matches

    by_letters = {one.casefold(): one for one in sorted(known)}
    nearest = get_close_matches(name[:200].casefold(), by_letters, n=_MOST_NEAREST, cutoff=0.5)
    return AssistantNotFound(name, tuple(by_letters[letters] for letters in nearest), param)


class Arrived(Protocol):
    """What else is known of a request than what one table has made of it."""

    def brought_more(self, now: ConfigVersion) -> bool:
        """Whether it has signals of its place that another table would hear, and its own did not."""
        ...

    def has_same_edge(self, now: ConfigVersion) -> bool:
        """Whether who may tell its place in headers is the same by another table, or nobody by either."""
        ...


class Journeys:
    """Carries requests through decision and execution. `current` gives the table that is active at that moment;
    `signals` checks what tells a place and is no plain header; `clock` is Unix time; `consent_key` signs consent tokens
    where the table has no key for that."""

    def __init__(
        self,
        current: Callable[[], ConfigVersion],
        runner: Runner,
        signals: Signals,
        clock: Callable[[], float] = time.time,
        consent_key: bytes | None = None,
    ) -> None:
        self._consent_key = consent_key or secrets.token_bytes(32)
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
        table: ConfigVersion,
        client: Client | None,
        location: Location,
        request: ChatRequest,
        deadline: Deadline,
        record: Record,
        voice: Locale | None = None,
        subject: str | None = None,
        said: ConsentStatement = NO_STATEMENT,
        arrived: Arrived | None = None,
    ) -> Answer:
        """An answer that has begun; raises AssistantNotFound, Refused or PlanExhausted.

        voice: of the region. subject: of the signed claim.
        """
        assistant = find_assistant(table, client, request.model)
        record.assistant = assistant.name
        written = request
        if voice is not None:
            request = spoken(table, location, voice, request, record)
        needs = needs_of(request)
        consenting, agreed, now_s = None, NO_CONSENT, self.clock()
        if table.recipients and location.region is not None:
            consenting = Consenting(said, written, needs, self._consent_key_of(table), now_s)
            agreed = consenting.under(table, location.region)
        health, person = self._runner.health.snapshot(table), partial(sticky_key_of, client, subject, request)
        decision = record.decision = decide(table, assistant, location, needs, health, now_s, person, agreed)
        if not isinstance(decision.outcome, Plan):
            raise _refused(decision.outcome, table, location, consenting)
        record.side = decision.outcome.side
        plan, bounds = decision.outcome, table.resilience
        still_allowed = partial(self._why_not, table, plan, client, location, needs, consenting, arrived)
        try:
            answer = await self._runner.run(plan, request, bounds, deadline, record, still_allowed)
        except PlanExhausted as error:
            if record.profile is None:
                raise
            raise PlanExhausted(as_written(error.failure)) from error
        finally:
            if consenting is not None:
                record.note_consent(plan.steps)
        if assistant.resume and request.stream:
            answer = resuming(answer, Resumption(self._runner, plan, request, bounds, deadline, record, still_allowed))
        deployment = answer.step.deployment
        record.deployment, record.provider = deployment.name, deployment.provider
        record.model, record.dropped, record.price = deployment.model, answer.step.dropped, deployment.price
        record.places = deployment.places
        return answer

    def _consent_key_of(self, table: ConfigVersion) -> bytes:
        return table.secrets.consent.reveal().encode() if table.secrets.consent is not None else self._consent_key

    def _why_not(
        self,
        table: ConfigVersion,
        plan: Plan,
        client: Client | None,
        location: Location,
        needs: Needs,
        consenting: Consenting | None,
        arrived: Arrived | None,
        step: Step,
    ) -> str | None:
        """Why a step of this plan, which the table made, may not be taken any more; None if it may."""
        now = self.current()
        # What a table allows it goes on to allow, where no approval can end meanwhile.
        if now is table and not plan.region.approvals_required:
            return None
        if now is not table and arrived is not None and arrived.brought_more(now):
            # It may be elsewhere by what nobody has judged: in doubt, no.
            return "the current config hears more of where the caller is"
        under = consenting.under if consenting is not None else None
        same_edge = arrived.has_same_edge(now) if arrived is not None else None
        return why_not_now(
            step, now, plan.assistant.name, client, location, needs, self.clock(), under, table, same_edge
        )


def _refused(refusal: Refusal, table: ConfigVersion, location: Location, consenting: Consenting | None) -> Refused:
    if refusal.asks is None or consenting is None or location.region is None:
        return Refused(refusal)
    asked = consenting.ask(refusal.asks, location.region)
    return Refused(replace(refusal, message=f"{refusal.message} ({asked.note})") if asked.note else refusal, asked)
