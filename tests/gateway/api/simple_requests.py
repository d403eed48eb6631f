"""One simple request of each dialect, by name, and simple answers of providers."""

import json
from typing import Any

import httpx

from tests.kit.input_gateway import EMBEDDINGS, MODERATIONS

ASKED = {"role": "user", "content": "hello"}
CHATS = {
    "chat": ("/v1/chat/completions", {"model": "assistant", "messages": [ASKED]}),
    "completions": ("/v1/completions", {"model": "assistant", "prompt": "hello"}),
    "responses": ("/v1/responses", {"model": "assistant", "input": "hello"}),
    "messages": ("/v1/messages", {"model": "assistant", "max_tokens": 9, "messages": [ASKED]}),
    "gemini": ("/v1beta/models/assistant:generateContent", {"contents": [{"role": "user", "parts": [{"text": "a"}]}]}),
}
INPUTS = {
    "embeddings": (EMBEDDINGS, {"model": "assistant", "input": "hello"}),
    "moderations": (MODERATIONS, {"model": "assistant", "input": "hello"}),
}


HEAD = {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}
CHUNK = {**HEAD, "object": "chat.completion.chunk"}


def completion(message: dict[str, Any], finish: str = "stop", **more: Any) -> dict[str, Any]:
    """Return an answer of a provider with one choice, and other members of its head."""
    choice = {"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": finish}
    return {**HEAD, "choices": [choice], **more}


def chunks(*deltas: dict[str, Any], **head: Any) -> list[dict[str, Any]]:
    """Return the chunks of a stream that ends after these deltas."""
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    return [{**CHUNK, **head, "choices": [choice]} for choice in choices]


def sent_chunks(chunks: list[Any], *, ends: bool = True, **headers: str) -> httpx.Response:
    """Return a stream of these chunks, which may lack its end."""
    text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + ("data: [DONE]\n\n" if ends else "")
    return httpx.Response(200, text=text, headers={**headers, "content-type": "text/event-stream"})


def verdicts_on(request: httpx.Request) -> httpx.Response:
    """Return the verdict of a judge that flags nothing."""
    results = [{"flagged": False, "categories": {}, "category_scores": {}}] * len(json.loads(request.content)["input"])
    return httpx.Response(200, json={"id": "x", "model": "j", "results": results})


def streamed(path: str, body: dict[str, object]) -> tuple[str, dict[str, object]]:
    """Return the request as one for a stream."""
    if "generateContent" in path:
        return path.replace("generateContent", "streamGenerateContent") + "?alt=sse", body
    return path, {**body, "stream": True}
