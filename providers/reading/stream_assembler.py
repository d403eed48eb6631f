"""Assemble the pieces that an adapter reads into a canonical stream. It enforces the rules of a whole answer.

Adapters pass pieces in the provider's order and with its repetitions. The `Assembler` returns canonical events: the
start once and first, no empty deltas, each tool call with index, id and name once and its arguments after that, one
finish for each choice after its other events, usage once, and exactly one terminal event. Finishes are held back to the
end, because `tool_calls` may still replace `stop`.
"""

from __future__ import annotations

from collections.abc import Callable

from providers.chat import (
    Annotation,
    AnnotationsDelta,
    ChoiceFinish,
    Failed,
    Finished,
    FinishReason,
    Heartbeat,
    Logprobs,
    Opened,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    TextRun,
    ToolCallDelta,
    Usage,
    UsageReport,
)
from providers.failures import Failure, FailureKind
from providers.json_values import repair_surrogates, split_high_surrogate
from providers.reading.choice_state import SURROGATE, CallState, ChoiceState, Content, is_writable, made_call_id

__all__ = ["MAX_CHOICES", "Assembler"]

_MAX_CALL_CHARACTERS = 8 * 1024 * 1024
_MAX_TOOL_CALLS = 512
_MAX_PLACES = 8192
MAX_CHOICES = 128
_RANK: dict[FinishReason, int] = {"other": 0, "stop": 1, "length": 2, "tool_calls": 3, "content_filter": 4}
# Shared objects: a body of empty comments produces millions of heartbeats.
_FINISHED, _HEARTBEAT = Finished(), Heartbeat()


