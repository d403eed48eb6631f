"""Label answers as the law requires: put the label before the text and into the body, and remove it from the history.

Pure: a `Labelling` is computed from a request and a locale. A label is put at the start of a text, because the end is
lost if an answer breaks off. It is never put into content for programs: JSON, the arguments of a call, a refusal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeGuard

from gateway.model.help import Help
from gateway.model.region_text import SEPARATOR, Label, Locale, RegionText
from gateway.policy.text_hash import TextHash
from providers import chat
from providers.value import replace

_GENERATED = "1"
_POSITION_KEYS = frozenset({"start_index", "end_index"})
_MAX_POSITION = 2**53

LABEL_DATA = "x-gateway-label-data"
"""The header with the data of the labels of an answer that has no member for them."""

Notice = Literal["text", "repeated"]
"""How the label with `repeat` is due in an answer: with its text, or with the text of a repetition."""


class TextSigner(Protocol):
    """Signs the marks of texts."""

    def mark(self, choice: int, text: TextHash) -> str:
        """Return the mark of a choice's whole text."""

    def mark_audio(self, media: str, sha256: str) -> str:
        """Return the mark of an audio file of this content type, by the SHA-256 of its bytes."""


@dataclass(frozen=True, slots=True)
class Labelling:
    """The labels of one answer."""

    labels: tuple[Label, ...]
    due: frozenset[str] = frozenset()
    """The labels whose text the user has to see now, in the answer or elsewhere."""
    prefix: str = ""
    """The text before the text of each choice, or empty."""
    notice: Notice | None = None
    """How the label that repeats is shown, or None if this answer does not show one."""
    signer: TextSigner | None = None
    """Signs the marks, if a label has them."""
    is_needed: bool = False
    """A choice without a text has the prefix as well, unless it has calls."""
    names: tuple[str, ...] = field(init=False)
    has_integrity: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(label.name for label in self.labels))
        has_integrity = self.signer is not None or any(label.producer is not None for label in self.labels)
        object.__setattr__(self, "has_integrity", has_integrity)


def is_first_turn(messages: Sequence[chat.Message]) -> bool:
    """Return whether no assistant message has text yet. A tool call is not text."""
    return not any(isinstance(message, chat.AssistantMessage) and _has_text(message) for message in messages)


def _has_text(message: chat.AssistantMessage) -> bool:
    return bool(chat.text_of(message.content))


def labelling_of(
    locale: Locale, request: chat.ChatRequest, notice: Notice | None = None, signer: TextSigner | None = None
) -> Labelling | None:
    """Return the labelling of the answer to this request, or None if the region has no labels.

    The notice is how the label that repeats is due if this is not the first answer of the conversation.
    """
    if not locale.labels:
        return None
    first = is_first_turn(request.messages)
    due = frozenset(label.name for label in locale.labels if label.is_due(first_turn=first))
    prefix, repeating = locale.first if first else locale.later, locale.noticed != locale.later
    if not repeating:
        notice = None
    elif first:
        notice = "text"
    elif notice is not None:
        due |= {label.name for label in locale.labels if label.repeat_s is not None}
        prefix = locale.noticed if notice == "text" else locale.repeated
    is_shown = request.response_format is None
    return Labelling(locale.labels, due, prefix if is_shown else "", notice, signer)


def shows_notice(labelling: Labelling, events: Iterable[chat.StreamEvent], *, in_content: bool) -> bool:
    """Return whether the user sees the label that repeats with these events: as words, or by the app as data."""
    if labelling.notice is None or in_content:
        return in_content and labelling.notice is not None
    has_text = any(isinstance(it, chat.TextRun) or (isinstance(it, chat.TextDelta) and it.text) for it in events)
    return not labelling.prefix and has_text


def with_help(labelling: Labelling | None, help: Help, request: chat.ChatRequest) -> Labelling | None:
    """Return the labelling of a model's answer that has the text of a help after the labels, before its own text."""
    if request.response_format is not None:
        return labelling
    known = labelling or Labelling(())
    return replace(known, prefix=known.prefix + help.sentence.text + SEPARATOR, is_needed=True)


