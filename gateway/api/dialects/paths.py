"""The paths of the dialects: which API a request to a path speaks, and in which form it gets errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import orjson

from gateway.api.dialects import gemini
from gateway.api.dialects.dialect import CountingDialect, Dialect
from gateway.api.dialects.google_paths import asks_for_events, is_gemini_path, parse_path
from gateway.api.dialects.openai_chat import OPENAI_CHAT
from gateway.api.errors import ApiError, encode_error

CHAT_PATH = "/v1/chat/completions"

_AT_PATH: Mapping[str, Callable[[], Dialect]] = {CHAT_PATH: lambda: OPENAI_CHAT}
"""Makes the dialect for one request, by path."""


def dialect_at(path: str, query: bytes = b"") -> Dialect | None:
    """Return the dialect for one POST request to this path; None if no chat dialect has the path.

    Args:
        path: The decoded path.
        query: The query, which decides on the form of a stream in Gemini's API.
    """
    make = _AT_PATH.get(path)
    if make is not None:
        return make()
    if (asked := parse_path(path)) is None:
        return None
    match asked.method:
        case "generateContent":
            return gemini.Gemini(asked.assistant)
        case "streamGenerateContent":
            return gemini.Gemini(asked.assistant, stream=True, events=asks_for_events(query))
    return None


def counter_at(path: str) -> CountingDialect | None:
    """Return the dialect for one POST request that counts tokens; None if this path counts none."""
    asked = parse_path(path)
    return gemini.GeminiCount(asked.assistant) if asked is not None and asked.method == "countTokens" else None


def is_served(path: str) -> bool:
    """Return whether a POST request to this path is answered in some dialect."""
    return dialect_at(path) is not None or counter_at(path) is not None


def encode_error_at(path: str, error: ApiError, request_id: str) -> bytes:
    """Return the body of an error at a path, in the form of the path's API. OpenAI's form is the default."""
    if is_gemini_path(path):
        return gemini.encode_error(error, request_id)
    return orjson.dumps(encode_error(error))
