"""What a client is told, heard on its way: the text of one answer, for who compares it with another's.

Batches pass as they come, and nothing waits. An answer that is no plain text, or not whole, or longer than is kept, is
not kept at all: half of one can't be compared.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.execution.attempt import Answer
from gateway.execution.stream import AnswerStream
from gateway.service.transcript import MOST_CHARACTERS
from providers.chat import (
    ChatCompletion,
    ChoiceFinish,
    FinishReason,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    TextRun,
    ToolCallDelta,
    text_of,
)
from providers.failures import Failure
from providers.folding import text_of_run


class Heard:
    """An answer that has begun; where it is a stream, this is that stream, to be read instead. `text` is for later."""

    def __init__(self, answer: Answer) -> None:
        self._completion = answer.completion
        self._stream = answer.stream
        self._pieces: list[str | tuple[bytes, ...]] = []
        self._left = MOST_CHARACTERS
        self._finish: FinishReason | None = None

    @property
    def stream(self) -> AnswerStream | None:
        """What is to be read; None where the answer is no stream."""
        return self if self._stream is not None else None

    def text(self) -> str | None:
        """The text of the first choice, as the provider gave it; None where it can't be compared."""
        if self._completion is not None:
            return _text_of(self._completion)
        if self._finish != "stop" or self._left < 0:
            return None
        return "".join(piece if isinstance(piece, str) else text_of_run(piece) for piece in self._pieces) or None

    def __aiter__(self) -> Heard:
        return self

    async def __anext__(self) -> tuple[StreamEvent, ...]:
        """See LiveStream."""
        if self._stream is None:
            raise StopAsyncIteration
        events = await anext(self._stream)
        if self._left >= 0:
            for event in events:
                self._note(event)
        return events

    def _note(self, event: StreamEvent) -> None:
        match event:
            case TextRun(pieces):
                self._pieces.append(pieces)
                self._left -= sum(map(len, pieces))
            case TextDelta(text, 0):
                self._pieces.append(text)
                self._left -= len(text)
            case ChoiceFinish(reason, 0):
                self._finish = reason
            case ToolCallDelta() | RefusalDelta():
                self._left = -1
        if self._left < 0:
            self._pieces.clear()

    def tell(self, told: Callable[[Failure | None], None]) -> None:
        """See LiveStream."""
        if self._stream is not None:
            self._stream.tell(told)

    def hold(self, let_go: Callable[[], None]) -> None:
        """See LiveStream."""
        if self._stream is not None:
            self._stream.hold(let_go)

    async def close(self) -> None:
        """See LiveStream."""
        if self._stream is not None:
            await self._stream.close()


def _text_of(completion: ChatCompletion) -> str | None:
    choice = completion.choices[0] if completion.choices else None
    if choice is None or choice.finish_reason != "stop" or choice.message.tool_calls or choice.message.refusal:
        return None
    text = text_of(choice.message.content)
    return text if 0 < len(text) <= MOST_CHARACTERS else None
