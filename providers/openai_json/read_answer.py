"""Read whole answers and stream chunks in the form of OpenAI's chat completions, which most vendors have.

One reader serves OpenAI, all compatible vendors, and native formats that are the same under other names. `Answers`
states a vendor's differences as data. Other differences are tolerated without being stated.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import msgspec

from providers.chat import AssistantMessage, ChatCompletion, Choice, FinishReason, Logprobs, ServiceTier, Usage
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.formats.reasoning_state import DetailCollector, join_states, pack_call
from providers.formats.tool_calls import arguments_text, calls_in
from providers.json_values import (
    JsonError,
    are_counts,
    as_list,
    as_map,
    loads,
    parent_object,
    read_count,
    read_int,
    read_list,
    read_map,
    read_str,
)
from providers.reading.assembler import LAST_SECOND, MAX_CHOICES, Assembler, Content
from providers.reading.errors import (
    IN_A_STREAM,
    MESSAGES,
    ErrorRules,
    classify,
    failure,
    has_message,
    holds_error,
    shared_rules,
)
from providers.reading.finishes import FINISH, Ending, ending_of, failed_by, is_exact
from providers.reading.folding import fold
from providers.reading.token_counts import count_completion, count_prompt
from providers.value import Value, replace
from providers.wire import WireResponse

_WHOLE = ("stop", "length", "tool_calls")
_NOTHING: Mapping[str, object] = {}
_NO_FINISH = frozenset({"null", "None", "none"})
"""Texts that servers write while an answer goes on: DashScope's, and Python's for null."""
_OF_TEXT = frozenset({"role", "content", "refusal"})
"""The members of most deltas. The first one of OpenAI has an empty refusal."""
_OF_CALL = frozenset({"index", "id", "type", "function", "custom", "name", "arguments", "object", "status"})
"""Members next to `function` that every call may have, or that repeat it. Others are state of the model."""
_CONTENTS: Mapping[str, Content] = {
    **dict.fromkeys(("reasoning_content", "reasoning", "reasoning_details", "thinking"), "reasoning"),
    **dict.fromkeys(("tool_calls", "function_call"), "tool_calls"),
    **{"content": "text", "refusal": "refusal", "annotations": "annotations", "images": "images"},
}
_TOO_MANY = Failure(FailureKind.TOO_LARGE, "the provider's answer has more choices than accepted")
_PLAIN_FINISH: Mapping[str, FinishReason] = {"stop": "stop", "length": "length", "content_filter": "content_filter"}
# Fields of a message that may have a value in the plain form. Any other field must be empty.
_PLAIN_FIELDS = frozenset({"role", "content", "audio"})
_SURROGATE = re.compile("[\ud800-\udfff]")
_MOST_PLAIN_BYTES = 2**20
_SURE_CHARACTERS = 16
"""A repeated beginning of this length is not a chance: a model writes `ha` and `haha`, but not a sentence twice."""


class Answers(Value, frozen=True):
    """How an answer differs from OpenAI's."""

    finish: Mapping[str, Ending] = {}
    """The meaning of finish reasons that OpenAI does not have. One may mean a failure."""
    safety: tuple[str, ...] = ()
    """Fields of a choice or of the answer that are set if the vendor's safety system blocked it."""
    cached: tuple[str, ...] = ()
    """More dotted paths in `usage` where the number of cached tokens may be."""
    separate_reasoning: bool = False
    """Whether `completion_tokens` leaves out the reasoning tokens. If the answer has a total, the total decides."""
    inline_thoughts: bool = False
    """Whether reasoning is in the text, in `<think>` tags."""
    thoughts: tuple[str, ...] = ()
    """More members of a message with its reasoning: a text, or a list of parts with `text`."""
    thinks_at_once: bool = False
    """Whether, with `inline_thoughts`, the opening tag is in the prompt, so that the text begins with reasoning."""
    message_is_delta: bool = False
    """Whether a stream's choices have `message` instead of `delta`."""
    may_repeat: bool = False
    """Whether each piece of a stream may repeat the whole text so far."""
    events: Mapping[str, Ending] = {}
    """The meaning of named events."""

    @property
    def may_be_plain(self) -> bool:
        """Whether an answer of the usual form means the same as at OpenAI."""
        differs = self.safety or self.inline_thoughts
        return not differs and _PLAIN_FINISH.keys().isdisjoint(self.finish)

    def of_server(self, flags: frozenset[str]) -> Answers:
        """Return the rule of a deployment whose model has the given flags."""
        if flags.isdisjoint(_INLINE):
            return self
        return replace(self, inline_thoughts=True, thinks_at_once=INLINE_THOUGHTS["end_tag"] in flags)


