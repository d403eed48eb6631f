"""Assemble the pieces that an adapter reads into a canonical stream. It enforces the rules of a whole answer.

Adapters pass pieces in the provider's order and with its repetitions. The `Assembler` returns canonical events. A
stream and a JSON answer are read by the same calls, so both have the same result. These rules hold for any pieces:

- **Events.** `Opened` is first and once. No delta is empty. Exactly one terminal event ends the stream, and calls after
  it change nothing. A heartbeat is a sign of life and changes nothing else.
- **Text.** Texts leave in the provider's order, none twice and none lost. Halves of a surrogate pair are joined. An
  adapter passes increments: a reader of snapshots must cut what it has passed already.
- **Tool calls.** A call has its index, id and name once, first, and the client keeps the first id. The pieces of its
  arguments, joined, are the provider's, with control characters escaped in strings. Arguments that are a whole JSON
  object are never extended: what follows them is the next call, the same again, or no JSON. Arguments that are not
  whole are never split. The provider's index decides, where there is one; an id that changes while the arguments are
  not whole begins no call. A `whole_call` is never joined with another one. A name in pieces is joined until the
  arguments begin. A call without arguments has `{}`. A call without a name, and arguments that are not a JSON object
  unless the finish explains it, are failures.
- **Finish.** Finishes come after all other events of all choices, one for each choice, the most specific one that was
  reported. Content after a reported finish belongs to the answer. `stop` is only what the provider sent; with tool
  calls it is `tool_calls`, and `tool_calls` without any is `stop`. A choice that was seen and did not finish is a
  failure, and so are an error after a finish, and an empty answer of which no output was counted. Of what is known to
  be whole, one with text, a refusal, an image or whole calls ends as `stop`, with the word `missing`. A reason that is
  not known ends an answer with text, calls or images as `other`, with its word; without them it is a failure.
  A choice that the safety system filtered ends as filtered, whatever else was reported.
- **Images.** Each is whole and passed on once, in its place.
- **Usage.** It is reported once, after the finishes. A count is not replaced by 0 or by a report that leaves it out. A
  failure has the counts so far.
- **Size.** More tool calls, or longer ones, than the constants below permit are a failure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import msgspec

from providers import chat
from providers.failures import About, Failure, FailureKind
from providers.json_values import (
    dumps,
    is_json_object,
    repair_escapes,
    repair_surrogates,
    split_high_surrogate,
    unquoted_object,
)
from providers.reading.finishes import MISSING, failed_by
from providers.reading.object_scanner import ObjectScanner
from providers.reading.token_counts import merged
from providers.value import replace

Content = Literal["text", "reasoning", "refusal", "annotations", "images", "tool_calls"]
MAX_CHOICES = 128
_MAX_CALL_CHARACTERS = 8 * 1024 * 1024
_MAX_IMAGE_CHARACTERS = 32 * 1024 * 1024
_MAX_TOOL_CALLS = 512
_MAX_PLACES = 8192
_NOT_JSON = Failure(FailureKind.NOT_JSON, "the provider's answer has a tool call whose arguments are not a JSON object")
_EMPTY = Failure(FailureKind.MALFORMED, "the provider's answer is empty, and nothing of it was counted")
# The model has read the request, so the server works.
_UNWRITTEN = replace(_EMPTY, message="the provider's answer is empty: the model wrote nothing", about=About.REQUEST)
_TIERS = chat.SERVICE_TIERS | chat.CLAUDE_TIERS
_CUTTING: tuple[chat.FinishReason, ...] = ("length", "content_filter")
"""Finishes that explain arguments which are not whole."""
_CONTROL = re.compile(r"[\x00-\x1f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
LAST_SECOND = 9_999_999_999
"""A later Unix time (in the year 2286) is not in seconds."""
_IMAGE = re.compile(r"data:image/[a-z0-9.+-]+;base64,[A-Za-z0-9+/=_-]+|https?://[!-~]+")
_ANSWERS: frozenset[Content] = frozenset({"text", "refusal", "images", "tool_calls"})
_RANK: dict[chat.FinishReason, int] = {"stop": 0, "other": 1, "length": 2, "tool_calls": 3, "content_filter": 4}
# Shared objects: a body of empty comments produces millions of heartbeats.
_FINISHED, _HEARTBEAT = chat.Finished(), chat.Heartbeat()
_DELTAS: dict[Content, Callable[[str, int], chat.StreamEvent]] = {
    "reasoning": chat.ReasoningDelta,
    "text": chat.TextDelta,
    "refusal": chat.RefusalDelta,
}


@dataclass(slots=True)
class _Call(ObjectScanner):
    """The known parts of a tool call. `id` is the client's id, and `provider_id` the last id of the provider."""

    index: int
    id: str = ""
    provider_id: str = ""
    name: str = ""
    signature: str | None = None
    is_emitted: bool = False
    pieces: list[str] = field(default_factory=list)
    cut: str = ""
    usual_name: str = ""
    is_empty: bool = False

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)

    def take(self, piece: str) -> tuple[str, str]:
        """Return what of the next piece belongs to the arguments, and what follows after their end.

        The end of a piece may be half of an escape or of a surrogate pair, which is held for the piece after it.
        """
        if not self.pieces and not self.cut:
            if piece.strip() == "null":
                piece, self.is_empty = "", True
            piece = unquoted_object(piece)
        piece, cut = split_high_surrogate(self.cut + piece)
        piece, escape = repair_escapes(piece)
        if not self.is_whole and _CONTROL.search(piece):
            piece = self.with_escapes(piece)
        self.cut = escape + cut
        end = 0 if self.is_whole else self.end_in(piece)
        rest = ""
        if self.is_whole:
            # An end that was cut off belongs to the rest. Some servers close the arguments twice.
            rest, self.cut = (piece[end:] + self.cut).lstrip("]} \t\r\n"), ""
        return repair_surrogates(piece[:end]), rest


