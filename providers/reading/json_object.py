"""Emulate `response_format: {"type": "json_object"}` for wire formats without a JSON mode.

The adapter asks for the object in words, in the system text (`with_json_instruction`). The reader of the answer checks
the text (`JsonObjectCheck`): it must be one JSON object and nothing else. White space and a code fence around it are
removed, because models add a fence although the instruction forbids it. Other text is never cut off.

Only a complete answer is checked: one with a tool call, a refusal or another finish reason than `stop` may be anything.
In a stream, the object is passed on while it arrives. Text that is not part of an object is held back until the end
of the choice shows which of the two it is, so that most answers without JSON fail before the client gets a byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import Enum, auto

from providers import chat
from providers.adapter import Adapter, EmulatesFeatures, Target
from providers.failures import Failure, FailureKind
from providers.json_values import is_json_object
from providers.reading.folding import expand
from providers.reading.object_scanner import ObjectScanner
from providers.value import replace

JSON_OBJECT = "json_object"
"""The only feature that can be emulated."""
_INSTRUCTION = (
    "Answer with exactly one valid JSON object and nothing else. The first character of the answer is { and the last "
    "one is }. Write no text before or after the object, and no code fence. This does not apply to tool calls."
)
_MESSAGE = "the model's answer is not one JSON object, which `response_format` requires"
_TOO_LONG = Failure(FailureKind.TOO_LARGE, "the model's JSON object is larger than accepted")
_MOST_CHARACTERS = 4 * 1024 * 1024
"""The limit of an object, which is kept until its end. No model writes a longer one."""
_MOST_HELD = 1000
"""The limit of held text. A sentence before a tool call, or of a content filter, is shorter."""
_NOTHING, _EMULATED = frozenset[str](), frozenset({"response_format"})
_FENCE = "```"
# Limited, so that a stream of white space does not keep the reader busy.
_OPENING = re.compile(r"```[ \t]{0,4}\w{0,20}\s{0,20}(?=\{)")
_OPENING_SO_FAR = re.compile(r"`{1,2}|```[ \t]{0,4}\w{0,20}\s{0,20}")


def with_json_instruction(request: chat.ChatRequest) -> chat.ChatRequest:
    """Return the request with the wish for a JSON object in words instead of in `response_format`.

    The instruction is a system message after the last one of the request. Another request is returned unchanged.

    Examples:
        >>> from providers.contract import ChatRequest, JsonObjectFormat, UserMessage, with_json_instruction
        >>> request = ChatRequest("assistant", (UserMessage("A city"),), response_format=JsonObjectFormat())
        >>> [type(message).__name__ for message in with_json_instruction(request).messages]
        ['SystemMessage', 'UserMessage']
    """
    if not isinstance(request.response_format, chat.JsonObjectFormat):
        return request
    messages = request.messages
    systems = [position for position, message in enumerate(messages) if isinstance(message, chat.SystemMessage)]
    after = systems[-1] + 1 if systems else 0
    instructed = (*messages[:after], chat.SystemMessage(_INSTRUCTION), *messages[after:])
    return replace(request, messages=instructed, response_format=None)


def emulated_fields(adapter: Adapter, request: chat.ChatRequest) -> frozenset[str]:
    """Return the fields of the request that the adapter emulates: `response_format`, or none."""
    if not isinstance(request.response_format, chat.JsonObjectFormat):
        return _NOTHING
    return _EMULATED if isinstance(adapter, EmulatesFeatures) and JSON_OBJECT in adapter.emulated else _NOTHING


def json_start_of(adapter: Adapter, request: chat.ChatRequest, target: Target) -> str | None:
    """Return the beginning of the object in the request (prefill), usually empty; None if the answer is not checked."""
    if request.response_format is None or not emulated_fields(adapter, request):
        return None
    last = request.messages[-1]
    if not isinstance(last, chat.AssistantMessage) or "prefill" not in target.facts.features:
        return ""
    begun = chat.text_of(last.content).lstrip()
    return begun if begun.startswith(("{", _FENCE)) else ""


def checked(completion: chat.ChatCompletion, start: str, *, may_stop: bool) -> chat.ChatCompletion:
    """Return a whole answer with nothing around its JSON object, of which the request has the `start`.

    Raises ProviderFailed if it is not an object. With `may_stop`, a stop sequence may have cut the object off.
    """
    try:
        choices = tuple(_checked_choice(choice, start, may_stop=may_stop) for choice in completion.choices)
    except _NotAccepted as error:
        raise chat.AnswerRefused(error.failure, completion.usage) from None
    return replace(completion, choices=choices)


def _checked_choice(choice: chat.Choice, start: str, *, may_stop: bool) -> chat.Choice:
    message = choice.message
    text = _ObjectText(start)
    shown = text.feed(chat.text_of(message.content))
    if message.tool_calls or message.refusal:
        shown += text.release()
    shown += text.finish(choice.finish_reason, may_stop=may_stop)
    return (
        choice if shown == chat.text_of(message.content) else replace(choice, message=replace(message, content=shown))
    )


class JsonObjectCheck:
    """Checks the events of one stream, and removes what is around the object.

    Once it has `failed`, the failure was returned, and no more events follow.
    """

    def __init__(self, start: str, *, may_stop: bool) -> None:
        """Create the check. For the arguments see `checked`."""
        self.has_shown = False
        self.failed = False
        self._start = start
        self._may_stop = may_stop
        self._texts: dict[int, _ObjectText] = {}
        self._failure: Failure | None = None
        self._usage: chat.Usage | None = None

    def take(self, events: Iterable[chat.StreamEvent]) -> tuple[chat.StreamEvent, ...]:
        """Return the events that can be passed on after these events."""
        return tuple(shown for event in expand(events) for shown in self._shown(event))

    def _shown(self, event: chat.StreamEvent) -> Iterator[chat.StreamEvent]:
        if self.failed:
            return
        if self._failure is None:
            try:
                yield from self._checked(event)
                return
            except _NotAccepted as error:
                self._failure = error.failure
                if isinstance(event, chat.ChoiceFinish):
                    # The usage follows after the finish.
                    return
        if isinstance(event, chat.UsageReport):
            self._usage = event.usage
        elif isinstance(event, chat.TextDelta | chat.Finished | chat.Failed):
            self.failed = True
            yield chat.Failed(self._failure, self._usage)

    def _checked(self, event: chat.StreamEvent) -> Iterator[chat.StreamEvent]:
        match event:
            case chat.TextDelta(text, choice):
                shown = self._text(choice).feed(text)
                if shown or event.logprobs is not None:
                    self.has_shown = True
                    yield event if shown == text else replace(event, text=shown)
            case chat.ToolCallDelta() | chat.RefusalDelta() | chat.ImageDelta():
                yield from self._delta(self._text(event.choice).release(), event.choice)
                yield event
            case chat.ChoiceFinish(reason, choice):
                yield from self._delta(self._text(choice).finish(reason, may_stop=self._may_stop), choice)
                yield event
            case _:
                yield event

    def _text(self, choice: int) -> _ObjectText:
        text = self._texts.get(choice)
        if text is None:
            text = self._texts[choice] = _ObjectText(self._start)
        return text

    def _delta(self, text: str, choice: int) -> Iterator[chat.StreamEvent]:
        if text:
            self.has_shown = True
            yield chat.TextDelta(text, choice)


class _NotAccepted(Exception):
    """The text is not accepted. The failure contains nothing of it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class _Part(Enum):
    """The part of the text that comes next."""

    BEFORE = auto()
    OBJECT = auto()
    AFTER = auto()
    REJECTED = auto()
    UNCHECKED = auto()


