"""Write whole answers as Anthropic's messages, and the parts that streams share with them.

Source: anthropic 2.12 (Message, Usage, StopReason), platform.claude.com on streaming and thinking, read 2026-11-22.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from gateway.api.dialects.dialect import estimated_output
from gateway.api.dialects.labelling import MEMBER, label_answer
from gateway.api.dialects.messages.decode import EVERYWHERE, NO_STATE
from gateway.execution.exchange import AnswerStyle
from gateway.model.record import Record
from providers.chat import CLAUDE_TIERS, Annotation, ChatCompletion, Choice, FinishReason, Usage, said_in
from providers.chat.messages import is_data_uri, split_data_uri
from providers.formats.tool_calls import arguments_of, safe_call_id
from providers.json_values import as_map, dumps, read_str
from providers.territories import Places
from providers.value import Value, replace

_LONG_ENOUGH = 16
"""An id of this length is not a number that a server gives to the calls of each answer anew."""
_PREFIX = "msg_"
NO_END: Mapping[str, object] = {"container": None, "stop_reason": None, "stop_sequence": None, "stop_details": None}
"""The end of an answer that has not ended."""
_REFUSED = {"type": "refusal", "category": None, "explanation": None}
_MOST_NAMED_PLACES = 8


class Asked(Value, frozen=True):
    """The facts of a request that its answer depends on.

    `prompt_tokens` is an estimate, for an answer whose provider has not counted, or not yet. With `hides_thinking`, the
    text of thoughts is left out.
    """

    prompt_tokens: int = 1
    hides_thinking: bool = False
    stops: tuple[str, ...] = ()

    def end(self, reason: str, stop_sequence: str | None) -> dict[str, object]:
        """Return the end of an answer: `stop_reason`, and `stop_sequence` if one of the request's is named."""
        if reason == "end_turn" and stop_sequence in self.stops:
            return {**NO_END, "stop_reason": "stop_sequence", "stop_sequence": stop_sequence}
        return {**NO_END, "stop_reason": reason, "stop_details": _REFUSED if reason == "refusal" else None}


def encode_answer(completion: ChatCompletion, style: AnswerStyle, record: Record, asked: Asked) -> bytes:
    """Return the body of a whole answer, whose reasoning state is sealed."""
    counted = completion.usage if record.is_own_answer else counted_usage(completion.usage)
    labelled, member = label_answer(completion, style, record, is_estimated=counted is None)
    choice = labelled.choices[0]
    message = choice.message
    usage = counted or estimated_usage(completion.usage, asked.prompt_tokens, estimated_output((choice,)))
    reason = stop_reason(choice.finish_reason, has_calls=bool(message.tool_calls), is_refusal=bool(message.refusal))
    body: dict[str, object] = {
        **message_head(completion.id, style.shown_model or completion.model, style, record),
        "content": _content(choice, record, hides_thinking=asked.hides_thinking),
        **asked.end(reason, choice.stop_sequence),
        "usage": {**encode_usage(usage), **usage_members(usage, completion.service_tier, style, record)},
    }
    if message.annotations:
        member["annotations"] = message.annotations
    if member:
        body[MEMBER] = member
    return dumps(body)


def message_head(answer_id: str, model: str, style: AnswerStyle, record: Record) -> dict[str, object]:
    """Return the first members of a message. If the model is hidden, so is its provider's id."""
    known = answer_id if answer_id and style.shown_model is None else record.request_id
    shown = known if known.startswith(_PREFIX) else f"{_PREFIX}{known}"
    return {"id": shown, "type": "message", "role": "assistant", "model": model}


def _content(choice: Choice, record: Record, *, hides_thinking: bool) -> list[dict[str, object]]:
    message = choice.message
    blocks: list[dict[str, object]] = []
    calls = message.tool_calls
    first_state = calls[0].signature if calls else None
    if message.reasoning or first_state:
        shown = "" if hides_thinking else message.reasoning or ""
        blocks.append(thinking_block(shown, first_state))
    if text := said_in(message):
        blocks.append(text_block(text, citations_of(message.annotations)))
    blocks += map(image_block, message.images)
    for position, call in enumerate(calls):
        if position and call.signature:
            blocks.append(thinking_block("", call.signature))
        blocks.append({**call_head(call.id, call.name, record, position), "input": arguments_of(call)})
    return blocks


