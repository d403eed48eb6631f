"""Shadow traffic: a share of the answered requests goes to one deployment more, whose answers nobody sees.

It begins when the client has its answer, takes no part in anybody's request, and leaves no trace in what traffic is
decided by: one attempt, no retry, and neither a breaker nor a bench hears of it. It is judged as a step of a route
would be, and goes out under a permit of the same making. Nothing that says who asked is sent along. Where the
deployment takes so many calls at once it takes one of those places, and waits for none.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace

from gateway.execution.attempt import Answer, Caller
from gateway.execution.deadline import Deadline
from gateway.execution.health import Health
from gateway.execution.load import Load
from gateway.execution.redaction import redacted
from gateway.execution.transports import Withdrawn
from gateway.model.config_version import ConfigVersion
from gateway.model.decision import Step
from gateway.model.deployment import Deployment
from gateway.model.location import Location
from gateway.model.record import AttemptRecord, Record
from gateway.model.route import Shadow
from gateway.model.shadow import ShadowRecord
from gateway.policy.routing import judge_alone
from gateway.service.hearing import Heard
from gateway.service.transcript import MOST_CHARACTERS, transcript
from providers.chat import AssistantMessage, ChatCompletion, ChatRequest, StreamEvent, ToolCall, UserMessage, text_of
from providers.exchange import TOO_LARGE
from providers.failures import ProviderFailed
from providers.folding import fold
from providers.needs import needs_of

MOST_AT_ONCE = 8
MOST_BODY_BYTES = 1024 * 1024
_MOST_EVENTS = 100_000
_IDENTITY = frozenset({"metadata", "prompt_cache_key", "safety_identifier"})


def anonymous(request: ChatRequest) -> ChatRequest:
    """The request without what says who asks."""
    messages = tuple(
        replace(message, name=None) if isinstance(message, UserMessage) and message.name is not None else message
        for message in request.messages
    )
    extra = {name: value for name, value in request.extra.items() if name not in _IDENTITY}
    return replace(request, messages=messages, user=None, extra=extra)


@dataclass(frozen=True, slots=True)
class Turn:
    """A request whose shadow is asked too, once it is answered. place: assistant, region and deployment. heard: what
    hears the answer, where texts are kept: a stream is then to be read from there."""

    shadow: Shadow
    place: tuple[str, str, str]
    heard: Heard | None = None

    def beside(self, record: Record) -> str | None:
        """What its client was told, where that is kept and can be compared; of two models' words nothing follows."""
        return self.heard.text() if self.heard is not None and record.resumed is None else None


