"""Release an answer piece by piece, as far as the judges have passed it.

Each choice by itself: text, reasoning and refusals are held until a verdict, a tool call from its first byte until
the end of its choice, and an answer in a required format as a whole. The stream of the provider is read no faster than
verdicts allow, and no more of released text is kept than its digest, so memory is bounded.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import assert_never

from gateway.execution.answer_stream import AnswerStream
from gateway.execution.judging import Judge, PassedTexts, bytes_of, pieces_of, policy_of
from gateway.execution.resume import ResumingStream
from gateway.execution.resume_request import SentAnswer
from gateway.model.excerpt import AROUND
from gateway.model.moderation import NoVerdict
from providers import chat
from providers.json_values import as_list, as_map
from providers.reading.folding import expand
from providers.value import replace

_MOST_HELD = 1_000_000
"""Characters of a choice that wait for one verdict. No judge could read more."""
_SHORT = 1000
_WIDE_END = re.compile(r"[。！？؟…][\"'”’」』）)\]]*|\n")
_PLAIN_END = re.compile(r"[.!?][\"'”’)\]]*\s")
_SPACE = re.compile(r"\s")
Spoken = chat.TextDelta | chat.ReasoningDelta | chat.RefusalDelta


def cut_of(text: str, window: int, hold: int) -> int | None:
    """Return how much of new text to judge now: up to the first end of a sentence after `window` characters.

    At the latest after `hold` characters: then up to the last white space before it, so that no word is cut. None: not
    yet. Without white space, the last character of the text ends no sentence, because what follows is not known.
    """
    if len(text) <= window:
        return None
    # A later end does not count, and one event may have megabytes.
    place = max(window - 1, 0), hold + 1
    ends = [match.end() for match in (_PLAIN_END.search(text, *place),) if match is not None]
    wide = _WIDE_END.search(text, *place)
    if wide is not None and (wide.end() < len(text) or wide[0] == "\n"):
        ends.append(wide.end())
    if ends and min(ends) <= hold:
        return min(ends)
    if len(text) <= hold:
        return None
    spaces = [match.end() for match in _SPACE.finditer(text, window, hold)]
    return spaces[-1] if spaces else hold


@dataclass(slots=True)
class _Choice:
    """One choice: what is held, and the end of what was released."""

    is_whole: bool
    held: deque[chat.StreamEvent] = field(default_factory=deque)
    """The events that wait for a verdict."""
    new: str = ""
    """Their text that waits, of a choice that is judged in pieces."""
    size: int = 0
    """The characters that wait."""
    tail: str = ""
    """The end of the text that was released: what is judged again, and what stands before that."""
    digests: dict[type[Spoken], hmac.HMAC] = field(default_factory=dict)
    """Those of the texts that a client sends back in its history, by their kind."""
    is_known: bool = True
    """All that was released has a verdict."""
    is_over: bool = False
    """Nothing more of it is shown."""

    def add(self, event: chat.StreamEvent, text: str) -> None:
        """Hold one more event with this text."""
        self.size += len(text)
        if not self.is_whole:
            self.new += text
        elif self.held and (joined := _joined(self.held[-1], event)) is not None:
            self.held[-1] = joined
            return
        self.held.append(event)

    def drop(self) -> None:
        """Forget what is held."""
        self.held.clear()
        self.new, self.size = "", 0


@dataclass(eq=False, repr=False)
class ModeratedStream(AnswerStream):
    """An answer of which only what passed is released.

    Iterating raises NoVerdict if there is no verdict and the policy requires one, and CallRefused if a limit does not
    pay for one. The opening of the answer comes with its first batch, so that an error before it has a status.

    The prompt is the user's last text, or None if the answer is a person's own words. The answer is moderated by
    choices, or with `is_whole` each choice as a whole. `known` has the categories of the choices that were flagged as a
    whole, which now lose their end, when the other choices have passed.
    """

    _stream: AnswerStream
    _judge: Judge
    _prompt: str | None
    _passed: PassedTexts
    _: KW_ONLY
    is_whole: bool
    known: Mapping[int, tuple[str, ...]] | None = None
    flagged: dict[int, tuple[str, ...]] = field(default_factory=dict)
    _choices: dict[int, _Choice] = field(default_factory=dict)
    _opening: tuple[chat.StreamEvent, ...] = ()
    _sent: dict[type[Spoken], list[str]] | None = None

    def __post_init__(self) -> None:
        self._policy = policy_of(self._judge.moderation, self._judge.moderation.output)
        self._events = self._read()
        if isinstance(self._stream, ResumingStream):
            self._stream.take_back, self._sent = self._take_back, {}

    def _take_back(self) -> SentAnswer | None:
        """Forget what is held of an answer that broke off, so that another model continues what the client has.

        An answer that was flagged is not continued.
        """
        if self.flagged:
            return None
        held = ""
        if (choice := self._choices.get(0)) is not None:
            held = "".join(event.text for event in choice.held if isinstance(event, chat.TextDelta))
            choice.drop()
        sent, self._sent = self._sent or {}, None
        return SentAnswer(
            "".join(sent.get(chat.TextDelta, ())), "".join(sent.get(chat.ReasoningDelta, ())), held[:AROUND]
        )

    async def _read(self) -> AsyncIterator[tuple[chat.StreamEvent, ...]]:
        async for batch in self._stream:
            for event in expand(batch):
                if isinstance(event, chat.Opened):
                    self._opening = (event,)
                    continue
                async for shown in self._shown(event):
                    yield (*self._opening, *shown)
                    self._opening = ()

    async def _shown(self, event: chat.StreamEvent) -> AsyncIterator[tuple[chat.StreamEvent, ...]]:
        """Yield what may be released after one more event."""
        match event:
            case chat.ImageDelta() if self._judge.moderation.on_failure == "closed":
                raise self._no_verdict()  # the judges of a text have none on an image
            case (
                chat.TextDelta()
                | chat.ReasoningDelta()
                | chat.RefusalDelta()
                | chat.ToolCallDelta()
                | chat.AnnotationsDelta()
                | chat.ImageDelta()
            ):
                choice = self._choice(event.choice)
                if choice.is_over:
                    return
                if isinstance(event, chat.ToolCallDelta):
                    choice.is_whole, choice.new = True, ""
                choice.add(event, _text_of(event))
                policy = self._judge.moderation
                while not choice.is_whole and not choice.is_over:
                    cut = cut_of(choice.new, policy.window_chars, policy.hold_chars)
                    if cut is None:
                        return
                    async for shown in self._judged(choice, choice.new[:cut], event.choice):
                        yield shown
                    await asyncio.sleep(0)  # one event may have many pieces
                if choice.size > _MOST_HELD:
                    raise self._no_verdict()
            case chat.ChoiceFinish():
                async for shown in self._ended(event.choice, event):
                    yield shown
            case chat.Finished():
                for index in self._choices:  # of a provider that forgot to end them
                    async for shown in self._ended(index, None):
                        yield shown
                if self._judge.result.output is None:
                    self._judge.result.note_output("passed")  # nothing was to be judged
                yield (event,)
            case chat.Failed() if self.flagged and all(choice.is_over for choice in self._choices.values()):
                yield (
                    (chat.UsageReport(event.usage), chat.Finished()) if event.usage is not None else (chat.Finished(),)
                )
            case chat.UsageReport() | chat.Failed():
                yield (event,)
            case chat.Opened() | chat.Heartbeat() | chat.AudioDelta() | chat.SegmentDelta() | chat.TextRun():
                pass
            case _:
                assert_never(event)

    def _choice(self, index: int) -> _Choice:
        return self._choices.setdefault(index, _Choice(self.is_whole))

    async def _ended(self, index: int, finish: chat.ChoiceFinish | None) -> AsyncIterator[tuple[chat.StreamEvent, ...]]:
        """Judge the rest of a choice, and yield it with its end."""
        choice = self._choice(index)
        if choice.is_over:
            return
        rest = "".join(map(_text_of, choice.held)) if choice.is_whole else choice.new
        calls = _calls_of(choice.held)
        if rest or self._is_flagged(index) or any(_words_of(choice.held)):
            async for shown in self._judged(choice, rest, index, is_end=True):
                yield shown
        if index in self.flagged:
            return
        choice.is_over = True
        if choice.is_known:
            for digest in choice.digests.values():
                self._passed.add(digest)
            for call in calls:
                self._passed.add_text(self._policy, call)
        if last := (*choice.held, finish) if finish is not None else tuple(choice.held):
            yield last

    async def _judged(
        self, choice: _Choice, text: str, index: int, *, is_end: bool = False
    ) -> AsyncIterator[tuple[chat.StreamEvent, ...]]:
        """Judge the next text of a choice, and yield what follows from the verdict."""
        judge, policy = self._judge, self._judge.moderation
        try:
            flagged = await self._categories(choice, text, index, is_end=is_end)
        except NoVerdict as missing:
            if policy.on_failure == "closed":
                raise self._no_verdict() from None
            judge.result.note_output("skipped")
            judge.result.note_missing(missing)
            choice.is_known = False
        else:
            if flagged is not None:
                self.flagged[index] = flagged
                judge.result.note_output("flagged", flagged)
                choice.is_over = True
                choice.drop()
                yield (chat.ChoiceFinish("content_filter", index),)
                return
            judge.result.note_output("passed")
        if released := tuple(self._take(choice, text)):
            yield released

    def _no_verdict(self) -> NoVerdict:
        """Return the error that ends the answer."""
        self._judge.result.note_output("failed")
        for one in self._choices.values():
            one.drop()
        return NoVerdict()

    def _is_flagged(self, index: int) -> bool:
        return self.known is not None and index in self.known

    async def _categories(self, choice: _Choice, text: str, index: int, *, is_end: bool) -> tuple[str, ...] | None:
        """Return the categories of flagged text, or None if it passes. Raises NoVerdict."""
        judge = self._judge
        if self.known is not None:
            if not self._is_flagged(index):
                return None
            # The whole was flagged, so its end is not released, even if no piece of it is flagged by itself.
            if is_end:
                return self.known[index]
        try:
            begin = max(0, len(choice.tail) - judge.moderation.window_chars)
            after = "" if choice.is_whole else choice.new[len(text) : len(text) + AROUND]
            texts = list(pieces_of(choice.tail[begin:] + text, choice.tail[:begin], after)) if text else []
            texts += [piece for words in _words_of(choice.held) for piece in pieces_of(words)]
            return (await judge.verdict(judge.moderation.output, texts, self._prompt)).flagged
        except NoVerdict:
            if self.known is not None:
                return self.known[index]
            raise

    def _take(self, choice: _Choice, text: str) -> list[chat.StreamEvent]:
        """Return the held events of this text. An event on the border is divided."""
        released: list[chat.StreamEvent] = []
        left, is_more = len(text), len(text) < choice.size
        while choice.held:
            event = choice.held[0]
            size = len(_text_of(event))
            if left == 0 and (size or is_more):
                break  # what has no text of its own, such as log probabilities, waits for the text after it
            if size > left:
                if not isinstance(event, Spoken):
                    break
                # Log probabilities belong to tokens, so they follow with the rest.
                first = chat.TextDelta(event.text[:left], event.choice)
                released.append(first if isinstance(event, chat.TextDelta) else replace(event, text=event.text[:left]))
                choice.held[0] = replace(event, text=event.text[left:])
                self._note(choice, event, event.text[:left])
                left = 0
                break
            if isinstance(event, Spoken):
                self._note(choice, event, event.text)
            left -= size
            released.append(choice.held.popleft())
        choice.tail = (choice.tail + text)[-self._judge.moderation.window_chars - AROUND :]
        choice.new, choice.size = choice.new[len(text) :], choice.size - len(text)
        return released

    def _note(self, choice: _Choice, event: Spoken, text: str) -> None:
        """Remember text that is released: for the next turn, and for a model that continues the answer."""
        kind = type(event)
        if kind not in choice.digests:
            choice.digests[kind] = self._passed.begin(self._policy)
        choice.digests[kind].update(bytes_of(text))
        if self._sent is not None:
            self._sent.setdefault(kind, []).append(text)

    async def __anext__(self) -> tuple[chat.StreamEvent, ...]:
        return await anext(self._events)

    async def close(self) -> None:
        """Release the provider's connection. Held text is forgotten."""
        self._choices.clear()
        await self._stream.close()


