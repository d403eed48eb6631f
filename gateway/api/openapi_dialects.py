"""The endpoints of dialects other than chat completions in the OpenAPI document.

An endpoint is in the document if a dialect answers at its path.
"""

from __future__ import annotations

from typing import Any

import orjson

from gateway.api.dialects.google_paths import EXAMPLE_ASSISTANT
from gateway.api.dialects.paths import encode_error_at, is_served
from gateway.api.errors import STATUS, ApiError
from gateway.api.openapi import CHAT_OPERATION, ELSEWHERE, EXAMPLES, WHEN

_TEXT = {"type": "string"}
_WHOLE = {"type": "integer"}
_OBJECT = {"type": "object"}
_OBJECTS = {"type": "array", "items": _OBJECT}
_TEXT_OR_LIST = {"oneOf": [_TEXT, {"type": "array", "minItems": 1}]}
_MODEL = {"type": "string", "description": "The name of an assistant, or one of its aliases."}
_STREAM = {"type": "boolean", "default": False}
_SHARED = "Location, limits, labels and `x-gateway-*` headers are those of chat completions."
_QUESTION = "Hello!"


def _operation(
    path: str,
    summary: str,
    description: str,
    properties: dict[str, Any],
    example: dict[str, Any],
    tag: str = "chat",
) -> dict[str, Any]:
    """Return the description of a POST operation. The fields in its example are required."""
    elsewhere = ELSEWHERE - {409} if tag == "embeddings" else ELSEWHERE
    required = [name for name in example if name != "stream"]
    schema = {"type": "object", "required": required, "properties": properties, "additionalProperties": True}
    parameters: list[Any] = [*CHAT_OPERATION["parameters"]]
    if "{assistant}" in path:
        assistant = {"name": "assistant", "in": "path", "required": True, "description": _MODEL["description"]}
        parameters.append({**assistant, "schema": _TEXT, "example": EXAMPLE_ASSISTANT})
    # No schemas of the answers: the official SDKs have them as types.
    answer: dict[str, Any] = {"application/json": {"schema": {}}}
    if "stream" in properties or path.endswith(":streamGenerateContent"):
        answer["text/event-stream"] = {}
        if path.endswith(":streamGenerateContent"):
            alt = {
                "name": "alt",
                "in": "query",
                "required": False,
                "schema": {"type": "string", "enum": ["sse", "json"]},
            }
            parameters.append({**alt, "description": "`sse`: a stream of events; else one JSON array."})
    body = {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}
    return {
        "tags": [tag],
        "summary": summary,
        "description": f"{description} {_SHARED}",
        "operationId": path.removeprefix("/v1").strip("/").translate(str.maketrans("/:{}", "____")),
        "parameters": parameters,
        "requestBody": body,
        "responses": {
            "200": {"description": "The answer.", "content": answer},
            **{str(status): _failure(path, status) for status in WHEN if status not in elsewhere},
        },
    }


def _failure(path: str, status: int) -> dict[str, Any]:
    """Return an error response, with an example of every code in the form of the path's API."""
    examples = {
        code: {
            "summary": code,
            "value": orjson.loads(encode_error_at(path, ApiError(code, error["message"], error["param"]), "req_1")),
        }
        for code, error in EXAMPLES["errors"].items()
        if STATUS[code] == status
    }
    return {"description": WHEN[status], "content": {"application/json": {"schema": _OBJECT, "examples": examples}}}


_CONTENT = {
    "type": "object",
    "required": ["parts"],
    "properties": {"role": {"type": "string", "enum": ["user", "model"]}, "parts": {**_OBJECTS, "minItems": 1}},
}
_GENERATE = {
    "contents": {"type": "array", "minItems": 1, "maxItems": 2048, "items": _CONTENT},
    "systemInstruction": _CONTENT,
    "tools": {**_OBJECTS, "description": "Functions that may be called: `functionDeclarations` only."},
    "toolConfig": _OBJECT,
    "generationConfig": _OBJECT,
}
_COUNT = {"contents": _GENERATE["contents"], "generateContentRequest": _OBJECT}
_EMBED = {
    "content": {
        "type": "object",
        "required": ["parts"],
        "properties": {"parts": {**_OBJECTS, "minItems": 1, "maxItems": 1}},
    },
    "taskType": {"type": "string", "description": "The purpose of the vectors, for a model that distinguishes them."},
    "outputDimensionality": {**_WHOLE, "minimum": 1, "maximum": 65536},
}
_EMBED_EXAMPLE = {"content": {"parts": [{"text": "a text"}]}}
_REQUESTS = {"type": "array", "minItems": 1, "maxItems": 2048, "items": {"type": "object", "properties": _EMBED}}
_CONTENTS = {"contents": [{"role": "user", "parts": [{"text": _QUESTION}]}]}
_MESSAGE = {"role": "user", "content": _QUESTION}
_MESSAGES = {
    "model": _MODEL,
    "messages": {**_OBJECTS, "minItems": 1},
    "system": _TEXT_OR_LIST,
    "tools": _OBJECTS,
    "tool_choice": _OBJECT,
}
_SPACE = "The header `x-gateway-embedding-space` names the model and the length of the vectors."
_SAME_UNDER_V1 = "The same path under `/v1` works too."
_ESTIMATED = "The number is an estimate of the gateway, which the header `x-gateway-estimated` states."


