"""The chat endpoint as it stands in the OpenAPI document: its shape and examples that work as they are."""

from __future__ import annotations

from typing import Any

__all__ = ["CHAT_OPERATION"]

_HELLO = {"model": "assistant", "messages": [{"role": "user", "content": "Hello! Who are you?"}]}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }
    },
}


def _failure(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ERROR}}}


CHAT_OPERATION: dict[str, Any] = {
    "tags": ["chat"],
    "summary": "Ask an assistant",
    "description": (
        "OpenAI's chat completions. `model` is the name of an assistant; who answers depends on where the caller is, "
        "and is told in the `x-gateway-*` response headers."
    ),
    "operationId": "chat_completions",
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["model", "messages"],
                    "properties": {
                        "model": {"type": "string", "description": "The name of an assistant, or one of its aliases."},
                        "messages": {"type": "array", "minItems": 1, "items": {"type": "object"}},
                        "stream": {"type": "boolean", "default": False},
                    },
                    "additionalProperties": True,
                },
                "examples": {
                    "whole": {"summary": "One answer", "value": _HELLO},
                    "stream": {"summary": "A stream", "value": {**_HELLO, "stream": True}},
                },
            }
        },
    },
    "responses": {
        "200": {
            "description": "The answer, whole or as a stream of events.",
            "content": {
                "application/json": {"schema": {"type": "object"}},
                "text/event-stream": {"schema": {"type": "string"}},
            },
        },
        "400": _failure("The request is wrong, or nobody can do what it asks."),
        "401": _failure("No key, or an unknown one."),
        "404": _failure("No such assistant for this key."),
        "429": _failure("Too much at once; `retry-after` says when to come back."),
        "451": _failure("Law or policy: a blocked or unknown place, or nobody who may answer there."),
        "502": _failure("The providers failed; `error.attempts` lists what was tried."),
        "503": _failure("Nobody can be asked right now."),
        "504": _failure("Nobody answered in time."),
    },
}
