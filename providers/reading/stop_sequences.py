"""Remove the stop sequence from the end of an answer, for providers that leave it in the text.

OpenAI's answers end before the stop sequence. In a stream, text that may be the beginning of a stop sequence is held
back until the next piece or the end. Nothing else is removed, so answers stay correct if a vendor changes this
behaviour.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from providers.adapter import Adapter, EndsBehindStop
from providers.chat import (
    ChatCompletion,
    Choice,
    ChoiceFinish,
    Failed,
    ImageDelta,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    TextRun,
    ToolCallDelta,
)
from providers.reading.folding import expand
from providers.value import replace


def stops_left_in(adapter: Adapter, stops: Sequence[str]) -> tuple[str, ...]:
    """Return the stop sequences of a request that its answer may end with. Most providers leave none."""
    if not stops or not isinstance(adapter, EndsBehindStop) or not adapter.ends_behind_stop:
        return ()
    return tuple(stop for stop in stops if stop)


def trimmed(completion: ChatCompletion, stops: Sequence[str]) -> ChatCompletion:
    """Return a whole answer without the stop sequence at its end."""
    return replace(completion, choices=tuple(_trimmed_choice(choice, stops) for choice in completion.choices))


def _trimmed_choice(choice: Choice, stops: Sequence[str]) -> Choice:
    content = choice.message.content
    if choice.finish_reason != "stop" or not isinstance(content, str):
        return choice
    stop = _stop_in(content, stops)
    if not stop:
        return choice
    message = replace(choice.message, content=content[: -len(stop)])
    return replace(choice, message=message, stop_sequence=stop)


class StopTrimmer:
    """Removes the stop sequence from the events of one stream."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held: dict[int, str] = {}

    def take(self, events: Iterable[StreamEvent]) -> tuple[StreamEvent, ...]:
        """Return the events that can be passed on after these events."""
        return tuple(shown for event in events for shown in self._shown(event))

    def _shown(self, event: StreamEvent) -> Iterator[StreamEvent]:
        match event:
            case TextRun():
                for piece in expand([event]):
                    yield from self._shown(piece)
            case TextDelta(text, choice):
                text = self._held.pop(choice, "") + text
                keep = _may_begin_stop(text, self._stops)
                if keep:
                    self._held[choice] = text[-keep:]
                if len(text) > keep or event.logprobs is not None:
                    yield replace(event, text=text[: len(text) - keep])
            case ChoiceFinish(reason, choice):
                held = self._held.pop(choice, "")
                stop = _stop_in(held, self._stops) if reason == "stop" else ""
                if rest := held[: len(held) - len(stop)]:
                    yield TextDelta(rest, choice)
                yield replace(event, stop_sequence=stop) if stop else event
            case ReasoningDelta() | RefusalDelta() | ToolCallDelta() | ImageDelta():
                if held := self._held.pop(event.choice, ""):
                    yield TextDelta(held, event.choice)
                yield event
            case Failed():
                # The rest of the text is lost, and what is held back may be normal text.
                for choice, held in self._held.items():
                    yield TextDelta(held, choice)
                self._held.clear()
                yield event
            case _:
                yield event


def _may_begin_stop(text: str, stops: Sequence[str]) -> int:
    """Return how many of the last characters could be a stop sequence or its beginning."""
    longest = 0
    for stop in stops:
        for length in range(min(len(stop), len(text)), longest, -1):
            if text.endswith(stop[:length]):
                longest = length
                break
    return longest


def _stop_in(text: str, stops: Sequence[str]) -> str:
    """Return the stop sequence at the end of the text; empty if there is none."""
    return max((stop for stop in stops if text.endswith(stop)), key=len, default="")
