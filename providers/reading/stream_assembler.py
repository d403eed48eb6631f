"""From a provider's pieces to the canonical stream: the rules of a whole answer, kept in one place.

Adapters hand over what they read, in whatever order and with whatever repetitions the provider has; the
`Assembler` gives out canonical events: the opening once and first, no empty deltas, tool calls with index, id and
name once, valid fragments of arguments after it, one finish a choice after everything else, usage once, and exactly
one terminal event. The finish is held back to the end, because `tool_calls` may still win over `stop`.
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
from providers.json_values import mend_surrogates, split_high_surrogate
from providers.reading.choice_state import SURROGATE, CallState, ChoiceState, Content, is_writable, made_call_id

__all__ = ["MAX_CHOICES", "Assembler"]

_MAX_CALL_CHARACTERS = 8 * 1024 * 1024
_MAX_TOOL_CALLS = 512
_MAX_PLACES = 8192
MAX_CHOICES = 128
_RANK: dict[FinishReason, int] = {"other": 0, "stop": 1, "length": 2, "tool_calls": 3, "content_filter": 4}
# One object for all: a body of empty comments has millions of them.
_FINISHED, _HEARTBEAT = Finished(), Heartbeat()


class Assembler:
    """One answer in the making. After `complete` or `fail` it takes nothing more.

    identified: whether `identify` has nothing more to say.
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
        """The events since the last call."""
        events = tuple(self._events)
        self._events.clear()
        return events

    @property
    def whole(self) -> bool:
        """Whether every choice that was seen has had its finish."""
        return bool(self._choices) and None not in [choice.end for choice in self._choices.values()]

    def identify(self, *, id: str | None = None, model: str | None = None, created: int | None = None) -> None:
        """Who answers, as far as this piece says; what was said first stays."""
        if not self.identified:
            self._id = self._id or mend_surrogates(id or "")
            self._model = self._model or mend_surrogates(model or "")
            self._created = self._created or created or 0
            self.identified = bool(self._id and self._model and self._created)

    def describe(self, *, service_tier: str | None, system_fingerprint: str | None) -> None:
        """How the answer is processed and by which setup, while it isn't opened; what was said first stays."""
        if service_tier and self._tier is None:
            self._tier = mend_surrogates(service_tier)
        if system_fingerprint and self._fingerprint is None:
            self._fingerprint = mend_surrogates(system_fingerprint)

    def has(self, content: Content, choice: int = 0) -> bool:
        """Whether the choice has content of this kind already: some vendors repeat the whole of it at the end."""
        return choice in self._choices and content in self._choices[choice].said

    def see(self, choice: int) -> None:
        """The choice exists, though this piece says nothing of it: the answer isn't whole without its finish."""
        self._choice(choice)

    def text(self, text: str, choice: int = 0, logprobs: Logprobs | None = None) -> None:
        """More text. What comes after the choice's finish is dropped; so are log probabilities beyond JSON."""
        state = self._choices.get(choice)
        is_plain = bool(text) and logprobs is None and (text.isascii() or not SURROGATE.search(text))
        if is_plain and state is not None and self._is_in_text(state):
            self._events.append(TextDelta(text, choice))
            return
        state = self._choice(choice)
        if state.finish:
            return
        text = state.mended("text", text)
        if logprobs is not None and not is_writable(logprobs):
            logprobs = None
        if text or logprobs:
            self._give(TextDelta(text, choice, logprobs))

    def text_run(self, pieces: tuple[bytes, ...]) -> None:
        """More text of choice 0, as the insides of JSON strings that hold no surrogates."""
        state = self._choice(0)
        if state.finish:
            return
        state.said.add("text")
        self._give(TextRun(pieces))

    def is_in_text(self) -> bool:
        """Whether one more text of the first choice is nothing but a run of its own: it would change nothing here."""
        state = self._choices.get(0)
        return state is not None and not self._events and self._is_in_text(state)

    def is_saying_text(self) -> bool:
        """Whether what came last is text of the first choice, and more of it is nothing but that."""
        last = self._events[-1] if self._events else None
        return type(last) is TextDelta and last.choice == 0 and self._is_in_text(self._choices[0])

    def _is_in_text(self, state: ChoiceState) -> bool:
        """Whether more text of the choice is nothing but that: nothing has ended, opens or waits for another half."""
        return self.opened and not self.done and not state.finish and not state.cut and "text" in state.said

    def takes_runs(self) -> bool:
        """Whether text may come as runs now: not while half a surrogate pair waits for its other half."""
        return 0 not in self._choices or "text" not in self._choices[0].cut

    def reasoning(self, text: str, choice: int = 0) -> None:
        """More reasoning text."""
        state = self._choice(choice)
        if not state.finish and (text := state.mended("reasoning", text)):
            self._give(ReasoningDelta(text, choice))

    def refusal(self, text: str, choice: int = 0) -> None:
        """More of the model's own refusal."""
        state = self._choice(choice)
        if not state.finish and (text := state.mended("refusal", text)):
            self._give(RefusalDelta(text, choice))

    def annotations(self, annotations: tuple[Annotation, ...], choice: int = 0) -> None:
        """More annotations of the text; those that are beyond JSON are dropped."""
        state = self._choice(choice)
        if not state.finish and (annotations := tuple(filter(is_writable, annotations))):
            state.said.add("annotations")
            self._give(AnnotationsDelta(annotations, choice))

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
        """A piece of a tool call: the one of its id, else of its index, else the last one. empty: see `turn_to`."""
        state = self._choice(choice)
        id, name, signature = mend_surrogates(id or ""), mend_surrogates(name or ""), mend_surrogates(signature or "")
        call = state.call_of(index, id, name)
        if (empty or state.empty is not None) and (left := state.turn_to(call, empty)) is not None:
            self._give(ToolCallDelta(left.index, "{}", choice=choice))
        state.said.add("tool_calls")
        self._call_characters += len(arguments) + len(id) + len(name) + len(signature)
        is_long = self._call_characters > _MAX_CALL_CHARACTERS
        # One call may be told at many places, each of which is kept.
        if is_long or len(state.calls) > _MAX_TOOL_CALLS or len(state.by_index) > _MAX_PLACES:
            self.fail(Failure(FailureKind.TOO_LARGE, "the provider's tool calls are larger than accepted"))
            return
        call.name = call.name or name
        call.signature = call.signature or signature or None
        arguments, call.cut = split_high_surrogate(call.cut + arguments)
        arguments = mend_surrogates(arguments)
        if not call.given_out:
            call.waiting += arguments
            if call.name:
                self._give_first(call, choice)
        elif arguments:
            call.has_arguments = True
            self._give(ToolCallDelta(call.index, arguments, choice=choice))

    def finish(self, reason: FinishReason, choice: int = 0, raw: str | None = None) -> None:
        """The choice has ended. Of several finishes the one that says most wins."""
        state = self._choice(choice)
        if state.finish is None or _RANK[reason] > _RANK[state.finish]:
            state.finish, state.raw = reason, mend_surrogates(raw) if raw else None

    def filtered(self, choice: int = 0) -> None:
        """The safety system stepped in, so that the choice has been filtered, however it ends."""
        self._choice(choice).filtered = True

    def usage(self, usage: Usage | Callable[[], Usage]) -> None:
        """What was counted so far; the last report counts, so that one that takes work to read may be a function."""
        self._usage = usage

    def heartbeat(self) -> None:
        """A sign of life without content."""
        if not self.done:
            self._events.append(_HEARTBEAT)

    def complete(self) -> None:
        """The provider has said all: give out what was held back, or a failure if the answer isn't whole."""
        if self.done:
            return
        if not self.whole:
            self.fail(Failure(FailureKind.INTERRUPTED, "the provider's answer ended before it was complete"))
            return
        choices = sorted(self._choices.items())
        for number, state in choices:
            for event in state.halves(number) if state.cut else ():
                self._give(event)
            for call in state.calls:
                if not call.name:
                    self.fail(Failure(FailureKind.MALFORMED, "the provider's answer has a tool call without a name"))
                    return
                if call.cut or not call.has_arguments:
                    self._give(ToolCallDelta(call.index, "\ufffd" if call.cut else "{}", choice=number))
        for number, state in choices:
            reason: FinishReason = state.end or "other"
            if state.calls and reason in ("stop", "other"):
                reason = "tool_calls"
            elif reason == "tool_calls" and not state.calls:
                reason = "stop"
            self._give(ChoiceFinish(reason, number, state.raw))
        if (usage := self._counted()) is not None:
            self._give(UsageReport(usage))
        self._events.append(_FINISHED)
        self.done = True

    def _counted(self) -> Usage | None:
        # Asked once, at the end. A function knows its reader, which knows this: no cycle is left behind.
        usage, self._usage = self._usage, None
        return usage() if callable(usage) else usage

    def fail(self, failure: Failure) -> None:
        """The answer can't become whole; but a filter that steps in after something was said has ended it so."""
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
            state.calls = [call for call in state.calls if call.given_out]
        self.complete()

    def _give(self, event: StreamEvent) -> None:
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
            self.fail(Failure(FailureKind.TOO_LARGE, "the provider's answer has more choices than are taken"))
            return ChoiceState()
        state = self._choices[number] = ChoiceState()
        return state

    def _give_first(self, call: CallState, choice: int) -> None:
        if not call.id:
            call.id_is_ours = True
            call.id = made_call_id(self._id, choice, call.index)
        call.given_out = True
        call.has_arguments = bool(call.waiting)
        self._give(ToolCallDelta(call.index, call.waiting, call.id, call.name, call.signature, choice))
        call.waiting = ""