INLINE_THOUGHTS: Mapping[str, str] = {"tags": "inline_thoughts", "end_tag": "thinks_at_once"}
"""The flag of a model for each value of `inline_thoughts` of a deployment."""
_INLINE = frozenset(INLINE_THOUGHTS.values())

_Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


# --- token counts -------------------------------------------------------------------------------------


class _OfPrompt(Value, frozen=True):
    cached_tokens: _Count = 0
    cache_write_tokens: _Count = 0
    audio_tokens: _Count = 0
    # DashScope, as Anthropic names it.
    cache_creation_input_tokens: _Count = 0

    @property
    def written(self) -> int:
        return self.cache_write_tokens or self.cache_creation_input_tokens


class _OfCompletion(Value, frozen=True):
    reasoning_tokens: _Count = 0
    accepted_prediction_tokens: _Count = 0
    rejected_prediction_tokens: _Count = 0


class _Counts(Value, frozen=True):
    """The usual form of a usage."""

    prompt_tokens: _Count
    completion_tokens: _Count
    total_tokens: object = None
    prompt_tokens_details: _OfPrompt = _OfPrompt()
    completion_tokens_details: _OfCompletion = _OfCompletion()
    # DeepSeek and Moonshot, and servers and relays that repeat their names.
    prompt_cache_hit_tokens: _Count = 0
    cached_tokens: _Count = 0
    # LiteLLM and other relays of Claude.
    cache_read_input_tokens: _Count = 0
    cache_creation_input_tokens: _Count = 0

    @property
    def cached(self) -> int:
        return (
            self.prompt_tokens_details.cached_tokens
            or self.prompt_cache_hit_tokens
            or self.cached_tokens
            or self.cache_read_input_tokens
        )


_CACHED = (
    "prompt_tokens_details.cached_tokens",
    "prompt_cache_hit_tokens",
    "cached_tokens",
    "cache_read_input_tokens",
    "input_tokens_details.cached_tokens",
)


def read_usage(source: Mapping[str, object], rule: Answers | None = None) -> Usage:
    """Return the token counts. A missing count is 0. If a count is invalid, the prompt is 0 and no count is used."""
    paths = rule.cached if rule is not None else ()
    try:
        counts = msgspec.convert(source, _Counts)
        return _usage_of(counts, counts.cached or (_first_count(source, paths) if paths else 0), rule)
    except (msgspec.ValidationError, UnicodeEncodeError):  # the second: a name has half a surrogate pair
        pass
    of_prompt, of_completion = read_map(source, "prompt_tokens_details"), read_map(source, "completion_tokens_details")
    are_valid = (
        are_counts(source, "prompt_tokens", "completion_tokens")
        and are_counts(of_prompt, "cached_tokens", "cache_write_tokens", "cache_creation_input_tokens")
        and are_counts(of_completion, "reasoning_tokens")
    )
    counts = _Counts(
        # Some relays have the names of Messages and Responses in a chat.
        read_count(source, "prompt_tokens") or read_count(source, "input_tokens"),
        read_count(source, "completion_tokens") or read_count(source, "output_tokens"),
        source.get("total_tokens"),
        _OfPrompt(0, *(read_count(of_prompt, name) for name in _OfPrompt.__struct_fields__[1:])),
        _OfCompletion(*(read_count(of_completion, name) for name in _OfCompletion.__struct_fields__)),
        cache_creation_input_tokens=read_count(source, "cache_creation_input_tokens"),
    )
    usage = _usage_of(counts, _first_count(source, (*_CACHED, *paths)), rule)
    return usage if are_valid else replace(usage, prompt_tokens=0)