class _Choice:
    """The known parts of a choice. `cut` has halves of surrogate pairs; `filtered` is set by the safety system."""

    __slots__ = ("by_id", "by_index", "calls", "cut", "filtered", "finish", "kinds", "raw", "stop_sequence")

    def __init__(self) -> None:
        self.filtered = False
        self.finish: chat.FinishReason | None = None
        self.raw: str | None = None
        self.stop_sequence: str | None = None
        self.calls: list[_Call] = []
        self.by_index: dict[int, _Call] = {}
        self.by_id: dict[str, _Call] = {}
        self.kinds: set[Content] = set()
        self.cut: dict[Content, str] = {}

    @property
    def end(self) -> chat.FinishReason | None:
        """The finish reason. A filtered choice needs none of the provider, or it would be retried as incomplete."""
        return "content_filter" if self.filtered else self.finish

    @property
    def is_unexplained(self) -> bool:
        """Whether it has no answer, and ended with a word that is not known."""
        return self.end == "other" and bool(self.raw) and not self.kinds & _ANSWERS

    @property
    def is_answered(self) -> bool:
        """Whether it has an answer, in which no call is cut off."""
        return bool(self.kinds & _ANSWERS) and all(call.is_whole or call.is_empty for call in self.calls)

    @property
    def reason(self) -> chat.FinishReason:
        """The finish reason for the client: `tool_calls` instead of `stop` if there are calls, and only then."""
        reason = "content_filter" if self.filtered else self.finish or "other"
        if self.calls:
            return "tool_calls" if reason == "stop" or (reason == "other" and not self.raw) else reason
        return "stop" if reason == "tool_calls" else reason

    def joined(self, kind: Content, text: str) -> str:
        """Return the text with surrogate pairs joined that were split over two pieces."""
        if text:
            self.kinds.add(kind)
        if kind not in self.cut and (text.isascii() or not _SURROGATE.search(text)):
            return text
        text, rest = split_high_surrogate(self.cut.pop(kind, "") + text)
        if rest:
            self.cut[kind] = rest
        return repair_surrogates(text)

    def call_of(self, index: int | None, id: str, name: str) -> _Call:
        """Return the call that a piece belongs to, a new one if it begins one."""
        call = self.by_index.get(index) if index is not None else None
        if call is None and (index is None or not name):
            call = self.by_id.get(id) if id else None
        if call is None and index is None and self.calls:
            last = self.calls[-1]
            is_open = bool(last.pieces) and not last.is_whole
            call = last if not name or (is_open and name == last.name) else None
        if call is not None and (id or name) and _begins_another(call, id, name):
            call = self.add(call.name)
        call = call or self.add()
        if id:
            # Some servers give all calls the same id, and some each piece another one: the client gets the first.
            call.id = call.id or (id if id not in self.by_id else "")
            call.provider_id = id
            self.by_id.setdefault(id, call)
        if index is not None:
            self.by_index[index] = call
        return call

    def add(self, usual_name: str = "") -> _Call:
        """Add a call, whose name is `usual_name` if no piece of it has a name."""
        self.calls.append(_Call(len(self.calls), usual_name=usual_name))
        return self.calls[-1]