def _dialect_operations() -> dict[str, dict[str, Any]]:
    """Return the operations of all endpoints, by path."""
    return {
        "/v1/responses": _operation(
            "/v1/responses",
            "Ask an assistant with OpenAI's Responses API",
            "Nothing is stored: send the whole conversation in `input`.",
            {
                "model": _MODEL,
                "input": _TEXT_OR_LIST,
                "instructions": _TEXT,
                "tools": _OBJECTS,
                "max_output_tokens": {**_WHOLE, "minimum": 1},
                "stream": _STREAM,
            },
            {"model": "assistant", "input": _QUESTION},
        ),
        "/v1/messages": _operation(
            "/v1/messages",
            "Ask an assistant with Anthropic's Messages API",
            "The key may be in `x-api-key`.",
            {**_MESSAGES, "max_tokens": {**_WHOLE, "minimum": 1}, "stream": _STREAM},
            {"model": "assistant", "max_tokens": 1024, "messages": [_MESSAGE]},
        ),
        "/v1/messages/count_tokens": _operation(
            "/v1/messages/count_tokens",
            "Estimate the tokens of a request of Anthropic's Messages API",
            _ESTIMATED,
            _MESSAGES,
            {"model": "assistant", "messages": [_MESSAGE]},
        ),
        "/v1/completions": _operation(
            "/v1/completions",
            "Ask an assistant with OpenAI's legacy completions",
            "The prompt is one message of a user.",
            {"model": _MODEL, "prompt": _TEXT_OR_LIST, "max_tokens": {**_WHOLE, "minimum": 1}, "stream": _STREAM},
            {"model": "assistant", "prompt": _QUESTION},
        ),
        "/v1beta/models/{assistant}:generateContent": _operation(
            "/v1beta/models/{assistant}:generateContent",
            "Ask an assistant with Gemini's API",
            f"The key may be in `x-goog-api-key`. {_SAME_UNDER_V1}",
            _GENERATE,
            _CONTENTS,
        ),
        "/v1beta/models/{assistant}:streamGenerateContent": _operation(
            "/v1beta/models/{assistant}:streamGenerateContent",
            "Ask an assistant for a stream with Gemini's API",
            f"The key may be in `x-goog-api-key`. {_SAME_UNDER_V1}",
            _GENERATE,
            _CONTENTS,
        ),
        "/v1beta/models/{assistant}:countTokens": _operation(
            "/v1beta/models/{assistant}:countTokens",
            "Estimate the tokens of a request of Gemini's API",
            f"{_ESTIMATED} {_SAME_UNDER_V1}",
            _COUNT,
            _CONTENTS,
        ),
        "/v1beta/models/{assistant}:embedContent": _operation(
            "/v1beta/models/{assistant}:embedContent",
            "Compute the vector of a text with Gemini's API",
            f"{_SPACE} {_SAME_UNDER_V1}",
            _EMBED,
            _EMBED_EXAMPLE,
            "embeddings",
        ),
        "/v1beta/models/{assistant}:batchEmbedContents": _operation(
            "/v1beta/models/{assistant}:batchEmbedContents",
            "Compute the vectors of texts with Gemini's API",
            f"{_SPACE} {_SAME_UNDER_V1}",
            {"requests": _REQUESTS},
            {"requests": [_EMBED_EXAMPLE]},
            "embeddings",
        ),
    }


def dialect_operations() -> dict[str, dict[str, Any]]:
    """Return the path items of the endpoints that are served."""
    return {path: {"post": item} for path, item in _dialect_operations().items() if is_served(path)}
