"""The paths of the dialects: which API a request to a path speaks, and in which form it gets errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import orjson

from gateway.api.dialects import gemini, messages
from gateway.api.dialects.completions import Completions
from gateway.api.dialects.dialect import CountingDialect, Dialect
from gateway.api.dialects.google_paths import asks_for_events, is_gemini_path, parse_path
from gateway.api.dialects.model_lists import ListForm, form_of
from gateway.api.dialects.openai_chat import OPENAI_CHAT
from gateway.api.dialects.responses import Responses, ResponseTokenCount
from gateway.api.errors import ApiError, encode_error
from gateway.api.inputs import INPUT_DIALECTS, google_input_dialect

CHAT_PATH = OPENAI_CHAT.route
MESSAGES_PATH = messages.Messages.route
COUNT_PATH = messages.TokenCount.route
RESPONSES_PATH = Responses.route
INPUT_TOKENS_PATH = ResponseTokenCount.route
COMPLETIONS_PATH = Completions.route

_AT_PATH: Mapping[str, Callable[[], Dialect]] = {
    MESSAGES_PATH: messages.Messages,
    RESPONSES_PATH: Responses,
    COMPLETIONS_PATH: Completions,
    **INPUT_DIALECTS,
}
"""Makes the dialect for one request, by path."""


def dialect_at(path: str, query: bytes = b"") -> Dialect | None:
    """Return the dialect for one POST request to this path with its query; None if no chat dialect has the path."""
    if path == CHAT_PATH:
        return OPENAI_CHAT
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
    return google_input_dialect(asked.method, asked.assistant)


def counter_at(path: str) -> CountingDialect | None:
    """Return the dialect for one POST request that counts tokens; None if this path counts none."""
    if path == COUNT_PATH:
        return messages.TokenCount()
    if path == INPUT_TOKENS_PATH:
        return ResponseTokenCount()
    asked = parse_path(path)
    return gemini.GeminiCount(asked.assistant) if asked is not None and asked.method == "countTokens" else None


def encode_error_at(path: str, error: ApiError, request_id: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    """Return the body of an error at a path, in the form of the path's API. OpenAI's form is the default.

    At a path of no API alone, the headers show the API that asks.
    """
    form: ListForm = "chat"
    if path != CHAT_PATH and path not in _AT_PATH:
        form = form_of(path, dict(headers))
    if form == "generate" or is_gemini_path(path):
        return gemini.encode_error(error, request_id)
    if form == "messages" or path == MESSAGES_PATH or path.startswith(f"{MESSAGES_PATH}/"):
        return messages.encode_error(error, request_id)
    return orjson.dumps(encode_error(error))
