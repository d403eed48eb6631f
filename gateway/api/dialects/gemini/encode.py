"""Write whole answers as `GenerateContentResponse`, and the parts that streams share with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from gateway.api.dialects.gemini.contents import encode_signature
from gateway.api.dialects.labelling import MEMBER, label_answer
from gateway.execution.exchange import AnswerStyle
from gateway.model.record import Record
from providers.chat import Annotation, ChatCompletion, Choice, FinishReason, Logprobs, ToolCall, Usage, text_of
from providers.chat.messages import is_data_uri, split_data_uri
from providers.json_values import as_list, as_map, embed_object, read_str

FINISH: Mapping[FinishReason, str] = {
    "stop": "STOP",
    "length": "MAX_TOKENS",
    "tool_calls": "STOP",
    "content_filter": "SAFETY",
    "other": "OTHER",
}
_BROKEN_CALL = "MALFORMED_FUNCTION_CALL"


def encode_answer(
    completion: ChatCompletion, style: AnswerStyle, record: Record, usage: Usage, *, shows_thoughts: bool
) -> bytes:
    """Return the body of a whole answer. The token counts may be estimated."""
    labelled, member = label_answer(completion, style, record, is_estimated=completion.usage is None)
    body: dict[str, object] = {
        "candidates": [_candidate(choice, shows_thoughts) for choice in labelled.choices],
        "usageMetadata": encode_usage(usage),
        "modelVersion": style.shown_model or completion.model,
        "responseId": completion.id if completion.id and style.shown_model is None else record.request_id,
    }
    if member:
        body[MEMBER] = member
    return orjson.dumps(body)


def _candidate(choice: Choice, shows_thoughts: bool) -> dict[str, object]:
    message = choice.message
    parts: list[dict[str, object]] = []
    if message.reasoning and shows_thoughts:
        parts.append({"text": message.reasoning, "thought": True})
    if said := text_of(message.content):
        parts.append({"text": said})
    if message.refusal:
        parts.append({"text": message.refusal})
    parts += map(image_part, message.images)
    calls, broken = call_parts(message.tool_calls)
    candidate: dict[str, object] = {
        "content": {"parts": [*parts, *calls] or [{"text": ""}], "role": "model"},
        **end_of(choice.finish_reason, choice.raw_finish_reason, broken, is_refusal=bool(message.refusal)),
        "index": choice.index,
    }
    if message.annotations and (citations := encode_citations(message.annotations)):
        candidate["citationMetadata"] = citations
    if choice.logprobs and (result := encode_logprobs(choice.logprobs)):
        candidate["logprobsResult"] = result
    return candidate


def image_part(url: str) -> dict[str, object]:
    """Return the part with an image."""
    media_type, data = split_data_uri(url) if is_data_uri(url) else ("", "")
    return {"inlineData": {"mimeType": media_type, "data": data}} if data else {"fileData": {"fileUri": url}}


def call_parts(calls: Sequence[ToolCall]) -> tuple[list[dict[str, object]], str | None]:
    """Return the parts of calls, and the name of the first one left out, because its arguments are not an object."""
    parts: list[dict[str, object]] = []
    broken: str | None = None
    for call in calls:
        arguments = embed_object(call.arguments.strip() or "{}")
        if arguments is None:
            broken = broken or call.name
            continue
        part: dict[str, object] = {"functionCall": {"id": call.id, "name": call.name, "args": arguments}}
        if call.signature is not None:
            part["thoughtSignature"] = encode_signature(call.signature)
        parts.append(part)
    return parts, broken


def end_of(reason: FinishReason, raw: str | None, broken: str | None, *, is_refusal: bool) -> dict[str, object]:
    """Return the members of a candidate that has ended: `finishReason`, and `finishMessage` if there is one.

    `raw` is the provider's own word. `broken` is the name of a call whose arguments are not an object.
    """
    if broken is not None and reason != "length":
        message = f"the model called {broken!r} with arguments that are not a JSON object"
        return {"finishReason": _BROKEN_CALL, "finishMessage": message}
    if reason == "other" and raw:
        return {"finishReason": FINISH[reason], "finishMessage": raw}
    return {"finishReason": "SAFETY" if is_refusal and reason == "stop" else FINISH[reason]}


def encode_usage(usage: Usage) -> dict[str, object]:
    """Return `usageMetadata`. Google counts thoughts apart from the other tokens of an answer."""
    reasoning = min(usage.reasoning_tokens, usage.completion_tokens)
    counts: dict[str, object] = {
        "promptTokenCount": usage.prompt_tokens,
        "candidatesTokenCount": usage.completion_tokens - reasoning,
        "totalTokenCount": usage.total_tokens,
    }
    if usage.cached_tokens:
        counts["cachedContentTokenCount"] = usage.cached_tokens
    if reasoning:
        counts["thoughtsTokenCount"] = reasoning
    return counts


def encode_citations(annotations: Sequence[Annotation]) -> dict[str, object] | None:
    """Return `citationMetadata` with addresses; its positions would count bytes, and OpenAI's count characters."""
    sources: list[dict[str, object]] = []
    for annotation in annotations:
        if uri := read_str(as_map(annotation.get("url_citation")), "url"):
            sources.append({"uri": uri})
    return {"citationSources": sources} if sources else None


def encode_logprobs(logprobs: Logprobs) -> dict[str, object] | None:
    """Return `logprobsResult`; None if there are no tokens."""
    chosen: list[dict[str, object]] = []
    top: list[dict[str, object]] = []
    for entry in map(as_map, as_list(logprobs.get("content"))):
        chosen.append(_token(entry))
        top.append({"candidates": [_token(as_map(other)) for other in as_list(entry.get("top_logprobs"))]})
    return {"chosenCandidates": chosen, "topCandidates": top} if chosen else None


def _token(entry: Mapping[str, object]) -> dict[str, object]:
    return {"token": entry.get("token"), "logProbability": entry.get("logprob")}