def _text_of(event: chat.StreamEvent) -> str:
    match event:
        case chat.TextDelta() | chat.ReasoningDelta() | chat.RefusalDelta():
            return event.text
        case chat.ToolCallDelta():
            return (event.name or "") + event.arguments
        case _:
            return ""


def _words_of(events: Iterable[chat.StreamEvent]) -> Iterator[str]:
    """Yield what people read of the annotations among some events, such as titles. It stands outside the text."""

    def within(value: object) -> Iterator[str]:
        if isinstance(value, str) and value.strip():
            yield value
        for key, item in as_map(value).items():
            if key not in ("type", "url") and not key.endswith("_id"):
                yield from within(item)
        for item in as_list(value):
            yield from within(item)

    for event in events:
        if isinstance(event, chat.AnnotationsDelta):
            yield from within(list(event.annotations))


def _joined(last: chat.StreamEvent, event: chat.StreamEvent) -> chat.StreamEvent | None:
    """Return two parts of a text or of a call as one, or None: an event takes many times the memory of its few letters.

    A long part is not copied again.
    """
    match last, event:
        case (chat.TextDelta(text, choice, None), chat.TextDelta(more, other, None)) if (
            choice == other and len(text) < _SHORT
        ):
            return replace(last, text=text + more)
        case (chat.ToolCallDelta(), chat.ToolCallDelta(id=None, name=None, signature=None)) if (
            last.index,
            last.choice,
        ) == (event.index, event.choice) and len(last.arguments) < _SHORT:
            return replace(last, arguments=last.arguments + event.arguments)
    return None


def _calls_of(events: Iterable[chat.StreamEvent]) -> list[str]:
    """Return each tool call as the text that is judged when a client sends it back."""
    calls: dict[int, list[str]] = {}
    for event in events:
        if isinstance(event, chat.ToolCallDelta):
            calls.setdefault(event.index, []).append(_text_of(event))
    return ["".join(parts) for parts in calls.values()]