def _usage_of(counts: _Counts, cached: int, rule: Answers | None) -> Usage:
    prompt, completion = counts.prompt_tokens, counts.completion_tokens
    of_prompt, of_completion = counts.prompt_tokens_details, counts.completion_tokens_details
    if reasoning := of_completion.reasoning_tokens:
        is_apart = rule is not None and rule.separate_reasoning
        completion = count_completion(prompt, completion, reasoning, counts.total_tokens, is_apart)
    written = of_prompt.written or counts.cache_creation_input_tokens
    if in_cache := cached + written:
        prompt = count_prompt(prompt, completion, in_cache, counts.total_tokens)
    return Usage(
        prompt,
        completion,
        cached,
        reasoning,
        written,
        of_prompt.audio_tokens,
        of_completion.accepted_prediction_tokens,
        of_completion.rejected_prediction_tokens,
    )


def _first_count(source: Mapping[str, object], paths: Iterable[str]) -> int:
    return next(filter(None, (read_count(*parent_object(source, path)) for path in paths)), 0)


# --- the usual form of a whole answer -----------------------------------------------------------------

_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Empty = Literal["", 0] | None
"""A member without a value. With any other value, the answer is not plain."""


class _PlainChoice(Value, frozen=True):
    """A choice whose message has nothing but text."""

    index: int
    message: dict[str, object]
    finish_reason: Literal["stop", "length", "content_filter"]
    logprobs: _Empty = None
    delta: _Empty = None
    stop_reason: _Empty = None
    matched_stop: _Empty = None
    native_finish_reason: _Empty = None
    error: _Empty = None
    usage: _Empty = None


class _PlainAnswer(Value, frozen=True):
    """The usual form of an answer. See `_read_plain` for what else it must fulfil."""

    id: _Text
    model: _Text
    created: Annotated[int, msgspec.Meta(ge=0, le=LAST_SECOND)]
    choices: Annotated[list[_PlainChoice], msgspec.Meta(min_length=1, max_length=MAX_CHOICES)]
    service_tier: ServiceTier | None = None
    system_fingerprint: _Text | None = None
    usage: _Counts | None = None
    error: _Empty = None
    what: Any = msgspec.field(name="object", default=None)


_decode_plain = msgspec.json.Decoder(_PlainAnswer).decode


def _read_plain(data: bytes, rule: Answers) -> ChatCompletion | None:
    """Return the answer of a body in the plain form, or None for any other. It reads nothing that `loads` refuses."""
    if len(data) > _MOST_PLAIN_BYTES:
        return None
    try:
        if not data.isascii():
            data.decode()  # msgspec does not check the strings that it skips
        body = _decode_plain(data)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return None
    tier, fingerprint = body.service_tier, body.system_fingerprint
    head = body.id + body.model + (tier or "") + (fingerprint or "")
    if body.what == "error" or (not head.isascii() and _SURROGATE.search(head)):
        return None
    choices = []
    for position, choice in enumerate(body.choices):
        if choice.index != position:
            return None
        message = choice.message
        for name in message:
            if name not in _PLAIN_FIELDS and message[name]:
                return None
        content = message.get("content")
        if type(content) is not str or not content or not (content.isascii() or not _SURROGATE.search(content)):
            return None
        choices.append(Choice(AssistantMessage(content), _PLAIN_FINISH[choice.finish_reason], position))
    usage, counts = None, body.usage
    if counts is not None:
        usage = _usage_of(counts, counts.cached, rule)
        if rule.cached and not counts.cached:
            usage = read_usage(as_map(as_map(loads(data))["usage"]), rule)
    return ChatCompletion(body.id, body.model, body.created, tuple(choices), usage, tier, fingerprint)


# --- any form -----------------------------------------------------------------------------------------


def read_completion(
    response: WireResponse,
    model: str,
    rule: Answers | None = None,
    errors: ErrorRules | None = None,
    sites: Iterable[str] = (),
) -> ChatCompletion:
    """Return the whole answer of a 2xx response with JSON. Raises ProviderFailed."""
    rule, errors = rule or USUAL, errors or shared_rules()
    if (
        (rule is USUAL or rule.may_be_plain)
        and not errors.status_at
        and (plain := _read_plain(response.body, rule)) is not None
    ):
        return plain
    try:
        value = loads(response.body)
    except JsonError:
        value = None
    return read_body(value if type(value) is dict else {}, response, ChatReader(model, rule, errors, sites))