class Shadows:
    """Those of one process. keep: keeps a record, and may take its time; count: adds one to a metric with these labels;
    took: adds a time to one. load: the places at deployments, which requests take too. draw: a number from 0 to 1;
    clock: Unix time."""

    def __init__(
        self,
        current: Callable[[], ConfigVersion],
        caller: Caller,
        health: Health,
        keep: Callable[[ShadowRecord], Awaitable[None]],
        count: Callable[[tuple[str, str, str, str]], None],
        took: Callable[[tuple[str, str, str], float], None],
        load: Load | None = None,
        *,
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._current = current
        self._caller = caller
        self._health = health
        self._keep = keep
        self._count = count
        self._took = took
        self._load = load or Load()
        self._draw = draw
        self._clock = clock
        self._running: set[asyncio.Task[None]] = set()

    def turn(self, table: ConfigVersion, location: Location, record: Record, answer: Answer) -> Turn | None:
        """An answer is about to go out: whether its route's shadow is to be asked too, as the share is drawn."""
        assistant, region = table.assistants.get(record.assistant or ""), location.region
        shadow = assistant.shadows.get(region.name) if assistant is not None and region is not None else None
        if assistant is None or region is None or shadow is None or self._draw() >= shadow.share:
            return None
        if shadow.keep_text and location.territory is not None and region.kept_at_home(location.territory) is not None:
            # What is kept is read again by whoever judges it, when nobody knows any more whose words must stay where.
            shadow = replace(shadow, keep_text=False)
        heard = Heard(answer) if shadow.keep_text else None
        return Turn(shadow, (assistant.name, region.name, shadow.deployment.name), heard)

    def offer(
        self,
        turn: Turn,
        table: ConfigVersion,
        location: Location,
        request: ChatRequest,
        record: Record,
        body_bytes: int,
    ) -> None:
        """The request has been answered: ask its shadow too, if nothing is against it. Never waits, never raises."""
        place = turn.place
        if record.outcome != "ok" or record.deployment == place[-1] or table is not self._current():
            # There is nothing to compare with, or the config has something else to say by now.
            return
        if len(self._running) >= MOST_AT_ONCE:
            self._count((*place, "busy"))
        elif body_bytes > MOST_BODY_BYTES:
            self._count((*place, "too_large"))
        else:
            self._ask(turn, table, location, anonymous(request), record)

    def _ask(self, turn: Turn, table: ConfigVersion, location: Location, request: ChatRequest, record: Record) -> None:
        place, needs, unwell = turn.place, needs_of(request), self._health.snapshot(table)
        step = judge_alone(table, location, turn.shadow.deployment, needs, unwell, self._clock())
        if not isinstance(step, Step) or needs.moving:
            # What has effects at a provider is done once, and was.
            self._count((*place, "passed_over"))
            return
        slot = None
        if step.deployment.concurrency is not None:
            slot = self._load.limiter(step.deployment).take()
            if slot is None:
                self._count((*place, "busy"))
                return
        record.shadow = _attempt_at(step.deployment)
        task = asyncio.create_task(self._run(turn, table, step, request, record))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        if slot is not None:
            task.add_done_callback(lambda _: slot.release())

    async def _run(self, turn: Turn, table: ConfigVersion, step: Step, request: ChatRequest, record: Record) -> None:
        place = turn.place
        if table is not self._current():
            # Between the order and this turn of the loop, the config has come to say something else.
            self._count((*place, "passed_over"))
            return
        deadline = Deadline.start(table.resilience.total_s, table.resilience.commit_s)
        begun_s: float | None = None
        completion, failure, beside = None, None, None
        try:
            beside = turn.beside(record)
            limit_s = deadline.left_s(committed=not request.stream)
            secret = (self._health.usable_keys(step.deployment) or (None,))[0]
            answer = await self._caller.attempt(
                step, secret, request, table.resilience, deadline, limit_s=limit_s,
                still_allowed=lambda _: None if table is self._current() else "the config has changed",
            )  # fmt: skip
            begun_s = deadline.clock() - deadline.started_at
            completion = await _whole(answer)
        except Withdrawn:
            self._count((*place, "passed_over"))
            return
        except ProviderFailed as error:
            failure = redacted(error.failure, step.deployment, request)
        except Exception:  # the top of a background task: nobody waits for it, and nobody is to suffer from it
            self._count((*place, "internal_error"))
            return
        finally:
            deadline.close()
        total_s = deadline.clock() - deadline.started_at
        outcome = "ok" if failure is None else str(failure.kind)
        self._count((*place, outcome))
        if begun_s is not None and failure is None:
            self._took(place, begun_s)
        if turn.shadow.keep_text and table is not self._current():
            # It may be that no text is to be kept any more, or not here.
            turn, beside = replace(turn, shadow=replace(turn.shadow, keep_text=False)), None
        kept = self._record(turn, table, request, record, outcome, completion)
        first_s = begun_s if begun_s is not None else total_s
        await self._keep(replace(kept, first_s=first_s, total_s=total_s, beside_answer=beside))

    def _record(
        self,
        turn: Turn,
        table: ConfigVersion,
        request: ChatRequest,
        record: Record,
        outcome: str,
        completion: ChatCompletion | None,
    ) -> ShadowRecord:
        shadow = turn.shadow
        choice = completion.choices[0] if completion is not None and completion.choices else None
        message = choice.message if choice is not None else AssistantMessage()
        answer = text_of(message.content)
        return ShadowRecord(
            self._clock(),
            table.version,
            record.request_id,
            *turn.place,
            model=shadow.deployment.model,
            stream=request.stream,
            outcome=outcome,
            first_s=0.0,
            total_s=0.0,
            usage=completion.usage if completion is not None else None,
            finish_reason=choice.finish_reason if choice is not None else None,
            answer_characters=len(answer),
            tool_calls=len(message.tool_calls),
            beside=record.deployment,
            beside_first_s=record.first_s,
            beside_total_s=record.total_s,
            beside_usage=record.usage,
            prompt=transcript(request) if shadow.keep_text else None,
            answer=answer[:MOST_CHARACTERS] if shadow.keep_text else None,
            refusal=message.refusal[:MOST_CHARACTERS] if shadow.keep_text and message.refusal is not None else None,
            calls=_calls(message.tool_calls) if shadow.keep_text else (),
        )

    async def settle(self) -> None:
        """Wait until none runs."""
        await asyncio.gather(*self._running, return_exceptions=True)

    async def aclose(self) -> None:
        """Give up those that run."""
        for task in self._running:
            task.cancel()
        await self.settle()


def _attempt_at(deployment: Deployment) -> AttemptRecord:
    """Told before it is made: whoever reads the request's record is not to miss where its prompt went."""
    return AttemptRecord(deployment.name, deployment.provider, deployment.model, 0.0, places=deployment.places)


async def _whole(answer: Answer) -> ChatCompletion:
    """The whole answer; raises ProviderFailed for one that breaks off, or has no end."""
    if answer.stream is None:
        if answer.completion is None:
            raise ProviderFailed(TOO_LARGE)
        return answer.completion
    events: list[StreamEvent] = []
    try:
        async for batch in answer.stream:
            events += batch
            if len(events) > _MOST_EVENTS:
                raise ProviderFailed(TOO_LARGE)
    finally:
        await answer.stream.close()
    return fold(events)


def _calls(calls: Iterable[ToolCall]) -> tuple[tuple[str, str], ...]:
    """The name and the arguments of each, as long as all of them together are no longer than a text may be."""
    kept: list[tuple[str, str]] = []
    left = MOST_CHARACTERS
    for call in calls:
        left -= len(call.name) + len(call.arguments)
        if left < 0:
            break
        kept.append((call.name, call.arguments))
    return tuple(kept)
