"""Put the values back into an answer, whole or while it arrives. Pure.

Each choice is restored by itself, and in it the text, the reasoning, the refusal and each tool call.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from gateway.features.redaction.policy.placeholders import MOST_HELD, Placeholders, Restorer
from gateway.model.wrapper import WrapperNote
from providers import chat
from providers.reading.folding import expand
from providers.value import replace

_Place = tuple[int, str]
"""A text of an answer: the number of its choice, and `text`, `reasoning`, `refusal` or the index of a tool call."""
_Piece = chat.TextDelta | chat.ReasoningDelta | chat.RefusalDelta
_TEXT = "text"
_DELTAS = {_TEXT: chat.TextDelta, "reasoning": chat.ReasoningDelta, "refusal": chat.RefusalDelta}
"""The events of a stream by the text of which they are a piece."""
_NAMES = {delta: name for name, delta in _DELTAS.items()}
_ALTERNATE = {_TEXT: "reasoning", "reasoning": _TEXT}
"""The two texts of a choice that may alternate, each by the other one."""
_OFFSETS = ("start_index", "end_index")


class AnswerRestorer:
    """Restores one answer, which is JSON if the request asked for it. The note counts what was restored."""

    def __init__(self, placeholders: Placeholders, *, is_json: bool, note: WrapperNote) -> None:
        self._placeholders = placeholders
        self._is_json = is_json
        self._note = note
        self._texts: dict[_Place, Restorer] = {}
        # Pieces of a text by choice, while the text that alternates with it may still be in a placeholder.
        self._later: dict[int, list[_Piece]] = {}

    # --- a stream ---------------------------------------------------------------------------------

    def events(self, events: Iterable[chat.StreamEvent]) -> tuple[chat.StreamEvent, ...]:
        """Return the events of a stream as its client may see them, each with all text that is known to be whole."""
        return tuple(self._events(events))

    def _events(self, events: Iterable[chat.StreamEvent]) -> Iterator[chat.StreamEvent]:
        for event in expand(events):
            match event:
                case chat.TextDelta() | chat.ReasoningDelta() | chat.RefusalDelta():
                    yield from self._piece(event)
                case chat.ToolCallDelta(index=index, arguments=arguments, choice=choice):
                    is_first = (choice, str(index)) not in self._texts
                    yield from self._others(choice, str(index))
                    if self._placeholders.keeps_arguments:
                        yield event
                        continue
                    shown = self._at((choice, str(index))).feed(arguments)
                    if shown or is_first or event.name is not None or event.id is not None or event.signature:
                        yield event if shown == arguments else replace(event, arguments=shown)
                case chat.AnnotationsDelta(annotations=annotations, choice=choice):
                    yield from self._others(choice, _TEXT)
                    yield replace(event, annotations=self._annotations(annotations, self._at((choice, _TEXT))))
                case chat.ChoiceFinish(choice=choice, stop_sequence=stop):
                    yield from self._others(choice, "", calls=True)
                    yield event if stop is None else replace(event, stop_sequence=self._whole(stop))
                case chat.Finished() | chat.Failed():
                    for choice in sorted({place[0] for place in self._texts}):
                        yield from self._others(choice, "", calls=True)
                    yield event
                case chat.ImageDelta(choice=choice):
                    yield from self._others(choice, "")
                    yield event
                case _:
                    yield event

    def _piece(self, event: _Piece) -> Iterator[chat.StreamEvent]:
        """Yield a further piece of a text, or let it wait.

        Text and reasoning may alternate within a placeholder. A piece of one waits while the other one may go on with a
        placeholder, so that what is held of that does not come after it: until its next piece, for few characters.
        """
        choice, name = event.choice, _NAMES[type(event)]
        alternate = _ALTERNATE.get(name)
        yield from self._others(choice, name, alternate)
        other = self._texts.get((choice, alternate)) if alternate is not None else None
        if other is not None and other.held:
            later = self._later.setdefault(choice, [])
            later.append(event)
            if sum(max(len(one.text), 1) for one in later) > MOST_HELD:
                yield from self._waiting(choice)
            return
        yield from self._fed(event)
        if not self._at((choice, name)).held:
            yield from self._waiting(choice)

    def _fed(self, event: _Piece) -> Iterator[chat.StreamEvent]:
        shown = self._at((event.choice, _NAMES[type(event)])).feed(event.text)
        if shown or (isinstance(event, chat.TextDelta) and event.logprobs is not None):
            yield event if shown == event.text else replace(event, text=shown)

    def _waiting(self, choice: int) -> Iterator[chat.StreamEvent]:
        """Yield the pieces of a text that wait, after what is held of the text before them."""
        if later := self._later.pop(choice, None):
            before = _ALTERNATE[_NAMES[type(later[0])]]
            if held := self._at((choice, before)).close():
                yield _DELTAS[before](held, choice)
            for event in later:
                yield from self._fed(event)

    def _others(
        self, choice: int, kind: str, alternate: str | None = None, *, calls: bool = False
    ) -> Iterator[chat.StreamEvent]:
        """Yield what is held of the other texts of a choice but `alternate`, which its dialect may close now.

        No dialect closes a call whose arguments are not whole, and another call may begin within a placeholder.
        """
        if alternate is None:
            yield from self._waiting(choice)
        for (number, other), restorer in list(self._texts.items()):
            is_other = number == choice and other not in (kind, alternate) and (calls or not other.isdigit())
            if is_other and (held := restorer.close()):
                delta = _DELTAS.get(other)
                yield delta(held, choice) if delta is not None else chat.ToolCallDelta(int(other), held, choice=choice)

    def _at(self, place: _Place) -> Restorer:
        restorer = self._texts.get(place)
        if restorer is None:
            in_json = place[1].isdigit() or (self._is_json and place[1] == _TEXT)
            restorer = self._texts[place] = self._restorer(in_json=in_json)
        return restorer

    def _restorer(self, *, in_json: bool = False) -> Restorer:
        return Restorer(self._placeholders, in_json=in_json, note=self._note)

    # --- a whole answer ---------------------------------------------------------------------------

    def completion(self, completion: chat.ChatCompletion) -> chat.ChatCompletion:
        """Return a whole answer with the values."""
        return replace(completion, choices=tuple([self._choice(choice) for choice in completion.choices]))

    def _choice(self, choice: chat.Choice) -> chat.Choice:
        return replace(choice, message=self._message(choice.message), stop_sequence=self._whole(choice.stop_sequence))

    def _message(self, message: chat.AssistantMessage) -> chat.AssistantMessage:
        text = self._restorer(in_json=self._is_json)
        content: Any = message.content
        if isinstance(content, str):
            content = text.feed(content, is_end=True)
        elif content:
            # The parts are one text, of which a placeholder may be cut.
            content = (chat.TextPart(text.feed(chat.text_of(content), is_end=True)),)
        return replace(
            message,
            content=content,
            refusal=self._whole(message.refusal),
            reasoning=self._whole(message.reasoning),
            tool_calls=tuple([self._call(call) for call in message.tool_calls]),
            annotations=self._annotations(message.annotations, text),
        )

    def _call(self, call: chat.ToolCall) -> chat.ToolCall:
        if self._placeholders.keeps_arguments:
            return call
        return replace(call, arguments=self._whole(call.arguments, in_json=True))

    def _whole(self, text: str | None, *, in_json: bool = False) -> Any:
        return self._restorer(in_json=in_json).feed(text, is_end=True) if text else text

    # --- annotations ------------------------------------------------------------------------------

    def _annotations(self, annotations: Iterable[chat.Annotation], text: Restorer) -> tuple[chat.Annotation, ...]:
        """Return annotations with values in their texts, and with offsets of the restored text."""
        return tuple([self._annotation(annotation, text) for annotation in annotations])

    def _annotation(self, value: Any, text: Restorer) -> Any:
        if isinstance(value, str):
            return self._whole(value)
        if isinstance(value, list):
            return [self._annotation(item, text) for item in value]
        if isinstance(value, dict):
            return {
                name: text.shifted(item) if name in _OFFSETS and isinstance(item, int) else self._annotation(item, text)
                for name, item in value.items()
            }
        return value