def read_body(body: Mapping[str, object], response: WireResponse, reader: ChatReader) -> ChatCompletion:
    """Return the whole answer that a body is. Raises ProviderFailed."""
    # A whole body is not an event: without choices, its message is the reason.
    if holds_error(body, reader.errors) or ("choices" not in body and has_message(body, reader.errors)):
        raise ProviderFailed(classify(body, response, reader.errors, reader.sites))
    if not reader.is_flagged(body):
        _check_choices(body, response)
    reader.read_chunk(body)
    reader.end()
    return fold(reader.assembler.take())


def _check_choices(body: Mapping[str, object], response: WireResponse) -> None:
    """Raise ProviderFailed for an answer without choices, or with a finished choice without a message.

    Such a choice would look like an empty answer. A filtered choice needs no message.
    """
    choices = read_list(body, "choices")
    if not choices:
        raise ProviderFailed(failure(response, FailureKind.MALFORMED, detail="no choices in the answer"))
    for choice in map(as_map, choices[:MAX_CHOICES]):
        is_whole = FINISH.get((read_str(choice, "finish_reason") or "").lower()) in _WHOLE
        if is_whole and not isinstance(choice.get("message"), dict) and not isinstance(choice.get("delta"), dict):
            raise ProviderFailed(failure(response, FailureKind.MALFORMED, detail="a choice without a message"))