def text_block(text: str, citations: Sequence[object] = ()) -> dict[str, object]:
    """Return a block with a text."""
    return {"type": "text", "text": text, "citations": citations or None}


def citations_of(annotations: Sequence[Annotation]) -> list[dict[str, object]]:
    """Return the web pages that annotations cite. No other vendor states the cited words, nor Anthropic's index."""
    found: list[dict[str, object]] = []
    for annotation in annotations:
        cited = as_map(annotation.get(str(annotation.get("type")))) or annotation
        if url := read_str(cited, "url"):
            unstated = {"cited_text": "", "encrypted_index": ""}
            page = {"type": "web_search_result_location", "url": url, "title": read_str(cited, "title")}
            found.append({**page, **unstated})
    return found


def image_block(url: str) -> dict[str, object]:
    """Return a block with an image, as requests have it."""
    media_type, data = split_data_uri(url) if is_data_uri(url) else ("", "")
    source = {"type": "base64", "media_type": media_type, "data": data} if data else {"type": "url", "url": url}
    return {"type": "image", "source": source}


def thinking_block(thought: str, state: str | None) -> dict[str, object]:
    """Return a block with reasoning, and the sealed state of the call after it."""
    return {"type": "thinking", "thinking": thought, "signature": state or NO_STATE}


def call_head(call_id: str, name: str, record: Record, position: int) -> dict[str, object]:
    """Return the members of a block with a call, without its input.

    Some servers number the calls of each answer from the start. Such ids get a part of their own in each answer,
    because the clients of this API distinguish the calls of a conversation by their ids.
    """
    shown = safe_call_id(call_id)
    if len(shown) < _LONG_ENOUGH:
        answer = hashlib.blake2s(f"{record.request_id} {record.started_at}".encode(), digest_size=8).hexdigest()
        shown = f"toolu_{shown}_{answer}_{position}"
    return {"type": "tool_use", "id": shown, "name": name, "caller": {"type": "direct"}}


def stop_reason(reason: FinishReason, *, has_calls: bool, is_refusal: bool) -> str:
    """Return the `stop_reason`. An answer with calls, and no other, ends with them; no unknown one is natural."""
    if has_calls and reason in ("stop", "other", "tool_calls"):
        return "tool_use"
    if reason in ("stop", "tool_calls"):
        return "refusal" if is_refusal else "end_turn"
    return "max_tokens" if reason in ("length", "other") else "refusal"


def counted_usage(usage: Usage | None) -> Usage | None:
    """Return the provider's count, or None if it has none. Clients take zero tokens as free."""
    return usage if usage is not None and usage.prompt_tokens and usage.completion_tokens else None


def estimated_usage(usage: Usage | None, prompt: int, output: int) -> Usage:
    """Return the estimates of the input and the output. An input that the provider counted stays."""
    if usage is None or not usage.prompt_tokens:
        return Usage(prompt, output)
    return replace(usage, completion_tokens=output)


def encode_usage(usage: Usage) -> dict[str, object]:
    """Return `usage` as the end of a stream has it. Anthropic's `input_tokens` exclude tokens of the cache."""
    fresh = usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens
    return {
        "input_tokens": max(0, fresh),
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
        "server_tool_use": None,
    }


def usage_members(usage: Usage, tier: str | None, style: AnswerStyle, record: Record) -> dict[str, object]:
    """Return the members of `usage` that only a message has: how the cache was written, and where the model computed.

    `tier` is the provider's word for how it processed the request.
    """
    long, split = usage.cache_write_1h_tokens, None
    if long is not None:
        short = max(0, usage.cache_write_tokens - long)
        split = {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long}
    return {
        "cache_creation": split,
        "inference_geo": _inference_geo(style, record),
        "service_tier": tier if tier in CLAUDE_TIERS and style.shown_model is None else None,
    }


def _inference_geo(style: AnswerStyle, record: Record) -> str | None:
    """Return where the model computed, or None if the model is hidden, or nothing of the answer may be kept here."""
    places, location = record.answered_by.computed, record.decided.location
    region = location.region if location is not None else None
    if places is None or style.shown_model is not None or region is None or region.transit.included:
        return None
    return geo_of(places)


def geo_of(places: Places) -> str:
    """Return the territories as Anthropic names the place of an answer: `us`, `de-fr`, or `global` for many."""
    if places.included is None or len(places.included) > _MOST_NAMED_PLACES:
        return EVERYWHERE
    return "-".join(sorted(places.included)).lower()