def label_completion(completion: chat.ChatCompletion, labelling: Labelling) -> chat.ChatCompletion:
    """Return the whole answer with the prefix before each text or image. One with neither is returned unchanged."""
    if not labelling.prefix or not (
        labelling.is_needed
        or any(chat.text_of(one.message.content) or one.message.images for one in completion.choices)
    ):
        return completion
    choices = tuple(_labelled(choice, labelling.prefix, labelling.is_needed) for choice in completion.choices)
    return replace(completion, choices=choices)


def _labelled(choice: chat.Choice, prefix: str, is_needed: bool) -> chat.Choice:
    text = chat.text_of(choice.message.content)
    if not text and not choice.message.images:
        if not is_needed or choice.message.tool_calls:
            return choice
        return replace(choice, message=replace(choice.message, content=prefix.removesuffix(SEPARATOR)))
    annotations = tuple(_shifted(one, len(prefix)) for one in choice.message.annotations)
    return replace(choice, message=replace(choice.message, content=prefix + text, annotations=annotations))


def _is_position(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < _MAX_POSITION


def _shifted(annotation: chat.Annotation, by: int) -> chat.Annotation:
    """Return the annotation with its positions moved by this number of characters."""
    return {
        name: _shifted(value, by)
        if isinstance(value, dict)
        else value + by
        if name in _POSITION_KEYS and _is_position(value)
        else value
        for name, value in annotation.items()
    }


class Prefixer:
    """Put the prefix before the first text or image of each choice of a stream. `is_needed`: see `Labelling`."""

    def __init__(self, prefix: str, *, is_needed: bool = False) -> None:
        self._prefix = prefix
        self._is_needed = is_needed and bool(prefix)
        self._started_choices: set[int] = set()
        self._calling_choices: set[int] = set()

    @property
    def shown(self) -> bool:
        """Whether the prefix has been sent for any choice."""
        return bool(self._started_choices)

    def add(self, events: Iterable[chat.StreamEvent]) -> Iterator[chat.StreamEvent]:
        """Yield the same events, with one more before the first text of each choice."""
        for event in events:
            if self._prefix and isinstance(event, chat.TextDelta | chat.TextRun | chat.ImageDelta):
                if event.choice not in self._started_choices and (not isinstance(event, chat.TextDelta) or event.text):
                    self._started_choices.add(event.choice)
                    yield chat.TextDelta(self._prefix, event.choice)
            elif isinstance(event, chat.AnnotationsDelta) and event.choice in self._started_choices:
                event = replace(event, annotations=tuple(_shifted(one, len(self._prefix)) for one in event.annotations))
            elif self._is_needed:
                yield from self._before(event)
            yield event

    def _before(self, event: chat.StreamEvent) -> Iterator[chat.StreamEvent]:
        """Yield the prefix before a refusal, and before the end of a choice that had neither a text nor calls."""
        if isinstance(event, chat.ToolCallDelta):
            self._calling_choices.add(event.choice)
        elif isinstance(event, chat.RefusalDelta | chat.ChoiceFinish):
            if event.choice in self._started_choices | self._calling_choices:
                return
            self._started_choices.add(event.choice)
            is_end = isinstance(event, chat.ChoiceFinish)
            yield chat.TextDelta(self._prefix.removesuffix(SEPARATOR) if is_end else self._prefix, event.choice)


class Integrity:
    """The integrity value and the signed marks of an answer: the SHA-256 of the text of each choice as it is sent."""

    def __init__(self, signer: TextSigner | None = None) -> None:
        self._signer = signer
        self._hashes: dict[int, TextHash] = {}

    def add(self, text: str, choice: int = 0) -> None:
        """Add text of a choice."""
        if choice not in self._hashes:
            if not text:
                return
            self._hashes[choice] = TextHash(folds=self._signer is not None)
        self._hashes[choice].add(text)

    @property
    def value(self) -> str:
        """One value for each choice with text, in order. Empty if no choice has text."""
        return ",".join(f"sha256:{one.exact}" for _, one in sorted(self._hashes.items()))

    def marks(self) -> list[str]:
        """Return the signed mark of each choice with text, in order."""
        if self._signer is None:
            return []
        return [self._signer.mark(choice, one) for choice, one in sorted(self._hashes.items())]


def integrity_of(completion: chat.ChatCompletion, labelling: Labelling) -> Integrity | None:
    """Return the integrity of a whole answer, or None if no label needs it."""
    if not labelling.has_integrity:
        return None
    integrity = Integrity(labelling.signer)
    for choice in completion.choices:
        if text := chat.text_of(choice.message.content):
            integrity.add(text, choice.index)
    return integrity


def marks(
    labelling: Labelling, produce_id: str, integrity: Integrity | None = None, *, in_content: bool
) -> list[dict[str, object]]:
    """Return the labels in their form for programs: the value of `x_gateway.labels`.

    `integrity`: that of the whole answer. None before its end, and if no label needs it.
    """
    return [_mark(label, labelling, produce_id, integrity, in_content) for label in labelling.labels]


def _mark(
    label: Label, labelling: Labelling, produce_id: str, integrity: Integrity | None, in_content: bool
) -> dict[str, object]:
    mark: dict[str, object] = {"name": label.name, "ai_generated": True}
    if label.name in labelling.due:
        is_repeated = label.repeat_s is not None and labelling.notice == "repeated"
        text = label.repeat_text if is_repeated else label.text
        mark |= {"text": text, "in_content": in_content and label.show != "never"}
        if is_repeated:
            mark["repeated"] = True
    if label.producer is not None:
        # GB 45438-2025, appendix E: the first producer is also the propagator.
        mark["AIGC"] = {
            "Label": _GENERATED,
            "ContentProducer": label.producer,
            "ProduceID": produce_id,
            "ReservedCode1": integrity.value if integrity is not None else "",
            "ContentPropagator": label.producer,
            "PropagateID": produce_id,
            "ReservedCode2": "",
        }
    if label.proof is not None and integrity is not None:
        mark["marks"] = integrity.marks()
    return mark


def without_labels(messages: tuple[chat.Message, ...], region_text: RegionText) -> tuple[chat.Message, ...]:
    """Return the history without the gateway's own labels.

    A label is removed once, and only at the start of an assistant message.
    """
    if not region_text.known:
        return messages
    stripped: list[chat.Message] = []
    expected, changed = region_text.first, False
    for message in messages:
        if isinstance(message, chat.AssistantMessage) and _has_text(message):
            bare = _without(message, expected, region_text.known)
            expected, changed = region_text.later, changed or bare is not message
            message = bare
        stripped.append(message)
    return tuple(stripped) if changed else messages


def _without(
    message: chat.AssistantMessage, expected: tuple[str, ...], known: tuple[str, ...]
) -> chat.AssistantMessage:
    content = message.content
    if isinstance(content, str):
        bare = strip(content, expected, known)
        return message if bare == content else replace(message, content=bare)
    if content:
        bare = strip(content[0].text, expected, known)
        if bare != content[0].text:
            return replace(message, content=(chat.TextPart(bare), *content[1:]))
    return message


def strip(text: str, expected: tuple[str, ...], known: tuple[str, ...]) -> str:
    """Return the text without its label prefix.

    The prefix that is expected at this position of the conversation is removed, else any known prefixes, each once. An
    answer that broke off after the prefix, or was trimmed, consists of the prefix only.
    """
    for prefix in expected:
        if text.startswith(prefix):
            return text[len(prefix) :]
    remaining = list(known)
    while (match := next((prefix for prefix in remaining if text.startswith(prefix)), None)) is not None:
        text = text[len(match) :]
        remaining.remove(match)
    return "" if any(text.rstrip() == prefix.rstrip() for prefix in remaining) else text