class ChatReader:
    """Read one answer into its `assembler`, chunk by chunk."""

    def __init__(
        self, model: str, rule: Answers | None = None, errors: ErrorRules | None = None, sites: Iterable[str] = ()
    ) -> None:
        self.assembler = Assembler(model)
        self.assembler.joins_names = True
        self.assembler.join_signatures = lambda first, second: join_states(first, second, model)
        self.errors = errors or shared_rules()
        self.sites = sites
        self._rule = rule or USUAL
        self._model = model
        self._details: dict[int, DetailCollector] = {}
        self._tags: dict[int, ThinkTags] = {}
        self._grown: dict[tuple[int, str], Growth] = {}
        self._call_grown: dict[tuple[int, int], tuple[str, Growth]] = {}
        self._is_usual = not (self._rule.safety or self._rule.inline_thoughts or self._rule.may_repeat)

    def read_chunk(self, chunk: Mapping[str, object], event: str = "message") -> None:
        """Read one chunk, or a whole answer."""
        assembler, take, rule = self.assembler, chunk.get, self._rule
        if event == "error" or holds_error(chunk, self.errors):
            self.fail(classify(chunk, IN_A_STREAM, self.errors, self.sites))
            return
        if not ("choices" in chunk or "usage" in chunk or event in rule.events or self.is_flagged(chunk)):
            # An unknown event, which may have an id of its own.
            assembler.heartbeat()
            return
        if not assembler.identified:
            assembler.identify(
                id=read_str(chunk, "id"), model=read_str(chunk, "model"), created=read_int(chunk, "created")
            )
            tier, fingerprint = read_str(chunk, "service_tier"), read_str(chunk, "system_fingerprint")
            assembler.describe(service_tier=tier, system_fingerprint=fingerprint)
        if event in rule.events:
            self._end(rule.events[event], 0, event)
            return
        choices, usage = take("choices"), take("usage")
        is_blocked = bool(rule.safety) and self.is_flagged(chunk)
        if type(choices) is list:
            if len(choices) > MAX_CHOICES:
                # Checked before the loop, because a body may contain millions.
                assembler.fail(_TOO_MANY)
                return
            for entry in choices:
                self._read_choice(entry if type(entry) is dict else _NOTHING, is_blocked)
        if usage and type(usage) is dict:
            assembler.report(usage, self._usage_of)
        if is_blocked and not choices:
            # The vendor sends no choice for a blocked answer.
            self.fail(Failure(FailureKind.CONTENT_FILTER, MESSAGES[FailureKind.CONTENT_FILTER]))

    def _usage_of(self, report: Mapping[str, object]) -> Usage:
        return read_usage(report, self._rule)

    def end(self) -> None:
        """End an answer of which nothing can be cut off, because it is a whole body or a stream with its end mark."""
        if self._grown or self._tags:
            self._release()
        self.assembler.complete(is_whole=True)

    def fail(self, failed: Failure) -> None:
        """End the answer with a failure. A filtered answer keeps the text that is still held back."""
        if failed.kind is FailureKind.CONTENT_FILTER:
            self._release()
        self.assembler.fail(failed)

    def _release(self) -> None:
        """Pass on the text that is held back, as a finish does."""
        for index in {*self._tags, *(index for index, _ in self._grown)}:
            self._read_delta(_NOTHING, index, None, is_whole=False, has_ended=True)

    def is_flagged(self, source: Mapping[str, object]) -> bool:
        """Return whether this choice, or this answer, is marked as blocked by the vendor's safety system."""
        return any(source.get(name) not in (None, False, 0, "", "0") for name in self._rule.safety)

    def _read_choice(self, source: Mapping[str, object], is_blocked: bool) -> None:
        # Most members of a choice are empty or absent, so that is checked before they are read.
        take, assembler = source.get, self.assembler
        index = (read_int(source, "index") or 0) if take("index") else 0
        value = take("delta")
        delta: Mapping[str, object] = value if type(value) is dict else _NOTHING
        is_whole = False
        if not delta and take("message"):
            delta, is_whole = self._message_of(source, index), not self._rule.message_is_delta
        if is_blocked or (self._rule.safety and self.is_flagged(source)):
            assembler.filtered(index)
        if error := take("error"):
            self.fail(classify({"error": error}, IN_A_STREAM, self.errors, self.sites))
            return
        word = take("finish_reason")
        end = word if type(word) is str and word not in _NO_FINISH else ""
        logprobs = (read_map(source, "logprobs") or None) if take("logprobs") else None
        content = delta.get("content")
        if self._is_usual and type(content) is not list and delta.keys() <= _OF_TEXT and not delta.get("refusal"):
            text = content if type(content) is str else ""
            if text or logprobs:
                assembler.text(text, index, logprobs)
        else:
            text = self._read_delta(delta, index, logprobs, is_whole=is_whole, has_ended=bool(end))
        if (usage := take("usage")) and type(usage) is dict:
            assembler.report(usage, self._usage_of)
        if end:
            self._read_finish(source, index, end)
        elif not text:
            assembler.see(index)

    def _message_of(self, source: Mapping[str, object], index: int) -> Mapping[str, object]:
        """Return the message of a choice, without the content that a vendor repeats at the end of a stream."""
        message = read_map(source, "message")
        if self._rule.message_is_delta:
            return message
        known = {name for name in message if self.assembler.has(_CONTENTS.get(name, "text"), index)}
        return {name: value for name, value in message.items() if name not in known}

    def _read_finish(self, source: Mapping[str, object], index: int, word: str) -> None:
        take, ending = source.get, ending_of(word, self._rule.finish)
        native = read_str(source, "native_finish_reason") if take("native_finish_reason") else None
        if native is not None and ending in _WHOLE:
            # A relay shows the word of the vendor that it calls, which may contradict its own.
            meant = ending_of(native, self._rule.finish)
            word, ending = (native, meant) if meant not in ("other", "stop", "tool_calls") else (word, ending)
        # vLLM and SGLang name the stop sequence; a number in its place is a token.
        stop = take("stop_reason") or take("matched_stop")
        self._end(ending, index, word, stop if type(stop) is str else None)

    def _end(self, ending: Ending, index: int, word: str, stop: str | None = None) -> None:
        if isinstance(ending, FailureKind):
            self.fail(failed_by(word, ending))
        else:
            self.assembler.finish(ending, index, None if is_exact(word, ending) else word[:100], stop)

    def _read_delta(
        self, delta: Mapping[str, object], index: int, logprobs: Logprobs | None, *, is_whole: bool, has_ended: bool
    ) -> str:
        """Pass all content of a delta to the assembler, in the order in which a model produces it. Return its text."""
        take, assembler = delta.get, self.assembler
        thoughts, text = _read_reasoning(delta, self._rule.thoughts), read_text(take("content"))
        if details := as_list(take("reasoning_details")):
            collector = self._details.setdefault(index, DetailCollector())
            for detail in map(as_map, details):
                collector.add(detail, is_piece=not is_whole)
        if self._rule.may_repeat:
            # A call, or the end, shows that a held text is complete.
            last = has_ended or bool(take("tool_calls"))
            thoughts = self._new("thoughts", index, thoughts, last or bool(text))
            text = self._new("text", index, text, last)
        if self._rule.inline_thoughts:
            thoughts, text = self._split(thoughts, text, index, is_whole=is_whole, has_ended=has_ended)
        if thoughts:
            assembler.reasoning(thoughts, index)
        if text or logprobs:
            assembler.text(text, index, logprobs)
        for name, read in _MEMBERS:
            if take(name):
                read(self, delta, index, is_whole)
        return text

    def _split(self, thoughts: str, text: str, index: int, *, is_whole: bool, has_ended: bool) -> tuple[str, str]:
        """Return the reasoning and the text of a delta whose text may contain the reasoning."""
        if is_whole:
            # A whole message starts from the beginning. Text that was already emitted was left out before.
            self._tags.pop(index, None)
        inline, tags = "", self._tags.get(index)
        has_reasoning = self.assembler.has("reasoning", index)
        if tags is None and text:
            # Reasoning in a field of its own is not in the text too.
            tags = self._tags[index] = ThinkTags(self._rule.thinks_at_once and not (thoughts or has_reasoning))
        if tags is not None:
            inline, text = tags.split(text, has_ended)
        return "" if is_whole and has_reasoning else thoughts or inline, text

    def _read_refusal(self, delta: Mapping[str, object], index: int, is_whole: bool) -> None:
        if refusal := read_str(delta, "refusal"):
            self.assembler.refusal(refusal, index)

    def _read_annotations(self, delta: Mapping[str, object], index: int, is_whole: bool) -> None:
        """Read annotations, such as citations of a web search."""
        entries = read_list(delta, "annotations")
        self.assembler.annotations(tuple(entry for entry in entries if isinstance(entry, dict) and entry), index)

    def _read_calls(self, delta: Mapping[str, object], index: int, is_whole: bool) -> None:
        for position, entry in enumerate(calls_in(delta)):
            self._read_call(as_map(entry), index, position if is_whole else None)

    def _read_former_call(self, delta: Mapping[str, object], index: int, is_whole: bool) -> None:
        if not delta.get("tool_calls"):
            self._read_calls(delta, index, is_whole)

    def _read_late_details(self, delta: Mapping[str, object], index: int, is_whole: bool) -> None:
        """Add details of the reasoning to the call before them, if they come without a call."""
        has_calls = delta.get("tool_calls") or delta.get("function_call")
        if not has_calls and as_list(delta["reasoning_details"]) and self.assembler.call_to_sign(index) is not None:
            self.assembler.tool_call(choice=index, signature=self._signature({}, index, ""))

    def _read_images(self, delta: Mapping[str, object], index: int, is_whole: bool) -> None:
        for image in map(as_map, as_list(delta["images"])):
            self.assembler.image(_image_url(image), index)

    def _read_image_parts(self, delta: Mapping[str, object], index: int, is_whole: bool) -> None:
        for part in map(as_map, as_list(delta["content"])):
            if (read_str(part, "type") or "").startswith("image") or "image" in part:
                self.assembler.image(_image_url(part), index)

    def _new(self, kind: str, index: int, piece: str, last: bool) -> str:
        return self._grown.setdefault((index, kind), Growth()).new(piece, last=last)

    def _read_call(self, source: Mapping[str, object], choice: int, position: int | None) -> None:
        """Read a tool call or a piece of one. A whole call has a `position` in its message."""
        function, index = read_map(source, "function"), read_int(source, "index")
        arguments = arguments_text(function.get("arguments"))
        if arguments is None:
            self.assembler.fail(Failure(FailureKind.MALFORMED, "the provider's tool call is nested too deeply"))
            return
        id = read_str(source, "id")
        if self._rule.may_repeat and index is not None:
            known, grown = self._call_grown.get((choice, index)) or ("", Growth(1))
            grown = Growth(1) if id and known and id != known else grown
            self._call_grown[choice, index] = id or known, grown
            arguments = grown.new(arguments, last=bool(arguments)) if arguments else ""
        self.assembler.tool_call(
            arguments,
            choice=choice,
            index=index if position is None else position,
            id=id,
            name=read_str(function, "name"),
            signature=self._signature(source, choice, id or ""),
            empty=function.get("arguments") == {},
        )

    def _signature(self, source: Mapping[str, object], choice: int, id: str) -> str | None:
        """Return what the call carries to the next request, because clients send calls back unchanged."""
        others = {name: source[name] for name in source if name not in _OF_CALL}
        members = {name: value for name, value in others.items() if value and isinstance(value, dict | list | str)}
        details = self._details[choice].take() if choice in self._details else ()
        if not members and not details:
            return None
        return pack_call(details, members, id or self.assembler.call_to_sign(choice) or "", self._model)


