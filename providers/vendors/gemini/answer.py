"""Read Gemini's whole answers and stream chunks, with a fast path for their usual layout.

Source: google-genai 3.3.0 (GenerateContentResponse, FinishReason, BlockedReason); read 2026-11-20.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from providers.chat import ChatCompletion, FinishReason, Logprobs, Usage
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.formats.reasoning_state import mark_signature
from providers.json_values import (
    JsonError,
    as_map,
    dumps_text,
    dumps_texts,
    loads,
    loads_strictly,
    read_count,
    read_float,
    read_int,
    read_list,
    read_map,
    read_str,
)
from providers.reading.error_classification import failure
from providers.reading.folding import fold
from providers.reading.stream_assembler import Assembler
from providers.vendors.gemini.errors import classify
from providers.wire import WireResponse

# A pair of surrogates may be split over two chunks: those escapes are left to the ordinary way.
_STRING = r'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}))++'


_NUMBER = "(?:0|[1-9][0-9]{0,15}+)"


_DETAIL = f'{{"modality": ?"[A-Z_]++", ?"tokenCount": ?{_NUMBER}}}'


_COUNT = rf'"[A-Za-z]++": ?(?:{_NUMBER}|\[{_DETAIL}(?:, ?{_DETAIL})*+\])'


_USUAL = re.compile(
    (
        rf'{{"candidates": ?\[{{"content": ?{{"parts": ?\[{{"text": ?"({_STRING})"}}\], ?"role": ?"model"}}'
        rf'(?:, ?"index": ?0)?+}}\], ?"usageMetadata": ?{{{_COUNT}(?:, ?{_COUNT})*+}}'
        r', ?"modelVersion": ?"[A-Za-z0-9.@_-]*+", ?"responseId": ?"[A-Za-z0-9_-]*+"}'
    ).encode()
)


def usual_texts(events: list[Any], start: int) -> tuple[bytes, ...]:
    """The texts of the usual chunks in a row, as the insides of JSON strings; none if one of them is no UTF-8."""
    texts: list[bytes] = []
    with suppress(TypeError):
        for chunk in map(_USUAL.fullmatch, islice(events, start, None)):
            if chunk is None:
                break
            texts.append(chunk[1])
    try:
        b'"'.join(texts).decode()
    except UnicodeDecodeError:
        return ()
    return tuple(texts)


_FINISH: dict[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "LANGUAGE": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "ESCALATION": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
}


# The model's own output was unusable: not an answer, unless something came before it.
_GENERATION_FAILED = frozenset(
    {
        "MALFORMED_FUNCTION_CALL",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE",
        "MALFORMED_RESPONSE",
    }
)


# Words that say nothing: an answer is one all the same, and where there is none it was withheld.
_VAGUE = frozenset({"OTHER", "NO_IMAGE", "IMAGE_OTHER", "PUP_LIMITED_DISABLED", "FINISH_REASON_UNSPECIFIED"})


_SAME_AS_OURS = frozenset({"STOP", "MAX_TOKENS"})


_NO_HTTP_ERROR = 200


def read_completion(response: WireResponse, model: str) -> ChatCompletion:
    """The whole answer of a 2xx JSON body; raises ProviderFailed.

    The body is one object, or the array of chunks that Gemini streams where `alt=sse` was lost on the way.
    """
    try:
        body = loads(response.body)
    except JsonError:
        body = None
    assembler = Assembler(model)
    reader = ChunkReader(assembler, model)
    for entry in body if isinstance(body, list) else [body]:
        chunk = as_map(entry)
        if chunk.get("error"):
            raise ProviderFailed(classify(chunk, response))
        reader.read(chunk)
    if not assembler.done and not assembler.whole:
        raise ProviderFailed(failure(response, FailureKind.MALFORMED, detail="no finished candidate in the answer"))
    assembler.complete()
    return fold(assembler.take())


class ChunkReader:
    """Reads the chunks of one answer into an assembler; `model` is the one that was asked."""

    def __init__(self, assembler: Assembler, model: str) -> None:
        self._assembler = assembler
        self._model = model
        self._answered: set[int] = set()
        self._counts: Mapping[str, object] = {}

    def read(self, chunk: Mapping[str, object], _event: str = "message") -> None:
        """One chunk, or one whole answer."""
        assembler = self._assembler
        usage = chunk.get("usageMetadata")
        if usage and type(usage) is dict:
            self._count(usage)
        if assembler.opened and (text := _only_text(chunk)):
            # Nearly every chunk of a stream: it says nothing but this.
            self._answered.add(0)
            assembler.text(text)
            return
        if chunk.get("error"):
            assembler.fail(classify(chunk, WireResponse(_NO_HTTP_ERROR, {}, b"", 0)))
            return
        if not assembler.opened:
            assembler.identify(id=read_str(chunk, "responseId"), model=read_str(chunk, "modelVersion"))
        candidates = read_list(chunk, "candidates")
        for entry in candidates:
            self._candidate(as_map(entry))
        if not candidates and (blocked := read_str(read_map(chunk, "promptFeedback"), "blockReason")):
            assembler.finish("content_filter", 0, blocked[:100])

    def read_run(self, events: list[Any], start: int) -> int:
        """Do what `read` does with one plain chunk, for a run of them at once. See `event_stream.ReadRun`."""
        if pieces := usual_texts(events, start):
            end = start + len(pieces)
            self._count(read_map(as_map(loads(events[end - 1])), "usageMetadata"))
            self._answered.add(0)
            self._assembler.text_run(pieces)
            return end
        texts: list[str] = []
        counted: list[Any] = []
        with suppress(ValueError):
            for data in islice(events, start, None):
                # No lone surrogates: what has them goes the ordinary way.
                chunk = loads_strictly(data)
                if not (text := _only_text(chunk)):
                    break
                texts.append(text)
                counted.append(chunk)
        for chunk in reversed(counted):
            if (usage := chunk.get("usageMetadata")) and type(usage) is dict:
                self._count(usage)
                break
        if texts:
            self._answered.add(0)
            self._assembler.text_run(tuple(dumps_texts(texts, b"\n").split(b"\n")))
        return start + len(texts)

    def _count(self, counts: Mapping[str, object]) -> None:
        """Every chunk counts anew from the beginning; only the last count is read."""
        if not self._counts:
            self._assembler.usage(self._usage)
        self._counts = counts

    def _usage(self) -> Usage:
        return read_usage(self._counts)

    def _candidate(self, source: Mapping[str, object]) -> None:
        index = read_int(source, "index") or 0
        # A choice that has been seen must also come to its finish.
        self._assembler.see(index)
        for part in read_list(read_map(source, "content"), "parts"):
            self._part(as_map(part), index)
        if "logprobsResult" in source and (logprobs := _logprobs(read_map(source, "logprobsResult"))):
            self._assembler.text("", index, logprobs)
        if word := read_str(source, "finishReason"):
            self._finish(word, index)

    def _part(self, part: Mapping[str, object], index: int) -> None:
        if isinstance(part.get("functionCall"), dict):
            self._call(part, index)
        elif text := read_str(part, "text"):
            if part.get("thought") is True:
                self._assembler.reasoning(text, index)
            else:
                self._answered.add(index)
                self._assembler.text(text, index)

    def _call(self, part: Mapping[str, object], index: int) -> None:
        call = read_map(part, "functionCall")
        name, arguments = read_str(call, "name"), _arguments(call.get("args"))
        if not name or arguments is None:
            self._assembler.fail(Failure(FailureKind.MALFORMED, "the provider's answer has a tool call that is none"))
            return
        signature = read_str(part, "thoughtSignature")
        self._answered.add(index)
        self._assembler.tool_call(
            arguments,
            choice=index,
            id=read_str(call, "id"),
            name=name,
            signature=mark_signature(signature, self._model) if signature else None,
        )

    def _finish(self, word: str, index: int) -> None:
        answered = index in self._answered
        if word in _GENERATION_FAILED and not answered:
            message = "the provider's model produced nothing that can be used"
            self._assembler.fail(Failure(FailureKind.MALFORMED, message, code=word))
            return
        reason = _FINISH.get(word, "other")
        if word in _VAGUE or word in _GENERATION_FAILED:
            reason = "stop" if answered else "content_filter"
        self._assembler.finish(reason, index, None if word in _SAME_AS_OURS else word[:100])


def _only_text(chunk: Mapping[str, Any]) -> str | None:
    """The text of a chunk that holds one text part of choice 0 and, counts aside, nothing else; None for any other."""
    try:
        (candidate,) = chunk["candidates"]
        (part,) = candidate["content"]["parts"]
        text = part["text"]
    except (LookupError, TypeError, ValueError):
        return None
    if "error" in chunk or type(text) is not str or len(part) != 1:
        return None
    said = len(candidate)
    return text if said == 1 or (said == 2 and candidate.get("index") == 0) else None


def _arguments(args: object) -> str | None:
    """The arguments as JSON text, which is whole; None where they can't be written."""
    try:
        return dumps_text(args) if args else "{}"
    except JsonError:
        return None


