"""Emulate `response_format: {"type": "json_schema"}` for a deployment without schemas.

The schema is in the instructions, and JSON mode is used where there is one. Each whole answer is checked. After an
invalid one, the model is asked once more with the problem; then the next step of the plan follows. A tool call, a
refusal, or an answer that ended early is not checked.

A client's stream is held until the answer is valid (`held`). If that takes long, the client's stream begins meanwhile
(`HeldAnswer`), and comments keep it alive.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from gateway.execution.answer_stream import AnswerStream
from gateway.execution.json_schemas import AnswerSchema, answer_schema
from gateway.execution.run import PlanExhausted, RunContext
from gateway.execution.upstream_client import Answer, ConfigChanged
from gateway.model.decision import Plan, Step
from gateway.model.excerpt import excerpt
from providers import chat
from providers.adapter import EmulatesFeatures
from providers.failures import Failure, FailureKind
from providers.json_values import unfenced
from providers.value import replace

EMULATED = frozenset({"response_format"})
_INSTRUCTION = (
    "Answer with exactly one JSON value that is valid against the following JSON Schema, and nothing else: no text "
    "before or after it, and no code fence. This does not apply to tool calls."
)
_AGAIN = (
    "This answer is not valid against the JSON Schema: {}. Answer the request again with exactly one valid JSON value "
    "and nothing else."
)
_MOST_REPEATED = 20_000
"""The characters of an invalid answer that are sent back."""


class StructuredOutput:
    """The emulation of one request: what each emulating step is sent, and the check of its answers."""

    def __init__(self, request: chat.ChatRequest, schema: AnswerSchema) -> None:
        self._format = request.response_format
        self._schema = schema
        # The last invalid answer of each deployment, and what is wrong with it.
        self._invalid: dict[str, tuple[str, str]] = {}

    @classmethod
    async def of(cls, request: chat.ChatRequest) -> StructuredOutput | None:
        """Return the emulation for a request, or None without a schema. Raises InvalidRequest for a wrong schema."""
        wanted = request.response_format
        if not isinstance(wanted, chat.JsonSchemaFormat):
            return None
        return cls(request, await answer_schema(wanted.schema))

    @property
    def unchecked(self) -> frozenset[str]:
        """The keywords of the schema that are passed on and not checked, as names of fields."""
        return frozenset(f"response_format.{name}" for name in self._schema.unchecked)

    def apply(self, plan: Plan, request: chat.ChatRequest, context: RunContext) -> None:
        """Let a run ask the emulating steps of its plan in words, and check their answers.

        If the first step emulates, no step is asked for a stream. A stream that begins with a native step is passed on.
        """
        unchanged, is_held = context.request_for, plan.steps[0].emulates

        def request_for(step: Step) -> chat.ChatRequest:
            own = request if unchanged is None else unchanged(step)
            if step.emulates:
                return self._in_words(step, own)
            return replace(own, stream=False, include_usage=False) if is_held else own

        context.request_for, context.check = request_for, self.check

    def _in_words(self, step: Step, request: chat.ChatRequest) -> chat.ChatRequest:
        """Return the request as an emulating step gets it: one whole answer, with the schema in words."""
        wanted = self._format
        described = f" {wanted.description}" if isinstance(wanted, chat.JsonSchemaFormat) and wanted.description else ""
        quoted = f"{described}\n\n{self._schema.text}"
        instruction = chat.SystemMessage(_INSTRUCTION + quoted, own=quoted)
        messages = request.messages
        systems = [position for position, message in enumerate(messages) if isinstance(message, chat.SystemMessage)]
        after = systems[-1] + 1 if systems else 0
        messages = (*messages[:after], instruction, *messages[after:])
        if (invalid := self._invalid.get(step.deployment.name)) is not None:
            answer, problem = invalid
            again = chat.UserMessage(_AGAIN.format(problem))
            messages = (*messages, *((chat.AssistantMessage(answer),) if answer.strip() else ()), again)
        mode = chat.JsonObjectFormat() if self._has_json_mode(step) else None
        return replace(request, messages=messages, response_format=mode, stream=False, include_usage=False)

    def _has_json_mode(self, step: Step) -> bool:
        """Return whether the model itself has a JSON mode that may be used here. It gives objects only."""
        deployment = step.deployment
        adapter = deployment.adapter
        in_words = isinstance(adapter, EmulatesFeatures) and "json_object" in adapter.emulated
        has_mode = "json_object" in deployment.capabilities.features and "json_object" not in deployment.excepts
        return self._schema.is_object and has_mode and not in_words

    async def check(self, step: Step, answer: Answer) -> Answer:
        """Return the answer with nothing around its JSON. Raises AnswerRefused if a choice is not valid."""
        completion = answer.completion
        if completion is None:
            return answer
        choices = tuple([await self._checked(step, choice, completion) for choice in completion.choices])
        return replace(answer, completion=replace(completion, choices=choices))

    async def _checked(self, step: Step, choice: chat.Choice, completion: chat.ChatCompletion) -> chat.Choice:
        message = choice.message
        if message.tool_calls or message.refusal or choice.finish_reason != "stop":
            return choice
        whole = chat.text_of(message.content)
        text = unfenced(whole)
        problem = await self._schema.problem_of(text, len(completion.choices))
        if problem is None:
            return choice if text == whole else replace(choice, message=replace(message, content=text))
        is_second = step.deployment.name in self._invalid
        self._invalid[step.deployment.name] = excerpt(whole, 0, _MOST_REPEATED), problem
        is_json = not problem.startswith("it is not valid JSON")
        kind = FailureKind.NOT_VALID if is_json else FailureKind.NOT_JSON
        # In other words than `_AGAIN`: what repeats the request is removed from errors.
        what = "does not match the schema of `response_format`" if is_json else "is not JSON"
        # The problem may quote the answer, so it is for the model only. It is asked once more, and no third time.
        failure = Failure(kind, f"the model's answer {what}", should_retry=False if is_second else None)
        raise chat.AnswerRefused(failure, completion.usage)


async def held(
    asking: Coroutine[Any, Any, Answer], context: RunContext, first: Step, anew: Callable[[], Awaitable[Answer]]
) -> Answer:
    """Return the answer, or a stream that waits for it if it does not come in the time to the first token.

    `anew` gives the whole answer if another config version has to decide after the client's stream has begun.
    """
    timer = context.deadline = context.deadline.apart()
    answering = asyncio.ensure_future(asking)
    answering.add_done_callback(lambda _: timer.close())
    try:
        await asyncio.wait({answering}, timeout=context.bounds.first_token_s)
    except BaseException:
        await _stop(answering)
        raise
    return answering.result() if answering.done() else Answer(first, stream=HeldAnswer(answering, anew))


async def _stop(answering: asyncio.Future[Answer]) -> None:
    answering.cancel()
    with suppress(asyncio.CancelledError, Exception):
        await answering


def events_of(completion: chat.ChatCompletion) -> tuple[chat.StreamEvent, ...]:
    """Return a whole answer as the events of a stream, in which choices end after the texts of all of them."""
    opened = completion.service_tier, completion.system_fingerprint
    events: list[chat.StreamEvent] = [chat.Opened(completion.id, completion.model, completion.created, *opened)]
    for choice in completion.choices:
        message, index = choice.message, choice.index
        if message.reasoning:
            events.append(chat.ReasoningDelta(message.reasoning, index))
        if text := chat.text_of(message.content):
            events.append(chat.TextDelta(text, index, choice.logprobs))
        events += [chat.ImageDelta(url, index) for url in message.images]
        if message.refusal:
            events.append(chat.RefusalDelta(message.refusal, index))
        for number, call in enumerate(message.tool_calls):
            events.append(chat.ToolCallDelta(number, call.arguments, call.id, call.name, call.signature, index))
        if message.annotations:
            events.append(chat.AnnotationsDelta(message.annotations, index))
    events += [
        chat.ChoiceFinish(one.finish_reason, one.index, one.raw_finish_reason, one.stop_sequence)
        for one in completion.choices
    ]
    if completion.usage is not None:
        events.append(chat.UsageReport(completion.usage))
    return (*events, chat.Finished())


class HeldAnswer(AnswerStream):
    """A client's stream whose answer is still being made or checked.

    Its first batch is empty, so that the client's stream begins and comments can follow.
    """

    def __init__(self, answering: asyncio.Future[Answer], anew: Callable[[], Awaitable[Answer]]) -> None:
        """Create the stream. See `held`."""
        self._answering: asyncio.Future[Answer] | None = answering
        self._anew = anew
        self._stream: AnswerStream | None = None
        self._events = self._read(answering)

    async def _read(self, answering: asyncio.Future[Answer]) -> AsyncIterator[tuple[chat.StreamEvent, ...]]:
        yield ()
        try:
            try:
                answer = await answering
            except ConfigChanged:
                answer = await self._anew()
        except PlanExhausted as error:
            yield (chat.Failed(error.failure),)
            return
        self._stream = answer.stream if answer.completion is None else WholeAnswer(answer.completion)
        if self._stream is not None:
            async for events in self._stream:
                yield events

    async def __anext__(self) -> tuple[chat.StreamEvent, ...]:
        return await anext(self._events)

    async def close(self) -> None:
        """Stop what is still running."""
        answering, self._answering = self._answering, None
        if answering is not None and not answering.done():
            await _stop(answering)
        if self._stream is not None:
            await self._stream.close()


class WholeAnswer(AnswerStream):
    """A client's stream of an answer that is complete."""

    def __init__(self, completion: chat.ChatCompletion) -> None:
        self._events = events_of(completion)

    async def __anext__(self) -> tuple[chat.StreamEvent, ...]:
        """Return all events as one batch."""
        events, self._events = self._events, ()
        if not events:
            raise StopAsyncIteration
        return events

    async def close(self) -> None:
        """See AnswerStream. There is nothing to release."""
