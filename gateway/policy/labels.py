"""What the law wants to be said on an answer: put before its text, told in its body, taken off where it comes back.

Pure: a request and a voice in, a `Labelling` out. Words stand at the start of a text, because an end is lost where an
answer breaks off, and never in what a program reads: JSON, the arguments of a call, a refusal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeGuard

from gateway.model.region_text import Label, Locale, RegionText
from providers.chat import (
    Annotation,
    AnnotationsDelta,
    AssistantMessage,
    ChatCompletion,
    ChatRequest,
    Choice,
    Message,
    StreamEvent,
    TextDelta,
    TextPart,
    TextRun,
    text_of,
)

_GENERATED = "1"
_PLACES = frozenset({"start_index", "end_index"})
_MOST_PLACES = 2**53


@dataclass(frozen=True, slots=True)
class Labelling:
    """What is to be said on one answer.

    prefix: what stands before the text of each choice; empty if nothing does. due: the labels whose words the user has
    to see now, in the text or elsewhere.
    """

    labels: tuple[Label, ...]
    due: frozenset[str] = frozenset()
    prefix: str = ""
    names: tuple[str, ...] = field(init=False)
    has_integrity: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(label.name for label in self.labels))
        object.__setattr__(self, "has_integrity", any(label.producer is not None for label in self.labels))


def is_first_turn(messages: Sequence[Message]) -> bool:
    """Whether nobody has been answered in words yet: calls of tools are no words."""
    return not any(isinstance(message, AssistantMessage) and _is_said(message) for message in messages)


def _is_said(message: AssistantMessage) -> bool:
    return bool(text_of(message.content))


def labelling_of(voice: Locale, request: ChatRequest) -> Labelling | None:
    """What is to be said on the answer to this request; None where the region has no labels."""
    if not voice.labels:
        return None
    first = is_first_turn(request.messages)
    due = frozenset(label.name for label in voice.labels if label.is_due(first_turn=first))
    shown = request.response_format is None
    return Labelling(voice.labels, due, (voice.first if first else voice.later) if shown else "")


def label_completion(completion: ChatCompletion, labelling: Labelling) -> ChatCompletion:
    """The whole answer with the words before each text that it has; the same one if it has none."""
    if not labelling.prefix or not any(text_of(choice.message.content) for choice in completion.choices):
        return completion
    return replace(completion, choices=tuple(_labelled(choice, labelling.prefix) for choice in completion.choices))


def _labelled(choice: Choice, prefix: str) -> Choice:
    text = text_of(choice.message.content)
    if not text:
        return choice
    annotations = tuple(_moved(one, len(prefix)) for one in choice.message.annotations)
    return replace(choice, message=replace(choice.message, content=prefix + text, annotations=annotations))


def _is_place(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < _MOST_PLACES


def _moved(annotation: Annotation, by: int) -> Annotation:
    """The annotation of a text before which so many characters are put."""
    return {
        name: _moved(value, by)
        if isinstance(value, dict)
        else value + by
        if name in _PLACES and _is_place(value)
        else value
        for name, value in annotation.items()
    }


class Prefixer:
    """Puts the words before the first text of each choice of a stream. `shown`: whether they stand anywhere yet."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._begun: set[int] = set()

    @property
    def shown(self) -> bool:
        """Whether the words stand before some text already."""
        return bool(self._begun)

    def add(self, events: Iterable[StreamEvent]) -> Iterator[StreamEvent]:
        """The same events, and one more before the first text of a choice."""
        for event in events:
            if self._prefix and isinstance(event, TextDelta | TextRun):
                choice = event.choice if isinstance(event, TextDelta) else 0
                if choice not in self._begun and (isinstance(event, TextRun) or event.text):
                    self._begun.add(choice)
                    yield TextDelta(self._prefix, choice)
            elif isinstance(event, AnnotationsDelta) and event.choice in self._begun:
                event = replace(event, annotations=tuple(_moved(one, len(self._prefix)) for one in event.annotations))
            yield event


class Integrity:
    """The integrity value of an answer: the SHA-256 of each choice's text as the client gets it."""

    def __init__(self) -> None:
        self._hashes: dict[int, hashlib._Hash] = {}

    def add(self, text: str, choice: int = 0) -> None:
        """More text of a choice."""
        if choice not in self._hashes:
            self._hashes[choice] = hashlib.sha256()
        self._hashes[choice].update(text.encode("utf-8", "surrogatepass"))

    @property
    def value(self) -> str:
        """One value for each choice that has text, in order; empty if none has."""
        return ",".join(f"sha256:{one.hexdigest()}" for _, one in sorted(self._hashes.items()))


def integrity_of(completion: ChatCompletion) -> str:
    """The integrity value of a whole answer."""
    integrity = Integrity()
    for choice in completion.choices:
        if text := text_of(choice.message.content):
            integrity.add(text, choice.index)
    return integrity.value


def marks(labelling: Labelling, produce_id: str, integrity: str = "", *, in_content: bool) -> list[dict[str, object]]:
    """The labels as a program reads them: what stands in `x_gateway.labels`."""
    return [_mark(label, labelling, produce_id, integrity, in_content) for label in labelling.labels]


def _mark(label: Label, labelling: Labelling, produce_id: str, integrity: str, in_content: bool) -> dict[str, object]:
    mark: dict[str, object] = {"name": label.name, "ai_generated": True}
    if label.name in labelling.due:
        mark |= {"text": label.text, "in_content": in_content and label.show != "never"}
    if label.producer is not None:
        # GB 45438-2025, appendix E: whoever writes it first is its propagator as well.
        mark["AIGC"] = {
            "Label": _GENERATED,
            "ContentProducer": label.producer,
            "ProduceID": produce_id,
            "ReservedCode1": integrity,
            "ContentPropagator": label.producer,
            "PropagateID": produce_id,
            "ReservedCode2": "",
        }
    return mark


# --- where an answer comes back -------------------------------------------------------------------


def without_labels(messages: tuple[Message, ...], speech: RegionText) -> tuple[Message, ...]:
    """The history without our own labels: at the start of what the assistant said, once, and nowhere else."""
    if not speech.known:
        return messages
    stripped: list[Message] = []
    expected, changed = speech.first, False
    for message in messages:
        if isinstance(message, AssistantMessage) and _is_said(message):
            bare = _without(message, expected, speech.known)
            expected, changed = speech.later, changed or bare is not message
            message = bare
        stripped.append(message)
    return tuple(stripped) if changed else messages


def _without(message: AssistantMessage, expected: tuple[str, ...], known: tuple[str, ...]) -> AssistantMessage:
    content = message.content
    if isinstance(content, str):
        bare = strip(content, expected, known)
        return message if bare == content else replace(message, content=bare)
    if content:
        bare = strip(content[0].text, expected, known)
        if bare != content[0].text:
            return replace(message, content=(TextPart(bare), *content[1:]))
    return message


def strip(text: str, expected: tuple[str, ...], known: tuple[str, ...]) -> str:
    """The text without the words that we put before it: those expected at this place of the conversation, else any,
    each once. Where an answer broke off behind them, or was trimmed, they are all that there is.
    """
    for prefix in expected:
        if text.startswith(prefix):
            return text[len(prefix) :]
    left = list(known)
    while (found := next((prefix for prefix in left if text.startswith(prefix)), None)) is not None:
        text = text[len(found) :]
        left.remove(found)
    return "" if any(text.rstrip() == prefix.rstrip() for prefix in left) else text
