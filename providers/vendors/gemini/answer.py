"""Read Gemini's whole answers and stream chunks, with a fast path for their usual layout.

Source: google-genai 3.3.0 (GenerateContentResponse, FinishReason, BlockedReason); read 2026-11-20.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from typing import Any

from providers.catalogue import FactsFile
from providers.chat import ChatCompletion, Logprobs, Usage
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.formats.reasoning_state import mark_signature
from providers.json_values import (
    JsonError,
    are_counts,
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
    with_exact_integers,
)
from providers.reading.assembler import Assembler
from providers.reading.errors import IN_A_STREAM, classify, failure, load_rules
from providers.reading.event_stream import EventStreamParser
from providers.reading.finishes import Ending, ending_of, failed_by
from providers.reading.folding import fold
from providers.reading.token_counts import merged
from providers.wire import WireResponse

_FACTS = FactsFile("providers.vendors.gemini", "gemini")

# Two chunks may contain the halves of a surrogate pair. Chunks with such escapes take the general path.
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
# Reasons without a meaning. If there is text, the answer is complete; otherwise it was withheld.
_VAGUE = frozenset({"OTHER", "NO_IMAGE", "IMAGE_OTHER", "PUP_LIMITED_DISABLED", "FINISH_REASON_UNSPECIFIED"})
_SAME_AS_OURS = frozenset({"STOP", "MAX_TOKENS"})


def usual_texts(events: list[Any], start: int) -> tuple[bytes, ...]:
    """Return the texts of consecutive chunks in the usual layout, as contents of JSON strings.

    Return none if one of them is not UTF-8.
    """
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


def gemini_failure(body: Mapping[str, object], response: WireResponse) -> Failure:
    return classify(body, response, load_rules(_FACTS))


def read_completion(response: WireResponse, model: str) -> ChatCompletion:
    """Read the whole answer of a 2xx JSON body. Raises ProviderFailed.

    The body is one object, or an array of chunks, which Gemini sends if a proxy removed `alt=sse`.
    """
    try:
        body = _exact(response.body)
    except JsonError:
        body = None
    assembler = Assembler(model)
    reader = ChunkReader(assembler, model)
    for entry in body if isinstance(body, list) else [body]:
        chunk = as_map(entry)
        if chunk.get("error"):
            raise ProviderFailed(gemini_failure(chunk, response))
        reader.read(chunk)
    if not (assembler.done or assembler.whole or assembler.opened):
        raise ProviderFailed(failure(response, FailureKind.MALFORMED, detail="no candidate in the answer"))
    assembler.complete(is_whole=True)
    return fold(assembler.take())


def _exact(data: bytes) -> object:
    """Return the JSON value of bytes. The arguments of a call are part of it, and their numbers must not be rounded."""
    return with_exact_integers(loads(data), data, b"functionCall")


class ChunkParser(EventStreamParser):
    """The parser of a stream of chunks."""

    def _parsed(self, data: bytes) -> object:
        return _exact(data)


class ChunkReader:
    """Read the chunks of one answer into an assembler. `model` is the requested model."""

    def __init__(self, assembler: Assembler, model: str) -> None:
        self._assembler = assembler
        self._model = model
        self._answered: set[int] = set()
        self._counts: Mapping[str, object] = {}

    def read(self, chunk: Mapping[str, object], event: str = "message") -> None:
        """Read one chunk, or a whole answer."""
        assembler = self._assembler
        usage = chunk.get("usageMetadata")
        if usage and type(usage) is dict:
            self._count(usage)
        if assembler.opened and (text := _only_text(chunk)):
            # Nearly all chunks of a stream contain only text.
            self._answered.add(0)
            assembler.text(text)
            return
        if event == "error" or chunk.get("error"):
            assembler.fail(gemini_failure(chunk, IN_A_STREAM))
            return
        if not assembler.opened:
            assembler.identify(id=read_str(chunk, "responseId"), model=read_str(chunk, "modelVersion"))
        candidates = read_list(chunk, "candidates")
        for entry in candidates:
            self._candidate(as_map(entry))
        if candidates:
            return
        if blocked := read_str(read_map(chunk, "promptFeedback"), "blockReason"):
            assembler.finish("content_filter", 0, blocked[:100])
        elif not usage:
            assembler.heartbeat()  # an unknown event

    def read_run(self, events: list[Any], start: int) -> int:
        """Read several consecutive text chunks at once, with the same result as `read`. See `event_stream.ReadRun`."""
        if pieces := usual_texts(events, start):
            end = start + len(pieces)
            # The last counts include the others, but they may lack a detail that the first ones have.
            for event in (events[start], events[end - 1]):
                self._count(read_map(as_map(loads(event)), "usageMetadata"))
            self._answered.add(0)
            self._assembler.text_run(pieces)
            return end
        texts: list[str] = []
        chunks: list[Any] = []
        with suppress(ValueError):
            for data in islice(events, start, None):
                # Chunks with lone surrogates raise ValueError here and take the general path.
                chunk = loads_strictly(data)
                if not (text := _only_text(chunk)):
                    break
                texts.append(text)
                chunks.append(chunk)
        for chunk in chunks:
            if (usage := chunk.get("usageMetadata")) and type(usage) is dict:
                self._count(usage)
        if texts:
            self._answered.add(0)
            self._assembler.text_run(tuple(dumps_texts(texts, b"\n").split(b"\n")))
        return start + len(texts)

    def _count(self, counts: Mapping[str, object]) -> None:
        """Keep the counts of a chunk. They are cumulative, so the last counts usually include all others."""
        known = self._counts
        if not known:
            self._assembler.usage(self._usage)
        self._counts = counts if known.keys() <= counts.keys() and all(counts.values()) else merged(known, counts)

    def _usage(self) -> Usage:
        return read_usage(self._counts)

    def _candidate(self, source: Mapping[str, object]) -> None:
        index = read_int(source, "index") or 0
        # A choice that was seen must also be finished.
        self._assembler.see(index)
        for part in read_list(read_map(source, "content"), "parts"):
            self._part(as_map(part), index)
        if "logprobsResult" in source and (logprobs := _logprobs(read_map(source, "logprobsResult"))):
            self._assembler.text("", index, logprobs)
        if raw_reason := read_str(source, "finishReason"):
            self._finish(raw_reason, index)

    def _part(self, part: Mapping[str, object], index: int) -> None:
        if isinstance(part.get("functionCall"), dict):
            self._call(part, index)
        elif ("inlineData" in part or "fileData" in part) and part.get("thought") is not True:
            data = read_map(part, "inlineData")
            inline = f"data:{read_str(data, 'mimeType')};base64,{read_str(data, 'data')}"
            self._answered.add(index)
            self._assembler.image(inline if data else read_str(read_map(part, "fileData"), "fileUri") or "", index)
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
            message = "a tool call in the provider's answer has no name, or its arguments cannot be written as JSON"
            self._assembler.fail(Failure(FailureKind.MALFORMED, message))
            return
        signature = read_str(part, "thoughtSignature")
        self._answered.add(index)
        self._assembler.whole_call(
            name,
            arguments,
            choice=index,
            id=read_str(call, "id"),
            signature=mark_signature(signature, self._model) if signature else None,
        )

    def _finish(self, raw_reason: str, index: int) -> None:
        if raw_reason in _VAGUE:
            ending: Ending = "stop" if index in self._answered else "content_filter"
        else:
            ending = ending_of(raw_reason, {})
        if isinstance(ending, FailureKind):
            # Such as a malformed call. Text that came before it is not the answer.
            self._assembler.fail(failed_by(raw_reason, ending))
            return
        self._assembler.finish(ending, index, None if raw_reason in _SAME_AS_OURS else raw_reason[:100])


def _only_text(chunk: Mapping[str, Any]) -> str | None:
    """Return the text of a chunk that has one text part of choice 0 and nothing else except counts; None otherwise."""
    try:
        (candidate,) = chunk["candidates"]
        (part,) = candidate["content"]["parts"]
        text = part["text"]
    except (LookupError, TypeError, ValueError):
        return None
    if "error" in chunk or type(text) is not str or len(part) != 1:
        return None
    members = len(candidate)
    return text if members == 1 or (members == 2 and candidate.get("index") == 0) else None


def _arguments(args: object) -> str | None:
    """Return the arguments as JSON text, or None if they cannot be written."""
    try:
        return dumps_text(args) if args else "{}"
    except JsonError:
        return None


def _logprobs(result: Mapping[str, object]) -> Logprobs | None:
    """Return the chosen tokens with their alternatives, in OpenAI's format."""
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
    """Return the counts; a missing one is 0. The prompt is 0 if one is invalid.

    The vendor counts thoughts and tool use separately. Without a count of the answer, the rest of the total is one.
    """
    thoughts = read_count(source, "thoughtsTokenCount")
    names = "promptTokenCount", "toolUsePromptTokenCount", "candidatesTokenCount", "thoughtsTokenCount"
    prompt = read_count(source, "promptTokenCount") + read_count(source, "toolUsePromptTokenCount")
    rest = max(read_count(source, "totalTokenCount") - prompt - thoughts, 0)
    answer = read_count(source, "candidatesTokenCount") or rest
    # Each modality occurs at most once.
    details = map(as_map, read_list(source, "promptTokensDetails"))
    return Usage(
        prompt_tokens=prompt if are_counts(source, *names, "cachedContentTokenCount") else 0,
        completion_tokens=answer + thoughts,
        cached_tokens=read_count(source, "cachedContentTokenCount"),
        reasoning_tokens=thoughts,
        audio_tokens=next((read_count(one, "tokenCount") for one in details if one.get("modality") == "AUDIO"), 0),
    )