class _ObjectText:
    """The text of one choice. Each method returns the text that can be passed on."""

    def __init__(self, start: str) -> None:
        self._part = _Part.BEFORE
        # Text that was not passed on, and that may be released: a fence, or text that is not part of an object.
        self._held = ""
        self._has_fence = False
        self._why = "the answer is empty"
        self._pieces: list[str] = []
        self._characters = 0
        self._scanner = ObjectScanner()
        if start:
            try:
                self.feed(start)
            except _NotAccepted:
                # The client's own beginning is not that of an object, so the answer is not checked.
                self._part = _Part.UNCHECKED
            if self._part is _Part.REJECTED:
                self.release()

    def feed(self, text: str) -> str:
        """Return what can be passed on after more text. Raises _NotAccepted if it cannot become an object."""
        match self._part:
            case _Part.UNCHECKED:
                return text
            case _Part.BEFORE:
                return self._begin(text)
            case _Part.OBJECT:
                return self._continue(text)
            case _Part.AFTER:
                return self._follow(text)
            case _Part.REJECTED:
                return self._hold(text)

    def release(self) -> str:
        """Return the held text, and accept any text from now on."""
        held = "" if self._held.startswith(_FENCE[0]) and self._part is not _Part.REJECTED else self._held
        self._part, self._held = _Part.UNCHECKED, ""
        return held

    def finish(self, reason: chat.FinishReason, *, may_stop: bool) -> str:
        """Return the rest of the text. Raises _NotAccepted if the choice is complete and not an object."""
        if reason != "stop" or self._part is _Part.UNCHECKED:
            return self.release()
        if self._part is _Part.AFTER or (self._part is _Part.OBJECT and may_stop):
            return ""
        raise _NotAccepted(_not_json(self._why))

    def _begin(self, text: str) -> str:
        held = (self._held + text).lstrip()
        if opening := _OPENING.match(held):
            self._has_fence = True
            held = held[opening.end() :]
        if held.startswith("{"):
            self._part, self._held, self._why = _Part.OBJECT, "", "the object is not complete"
            return self._continue(held)
        if not held or _OPENING_SO_FAR.fullmatch(held):
            self._held = held
            return ""
        self._held = ""
        return self._reject(held, "the answer begins with other text")

    def _continue(self, text: str) -> str:
        end = self._scanner.end_in(text)
        piece, rest = text[:end], text[end:]
        self._pieces.append(piece)
        self._characters += len(piece)
        if self._characters > _MOST_CHARACTERS:
            raise _NotAccepted(_TOO_LONG)
        if not self._scanner.is_whole:
            return piece
        is_valid = is_json_object("".join(self._pieces))
        self._pieces.clear()
        if not is_valid:
            raise _NotAccepted(_not_json("the object is not valid JSON"))
        self._part = _Part.AFTER
        return piece + self._follow(rest)

    def _follow(self, text: str) -> str:
        held = (self._held + text).lstrip()
        self._held = ""
        if self._has_fence and held.startswith(_FENCE):
            self._has_fence = False
            held = held[len(_FENCE) :].lstrip()
        if self._has_fence and held and _FENCE.startswith(held):
            self._held = held
            return ""
        return self._reject(held, "text follows the object") if held else ""

    def _reject(self, text: str, why: str) -> str:
        self._part, self._why = _Part.REJECTED, why
        return self._hold(text)

    def _hold(self, text: str) -> str:
        self._held += text
        if len(self._held) > _MOST_HELD:
            raise _NotAccepted(_not_json(self._why))
        return ""


def _not_json(why: str) -> Failure:
    return Failure(FailureKind.NOT_JSON, _MESSAGE, detail=why)