def _begins_another(call: _Call, id: str, name: str) -> bool:
    """Return whether a piece at the place of a call begins another one, as its name and its id show.

    A whole call is followed by one with another name, or with a name and another id. A call without arguments so far
    only by one with another name and another id: else it is the next piece of its name.
    """
    has_other_name = bool(name and call.name) and name != call.name
    has_other_id = bool(id and call.provider_id) and id != call.provider_id
    if call.is_whole or (call.is_empty and not call.pieces):
        return has_other_name or (has_other_id and bool(name))
    return has_other_name and has_other_id and not call.pieces


class Assembler:
    """Assembles one answer. After `complete` or `fail` it ignores further calls.

    Args:
        model: The requested model, for answers that name none.

    Attributes:
        done: The terminal event was returned.
        opened: The first event was returned.
        identified: `identify` would change nothing.
        joins_names: Names of calls may come in pieces, so a call waits for its first argument.
        join_signatures: Joins the signatures of two pieces of a call. With it, a call that came at once is held until
            the next event, because the next piece may have its signature. One that comes in pieces is not held:
            clients show long arguments as they grow.
    """

    def __init__(self, model: str) -> None:
        self.done = self.identified = self.opened = self.joins_names = False
        self.join_signatures: Callable[[str, str], str | None] | None = None
        self._asked_model = model
        self._id = self._model = ""
        self._created = 0
        self._tier: str | None = None
        self._fingerprint: str | None = None
        self._events: list[chat.StreamEvent] = []
        self._choices: dict[int, _Choice] = {}
        self._usage: chat.Usage | None = None
        self._read_usage: Callable[[], chat.Usage] | None = None
        self._report: Mapping[str, object] = {}
        self._call_characters = self._image_characters = 0

    def take(self) -> tuple[chat.StreamEvent, ...]:
        """Return the events since the last call, in order."""
        held = None if self.done else self._held_call()
        events = tuple(self._events if held is None else self._events[:-1])
        self._events = [] if held is None else [held]
        return events

    def _held_call(self) -> chat.ToolCallDelta | None:
        """Return the last event if it is a call that came at once, and nothing came after it."""
        last = self._events[-1] if self._events and self.join_signatures is not None else None
        if type(last) is not chat.ToolCallDelta or not last.id:
            return None
        return last if self._choices[last.choice].calls[last.index].is_whole else None

    @property
    def whole(self) -> bool:
        """Whether there is at least one choice, and all of them have finished."""
        for choice in self._choices.values():
            if choice.finish is None and not choice.filtered:
                return False
        return bool(self._choices)

    @property
    def certain(self) -> bool:
        """Whether the answer is whole and lacks no content. An empty answer must end as an empty answer does."""
        if not self.whole:
            return False
        has_something = self.opened or not self._may_be_empty()
        return has_something and not any(one.is_unexplained for one in self._choices.values())

    def _may_be_empty(self) -> bool:
        """Return whether every choice is marked as complete, without a reason why it would be empty."""
        ends = [(choice.end in ("stop", "tool_calls"), choice.stop_sequence) for choice in self._choices.values()]
        return all(is_complete and not stop for is_complete, stop in ends)

    def identify(self, *, id: str | None = None, model: str | None = None, created: int | None = None) -> None:
        """Record the provider's id, model and Unix time of the answer. The first value of each is kept."""
        if not self.identified:
            self._id = self._id or repair_surrogates(id or "")
            self._model = self._model or repair_surrogates(model or "")
            self._created = self._created or _in_seconds(created or 0)
            self.identified = bool(self._id and self._model and self._created)

    def describe(self, *, service_tier: str | None, system_fingerprint: str | None) -> None:
        """Record how the answer is processed. Call it before the first content. The first value of each is kept.

        A word for the tier that neither OpenAI nor Anthropic has is left out. See `ChatCompletion`.
        """
        if self._tier is None and service_tier in _TIERS:
            self._tier = service_tier
        if system_fingerprint and self._fingerprint is None:
            self._fingerprint = repair_surrogates(system_fingerprint)

    def has(self, content: Content, choice: int = 0) -> bool:
        """Return whether a choice already has content of a kind. Some vendors repeat all content at the end."""
        return choice in self._choices and content in self._choices[choice].kinds

    def see(self, choice: int) -> None:
        """Record that a choice exists, so that the answer is not whole without its finish."""
        self._choice(choice)

    def text(self, text: str, choice: int = 0, logprobs: chat.Logprobs | None = None) -> None:
        """Add text, which may end with half of a surrogate pair. Log probabilities that are not JSON are dropped."""
        state = self._choices.get(choice)
        is_plain = bool(text) and logprobs is None and (text.isascii() or not _SURROGATE.search(text))
        if is_plain and state is not None and self._is_in_text(state):
            self._events.append(chat.TextDelta(text, choice))
            return
        text = self._choice(choice).joined("text", text)
        if logprobs is not None and not _is_writable(logprobs):
            logprobs = None
        if text or logprobs:
            self._emit(chat.TextDelta(text, choice, logprobs))

    def text_run(self, pieces: tuple[bytes, ...]) -> None:
        """Add text of choice 0 as contents of JSON strings without surrogates. See `TextRun`."""
        self._choice(0).kinds.add("text")
        self._emit(chat.TextRun(pieces))

    def is_in_text(self) -> bool:
        """Return whether one more text of choice 0 would only produce a text event and change no other state.

        Then the caller may pass such text on without the assembler.
        """
        state = self._choices.get(0)
        return state is not None and not self._events and self._is_in_text(state)

    def is_saying_text(self) -> bool:
        """Return whether the last event is text of choice 0, so that consecutive texts may be added as a run."""
        last = self._events[-1] if self._events else None
        return type(last) is chat.TextDelta and last.choice == 0 and self._is_in_text(self._choices[0])

    def _is_in_text(self, state: _Choice) -> bool:
        """Return whether more text of the choice would only produce a text event."""
        return self.opened and not self.done and not state.finish and not state.cut and "text" in state.kinds

    def takes_runs(self) -> bool:
        """Return whether text may be added as a run now. It may not while half of a surrogate pair is held back."""
        return 0 not in self._choices or "text" not in self._choices[0].cut

    def reasoning(self, text: str, choice: int = 0) -> None:
        """Add reasoning text."""
        if text := self._choice(choice).joined("reasoning", text):
            self._emit(chat.ReasoningDelta(text, choice))

    def refusal(self, text: str, choice: int = 0) -> None:
        """Add text of the model's refusal."""
        if text := self._choice(choice).joined("refusal", text):
            self._emit(chat.RefusalDelta(text, choice))

    def annotations(self, annotations: tuple[chat.Annotation, ...], choice: int = 0) -> None:
        """Add annotations of the text, in OpenAI's shape. Those that cannot be written as JSON are dropped."""
        state = self._choice(choice)
        if annotations := tuple(filter(_is_writable, annotations)):
            state.kinds.add("annotations")
            self._emit(chat.AnnotationsDelta(annotations, choice))

    def image(self, url: str, choice: int = 0) -> None:
        """Add an image: see `ImageDelta`. One that a client can't read, or that is too large, is a failure."""
        state = self._choice(choice)
        self._image_characters += len(url)
        if self._image_characters > _MAX_IMAGE_CHARACTERS:
            self.fail(Failure(FailureKind.TOO_LARGE, "the provider's images are larger than accepted"))
        elif not _IMAGE.fullmatch(url):
            self.fail(Failure(FailureKind.MALFORMED, "the provider's answer has an image in a form that is not known"))
        else:
            state.kinds.add("images")
            self._emit(chat.ImageDelta(url, choice))

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
        """Add a piece of a tool call.

        Args:
            arguments: More JSON text of the arguments.
            index: The provider's index of the call.
            name: The name of the tool, or a piece of it.
            signature: See `ToolCall`.
            empty: Whether the call has no arguments, unless pieces of them follow before the next call.
        """
        state, id, name = self._choice(choice), id or "", name or ""
        if id or name:
            id, name = repair_surrogates(id), repair_surrogates(name)
        call = state.call_of(index, id, name)
        call.is_empty = call.is_empty or empty
        rest = self._add_to_call(call, choice, arguments, id, name, signature)
        while rest and not self.done and rest.strip() != call.arguments.strip():
            # Arguments of the next call, without a name of their own, or glued to those of this one.
            if not rest.startswith("{"):
                self.fail(replace(_NOT_JSON, param=call.name))
                return
            call = state.add(call.name)
            if index is not None:
                state.by_index[index] = call
            rest = self._add_to_call(call, choice, rest, "", "", None)

    def whole_call(
        self, name: str, arguments: str, *, choice: int = 0, id: str | None = None, signature: str | None = None
    ) -> None:
        """Add a whole tool call, to which no piece belongs. Sent again with its id, it is the same call.

        `arguments` is their JSON text, and `id` that of the provider. See `ToolCall` for the signature.
        """
        state = self._choice(choice)
        id, name = repair_surrogates(id or ""), repair_surrogates(name)
        known = state.by_id.get(id) if id else None
        if known is not None and (known.name, known.arguments) == (name, repair_surrogates(arguments)):
            return
        call = state.add()
        call.id = id if known is None else ""
        if id:
            state.by_id[id] = call
        self._add_to_call(call, choice, arguments, id, name, signature)

    def call_to_sign(self, choice: int) -> str | None:
        """Return the provider's id of the last call of a choice if the client does not have that call yet, or None.

        The id may be empty. A piece may still add a signature to the call.
        """
        calls = self._choices[choice].calls if choice in self._choices else []
        return calls[-1].provider_id if calls and self._is_open(calls[-1], choice) else None

    def _is_open(self, call: _Call, choice: int) -> bool:
        """Return whether the client does not have the call yet."""
        held = self._held_call()
        return not call.is_emitted or (held is not None and (held.index, held.choice) == (call.index, choice))

    def _sign(self, call: _Call, choice: int, signature: str) -> None:
        """Add a signature to a call. It is left out if the client has the call, whose id would carry it."""
        if not self._is_open(call, choice):
            return
        if call.signature is None:
            call.signature = signature
        elif self.join_signatures is not None:
            call.signature = self.join_signatures(call.signature, signature)
        if call.is_emitted and (held := self._held_call()) is not None:
            self._events[-1] = replace(held, signature=call.signature)

    def _add_to_call(self, call: _Call, choice: int, arguments: str, id: str, name: str, signature: str | None) -> str:
        """Add a piece to a call. Return what follows after the end of its arguments."""
        state = self._choice(choice)
        before = state.calls[call.index - 1] if call.index else None
        if before is not None and not (before.pieces and before.is_emitted) and call is state.calls[-1]:
            self._add_arguments(before, "{}" if before.is_empty and not before.pieces else "", choice)
        state.kinds.add("tool_calls")
        self._call_characters += len(arguments) + len(id) + len(name) + len(signature or "")
        if signature and signature != call.signature:
            self._sign(call, choice, repair_surrogates(signature))
        # A provider may use many places or ids for one call, and each is stored.
        places = len(state.by_index) + len(state.by_id)
        if self._call_characters > _MAX_CALL_CHARACTERS or len(state.calls) > _MAX_TOOL_CALLS or places > _MAX_PLACES:
            self.fail(Failure(FailureKind.TOO_LARGE, "the provider's tool calls are larger than accepted"))
            return ""
        if name and name != call.name:
            if call.is_emitted:
                # The client has the first name already, and may not call a tool by half of its name.
                self.fail(Failure(FailureKind.MALFORMED, "the provider's answer has a tool call with two names"))
                return ""
            call.name += name
        arguments, rest = call.take(arguments)
        if arguments or not self.joins_names:
            self._add_arguments(call, arguments, choice)
        return rest

    def _add_arguments(self, call: _Call, arguments: str, choice: int) -> None:
        if arguments:
            call.pieces.append(arguments)
        if call.is_emitted:
            if arguments:
                self._emit(chat.ToolCallDelta(call.index, arguments, choice=choice))
        elif name := call.name or (call.usual_name if call.pieces else ""):
            # A piece may come before the name.
            call.is_emitted, call.name = True, name
            call.id = call.id or made_call_id(self._id, choice, call.index)
            self._emit(chat.ToolCallDelta(call.index, call.arguments, call.id, name, call.signature, choice))

    def finish(
        self, reason: chat.FinishReason, choice: int = 0, raw: str | None = None, stop_sequence: str | None = None
    ) -> None:
        """Record the end of a choice. Of several finishes the most specific one is used.

        Args:
            raw: The provider's own word, if `reason` does not express it exactly.
            stop_sequence: The stop sequence that ended the text, if the provider names it.
        """
        state = self._choice(choice)
        if state.finish is None or _RANK[reason] > _RANK[state.finish]:
            state.finish, state.raw = reason, repair_surrogates(raw) if raw else None
            state.stop_sequence = repair_surrogates(stop_sequence) if stop_sequence else None

    def filtered(self, choice: int = 0) -> None:
        """Record that the safety system filtered a choice, whatever its finish is."""
        self._choice(choice).filtered = True

    def usage(self, usage: chat.Usage | Callable[[], chat.Usage]) -> None:
        """Record the token counts so far: of each count the last one above 0. A function is called once, at the end."""
        if callable(usage):
            self._read_usage = usage
        elif self._usage is None:
            self._usage = usage
        else:
            counts = zip(msgspec.structs.astuple(usage), msgspec.structs.astuple(self._usage), strict=True)
            self._usage = chat.Usage(*[new or old for new, old in counts])

    def report(self, report: Mapping[str, object], read: Callable[[Mapping[str, object]], chat.Usage]) -> None:
        """Record a report of the usage in the vendor's form. See `providers.reading.token_counts.merged`.

        `read` reads all reports, merged into one, at the end.
        """
        self._report = report = merged(self._report, report)
        self._read_usage = partial(read, report)

    def heartbeat(self) -> None:
        """Add a sign of life without content."""
        if not self.done:
            self._events.append(_HEARTBEAT)

    def complete(self, *, is_whole: bool = False) -> None:
        """End the answer. Returns what was held back, or a failure if the answer is not whole.

        `is_whole`: nothing can be cut off, as in a body of JSON, so that a choice needs no finish.
        """
        if self.done:
            return
        if is_whole:
            for state in self._choices.values():
                if state.end is None and state.is_answered:
                    state.finish, state.raw = "stop", MISSING
        if not self.whole:
            self.fail(Failure(FailureKind.INTERRUPTED, "the provider's answer ended before it was complete"))
            return
        usage = self._counted()
        choices = sorted(self._choices.items())
        for number, state in choices:
            if (state.cut or state.calls) and (failed := self._end_content(number, state)) is not None:
                self.fail(failed)
                return
        if not self.opened and not (usage and usage.completion_tokens) and self._may_be_empty():
            self.fail(_UNWRITTEN if usage and usage.total_tokens else _EMPTY)
            return
        for _, state in choices:
            if state.raw is not None and state.is_unexplained:
                self.fail(failed_by(state.raw))
                return
        for number, state in choices:
            reason = state.reason
            self._emit(chat.ChoiceFinish(reason, number, state.raw, state.stop_sequence if reason == "stop" else None))
        if usage is not None:
            self._emit(chat.UsageReport(usage))
        self._events.append(_FINISHED)
        self.done = True

    def _end_content(self, number: int, state: _Choice) -> Failure | None:
        """Pass on what a choice holds back. Return the failure of a call that is not whole."""
        for kind in filter(state.cut.__contains__, _DELTAS):
            # The other half of a surrogate pair did not arrive.
            self._emit(_DELTAS[kind]("\ufffd", number))
        for call in state.calls:
            if call.cut or not call.arguments.strip():
                rest = repair_escapes(repair_surrogates(call.cut), last=True)[0]
                self._add_arguments(call, rest or "{}", number)
            if not call.is_emitted:
                return Failure(FailureKind.MALFORMED, "the provider's answer has a tool call without a name")
            if state.end not in _CUTTING and not is_json_object(call.arguments):
                return replace(_NOT_JSON, param=call.name)
        return None

    def _counted(self) -> chat.Usage | None:
        # The reference is removed, because the function refers to its reader, which refers to this object.
        read, self._read_usage = self._read_usage, None
        if read is not None:
            self.usage(read())
        return self._usage

    def fail(self, failure: Failure) -> None:
        """End the answer with a failure. A content filter after the first content ends it as filtered instead."""
        if self.done:
            return
        blocks = failure.kind is FailureKind.CONTENT_FILTER
        if not (blocks and self.opened) and not any(state.filtered for state in self._choices.values()):
            self._events.append(chat.Failed(failure, self._counted()))
            self.done = True
            return
        unfinished = [number for number, state in self._choices.items() if not state.finish]
        for number in unfinished or list(self._choices):
            self.finish("content_filter", number, failure.code if blocks else None)
        for state in self._choices.values():
            state.calls = [call for call in state.calls if call.is_emitted]
        self.complete()

    def _emit(self, event: chat.StreamEvent) -> None:
        if self.done:
            return
        if not self.opened:
            self.opened = self.identified = True
            model = self._model or self._asked_model
            self._events.append(chat.Opened(self._id, model, self._created, self._tier, self._fingerprint))
        self._events.append(event)

    def _choice(self, number: int) -> _Choice:
        if (state := self._choices.get(number)) is not None:
            return state
        if len(self._choices) == MAX_CHOICES:
            self.fail(Failure(FailureKind.TOO_LARGE, "the provider's answer has more choices than accepted"))
            return _Choice()
        state = self._choices[number] = _Choice()
        return state


