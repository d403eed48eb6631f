"""Read whole answers and stream chunks of a compatible vendor, including reasoning in `<think>` tags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from providers.adapter import StreamParser
from providers.chat import ChatCompletion, Usage
from providers.compatible.dialect import Answers, CompatibleDialect, Ending, Errors
from providers.compatible.errors import classify, holds_error
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.formats.tool_calls import calls_in
from providers.json_values import (
    JsonError,
    as_map,
    loads,
    parent_object,
    read_count,
    read_int,
    read_list,
    read_map,
    read_str,
)
from providers.openai_json.read_answer import (
    FINISH,
    PLAIN_FINISH,
    check_choices,
    new_in_message,
    plain_completion,
    read_annotations,
    read_reasoning,
    read_setup,
    read_text,
    read_tool_call,
    read_usage,
)
from providers.openai_json.stream_relay import RelayingParser
from providers.reading.error_classification import MESSAGES
from providers.reading.event_stream import EventStreamParser
from providers.reading.folding import fold
from providers.reading.stream_assembler import Assembler
from providers.wire import WireResponse

_OPEN, _CLOSE = "<think>", "</think>"


class ThinkTags:
    """Separate `<think>` reasoning from text, piece by piece. Only a tag at the start of the text counts."""

    __slots__ = ("_held", "_state")

    def __init__(self) -> None:
        self._state = "before"
        self._held = ""

    def split(self, piece: str, last: bool) -> tuple[str, str]:
        """Return the reasoning and the text that are certain after this piece.

        Args:
            piece: The next piece of the text.
            last: Whether this is the last piece, so that nothing may be held back.
        """
        thoughts = text = ""
        rest, self._held = self._held + piece, ""
        if self._state == "before":
            begun = rest.lstrip()
            if begun.startswith(_OPEN):
                self._state, rest = "within", begun[len(_OPEN) :]
            elif not last and _OPEN.startswith(begun):
                self._held = rest
                return "", ""
            else:
                self._state = "text"
        if self._state == "within":
            thoughts, closed, rest = rest.partition(_CLOSE)
            if closed:
                self._state = "after"
            elif not last:
                tail = _tail_characters(thoughts)
                self._held = thoughts[len(thoughts) - tail :]
                thoughts = thoughts[: len(thoughts) - tail]
        if self._state == "after":
            # The blank line between thoughts and answer belongs to neither.
            rest = rest.lstrip()
            if rest:
                self._state = "text"
        if self._state == "text":
            text = rest
        return thoughts, text


def _tail_characters(text: str) -> int:
    """Return how many characters at the end may be the start of the closing tag."""
    return next((size for size in range(len(_CLOSE) - 1, 0, -1) if text.endswith(_CLOSE[:size])), 0)


def compatible_parser(dialect: CompatibleDialect, model: str, sites: Iterable[str]) -> StreamParser:
    """Return a parser for one stream. Text chunks are relayed unchanged unless reasoning is inside the text."""
    reader = _Reader(dialect.answers, dialect.errors, model, sites)
    if dialect.answers.inline_thoughts:
        return EventStreamParser(reader.assembler, reader.read_chunk)
    return RelayingParser(reader.assembler, reader.read_chunk)


def read_compatible_completion(
    response: WireResponse, dialect: CompatibleDialect, model: str, sites: Iterable[str]
) -> ChatCompletion:
    """Read the whole answer of a 2xx JSON body.

    Raises:
        ProviderFailed: The body is an error, or not an answer.
    """
    try:
        body = as_map(loads(response.body))
    except JsonError:
        body = {}
    if holds_error(body, dialect.errors):
        raise ProviderFailed(classify(body, response, dialect.errors, sites))
    rule = dialect.answers
    is_usual = PLAIN_FINISH.keys().isdisjoint(rule.finish)
    if is_usual and not (rule.safety or rule.inline_thoughts or rule.usage_in_choices):
        usage = read_map(body, "usage")
        if plain := plain_completion(body, _usage(usage, rule) if usage else None):
            return plain
    reader = _Reader(rule, dialect.errors, model, sites)
    if not reader.is_flagged(body):
        check_choices(body, response)
    reader.read_chunk(body, "message")
    reader.assembler.complete()
    return fold(reader.assembler.take())


class _Reader:
    """Read one answer into its `assembler`, chunk by chunk."""

    def __init__(self, rule: Answers, errors: Errors, model: str, sites: Iterable[str]) -> None:
        self.assembler = Assembler(model)
        self._rule = rule
        self._errors = errors
        self._sites = sites
        self._tags: dict[int, ThinkTags] = {}

    def read_chunk(self, chunk: Mapping[str, object], event: str) -> None:
        """Read one chunk, or a whole answer."""
        if event == "error" or holds_error(chunk, self._errors):
            self.assembler.fail(classify(chunk, WireResponse(200, {}, b"", 0), self._errors, self._sites))
            return
        self.assembler.identify(
            id=read_str(chunk, "id"), model=read_str(chunk, "model"), created=read_int(chunk, "created")
        )
        if not self.assembler.opened:
            read_setup(self.assembler, chunk)
        if event in self._rule.events:
            self._end(self._rule.events[event], 0, event)
            return
        blocked = self.is_flagged(chunk)
        for entry in read_list(chunk, "choices"):
            self._read_choice(as_map(entry), blocked)
        if usage := read_map(chunk, "usage"):
            self.assembler.usage(_usage(usage, self._rule))
        if blocked and not read_list(chunk, "choices"):
            # The vendor sends no choice for a blocked answer.
            self._end(FailureKind.CONTENT_FILTER, 0, "content_filter")

    def is_flagged(self, source: Mapping[str, object]) -> bool:
        """Return whether this choice, or this answer, is marked as blocked by the vendor's safety system."""
        return any(source.get(name) not in (None, False, 0, "", "0") for name in self._rule.safety)

    def _read_choice(self, source: Mapping[str, object], blocked: bool) -> None:
        index = read_int(source, "index") or 0
        delta, message = read_map(source, "delta"), read_map(source, "message")
        repeats = bool(message) and not delta
        if repeats:
            delta = message if self._rule.message_is_delta else new_in_message(self.assembler, message, index)
        if blocked or self.is_flagged(source):
            self.assembler.filtered(index)
        logprobs = read_map(source, "logprobs") or None
        text = read_text(delta.get("content"))
        raw_reason = read_str(source, "finish_reason")
        ended = bool(raw_reason and raw_reason != "null")
        thoughts = read_reasoning(delta)
        if self._rule.inline_thoughts:
            if repeats:
                # A whole message starts from the beginning. Text that was already emitted was left out above.
                self._tags[index] = ThinkTags()
            inline, text = self._tags.setdefault(index, ThinkTags()).split(text, ended)
            thoughts = thoughts or inline
            if repeats and self.assembler.has("reasoning", index):
                thoughts = ""
        if thoughts:
            self.assembler.reasoning(thoughts, index)
        if text or logprobs:
            self.assembler.text(text, index, logprobs)
        if refusal := read_str(delta, "refusal"):
            self.assembler.refusal(refusal, index)
        if annotations := read_annotations(delta):
            self.assembler.annotations(annotations, index)
        is_whole = repeats and not self._rule.message_is_delta
        for position, entry in enumerate(calls_in(delta)):
            read_tool_call(self.assembler, as_map(entry), index, position if is_whole else None)
        if self._rule.usage_in_choices and (usage := read_map(source, "usage")):
            self.assembler.usage(_usage(usage, self._rule))
        if raw_reason and ended:
            self._end(self._ending(raw_reason), index, raw_reason)
        elif not text:
            self.assembler.see(index)

    def _ending(self, raw_reason: str) -> Ending:
        return self._rule.finish.get(raw_reason) or FINISH.get(raw_reason, "other")

    def _end(self, ending: Ending, index: int, raw_reason: str) -> None:
        if isinstance(ending, FailureKind):
            # Some vendors report a failure only by the finish reason.
            self.assembler.fail(Failure(ending, MESSAGES.get(ending, ending.value), code=raw_reason[:200]))
            return
        self.assembler.finish(ending, index, raw_reason[:100] if ending == "other" else None)


def _usage(source: Mapping[str, object], rule: Answers) -> Usage:
    usage = read_usage(source, rule.separate_reasoning)
    if usage.cached_tokens or not rule.cached:
        return usage
    cached = next(filter(None, (read_count(*parent_object(source, path)) for path in rule.cached)), 0)
    return replace(usage, cached_tokens=cached)