class Assembler:
    """Assembles one answer. After `complete` or `fail` it ignores further calls.

    Args:
        model: The provider's name of the model, used if the answer does not name one.

    Attributes:
        done: Whether the terminal event was created.
        identified: Whether id, model and time are known, so that `identify` has no more effect.
        opened: Whether the event `Opened` was created.

    Example:
        >>> from providers.contract import Assembler, fold
        >>> assembler = Assembler("parrot-2")
        >>> assembler.text("Hello")
        >>> assembler.finish("stop")
        >>> assembler.complete()
        >>> fold(assembler.take()).choices[0].message.content
        'Hello'
    """

    def __init__(self, model: str) -> None:
        self.done = False
        self.identified = False
        self._asked_model = model
        self._model = ""
        self._id = ""
        self._created = 0
        self._tier: str | None = None
        self._fingerprint: str | None = None
        self.opened = False
        self._events: list[StreamEvent] = []
        self._choices: dict[int, ChoiceState] = {}
        self._usage: Usage | Callable[[], Usage] | None = None
        self._call_characters = 0

    def take(self) -> tuple[StreamEvent, ...]:
        """Return the events since the last call.

        Returns:
            The events, in order.
        """
        events = tuple(self._events)
        self._events.clear()
        return events

    @property
    def whole(self) -> bool:
        """Whether there is at least one choice, and all of them have finished."""
        return bool(self._choices) and None not in [choice.end for choice in self._choices.values()]

    def identify(self, *, id: str | None = None, model: str | None = None, created: int | None = None) -> None:
        """Record which answer this is. The first value of each argument is kept.

        Args:
            id: The provider's id of the answer.
            model: The provider's name of the model that answers.
            created: When the answer was created, in Unix seconds.
        """
        if not self.identified:
            self._id = self._id or repair_surrogates(id or "")
            self._model = self._model or repair_surrogates(model or "")
            self._created = self._created or created or 0
            self.identified = bool(self._id and self._model and self._created)

    def describe(self, *, service_tier: str | None, system_fingerprint: str | None) -> None:
        """Record how the answer is processed. Call it before the first content. The first value of each is kept.

        Args:
            service_tier: See `ChatCompletion`.
            system_fingerprint: See `ChatCompletion`.
        """
        if service_tier and self._tier is None:
            self._tier = repair_surrogates(service_tier)
        if system_fingerprint and self._fingerprint is None:
            self._fingerprint = repair_surrogates(system_fingerprint)

    def has(self, content: Content, choice: int = 0) -> bool:
        """Return whether a choice already has content of a kind. Some vendors repeat all content at the end.

        Args:
            content: `text`, `reasoning`, `refusal`, `annotations` or `tool_calls`.
            choice: The number of the choice.

        Returns:
            Whether it has such content.
        """
        return choice in self._choices and content in self._choices[choice].content_kinds

    def see(self, choice: int) -> None:
        """Record that a choice exists, so that the answer is not whole without its finish.

        Args:
            choice: The number of the choice.
        """
        self._choice(choice)

    def text(self, text: str, choice: int = 0, logprobs: Logprobs | None = None) -> None:
        """Add text. Text after the finish of the choice is dropped, as are log probabilities that are not valid JSON.

        Args:
            text: The text. It may end with half of a surrogate pair.
            choice: The number of the choice.
            logprobs: Log probabilities of this text.
        """
        state = self._choices.get(choice)
        is_plain = bool(text) and logprobs is None and (text.isascii() or not SURROGATE.search(text))
        if is_plain and state is not None and self._is_in_text(state):
            self._events.append(TextDelta(text, choice))
            return
        state = self._choice(choice)
        if state.finish:
            return
        text = state.join_pieces("text", text)
        if logprobs is not None and not is_writable(logprobs):
            logprobs = None
        if text or logprobs:
            self._emit(TextDelta(text, choice, logprobs))

    def text_run(self, pieces: tuple[bytes, ...]) -> None:
        """Add text of choice 0 as contents of JSON strings. They must not contain surrogates.

        Args:
            pieces: See `TextRun`.
        """
        state = self._choice(0)
        if state.finish:
            return
        state.content_kinds.add("text")
        self._emit(TextRun(pieces))

    def is_in_text(self) -> bool:
        """Return whether one more text of choice 0 would only produce a text event and change no other state.

        Returns:
            Whether the caller may pass such text on without the assembler.
        """
        state = self._choices.get(0)
        return state is not None and not self._events and self._is_in_text(state)

    def is_saying_text(self) -> bool:
        """Return whether the last event is text of choice 0, and more text would only produce a text event.

        Returns:
            Whether consecutive texts may be added as a run.
        """
        last = self._events[-1] if self._events else None
        return type(last) is TextDelta and last.choice == 0 and self._is_in_text(self._choices[0])

    def _is_in_text(self, state: ChoiceState) -> bool:
        """Return whether more text of the choice would only produce a text event."""
        return self.opened and not self.done and not state.finish and not state.cut and "text" in state.content_kinds

    def takes_runs(self) -> bool:
        """Return whether text may be added as a run now: not while half of a surrogate pair is held back.

        Returns:
            Whether `text_run` may be called.
        """
        return 0 not in self._choices or "text" not in self._choices[0].cut

    def reasoning(self, text: str, choice: int = 0) -> None:
        """Add reasoning text.

        Args:
            text: The text.
            choice: The number of the choice.
        """
        state = self._choice(choice)
        if not state.finish and (text := state.join_pieces("reasoning", text)):
            self._emit(ReasoningDelta(text, choice))

    def refusal(self, text: str, choice: int = 0) -> None:
        """Add text of the model's refusal.

        Args:
            text: The text.
            choice: The number of the choice.
        """
        state = self._choice(choice)
        if not state.finish and (text := state.join_pieces("refusal", text)):
            self._emit(RefusalDelta(text, choice))

    def annotations(self, annotations: tuple[Annotation, ...], choice: int = 0) -> None:
        """Add annotations of the text. Those that cannot be written as JSON are dropped.

        Args:
            annotations: The annotations, in OpenAI's shape.
            choice: The number of the choice.
        """
        state = self._choice(choice)
        if not state.finish and (annotations := tuple(filter(is_writable, annotations))):
            state.content_kinds.add("annotations")
            self._emit(AnnotationsDelta(annotations, choice))

    def tool_call(
        self,
        arguments: str = "",
        *,
        choice: int = 0,
        index: int | None = None,
        id: str | None = None,
        name: str | None = None,
        signature: str | None = None,
        empty: bool = False,
    ) -> None:
        """Add a piece of a tool call. The call is found by its id, or by its index, or it is the last one.

        Args:
            arguments: More JSON text of the arguments.
            choice: The number of the choice.
            index: The provider's index of the call.
            id: The provider's id of the call.
            name: The name of the tool.
            signature: See `ToolCall`.
            empty: Whether the call has no arguments, unless pieces of them follow before the next call.
        """
        state = self._choice(choice)
        id, name, signature = (
            repair_surrogates(id or ""),
            repair_surrogates(name or ""),
            repair_surrogates(signature or ""),
        )
        call = state.call_of(index, id, name)
        if (empty or state.empty is not None) and (completed := state.switch_call(call, empty)) is not None:
            self._emit(ToolCallDelta(completed.index, "{}", choice=choice))
        state.content_kinds.add("tool_calls")
        self._call_characters += len(arguments) + len(id) + len(name) + len(signature)
        is_long = self._call_characters > _MAX_CALL_CHARACTERS
        # A provider may use many indices for one call, and each is stored.
        if is_long or len(state.calls) > _MAX_TOOL_CALLS or len(state.by_index) > _MAX_PLACES:
            self.fail(Failure(FailureKind.TOO_LARGE, "the provider's tool calls are larger than accepted"))
            return
        call.name = call.name or name
        call.signature = call.signature or signature or None
        arguments, call.cut = split_high_surrogate(call.cut + arguments)
        arguments = repair_surrogates(arguments)
        if not call.is_emitted:
            call.waiting += arguments
            if call.name:
                self._emit_first(call, choice)
        elif arguments:
            call.has_arguments = True
            self._emit(ToolCallDelta(call.index, arguments, choice=choice))

    def finish(
        self, reason: FinishReason, choice: int = 0, raw: str | None = None, stop_sequence: str | None = None
    ) -> None:
        """Record the end of a choice. Of several finishes the most specific one is used.

        Args:
            reason: Why it ended.
            choice: The number of the choice.
            raw: The provider's own word, if `reason` does not express it exactly.
            stop_sequence: The stop sequence that ended the text, if the provider names it.
        """
        state = self._choice(choice)
        if state.finish is None or _RANK[reason] > _RANK[state.finish]:
            state.finish, state.raw = reason, repair_surrogates(raw) if raw else None
            state.stop_sequence = repair_surrogates(stop_sequence) if stop_sequence else None

    def filtered(self, choice: int = 0) -> None:
        """Record that the safety system filtered a choice, whatever its finish is.

        Args:
            choice: The number of the choice.
        """
        self._choice(choice).filtered = True

    def usage(self, usage: Usage | Callable[[], Usage]) -> None:
        """Record the token counts so far. Only the last report is used.

        Args:
            usage: The token counts, or a function that reads them, which is called once at the end.
        """
        self._usage = usage

    def heartbeat(self) -> None:
        """Add a sign of life without content."""
        if not self.done:
            self._events.append(_HEARTBEAT)

    def complete(self) -> None:
        """End the answer: return what was held back, or a failure if the answer is not whole."""
        if self.done:
            return
        if not self.whole:
            self.fail(Failure(FailureKind.INTERRUPTED, "the provider's answer ended before it was complete"))
            return
        choices = sorted(self._choices.items())
        for number, state in choices:
            for event in state.halves(number) if state.cut else ():
                self._emit(event)
            for call in state.calls:
                if not call.name:
                    self.fail(Failure(FailureKind.MALFORMED, "the provider's answer has a tool call without a name"))
                    return
                if call.cut or not call.has_arguments:
                    self._emit(ToolCallDelta(call.index, "\ufffd" if call.cut else "{}", choice=number))
        for number, state in choices:
            reason: FinishReason = state.end or "other"
            if state.calls and reason in ("stop", "other"):
                reason = "tool_calls"
            elif reason == "tool_calls" and not state.calls:
                reason = "stop"
            self._emit(ChoiceFinish(reason, number, state.raw, state.stop_sequence if reason == "stop" else None))
        if (usage := self._counted()) is not None:
            self._emit(UsageReport(usage))
        self._events.append(_FINISHED)
        self.done = True

    def _counted(self) -> Usage | None:
        # The reference is removed, because the function refers to its reader, which refers to this object.
        usage, self._usage = self._usage, None
        return usage() if callable(usage) else usage

    def fail(self, failure: Failure) -> None:
        """End the answer with a failure. A content filter after the first content ends it as filtered instead.

        Args:
            failure: The failure.
        """
        if self.done:
            return
        blocks = failure.kind is FailureKind.CONTENT_FILTER
        if (blocks and self.opened) or any(state.filtered for state in self._choices.values()):
            self._end_filtered(failure.code if blocks else None)
            return
        self._events.append(Failed(failure, self._counted()))
        self.done = True

    def _end_filtered(self, code: str | None) -> None:
        unfinished = [number for number, state in self._choices.items() if not state.finish]
        for number in unfinished or list(self._choices):
            self.finish("content_filter", number, code)
        for state in self._choices.values():
            state.calls = [call for call in state.calls if call.is_emitted]
        self.complete()

    def _emit(self, event: StreamEvent) -> None:
        if self.done:
            return
        if not self.opened:
            self.opened = self.identified = True
            model = self._model or self._asked_model
            self._events.append(Opened(self._id, model, self._created, self._tier, self._fingerprint))
        self._events.append(event)

    def _choice(self, number: int) -> ChoiceState:
        if (state := self._choices.get(number)) is not None:
            return state
        if len(self._choices) == MAX_CHOICES:
            self.fail(Failure(FailureKind.TOO_LARGE, "the provider's answer has more choices than accepted"))
            return ChoiceState()
        state = self._choices[number] = ChoiceState()
        return state

    def _emit_first(self, call: CallState, choice: int) -> None:
        if not call.id:
            call.id_is_ours = True
            call.id = made_call_id(self._id, choice, call.index)
        call.is_emitted = True
        call.has_arguments = bool(call.waiting)
        self._emit(ToolCallDelta(call.index, call.waiting, call.id, call.name, call.signature, choice))
        call.waiting = ""
