"""Let a private model ask for a hand-off: a tool that the client never sees.

Until the model has produced text, its answer is held. A call of the tool before any text drops what is held, and opens
the barrier. After text, the call is removed from the answer.
"""

from __future__ import annotations

from gateway.execution.answer_stream import AnswerStream
from gateway.execution.deadline import Deadline
from gateway.execution.run import RunContext
from gateway.execution.upstream_client import Answer
from gateway.model.decision import Step
from gateway.model.deployment import match_of
from providers import chat
from providers.matching.requirements import requirements_of
from providers.reading.folding import text_of_run
from providers.value import replace

_NAME = "gateway_hand_off"
_DESCRIPTION = (
    "Hand this request to a more capable model of another provider, if the user agrees. Call it before you write any "
    "text, and only if you cannot answer well yourself."
)
_NO_PARAMETERS = {"type": "object", "properties": {}}
_MOST_HELD = 64 * 1024
"""The bytes that are held. A model that has produced more has begun to answer."""


class HandOffAsked(Exception):
    """The private model has called the tool before any text."""


def tool_name(request: chat.ChatRequest) -> str | None:
    """Return the name of the tool in a request, which no tool of the client has; None if the request gets no tool."""
    if request.response_format is not None or (request.n or 1) > 1 or request.tool_choice not in (None, "auto"):
        return None
    names, number = {tool.name for tool in request.tools}, 1
    while (name := _NAME if number == 1 else f"{_NAME}_{number}") in names:
        number += 1
    return name


def offer_tool(context: RunContext, request: chat.ChatRequest, name: str) -> None:
    """Let a run offer the tool to each step whose model has tools."""
    unchanged, tool = context.request_for, chat.Tool(name, _DESCRIPTION, _NO_PARAMETERS)
    needs = requirements_of(replace(request, tools=(*request.tools, tool)))

    def request_for(step: Step) -> chat.ChatRequest:
        own, deployment = request if unchanged is None else unchanged(step), step.deployment
        if match_of(deployment, needs).missing or "tools" in deployment.excepts:
            return own
        return replace(own, tools=(*own.tools, tool))

    context.request_for = request_for


async def without_calls(answer: Answer, name: str, deadline: Deadline) -> Answer:
    """Return an answer without calls of the tool. Raises HandOffAsked if one comes before any text."""
    if (completion := answer.completion) is not None:
        if all(call.name != name for choice in completion.choices for call in choice.message.tool_calls):
            return answer
        choices = tuple([_without_call(choice, name) for choice in completion.choices])
        return replace(answer, completion=replace(completion, choices=choices))
    if answer.stream is None:
        return answer
    stream = HeldStream(answer.stream, name)
    await stream.begin(deadline)
    return replace(answer, stream=stream)


def _without_call(choice: chat.Choice, name: str) -> chat.Choice:
    message = choice.message
    kept = tuple([call for call in message.tool_calls if call.name != name])
    if len(kept) == len(message.tool_calls):
        return choice
    if not _has_text(message, name):
        raise HandOffAsked
    message = replace(message, tool_calls=kept)
    if kept or choice.finish_reason != "tool_calls":
        return replace(choice, message=message)
    return replace(choice, message=message, finish_reason="stop", raw_finish_reason=None)


def _has_text(message: chat.AssistantMessage, name: str) -> bool:
    """Return whether there is text before the call, or so much else that it counts as text."""
    if chat.text_of(message.content).strip() or message.refusal or message.images:
        return True
    position = next(index for index, call in enumerate(message.tool_calls) if call.name == name)
    before = [message.reasoning or "", *(call.name + call.arguments for call in message.tool_calls[:position])]
    return sum(len(piece.encode("utf-8", "surrogatepass")) for piece in before) > _MOST_HELD


class HeldStream(AnswerStream):
    """A stream of a model that has the tool. `begin` is called before it is read."""

    def __init__(self, stream: AnswerStream, name: str) -> None:
        """`name` is that of the tool."""
        self._stream = stream
        self._name = name
        self._held: list[chat.StreamEvent] = []
        self._size = 0
        self._has_text = False
        self._removed: set[int] = set()
        self._calls: set[int] = set()

    async def begin(self, deadline: Deadline) -> None:
        """Hold the answer until its first text, its end, or the end of the time in which an answer must begin.

        Raises HandOffAsked if the tool is called before.
        """
        try:
            async for events in self._stream:
                self._held += self._shown(events)
                if self._has_text or deadline.is_over(committed=False):
                    break
        except BaseException:
            await self.close()
            raise
        self._has_text = True

    def _shown(self, events: tuple[chat.StreamEvent, ...]) -> list[chat.StreamEvent]:
        return [shown for event in events if (shown := self._of(event)) is not None]

    def _of(self, event: chat.StreamEvent) -> chat.StreamEvent | None:
        """Return the event as the client gets it."""
        match event:
            case chat.ToolCallDelta(index=index):
                if event.name == self._name:
                    if not self._has_text:
                        raise HandOffAsked
                    self._removed.add(index)
                if index in self._removed:
                    return None
                self._calls.add(index)
                self._hold((event.name or "") + event.arguments)
                before = sum(removed < index for removed in self._removed)
                return replace(event, index=index - before) if before else event
            case chat.ReasoningDelta(text=text):
                self._hold(text)
            case chat.TextDelta(text=text):
                self._has_text = self._has_text or bool(text.strip())
            case chat.TextRun(pieces=pieces):
                self._has_text = self._has_text or bool(text_of_run(pieces).strip())
            case chat.RefusalDelta() | chat.ImageDelta():
                self._has_text = True
            case chat.ChoiceFinish(reason="tool_calls") if self._removed and not self._calls:
                return replace(event, reason="stop", raw=None)
        return event

    def _hold(self, piece: str) -> None:
        if not self._has_text:
            self._size += len(piece.encode("utf-8", "surrogatepass"))
            self._has_text = self._size > _MOST_HELD

    async def __anext__(self) -> tuple[chat.StreamEvent, ...]:
        """Return the next batch, beginning with what was held."""
        if self._held:
            held, self._held = tuple(self._held), []
            return held
        while True:
            if events := self._shown(await anext(self._stream)):
                return tuple(events)

    async def close(self) -> None:
        self._held = []
        await self._stream.close()
