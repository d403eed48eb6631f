"""Take the words of `stop` off the end of an answer, where a provider stops behind them and leaves them in.

At OpenAI an answer ends before them. Of a stream that means holding back what may be the beginning of such a word until
the next piece, or the end, decides. Only a text that really ends so loses anything: a vendor that mends itself may.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from providers.adapter import Adapter, EndsBehindStop
from providers.chat import (
    ChatCompletion,
    Choice,
    ChoiceFinish,
    Failed,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    TextRun,
    ToolCallDelta,
)
from providers.reading.folding import expand

__all__ = ["StopTrimmer", "stops_left_in", "trimmed"]


def stops_left_in(adapter: Adapter, stops: Sequence[str]) -> tuple[str, ...]:
    """Those of a request's stop words that its answer may end with: none, at most providers."""
    if not stops or not isinstance(adapter, EndsBehindStop) or not adapter.ends_behind_stop:
        return ()
    return tuple(stop for stop in stops if stop)


def trimmed(completion: ChatCompletion, stops: Sequence[str]) -> ChatCompletion:
    """The whole answer without the words that ended it."""
    return replace(completion, choices=tuple(_trimmed_choice(choice, stops) for choice in completion.choices))


def _trimmed_choice(choice: Choice, stops: Sequence[str]) -> Choice:
    content = choice.message.content
    if choice.finish_reason != "stop" or not isinstance(content, str):
        return choice
    text = _without(content, stops)
    return choice if text == content else replace(choice, message=replace(choice.message, content=text))


class StopTrimmer:
    """Reads the events of one stream, and gives them out without the words that ended it."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held: dict[int, str] = {}

    def take(self, events: Iterable[StreamEvent]) -> tuple[StreamEvent, ...]:
        """What is certain after these events."""
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
                if rest := _without(held, self._stops) if reason == "stop" else held:
                    yield TextDelta(rest, choice)
                yield event
            case ReasoningDelta() | RefusalDelta() | ToolCallDelta():
                if held := self._held.pop(event.choice, ""):
                    yield TextDelta(held, event.choice)
                yield event
            case Failed():
                # Nobody will know how it went on: what is held is as likely text as not.
                for choice, held in self._held.items():
                    yield TextDelta(held, choice)
                self._held.clear()
                yield event
            case _:
                yield event


def _may_begin_stop(text: str, stops: Sequence[str]) -> int:
    """How many of the last characters could be the beginning of a stop word, or be one."""
    longest = 0
    for stop in stops:
        for length in range(min(len(stop), len(text)), longest, -1):
            if text.endswith(stop[:length]):
                longest = length
                break
    return longest


def _without(text: str, stops: Sequence[str]) -> str:
    found = max((stop for stop in stops if text.endswith(stop)), key=len, default="")
    return text[: len(text) - len(found)]
