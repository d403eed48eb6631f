"""Errors in Google's form: `google.rpc.Status` as JSON, with our code as the reason of an `ErrorInfo`.

Source: google.aip.dev/193 and google/rpc/error_details.proto, read 2026-11-23.
"""

from __future__ import annotations

import math

import orjson

from gateway.api.errors import ApiError

_DOMAIN = "assistant-gateway"
_TYPES = "type.googleapis.com/"
_STATUS = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    421: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    451: "PERMISSION_DENIED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_SERVER_ERROR = 500
# Tools decide by the beginning of Google's own messages.
_GOOGLES_WORDS = {
    "context_length_exceeded": "The input token count exceeds the maximum number of tokens allowed: ",
    "overloaded": "The model is overloaded. Please try again later: ",
    "rate_limited": "Resource has been exhausted (e.g. check quota): ",
    "insufficient_quota": "You exceeded your current quota: ",
}


def error_object(error: ApiError, request_id: str = "") -> dict[str, object]:
    """Return the error as an object with `error` as its only member."""
    status = error.status
    metadata = {"reason": str(error.reason)}
    if error.param is not None:
        metadata["param"] = error.param
    if request_id:
        metadata["request_id"] = request_id
    details: list[dict[str, object]] = [
        {
            "@type": f"{_TYPES}google.rpc.ErrorInfo",
            "reason": error.code,
            "domain": _DOMAIN,
            "metadata": metadata,
        }
    ]
    if error.retry_after_s is not None:
        delay = f"{max(1, math.ceil(error.retry_after_s))}s"
        details.append({"@type": f"{_TYPES}google.rpc.RetryInfo", "retryDelay": delay})
    if error.extra:
        details.append({"@type": f"{_TYPES}google.protobuf.Struct", "value": dict(error.extra)})
    name = _STATUS.get(status) or ("INTERNAL" if status >= _SERVER_ERROR else "INVALID_ARGUMENT")
    message = _GOOGLES_WORDS.get(error.code, "") + error.message
    return {"error": {"code": status, "message": message, "status": name, "details": details}}


def encode_error(error: ApiError, request_id: str = "") -> bytes:
    """Return the body of an error."""
    return orjson.dumps(error_object(error, request_id))
