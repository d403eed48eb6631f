"""Write a `ChatCompletion` as OpenAI's JSON, the form of every answer to a client."""

from __future__ import annotations

from collections.abc import Sequence

from providers.chat import SERVICE_TIERS, AssistantMessage, ChatCompletion, FinishReason, Usage, text_of
from providers.formats.reasoning_state import join_call_id

OUTWARD_FINISH: dict[FinishReason, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    # An unknown reason is never presented as a natural end.
    "other": "length",
}


def encode_completion(completion: ChatCompletion, model: str | None = None) -> dict[str, object]:
    """Return the answer as a `chat.completion` object.

    `model` replaces the name of the model. Then other fields that could identify the provider are left out too.
    """
    choices: list[object] = []
    for choice in completion.choices:
        choices.append(
            {
                "index": choice.index,
                "message": _message(choice.message),
                "logprobs": choice.logprobs,
                "finish_reason": OUTWARD_FINISH[choice.finish_reason],
            }
        )
    body: dict[str, object] = {
        "id": completion.id,
        "object": "chat.completion",
        "created": completion.created,
        "model": model or completion.model,
        "choices": choices,
    }
    if model is None:
        if completion.service_tier in SERVICE_TIERS:
            body["service_tier"] = completion.service_tier
        if completion.system_fingerprint is not None:
            body["system_fingerprint"] = completion.system_fingerprint
    if completion.usage is not None:
        body["usage"] = encode_usage(completion.usage)
    return body


def _message(message: AssistantMessage) -> dict[str, object]:
    content = message.content
    text = content if content is None or type(content) is str else text_of(content)
    if message.refusal is not None:
        # OpenAI writes null if there is a refusal instead of a text, and so do the streams.
        text = text or None
    body: dict[str, object] = {
        "role": "assistant",
        "content": text,
        "refusal": message.refusal,
        "annotations": message.annotations,
    }
    if message.reasoning is not None:
        body["reasoning_content"] = message.reasoning
    if message.images:
        body["images"] = encode_images(message.images)
    if message.tool_calls:
        body["tool_calls"] = [
            {
                "id": join_call_id(call.id, call.signature),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    return body


def encode_images(urls: Sequence[str]) -> list[dict[str, object]]:
    """Return the images of a message as OpenRouter writes them (openrouter.ai/docs on images, read 2026-11-26)."""
    return [{"type": "image_url", "image_url": {"url": url}} for url in urls]


def encode_usage(usage: Usage) -> dict[str, object]:
    """Return the token counts in OpenAI's form. Rarer counts are left out if they are 0."""
    of_prompt = {"cached_tokens": usage.cached_tokens}
    of_completion = {"reasoning_tokens": usage.reasoning_tokens}
    if usage.cache_write_tokens:
        of_prompt["cache_write_tokens"] = usage.cache_write_tokens
    if usage.audio_tokens:
        of_prompt["audio_tokens"] = usage.audio_tokens
    if usage.accepted_prediction_tokens or usage.rejected_prediction_tokens:
        of_completion["accepted_prediction_tokens"] = usage.accepted_prediction_tokens
        of_completion["rejected_prediction_tokens"] = usage.rejected_prediction_tokens
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": of_prompt,
        "completion_tokens_details": of_completion,
    }