def _logprobs(result: Mapping[str, object]) -> Logprobs | None:
    """The chosen tokens with their alternatives, in OpenAI's shape."""
    top = read_list(result, "topCandidates")
    content: list[dict[str, object]] = []
    for position, chosen in enumerate(read_list(result, "chosenCandidates")):
        others = read_list(as_map(top[position]), "candidates") if position < len(top) else ()
        content.append({**_token(as_map(chosen)), "top_logprobs": [_token(as_map(other)) for other in others]})
    return {"content": content, "refusal": None} if content else None


def _token(source: Mapping[str, object]) -> dict[str, object]:
    data = (read_str(source, "token") or "").encode("utf-8", "replace")
    return {"token": data.decode(), "logprob": read_float(source, "logProbability") or 0.0, "bytes": list(data)}


def read_usage(source: Mapping[str, object]) -> Usage:
    """The counts; a missing one is 0. Thoughts are counted apart from the candidates, tool use from the prompt."""
    thoughts = read_count(source, "thoughtsTokenCount")
    return Usage(
        prompt_tokens=read_count(source, "promptTokenCount") + read_count(source, "toolUsePromptTokenCount"),
        completion_tokens=read_count(source, "candidatesTokenCount") + thoughts,
        cached_tokens=read_count(source, "cachedContentTokenCount"),
        reasoning_tokens=thoughts,
        audio_tokens=_count_of("AUDIO", read_list(source, "promptTokensDetails")),
    )


def _count_of(modality: str, details: Sequence[object]) -> int:
    """How many of the tokens that are counted by their kind are of this one; each kind is named once."""
    return next((read_count(one, "tokenCount") for one in map(as_map, details) if one.get("modality") == modality), 0)