_MEMBERS = (
    ("refusal", ChatReader._read_refusal),
    ("annotations", ChatReader._read_annotations),
    ("tool_calls", ChatReader._read_calls),
    ("function_call", ChatReader._read_former_call),
    ("reasoning_details", ChatReader._read_late_details),
    ("images", ChatReader._read_images),
    ("content", ChatReader._read_image_parts),
)
"""The members of a delta next to reasoning and text, in the order in which a model produces it."""
USUAL = Answers()
"""The rule of OpenAI and of servers that nothing is known about."""


def _read_reasoning(delta: Mapping[str, object], more: tuple[str, ...]) -> str:
    """Return the reasoning text of a delta under any of its names. The same text under two names counts once."""
    take = delta.get
    for name in more:
        if thoughts := read_text(take(name)):
            return thoughts
    for name in ("reasoning_content", "reasoning", "thinking"):
        if take(name) and (text := read_str(delta, name)):
            return text
    # Mistral sends its reasoning in a list of parts.
    items, parts = take("reasoning_details"), take("content")
    if not items and type(parts) is not list:
        return ""
    details = "".join(read_str(as_map(one), "text") or "" for one in as_list(items))
    return details or "".join(read_text(as_map(part).get("thinking")) for part in as_list(parts))


def _image_url(image: Mapping[str, object]) -> str:
    """Return the URL of an image in `images`, as OpenRouter sends it, or in a part of the content. Empty if unknown."""
    url = read_str(read_map(image, "image_url"), "url") or read_str(image, "image_url")
    return url or read_str(image, "image") or read_str(image, "url") or ""


