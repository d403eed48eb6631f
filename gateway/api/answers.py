"""An answer with what the law wants to be said on it: the body of a whole one, the chunks of a stream."""

from __future__ import annotations

import orjson

from gateway.api.stream import ChunkEncoder
from gateway.policy.labels import Integrity, Labelling, Prefixer, integrity_of, label_completion, marks
from providers.chat import ChatCompletion, ChoiceFinish, Opened, StreamEvent, TextDelta, TextRun, Usage
from providers.codec import encode_completion


def encode_answer(
    completion: ChatCompletion, labelling: Labelling | None, request_id: str, model: str | None = None
) -> dict[str, object]:
    """The body of a whole answer; what is ours in it is in `x_gateway`. model: what is shown for the model's name."""
    raw: list[str] = []
    for choice in completion.choices:
        if choice.finish_reason == "other" and choice.raw_finish_reason:
            raw.append(choice.raw_finish_reason)
    if labelling is None and not raw:
        return encode_completion(completion, model)
    extras: dict[str, object] = {"finish_reason": ", ".join(sorted(raw))} if raw else {}
    if labelling is not None:
        labelled = label_completion(completion, labelling)
        integrity = integrity_of(labelled) if labelling.has_integrity else ""
        extras["labels"] = marks(labelling, request_id, integrity, in_content=labelled is not completion)
        completion = labelled
    body = encode_completion(completion, model)
    return {**body, "x_gateway": extras}


def encoder_for(
    include_usage: bool, labelling: Labelling | None, request_id: str, model: str | None = None
) -> ChunkEncoder:
    """What writes the stream of a request."""
    fallback_id = f"chatcmpl-{request_id}"
    if labelling is None:
        return ChunkEncoder(include_usage, fallback_id, model)
    return LabelledEncoder(include_usage, labelling, request_id, model)


class LabelledEncoder(ChunkEncoder):
    """A stream with labels: their words before the first text of each choice, and the marks on the first chunk and on
    the one that ends the last choice. There the integrity value is known: an answer that breaks off has none.

    produce_id: the number of the answer.
    """

    def __init__(self, include_usage: bool, labelling: Labelling, produce_id: str, model: str | None = None) -> None:
        super().__init__(include_usage, f"chatcmpl-{produce_id}", model)
        self._labelling = labelling
        self._produce_id = produce_id
        self._prefixer = Prefixer(labelling.prefix)
        self._integrity = Integrity() if labelling.has_integrity else None
        # The choices that have ended, which may be fewer than were asked for, and whether all that have begun did.
        self._ended: set[int] = set()
        self._has_ended = False
        self._is_mark_due = False

    def encode(self, events: tuple[StreamEvent, ...]) -> bytes:
        """See ChunkEncoder."""
        return super().encode(tuple(self._prefixer.add(events)))

    def lone_text(self, text: bytes) -> bytes:
        """See ChunkEncoder: here words may be due before a text, and each one counts for the integrity value."""
        return b""

    def _texts(self, texts: list[str]) -> bytes:
        if self._integrity is not None:
            self._integrity.add("".join(texts))
        return super()._texts(texts)

    def _encode(self, event: StreamEvent) -> bytes:
        match event:
            case TextDelta(text, choice) if self._integrity is not None:
                self._integrity.add(text, choice)
            case TextRun(pieces) if self._integrity is not None:
                self._integrity.add(orjson.loads(b'"' + b"".join(pieces) + b'"'))
            case ChoiceFinish():
                self._ended.add(event.choice)
                self._has_ended = self._started <= self._ended
                self._is_mark_due = self._is_mark_due or self._has_ended
            case Opened():
                opened = super()._encode(event)
                self._is_mark_due = True
                return opened
        return super()._encode(event)

    def _chunk(self, choices: bytes, extras: dict[str, object] | None = None, usage: Usage | None = None) -> bytes:
        if self._is_mark_due:
            self._is_mark_due = False
            integrity = self._integrity.value if self._has_ended and self._integrity is not None else ""
            told = marks(self._labelling, self._produce_id, integrity, in_content=self._prefixer.shown)
            extras = {**(extras or {}), "labels": told}
        return super()._chunk(choices, extras, usage)
