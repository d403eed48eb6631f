"""Read whole answers and stream chunks in OpenAI's wire format. Differences between vendors are tolerated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from providers.chat import Annotation, AssistantMessage, ChatCompletion, Choice, FinishReason, Logprobs, Usage
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.formats.tool_calls import arguments_text, calls_in
from providers.json_values import (
    JsonError,
    are_counts,
    as_list,
    as_map,
    loads,
    read_count,
    read_int,
    read_list,
    read_map,
    read_str,
)
from providers.openai_json.read_errors import BY_CODE, NO_HTTP_ERROR, classify
from providers.reading.choice_state import Content
from providers.reading.error_classification import failure
from providers.reading.folding import fold
from providers.reading.stream_assembler import MAX_CHOICES, Assembler
from providers.reading.token_counts import count_completion
from providers.wire import WireResponse

_Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
_OTHER_FORM = msgspec.ValidationError, UnicodeEncodeError
"""The errors of `msgspec.convert` for any other form. The second is for a name with half a surrogate pair."""


class _OfPrompt(msgspec.Struct, frozen=True):
    """The details of `prompt_tokens`."""

    cached_tokens: _Count = 0
    cache_write_tokens: _Count = 0
    audio_tokens: _Count = 0


class _OfCompletion(msgspec.Struct, frozen=True):
    """The details of `completion_tokens`."""

    reasoning_tokens: _Count = 0
    accepted_prediction_tokens: _Count = 0
    rejected_prediction_tokens: _Count = 0


class _Counts(msgspec.Struct, frozen=True):
    """The usual form of a usage."""

    prompt_tokens: _Count
    completion_tokens: _Count
    total_tokens: object = None
    prompt_tokens_details: _OfPrompt = _OfPrompt()
    completion_tokens_details: _OfCompletion = _OfCompletion()


def read_usage(source: Mapping[str, object], separate_reasoning: bool = False) -> Usage:
    """Return the token counts. A missing one is 0. The prompt is 0 if one is invalid: such a usage is not used.

    Args:
        source: The `usage` object.
        separate_reasoning: Whether the vendor is known to count reasoning outside of `completion_tokens`. Without it,
            the vendor's total decides.
    """
    try:
        return _usage_of(msgspec.convert(source, _Counts), separate_reasoning)
    except _OTHER_FORM:
        return _read_other_usage(source, separate_reasoning)


def _usage_of(counts: _Counts, separate_reasoning: bool = False) -> Usage:
    prompt, completion = counts.prompt_tokens, counts.completion_tokens
    of_prompt, of_completion = counts.prompt_tokens_details, counts.completion_tokens_details
    reasoning = of_completion.reasoning_tokens
    if reasoning:
        completion = count_completion(prompt, completion, reasoning, counts.total_tokens, separate_reasoning)
    return Usage(
        prompt,
        completion,
        of_prompt.cached_tokens,
        reasoning,
        of_prompt.cache_write_tokens,
        of_prompt.audio_tokens,
        of_completion.accepted_prediction_tokens,
        of_completion.rejected_prediction_tokens,
    )


def _read_other_usage(source: Mapping[str, object], separate_reasoning: bool) -> Usage:
    """Return the counts of a usage with missing or invalid numbers."""
    of_prompt, of_completion = read_map(source, "prompt_tokens_details"), read_map(source, "completion_tokens_details")
    are_valid = (
        are_counts(source, "prompt_tokens", "completion_tokens")
        and are_counts(of_prompt, "cached_tokens", "cache_write_tokens")
        and are_counts(of_completion, "reasoning_tokens")
    )
    prompt, completion = read_count(source, "prompt_tokens"), read_count(source, "completion_tokens")
    reasoning = read_count(of_completion, "reasoning_tokens")
    return Usage(
        prompt if are_valid else 0,
        count_completion(prompt, completion, reasoning, source.get("total_tokens"), separate_reasoning),
        read_count(of_prompt, "cached_tokens"),
        reasoning,
        read_count(of_prompt, "cache_write_tokens"),
        read_count(of_prompt, "audio_tokens"),
        read_count(of_completion, "accepted_prediction_tokens"),
        read_count(of_completion, "rejected_prediction_tokens"),
    )


_CONTENTS: dict[str, Content] = {
    "content": "text",
    "reasoning_content": "reasoning",
    "reasoning": "reasoning",
    "reasoning_details": "reasoning",
    "thinking": "reasoning",
    "refusal": "refusal",
    "annotations": "annotations",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
}


def read_setup(assembler: Assembler, chunk: Mapping[str, object]) -> None:
    """Record the service tier and the system fingerprint of a chunk."""
    tier, fingerprint = chunk.get("service_tier"), chunk.get("system_fingerprint")
    if tier or fingerprint:
        assembler.describe(
            service_tier=tier if type(tier) is str else None,
            system_fingerprint=fingerprint if type(fingerprint) is str else None,
        )


def read_annotations(delta: Mapping[str, object]) -> tuple[Annotation, ...]:
    """Return the annotations of a delta, such as citations of a web search."""
    return tuple(one for one in read_list(delta, "annotations") if isinstance(one, dict) and one)


def new_in_message(assembler: Assembler, message: Mapping[str, object], choice: int) -> Mapping[str, object]:
    """Return the new content of a whole message. Some vendors repeat all content at the end of a stream."""
    return {name: value for name, value in message.items() if not assembler.has(_CONTENTS.get(name, "text"), choice)}


PLAIN_FINISH: dict[object, FinishReason] = {"stop": "stop", "length": "length", "content_filter": "content_filter"}


# Fields of a message that may have a value in the plain form. Any other field must be empty.
_PLAIN_FIELDS = frozenset({"role", "content", "audio"})


_SURROGATE = re.compile("[\ud800-\udfff]")


_MOST_PLAIN_BYTES = 2**20


_Text = Annotated[str, msgspec.Meta(min_length=1)]


class _PlainChoice(msgspec.Struct, frozen=True):
    """A choice whose message has nothing but text."""

    index: int
    message: dict[str, object]
    finish_reason: Literal["stop", "length", "content_filter"]
    logprobs: object = None
    delta: object = None
    stop_reason: object = None
    matched_stop: object = None


class _PlainBody(msgspec.Struct, frozen=True):
    """The usual form of an answer. See `_completion_of` for what else it must fulfil."""

    id: _Text
    model: _Text
    created: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    choices: Annotated[list[_PlainChoice], msgspec.Meta(min_length=1, max_length=MAX_CHOICES)]
    service_tier: _Text | None = None
    system_fingerprint: _Text | None = None


class _PlainResponse(_PlainBody, frozen=True):
    """The same with the usage and the marks of an error."""

    usage: _Counts | None = None
    error: Any = None
    object: Any = None


_decode_plain = msgspec.json.Decoder(_PlainResponse).decode


def plain_completion(body: Mapping[str, object], usage: Usage | None) -> ChatCompletion | None:
    """Return the answer of a body in the plain form, or None for any other."""
    try:
        return _completion_of(msgspec.convert(body, _PlainBody), usage)
    except _OTHER_FORM:
        return None


def _read_plain(data: bytes) -> ChatCompletion | None:
    """Return the answer of a body in the plain form, or None for any other. It reads nothing that `loads` refuses."""
    if len(data) > _MOST_PLAIN_BYTES:
        return None
    try:
        if not data.isascii():
            data.decode()  # msgspec does not check the strings that it skips
        body = _decode_plain(data)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return None
    if body.error or body.object == "error":
        return None
    return _completion_of(body, _usage_of(body.usage) if body.usage is not None else None)


def _completion_of(body: _PlainBody, usage: Usage | None) -> ChatCompletion | None:
    head = body.id + body.model + (body.service_tier or "") + (body.system_fingerprint or "")
    if not head.isascii() and _SURROGATE.search(head):
        return None
    choices = []
    for position, choice in enumerate(body.choices):
        if choice.index != position or choice.logprobs or choice.delta or choice.stop_reason or choice.matched_stop:
            return None
        message = choice.message
        for name in message:
            if name not in _PLAIN_FIELDS and message[name]:
                return None
        content = message.get("content")
        if type(content) is not str or not (content.isascii() or not _SURROGATE.search(content)):
            return None
        choices.append(Choice(AssistantMessage(content), PLAIN_FINISH[choice.finish_reason], position))
    tier, fingerprint = body.service_tier, body.system_fingerprint
    return ChatCompletion(body.id, body.model, body.created, tuple(choices), usage, tier, fingerprint)


FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "normal": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_length": "length",
    "model_length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "sensitive": "content_filter",
}


_WHOLE = ("stop", "length", "tool_calls")


_NOTHING: Mapping[str, object] = {}


# The members of most deltas.
_OF_TEXT = frozenset({"role", "content"})


_TOO_MANY = Failure(FailureKind.TOO_LARGE, "the provider's answer has more choices than accepted")


def read_completion(response: WireResponse, model: str) -> ChatCompletion:
    """Return the whole answer of a 2xx response with JSON. Raises ProviderFailed."""
    if (plain := _read_plain(response.body)) is not None:
        return plain
    try:
        value = loads(response.body)
    except JsonError:
        value = None
    body: Mapping[str, object] = value if type(value) is dict else {}
    if body.get("error") or body.get("object") == "error":
        raise ProviderFailed(classify(body, response))
    if _is_bare_error(body):
        raise ProviderFailed(classify(body, response))
    check_choices(body, response)
    assembler = Assembler(model)
    read_chunk(assembler, body, "message")
    assembler.complete()
    return fold(assembler.take())


def _is_bare_error(body: Mapping[str, object]) -> bool:
    """Return whether the body of a successful response is an error without an envelope: a known code and no choices.

    A body without choices is never an answer, but a refusal of a content filter must not be retried elsewhere like
    garbage.
    """
    return not body.get("choices") and read_str(body, "code") in BY_CODE


def check_choices(body: Mapping[str, object], response: WireResponse) -> None:
    """Raise ProviderFailed for an answer without choices, or with a finished choice without a message.

    Such a choice would look like an empty answer. A filtered choice needs no message.
    """
    choices = read_list(body, "choices")
    if not choices:
        raise ProviderFailed(failure(response, FailureKind.MALFORMED, detail="no choices in the answer"))
    for choice in map(as_map, choices[:MAX_CHOICES]):
        is_whole = FINISH.get(read_str(choice, "finish_reason") or "") in _WHOLE
        if is_whole and not isinstance(choice.get("message"), dict) and not isinstance(choice.get("delta"), dict):
            raise ProviderFailed(failure(response, FailureKind.MALFORMED, detail="a choice without a message"))


def read_chunk(assembler: Assembler, chunk: Mapping[str, object], event: str) -> None:
    """Pass one chunk or one whole answer to the assembler."""
    take = chunk.get
    if take("error") or event == "error":
        assembler.fail(classify(chunk, WireResponse(NO_HTTP_ERROR, {}, b"", 0)))
        return
    if not assembler.identified:
        assembler.identify(id=read_str(chunk, "id"), model=read_str(chunk, "model"), created=read_int(chunk, "created"))
        read_setup(assembler, chunk)
    choices, usage = take("choices"), take("usage")
    if type(choices) is list:
        if len(choices) > MAX_CHOICES:
            # Checked before the loop, because a body may contain millions.
            assembler.fail(_TOO_MANY)
            return
        for entry in choices:
            _read_choice(assembler, entry if type(entry) is dict else _NOTHING)
    elif take("object") == "error" or _is_bare_error(chunk):
        read_chunk(assembler, chunk, "error")
    if usage and type(usage) is dict:
        assembler.usage(read_usage(usage))


def _read_choice(assembler: Assembler, source: Mapping[str, object]) -> None:
    # Most members of a choice are empty or absent, so that is checked before they are read.
    take = source.get
    index = (read_int(source, "index") or 0) if take("index") else 0
    value = take("delta")
    delta: Mapping[str, object] = value if type(value) is dict else _NOTHING
    is_whole = not delta
    if is_whole and take("message"):
        delta = new_in_message(assembler, read_map(source, "message"), index)
    logprobs = (read_map(source, "logprobs") or None) if take("logprobs") else None
    content = delta.get("content")
    if type(content) is not list and delta.keys() <= _OF_TEXT:
        text = content if type(content) is str else ""
        if text or logprobs:
            assembler.text(text, index, logprobs)
    else:
        text = _read_delta(assembler, delta, index, logprobs, is_whole=is_whole)
    word = take("finish_reason")
    if word and type(word) is str and word != "null":
        # vLLM and SGLang name the stop sequence; a number in its place is a token.
        has_stop = "stop_reason" in source or "matched_stop" in source
        stop = (take("stop_reason") or take("matched_stop")) if has_stop else None
        raw = None if word in FINISH else word[:100]
        assembler.finish(FINISH.get(word, "other"), index, raw, stop if type(stop) is str else None)
    elif not text:
        assembler.see(index)


def _read_delta(
    assembler: Assembler, delta: Mapping[str, object], index: int, logprobs: Logprobs | None, *, is_whole: bool
) -> str:
    """Pass all content of a delta to the assembler, in the order in which a model produces it. Return its text."""
    take = delta.get
    content = take("content")
    if reasoning := read_reasoning(delta):
        assembler.reasoning(reasoning, index)
    text = read_text(content)
    if text or logprobs:
        assembler.text(text, index, logprobs)
    if take("refusal") and (refusal := read_str(delta, "refusal")):
        assembler.refusal(refusal, index)
    if take("annotations"):
        assembler.annotations(read_annotations(delta), index)
    if take("tool_calls") or take("function_call"):
        for position, entry in enumerate(calls_in(delta)):
            read_tool_call(assembler, as_map(entry), index, position if is_whole else None)
    return text


def read_reasoning(delta: Mapping[str, object]) -> str:
    """Return the reasoning text of a delta under any of its names. The same text under two names counts once."""
    take = delta.get
    for name in ("reasoning_content", "reasoning", "thinking"):
        if take(name) and (text := read_str(delta, name)):
            return text
    details = "".join(read_str(as_map(one), "text") or "" for one in as_list(take("reasoning_details")))
    return details or (_reasoning_in_parts(content) if type(content := take("content")) is list else "")


def _reasoning_in_parts(content: object) -> str:
    """Return the reasoning text in a list of parts, as Mistral sends it."""
    parts = [as_map(part).get("thinking") for part in as_list(content)]
    return "".join(map(read_text, parts))


def read_text(content: object) -> str:
    """Return the text of a content: a string, or a list of parts as some vendors send it."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(read_str(as_map(part), "text") or "" for part in content)
    return ""


def read_tool_call(
    assembler: Assembler, source: Mapping[str, object], choice: int, position: int | None = None
) -> None:
    """Pass a tool call or a piece of one to the assembler. `position`: that of a whole call in its message."""
    function, index = read_map(source, "function"), read_int(source, "index")
    arguments = arguments_text(function.get("arguments"))
    if arguments is None:
        assembler.fail(Failure(FailureKind.MALFORMED, "the provider's tool call is nested too deeply"))
        return
    assembler.tool_call(
        arguments,
        choice=choice,
        index=index if position is None else position,
        id=read_str(source, "id"),
        name=read_str(function, "name"),
        empty=function.get("arguments") == {},
    )
