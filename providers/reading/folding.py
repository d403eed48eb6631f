"""Fold a stream into one whole answer, and unfold a whole answer into a stream.

Because of both, JSON and streams share one code path: every answer is handled as events, however it arrived and however
it is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import assert_never

from providers import chat
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.json_values import loads


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    signature: str | None = None
    arguments: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Draft:
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)
    annotations: list[chat.Annotation] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    calls: dict[int, _Call] = field(default_factory=dict)
    logprobs: list[chat.Logprobs] = field(default_factory=list)
    finish: chat.FinishReason = "other"
    raw: str | None = None
    stop_sequence: str | None = None

    def choice(self, index: int) -> chat.Choice:
        text = "".join(self.text)
        message = chat.AssistantMessage(
            content=text or (None if self.calls else ""),
            refusal="".join(self.refusal) or None,
            reasoning="".join(self.reasoning) or None,
            tool_calls=tuple(
                chat.ToolCall(call.id, call.name, "".join(call.arguments), call.signature)
                for _, call in sorted(self.calls.items())
            ),
            annotations=tuple(self.annotations),
            images=tuple(self.images),
        )
        return chat.Choice(message, self.finish, index, _join_logprobs(self.logprobs), self.raw, self.stop_sequence)


class Folding:
    """Folds a stream while it arrives, so that no event is stored and the end of a long answer takes little time."""

    __slots__ = ("_drafts", "_failure", "_is_whole", "_opened", "_run", "_usage")

    def __init__(self) -> None:
        self._opened = chat.Opened("", "", 0)
        self._drafts: dict[int, _Draft] = {}
        self._usage: chat.Usage | None = None
        # Consecutive texts of choice 0, still escaped. They are decoded together.
        self._run: list[bytes] = []
        self._failure: Failure | None = None
        self._is_whole = False

    def add(self, events: Iterable[chat.StreamEvent]) -> None:
        """Add the next events of the stream. Events after the terminal event are ignored."""
        drafts, run = self._drafts, self._run
        if self._is_whole or self._failure is not None:
            return
        for event in events:
            match event:
                case chat.TextRun():
                    run += event.pieces
                case chat.Opened():
                    self._opened = event
                case chat.UsageReport(counted):
                    self._usage = counted
                case chat.Failed(failure):
                    self._failure = failure
                    return
                case chat.Finished():
                    self._is_whole = True
                    return
                case chat.Heartbeat() | chat.AudioDelta() | chat.SegmentDelta():
                    pass
                case _:
                    _add_run(drafts, run)
                    _add(drafts.setdefault(event.choice, _Draft()), event)

    def whole(self) -> chat.ChatCompletion:
        """Return the answer. Raises ProviderFailed if the stream failed or has no terminal event."""
        if not self._is_whole:
            interrupted = Failure(FailureKind.INTERRUPTED, "the provider's answer ended before it was complete")
            raise ProviderFailed(self._failure or interrupted)
        _add_run(self._drafts, self._run)
        opened = self._opened
        return chat.ChatCompletion(
            opened.id,
            opened.model,
            opened.created,
            tuple(draft.choice(index) for index, draft in sorted(self._drafts.items())),
            self._usage,
            opened.service_tier,
            opened.system_fingerprint,
        )


def fold(events: Iterable[chat.StreamEvent]) -> chat.ChatCompletion:
    """Fold all events of a stream, in order, into one whole answer.

    Raises ProviderFailed if the stream failed or has no terminal event.
    """
    folding = Folding()
    folding.add(events)
    return folding.whole()


def _add_run(drafts: dict[int, _Draft], run: list[bytes]) -> None:
    if run:
        drafts.setdefault(0, _Draft()).text.append(text_of_run(run))
        run.clear()


def _add(
    draft: _Draft,
    event: chat.TextDelta
    | chat.ReasoningDelta
    | chat.RefusalDelta
    | chat.AnnotationsDelta
    | chat.ImageDelta
    | chat.ToolCallDelta
    | chat.ChoiceFinish,
) -> None:
    match event:
        case chat.TextDelta(text, _, logprobs):
            draft.text.append(text)
            if logprobs:
                draft.logprobs.append(logprobs)
        case chat.ReasoningDelta(text):
            draft.reasoning.append(text)
        case chat.RefusalDelta(text):
            draft.refusal.append(text)
        case chat.AnnotationsDelta(annotations):
            draft.annotations += annotations
        case chat.ImageDelta(url):
            draft.images.append(url)
        case chat.ToolCallDelta(index, arguments, id, name, signature):
            call = draft.calls.setdefault(index, _Call())
            call.id, call.name = call.id or id or "", call.name or name or ""
            call.signature = call.signature or signature
            call.arguments.append(arguments)
        case chat.ChoiceFinish(reason, _, raw, stop_sequence):
            draft.finish, draft.raw, draft.stop_sequence = reason, raw, stop_sequence
        case _:
            assert_never(event)


def _join_logprobs(pieces: list[chat.Logprobs]) -> chat.Logprobs | None:
    """Concatenate the token lists of all pieces."""
    if not pieces:
        return None
    joined: dict[str, object] = {}
    for kind in ("content", "refusal"):
        lists = [tokens for piece in pieces if isinstance(tokens := piece.get(kind), list)]
        joined[kind] = [token for tokens in lists for token in tokens] if lists else None
    return joined


def expand(events: Iterable[chat.StreamEvent]) -> Iterator[chat.StreamEvent]:
    """Yield the same stream with a `TextDelta` for each piece of its runs."""
    for event in events:
        if isinstance(event, chat.TextRun):
            yield from (chat.TextDelta(_decode_contents(piece)) for piece in event.pieces)
        else:
            yield event


def text_of_run(pieces: Iterable[bytes]) -> str:
    """Return the text of the pieces of one or more consecutive runs."""
    return _decode_contents(b"".join(pieces))


def _decode_contents(piece: bytes) -> str:
    text = loads(b'"' + piece + b'"')
    return text if isinstance(text, str) else ""


def unfold(completion: chat.ChatCompletion) -> Iterator[chat.StreamEvent]:
    """Yield a stream that folds to this answer, with each part of a message in one piece."""
    yield chat.Opened(
        completion.id, completion.model, completion.created, completion.service_tier, completion.system_fingerprint
    )
    for choice in completion.choices:
        message, index = choice.message, choice.index
        if message.reasoning:
            yield chat.ReasoningDelta(message.reasoning, index)
        text = message.content if isinstance(message.content, str) else "".join(p.text for p in message.content or ())
        if text or choice.logprobs:
            yield chat.TextDelta(text, index, choice.logprobs)
        if message.refusal:
            yield chat.RefusalDelta(message.refusal, index)
        if message.annotations:
            yield chat.AnnotationsDelta(message.annotations, index)
        yield from (chat.ImageDelta(url, index) for url in message.images)
        for position, call in enumerate(message.tool_calls):
            yield chat.ToolCallDelta(position, call.arguments, call.id, call.name, call.signature, index)
    for choice in completion.choices:
        yield chat.ChoiceFinish(choice.finish_reason, choice.index, choice.raw_finish_reason, choice.stop_sequence)
    if completion.usage is not None:
        yield chat.UsageReport(completion.usage)
    yield chat.Finished()
