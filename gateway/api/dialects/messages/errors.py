"""Errors in the form of Anthropic's API.

Source: platform.claude.com on errors, anthropic 2.12 (`_exceptions`, `ErrorObject`), read 2026-11-22.
"""

from __future__ import annotations

import orjson

from gateway.api.errors import ApiError

_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    451: "permission_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_SERVER_ERROR = 500
_ANTHROPICS_WORDS = {
    "context_length_exceeded": "prompt is too long",
    "invalid_api_key": "invalid x-api-key",
    "rate_limited": "This request would exceed the rate limit",
    "request_too_large": "Request exceeds the maximum size",
    "overloaded": "Overloaded",
    "no_healthy_deployment": "Overloaded",
}
"""Anthropic's own words for a failure, which stand before ours: tools decide by them what to do next."""


def error_object(error: ApiError, request_id: str = "") -> dict[str, object]:
    """Return the error as it stands in a body and in a stream."""
    status = error.status
    words = _ANTHROPICS_WORDS.get(error.code)
    inner: dict[str, object] = {
        "type": _TYPES.get(status) or ("api_error" if status >= _SERVER_ERROR else "invalid_request_error"),
        "message": error.message if words is None else f"{words}: {error.message}",
        "code": error.code,
        "reason": error.reason,
        "param": error.param,
        **error.user_fields,
    }
    return {"type": "error", "error": {**error.extra, **inner}, "request_id": request_id or None, **error.outer}


def encode_error(error: ApiError, request_id: str = "") -> bytes:
    """Return the body of an error."""
    return orjson.dumps(error_object(error, request_id))


def encode_error_event(error: ApiError, request_id: str = "") -> bytes:
    """Return the event that ends a stream which has failed."""
    return b"event: error\ndata: " + encode_error(error, request_id) + b"\n\n"
