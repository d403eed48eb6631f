"""What a connection says by itself, without an application: that what came is no request."""

from __future__ import annotations

import orjson

from gateway.api.errors import ApiError, encode_error

_REASONS = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}


def too_large(most_bytes: int) -> ApiError:
    """The refusal of a head beyond this size."""
    return ApiError("headers_too_large", f"the headers are larger than {most_bytes} bytes")


def written(error: ApiError) -> bytes:
    """The whole response, in the usual envelope, after which the connection closes."""
    body = orjson.dumps(encode_error(error))
    head = b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
    return head % (error.status, _REASONS[error.status], len(body)) + body
