"""Read whole answers and stream chunks in OpenAI's wire format. Differences between vendors are tolerated."""

from __future__ import annotations

import re
from collections.abc import Mapping

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


def read_usage(source: Mapping[str, object], separate_reasoning: bool = False) -> Usage:
    """Return the token counts. A missing one is 0. The prompt is 0 if one is invalid: such a usage is not used.

    Args:
        source: The `usage` object.
        separate_reasoning: Whether the vendor is known to count reasoning outside of `completion_tokens`. Without it,
            the vendor's total decides.
    """
    prompt, completion = source.get("prompt_tokens"), source.get("completion_tokens")
    of_prompt, of_completion = source.get("prompt_tokens_details"), source.get("completion_tokens_details")
    cached = written = sound = reasoning = accepted = rejected = 0
    if type(of_prompt) is dict:
        take = of_prompt.get
        cached, written, sound = take("cached_tokens", 0), take("cache_write_tokens", 0), take("audio_tokens", 0)
    if type(of_completion) is dict:
        take = of_completion.get
        reasoning = take("reasoning_tokens", 0)
        accepted, rejected = take("accepted_prediction_tokens", 0), take("rejected_prediction_tokens", 0)
    if (
        type(prompt) is type(completion) is type(cached) is type(written) is type(sound) is int
        and type(reasoning) is type(accepted) is type(rejected) is int
        # The result is 0 only if all numbers are between 0 and 2**53.
        and not (prompt | completion | cached | reasoning | written | sound | accepted | rejected) >> 53
    ):
        if reasoning:
            completion = count_completion(prompt, completion, reasoning, source.get("total_tokens"), separate_reasoning)
        return Usage(prompt, completion, cached, reasoning, written, sound, accepted, rejected)
    of_prompt, of_completion = as_map(of_prompt), as_map(of_completion)
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


def plain_completion(body: Mapping[str, object], usage: Usage | None) -> ChatCompletion | None:
    """Return the answer of a body in the plain form, or None for any other."""
    take = body.get
    id, model, created, entries = take("id"), take("model"), take("created"), take("choices")
    if not (type(id) is str and id and type(model) is str and model and type(created) is int):
        return None
    if not (id.isascii() and model.isascii()) and _SURROGATE.search(id + model):
        return None
    # The shift is not 0 for a number below 0 or above 63 bits.
    if created >> 63 or type(entries) is not list or not 0 < len(entries) <= MAX_CHOICES:
        return None
    tier, fingerprint = take("service_tier"), take("system_fingerprint")
    if tier is not None and not (type(tier) is str and tier and tier.isascii()):
        return None
    if fingerprint is not None and not (type(fingerprint) is str and fingerprint and fingerprint.isascii()):
        return None
    choices: list[Choice] = []
    for entry in entries:
        choice = _plain_choice(entry, len(choices)) if type(entry) is dict else None
        if choice is None:
            return None
        choices.append(choice)
    return ChatCompletion(id, model, created, tuple(choices), usage, tier, fingerprint)


def _plain_choice(entry: dict[str, object], position: int) -> Choice | None:
    take = entry.get
    message, finish, index = take("message"), take("finish_reason"), take("index")
    if index != position or index is True or type(message) is not dict or type(finish) is not str:
        return None
    for name in message:
        if name not in _PLAIN_FIELDS and message[name]:
            return None
    content = message.get("content")
    if type(content) is not str or finish not in PLAIN_FINISH or take("logprobs") or take("delta"):
        return None
    if ("stop_reason" in entry or "matched_stop" in entry) and (take("stop_reason") or take("matched_stop")):
        return None
    if not content.isascii() and _SURROGATE.search(content):
        return None
    return Choice(AssistantMessage(content), PLAIN_FINISH[finish], position)


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
    try:
        value = loads(response.body)
    except JsonError:
        value = None
    body: Mapping[str, object] = value if type(value) is dict else {}
    if body.get("error") or body.get("object") == "error":
        raise ProviderFailed(classify(body, response))
    usage = body.get("usage")
    if plain := plain_completion(body, read_usage(usage) if type(usage) is dict and usage else None):
        return plain
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