def _is_writable(passed: Mapping[str, object]) -> bool:
    """Return whether log probabilities or an annotation can be written as JSON at their depth in an answer."""
    try:
        dumps([[[[[passed]]]]])
    except TypeError:
        return False
    return True


def _in_seconds(moment: int) -> int:
    """Return a Unix time in seconds, also if a vendor sends milliseconds or less."""
    while moment > LAST_SECOND:
        moment //= 1000
    return moment


def made_call_id(answer_id: str, choice: int, index: int) -> str:
    """Return the id for a call of which only the position in an answer is known."""
    return f"call_{answer_id}_{choice}_{index}" if choice else f"call_{answer_id}_{index}"


def named_by_moment(event: chat.ToolCallDelta, received_at: float) -> chat.ToolCallDelta:
    """Return the piece of a tool call with a unique id, for an answer without an id that arrived at this time."""
    if event.id is None:
        return event
    return replace(event, id=_unique_id(event.id, event.choice, event.index, received_at))


def with_named_calls(completion: chat.ChatCompletion, received_at: float) -> chat.ChatCompletion:
    """Return a whole answer without an id, with unique ids of its tool calls."""
    if not any(choice.message.tool_calls for choice in completion.choices):
        return completion
    choices: list[chat.Choice] = []
    for choice in completion.choices:
        calls = tuple(
            replace(call, id=_unique_id(call.id, choice.index, index, received_at))
            for index, call in enumerate(choice.message.tool_calls)
        )
        choices.append(replace(choice, message=replace(choice.message, tool_calls=calls)))
    return replace(completion, choices=tuple(choices))


def _unique_id(id: str, choice: int, index: int, received_at: float) -> str:
    if id != made_call_id("", choice, index):
        return id
    # Answers of a conversation follow each other, so a time in microseconds is unique.
    return made_call_id(f"{int(received_at * 1_000_000):x}", choice, index)
