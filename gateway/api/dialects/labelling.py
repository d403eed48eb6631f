"""Additions of the gateway to an answer: the words of labels, and the member `x_gateway`.

The words stand before the first text of each choice, wherever the dialect puts its text. `x_gateway` is a member of the
answer's top-level object. A stream has it in its first event, if there are labels, and in the last event of a whole
answer, where the integrity value is known. The chunks of a chat have the parts of it that belong to each.
"""

from __future__ import annotations

from gateway.execution.exchange import AnswerStyle
from gateway.model.record import Record
from gateway.policy.labels import Integrity, Prefixer, integrity_of, label_completion, marks, shows_notice
from providers import chat
from providers.reading.finishes import MISSING
from providers.reading.folding import text_of_run

MEMBER = "x_gateway"
"""The name of the member with the gateway's own additions."""


def own_word(reason: chat.FinishReason, raw: str | None) -> str | None:
    """Return the provider's word for an end that may not be one: an unknown reason, a pause, or none at all."""
    return raw if (reason in ("other", "stop") or raw == MISSING) and raw != reason else None


def label_answer(
    completion: chat.ChatCompletion, style: AnswerStyle, record: Record, *, is_estimated: bool = False
) -> tuple[chat.ChatCompletion, dict[str, object]]:
    """Return a whole answer with the words of labels, and `x_gateway`, which may be empty and names estimates."""
    raw: list[str] = []
    for choice in completion.choices:
        own = choice.raw_finish_reason
        if own is not None and (word := own_word(choice.finish_reason, own)):
            raw.append(word)
    member: dict[str, object] = {"finish_reason": ", ".join(sorted(raw))} if raw else {}
    if record.moderation is not None and (told := record.moderation.member()) is not None:
        member["moderation"] = told
    if is_estimated or record.shown.usage_is_estimated:
        member["usage"] = "estimated"
    if (found := record.help) is not None:
        member |= found.member()
    labelling = style.labelling
    if labelling is not None:
        labelled = label_completion(completion, labelling)
        integrity = integrity_of(labelled, labelling)
        in_content = labelled is not completion
        if labelling.notice is not None:
            has_text = any(chat.text_of(choice.message.content) for choice in completion.choices)
            record.shown.is_noticed = in_content or (not labelling.prefix and has_text)
        if labelling.labels:
            labels = marks(labelling, record.request_id, integrity, in_content=in_content)
            _note_marks(record, labels)
            member["labels"] = labels
        completion = labelled
    return completion, member


def _note_marks(record: Record, labels: list[dict[str, object]]) -> None:
    if any(label.get("marks") for label in labels):
        record.shown.marked = True


class StreamLabels:
    """Adds the words of labels to a stream, and collects the value of `x_gateway` for its last event.

    Attributes:
        reads_texts: Each text must pass as an event, because words may be due before it, or it counts for the integrity
            value and the signed marks. Then `StreamEncoder.lone_text` must return nothing.
        is_last_batch: The events that are being encoded end a whole answer.
    """

    def __init__(self, style: AnswerStyle, record: Record) -> None:
        labelling = style.labelling
        self.reads_texts = labelling is not None
        self._labelling = labelling
        self._record = record
        self._prefixer = Prefixer(labelling.prefix, is_needed=labelling.is_needed) if labelling is not None else None
        has_integrity = labelling is not None and labelling.has_integrity
        self._integrity = Integrity(labelling.signer) if labelling is not None and has_integrity else None
        self._has_notice = labelling is not None and labelling.notice is not None
        self._raw: list[str] = []
        self._is_cost_shown = self.is_last_batch = False

    def add(self, events: tuple[chat.StreamEvent, ...]) -> tuple[chat.StreamEvent, ...]:
        """Return the events to encode in place of these, with one more before the first text of each choice."""
        if self._prefixer is not None:
            events = tuple(self._prefixer.add(events))
        if self._has_notice and self._labelling is not None and self._prefixer is not None:
            is_shown = shows_notice(self._labelling, events, in_content=self._prefixer.shown)
            self._record.shown.is_noticed |= is_shown
            self._has_notice = not is_shown
        self.is_last_batch = bool(events) and isinstance(events[-1], chat.Finished)
        for event in events:
            match event:
                case chat.ChoiceFinish(reason, _, raw) if word := own_word(reason, raw):
                    self._raw.append(word)
                case chat.TextRun(pieces) if self._integrity is not None:
                    self._integrity.add(text_of_run(pieces))
                case chat.TextDelta(text, choice) if self._integrity is not None:
                    self._integrity.add(text, choice)
        return events

    def first_member(self) -> dict[str, object] | None:
        """Return the value of `x_gateway` at the start of the stream; None if there are no labels and no help."""
        return self._data(self._marks(None)) or None

    def last_marks(self) -> dict[str, object]:
        """Return the labels with the integrity value and marks of all texts so far, and what belongs to help."""
        if labels := self._marks(self._integrity):
            _note_marks(self._record, labels)
        return self._data(labels)

    def resumed(self) -> dict[str, object]:
        """Return the deployments of a resumed answer, as a member; empty for any other answer."""
        resumed = self._record.resumed
        return {"resumed": {"from": resumed.broken, "by": resumed.by}} if resumed is not None else {}

    def member(self, *, with_cost: bool = True, is_estimated: bool = False) -> dict[str, object]:
        """Return the value of `x_gateway` at the end of a whole answer, with estimates; empty without one."""
        member: dict[str, object] = {"finish_reason": ", ".join(sorted(self._raw))} if self._raw else {}
        member |= self.resumed()
        if is_estimated or self._record.shown.usage_is_estimated:
            member["usage"] = "estimated"
        if self._record.moderation is not None and (told := self._record.moderation.member()) is not None:
            member["moderation"] = told
        member |= self.last_marks()
        return member | self.cost() if with_cost else member

    def cost(self) -> dict[str, object]:
        """Return the cost of the request once, when all of its calls have ended and the client may see it."""
        charged = self._record.shown.charged
        if charged is None or self._is_cost_shown or not self.is_last_batch:
            return {}
        self._is_cost_shown = True
        return {"cost": charged}

    def _marks(self, integrity: Integrity | None) -> list[dict[str, object]]:
        if self._labelling is None or self._prefixer is None:
            return []
        return marks(self._labelling, self._record.request_id, integrity, in_content=self._prefixer.shown)

    def _data(self, labels: list[dict[str, object]]) -> dict[str, object]:
        data: dict[str, object] = {"labels": labels} if labels else {}
        return data if (found := self._record.help) is None else data | found.member()
