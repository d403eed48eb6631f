"""Shadow traffic: send a share of the answered requests to one further deployment, whose answers no client sees.

A shadow request starts when the client has its answer. It affects no other request and no later decision: it makes one
attempt without a retry, and its result changes neither breakers nor cooldowns. It passes the checks of a step of a
route and needs the same permit. Everything that identifies the user is removed. If the deployment has a concurrency
limit, the shadow takes a slot only if one is free.

If the shadow keeps texts, the client's answer is captured while it is sent, to compare the two. An answer that is not
plain text, not complete, or too long is not kept, because it cannot be compared.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable

from gateway.execution.answer_stream import AnswerStream
from gateway.execution.concurrency_limiter import ConcurrencyLimiters, Queuer
from gateway.execution.deadline import Deadline
from gateway.execution.health import Health
from gateway.execution.redaction import redacted
from gateway.execution.upstream_client import Answer, AttemptOptions, UpstreamClient, Withdrawn
from gateway.features.shadow.model import Shadow, ShadowNote, ShadowRecord
from gateway.model.config_version import ConfigVersion
from gateway.model.decision import Step
from gateway.model.kept_metadata import may_keep
from gateway.model.location import Location
from gateway.model.quota import Priority
from gateway.model.record import AttemptRecord, Decided, Record
from gateway.model.wrapper import WrapperNote
from gateway.policy.routing import judge_alone
from gateway.policy.transcript import MAX_CHARACTERS, transcript
from gateway.usage.accounting import Accounting
from gateway.usage.refusals import CallRefused
from providers import chat
from providers.failures import ProviderFailed
from providers.matching.requirements import requirements_of
from providers.reading.folding import fold, text_of_run
from providers.reading.response_reader import TOO_LARGE
from providers.value import Value, replace

MAX_RUNNING = 8
MAX_BODY_BYTES = 1024 * 1024
_MAX_EVENTS = 100_000
_IDENTITY = frozenset({"metadata", "prompt_cache_key", "safety_identifier"})


def anonymous(request: chat.ChatRequest) -> chat.ChatRequest:
    """Return the request without the fields that identify the user."""
    messages = tuple(
        replace(message, name=None) if isinstance(message, chat.UserMessage) and message.name is not None else message
        for message in request.messages
    )
    extra = {name: value for name, value in request.extra.items() if name not in _IDENTITY}
    return replace(request, messages=messages, user=None, extra=extra)


class AnswerCapture(AnswerStream):
    """Keeps the text of one answer while it is sent. If the answer is a stream, read `stream` in its place.

    It has no tap: a text that took the fast path would be missing here.
    """

    def __init__(self, answer: Answer) -> None:
        self._completion = answer.completion
        self._stream = answer.stream
        self._pieces: list[str | tuple[bytes, ...]] = []
        self._left = MAX_CHARACTERS
        self._finish: chat.FinishReason | None = None

    @property
    def stream(self) -> AnswerStream | None:
        """The stream to read; None if the answer is not a stream."""
        return self if self._stream is not None else None

    def text(self) -> str | None:
        """Return the text of the first choice as the provider gave it; None if it cannot be compared."""
        if self._completion is not None:
            return _text_of(self._completion)
        if self._finish != "stop" or self._left < 0:
            return None
        return "".join(piece if isinstance(piece, str) else text_of_run(piece) for piece in self._pieces) or None

    async def __anext__(self) -> tuple[chat.StreamEvent, ...]:
        if self._stream is None:
            raise StopAsyncIteration
        events = await anext(self._stream)
        if self._left >= 0:
            for event in events:
                self._note(event)
        return events

    def _note(self, event: chat.StreamEvent) -> None:
        match event:
            case chat.TextRun(pieces):
                self._pieces.append(pieces)
                self._left -= sum(map(len, pieces))
            case chat.TextDelta(text, 0):
                self._pieces.append(text)
                self._left -= len(text)
            case chat.ChoiceFinish(reason, 0):
                self._finish = reason
            case chat.ToolCallDelta() | chat.RefusalDelta() | chat.ImageDelta():
                self._left = -1
        if self._left < 0:
            self._pieces.clear()

    async def close(self) -> None:
        if self._stream is not None:
            await self._stream.close()


def _text_of(completion: chat.ChatCompletion) -> str | None:
    choice = completion.choices[0] if completion.choices else None
    if choice is None or choice.finish_reason != "stop" or choice.message.tool_calls or choice.message.refusal:
        return None
    text = chat.text_of(choice.message.content)
    return text if 0 < len(text) <= MAX_CHARACTERS else None


class ShadowTurn(Value, frozen=True):
    """A request that goes to a shadow deployment too, once it is answered.

    The labels are assistant, region and shadow deployment, as the metrics name them. If texts are kept, `capture` keeps
    the client's answer, and a stream is read from there.
    """

    shadow: Shadow
    labels: tuple[str, str, str]
    config: ConfigVersion
    location: Location
    record: Record
    offer: Callable[[ShadowTurn, chat.ChatRequest, int], None]
    capture: AnswerCapture | None = None

    def captured(self, answer: Answer) -> Answer:
        """Return the answer to send: its stream passes the capture, if there is one."""
        if self.capture is None or answer.stream is None:
            return answer
        return replace(answer, stream=self.capture.stream)

    def ended(self, request: chat.ChatRequest, body_bytes: int) -> None:
        self.offer(self, request, body_bytes)

    def client_answer(self) -> str | None:
        """Return the client's answer if it was captured and can be compared. A resumed answer is from two models."""
        return self.capture.text() if self.capture is not None and self.record.resumed is None else None