def read_text(content: object) -> str:
    """Return the text of a content: a string, or a list of parts as some vendors send it."""
    if isinstance(content, str):
        return content
    return "".join(read_str(as_map(part), "text") or "" for part in as_list(content))


class Growth:
    """Find what each piece of a text adds, whether a stream sends only additions or repeats the whole text so far.

    Pieces are additions, until one begins with `sure` or more characters that are all of the text so far, and each one
    before it began with the previous one. Pieces that may prove it are held. In JSON, one character is enough: no
    object begins in a name.
    """

    __slots__ = ("_held", "_repeats", "_so_far", "_sure")

    def __init__(self, sure: int = _SURE_CHARACTERS) -> None:
        self._sure = sure
        self._so_far = ""
        self._held: list[str] = []
        self._repeats: bool | None = None

    def new(self, piece: str, *, last: bool) -> str:
        """Return what is certain after this piece, which is the `last` one if no other piece follows."""
        if self._repeats is False or not (piece or last):
            return piece
        if self._repeats:
            added = piece[len(self._so_far) :] if piece.startswith(self._so_far) else piece
            self._so_far += added
            return added
        known = self._held[-1] if self._held else self._so_far
        if not known:
            self._so_far = piece
            return piece
        fits = bool(piece) and piece.startswith(known)
        if fits and len(known) >= self._sure:
            self._repeats = True
            start, self._so_far, self._held = len(self._so_far), piece, []
            return piece[start:]
        if fits and piece != known and not last:
            self._held.append(piece)
            return ""
        # It grows no more: what was held are additions.
        self._repeats = False
        held, self._held, self._so_far = "".join(self._held), [], ""
        return held + piece


_OPEN, _CLOSE = "<think>", "</think>"


class ThinkTags:
    """Separate `<think>` reasoning from text, piece by piece. Only a tag at the start of the text counts.

    With `at_once`, the text begins with reasoning, with or without the opening tag.
    """

    __slots__ = ("_at_once", "_held", "_state")

    def __init__(self, at_once: bool = False) -> None:
        self._at_once = at_once
        self._state = "before"
        self._held = ""

    def split(self, piece: str, last: bool) -> tuple[str, str]:
        """Return the reasoning and the text that are certain after this piece, which may be the `last` one."""
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
                self._state = "within" if self._at_once else "text"
        if self._state == "within":
            thoughts, closed, rest = rest.partition(_CLOSE)
            if closed:
                self._state = "after"
            elif not last:
                # The end of the text may be the start of the closing tag.
                sizes = range(len(_CLOSE) - 1, 0, -1)
                tail = next((size for size in sizes if thoughts.endswith(_CLOSE[:size])), 0)
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