class ShadowSink(Value, frozen=True):
    """Stores and counts the results of shadow requests, by labels. The store may take its time. Times are seconds."""

    store: Callable[[ShadowRecord], Awaitable[None]]
    count: Callable[[tuple[str, str, str, str]], None]
    time: Callable[[tuple[str, str, str], float], None]
    close: Callable[[], None] = lambda: None


_LOW = Queuer(Priority.LOW)


class ShadowTraffic:
    """The shadow requests of one process."""

    def __init__(
        self,
        current: Callable[[], ConfigVersion],
        client: UpstreamClient,
        health: Health,
        sink: ShadowSink,
        limiters: ConcurrencyLimiters | None = None,
        *,
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Make it for one event loop. Requests take concurrency slots too. `draw` draws a number from 0 to 1."""
        self._current = current
        self._client = client
        self._health = health
        self._sink = sink
        self._limiters = limiters or ConcurrencyLimiters()
        self._draw = draw
        self._clock = clock
        self._running: set[asyncio.Task[None]] = set()
        self.accounting: Accounting | None = None
        """Records what requests cost, or None if usage is not recorded."""

    def begin(self, config: ConfigVersion, location: Location, record: Record, answer: Answer) -> ShadowTurn | None:
        """Decide whether the shadow of this request's route is asked too. Call it before the answer is sent."""
        assistant, region = config.assistants.get(record.decided.assistant or ""), location.region
        if assistant is not None and record.decided.intent is not None:
            assistant = assistant.for_intent(record.decided.intent)
        shadow = assistant.parts_in(region.name).of(Shadow) if assistant is not None and region is not None else None
        if record.decided.preference is not None and record.decided.preference.is_reordered:
            return None  # the user's order is not the route's
        if record.decided.hand_off is not None:
            return None  # another request may have been answered
        if assistant is None or region is None or shadow is None or self._draw() >= shadow.share:
            return None
        if not may_keep(location, config.cell_territory):
            return None  # its result could not be kept
        if (
            shadow.keep_text
            and location.territory is not None
            and region.required_places(location.territory) is not None
        ):
            # A judge reads kept texts later, when the boundary of their users is no longer known.
            shadow = replace(shadow, keep_text=False)
        capture = AnswerCapture(answer) if shadow.keep_text else None
        labels = assistant.name, region.name, shadow.deployment.name
        return ShadowTurn(shadow, labels, config, location, record, self.offer, capture)

    def offer(self, turn: ShadowTurn, request: chat.ChatRequest, body_bytes: int) -> None:
        """Send the shadow of a request, as the deployment got it, unless a check prevents it.

        Call this when the client has its answer.
        """
        labels, record = turn.labels, turn.record
        if record.outcome != "ok" or record.answered_by.deployment == labels[-1] or turn.config is not self._current():
            # There is nothing to compare with, or another config version decides by now.
            return
        if len(self._running) >= MAX_RUNNING:
            self._sink.count((*labels, "busy"))
        elif body_bytes > MAX_BODY_BYTES:
            self._sink.count((*labels, "too_large"))
        else:
            self._ask(turn, anonymous(request))

    def _ask(self, turn: ShadowTurn, request: chat.ChatRequest) -> None:
        labels, needs, config = turn.labels, requirements_of(request), turn.config
        unavailable = self._health.snapshot(config)
        step = judge_alone(config, turn.location, turn.shadow.deployment, needs, unavailable, self._clock())
        if not isinstance(step, Step) or needs.moving:
            # A request with effects at a provider must not be sent twice.
            self._sink.count((*labels, "passed_over"))
            return
        slot = None
        if step.deployment.concurrency is not None:
            slot = self._limiters.limiter(step.deployment).try_acquire(_LOW)
            if slot is None:
                self._sink.count((*labels, "busy"))
                return
        turn.record.notes += (ShadowNote(_attempt_at(step, self._clock())),)
        task = asyncio.create_task(self._run(turn, step, request))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        if slot is not None:
            task.add_done_callback(lambda _: slot.release())

    async def _run(self, turn: ShadowTurn, step: Step, request: chat.ChatRequest) -> None:
        labels, config = turn.labels, turn.config
        if config is not self._current():
            # The config changed between `_ask` and this turn of the loop.
            self._sink.count((*labels, "passed_over"))
            return
        deadline = Deadline.start(config.resilience.total_s, config.resilience.commit_s)
        begun_s: float | None = None
        completion, failure, client_answer = None, None, None
        options: AttemptOptions | None = None
        try:
            client_answer = turn.client_answer()
            limit_s = deadline.left_s(committed=not request.stream)
            secret = (self._health.usable_keys(step.deployment) or (None,))[0]
            bounds = config.resilience
            # The texts that are kept of a shadow are those that it got and gave.
            options = AttemptOptions(request, limit_s, bounds.connect_s, bounds.idle_s, restores=False)
            if self.accounting is not None:
                # The usage has a record of its own, because that of the client's request is complete.
                ended = turn.record
                decided = Decided(turn.location, ended.decided.assistant)
                record = Record(ended.request_id, ended.started_at, ended.config_version, decided)
                options.usage = self.accounting.internal_request(config, record)
            answer = await self._client.send_alone(
                step,
                secret,
                options,
                deadline,
                lambda _: None if config is self._current() else "the config has changed",
            )
            begun_s = deadline.clock() - deadline.started_at
            completion = await _whole(answer)
        except (Withdrawn, CallRefused):
            self._sink.count((*labels, "passed_over"))
            return
        except ProviderFailed as error:
            failure = redacted(error.failure, step.deployment, options.sent if options is not None else request)
        except Exception:  # the top of a background task: nothing waits for it, and no request may suffer from it
            self._sink.count((*labels, "internal_error"))
            return
        finally:
            deadline.close()
        total_s = deadline.clock() - deadline.started_at
        if options is not None and (found := options.wrapped) is not None:
            request = found.request if isinstance(found.request, chat.ChatRequest) else request
            client_answer = found.wrap_text(client_answer) if client_answer else client_answer
        outcome = "ok" if failure is None else str(failure.kind)
        self._sink.count((*labels, outcome))
        if begun_s is not None and failure is None:
            self._sink.time(labels, begun_s)
        if turn.shadow.keep_text and config is not self._current():
            # The new version may keep no text, or not here.
            turn, client_answer = replace(turn, shadow=replace(turn.shadow, keep_text=False)), None
        kept = self._record(turn, request, outcome, completion)
        first_s = begun_s if begun_s is not None else total_s
        await self._sink.store(replace(kept, first_s=first_s, total_s=total_s, beside_answer=client_answer))

    def _record(
        self, turn: ShadowTurn, request: chat.ChatRequest, outcome: str, completion: chat.ChatCompletion | None
    ) -> ShadowRecord:
        shadow, record = turn.shadow, turn.record
        choice = completion.choices[0] if completion is not None and completion.choices else None
        message = choice.message if choice is not None else chat.AssistantMessage()
        answer = chat.text_of(message.content)
        return ShadowRecord(
            self._clock(),
            turn.config.version,
            record.request_id,
            *turn.labels,
            model=shadow.deployment.model,
            stream=request.stream,
            outcome=outcome,
            first_s=0.0,
            total_s=0.0,
            usage=completion.usage if completion is not None else None,
            finish_reason=choice.finish_reason if choice is not None else None,
            answer_characters=len(answer),
            tool_calls=len(message.tool_calls),
            beside=record.answered_by.deployment,
            beside_first_s=record.first_s,
            beside_total_s=record.total_s,
            beside_usage=record.usage,
            prompt=transcript(request) if shadow.keep_text else None,
            answer=answer[:MAX_CHARACTERS] if shadow.keep_text else None,
            refusal=message.refusal[:MAX_CHARACTERS] if shadow.keep_text and message.refusal is not None else None,
            calls=_calls(message.tool_calls) if shadow.keep_text else (),
        )

    async def settle(self) -> None:
        """Wait until no shadow request runs."""
        await asyncio.gather(*self._running, return_exceptions=True)

    async def aclose(self) -> None:
        """Cancel the shadow requests that run, and close the store."""
        for task in self._running:
            task.cancel()
        await self.settle()
        self._sink.close()


def _attempt_at(step: Step, now_s: float) -> AttemptRecord:
    """Return the record of an attempt before it is made: the request's record must show where its prompt went."""
    it, wrapper = step.deployment, step.permit.wrapper
    note = WrapperNote(wrapper.names, {}) if wrapper is not None else None
    sent = AttemptRecord(it.name, it.provider, it.model, 0.0, places=it.places, proxy=it.proxy, redacted=note)
    return replace(sent, redirected_to=it.redirected_to(now_s))


async def _whole(answer: Answer) -> chat.ChatCompletion:
    """Read the whole answer; raises ProviderFailed for one that breaks off or is too long."""
    if answer.stream is None:
        if answer.completion is None:
            raise ProviderFailed(TOO_LARGE)
        return answer.completion
    events: list[chat.StreamEvent] = []
    try:
        async for batch in answer.stream:
            events += batch
            if len(events) > _MAX_EVENTS:
                raise ProviderFailed(TOO_LARGE)
    finally:
        await answer.stream.close()
    return fold(events)


def _calls(calls: Iterable[chat.ToolCall]) -> tuple[tuple[str, str], ...]:
    """Return name and arguments of each call, until all together are longer than a text may be."""
    kept: list[tuple[str, str]] = []
    remaining = MAX_CHARACTERS
    for call in calls:
        remaining -= len(call.name) + len(call.arguments)
        if remaining < 0:
            break
        kept.append((call.name, call.arguments))
    return tuple(kept)
