"""Errors in Google's form: `google.rpc.Status` as JSON, with our code as the reason of an `ErrorInfo`.

Source: google.aip.dev/193 and google/rpc/error_details.proto, read 2026-11-23.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import orjson

from gateway.api.dialects.dialect import renaming
from gateway.api.errors import ApiError

_DOMAIN = "assistant-gateway"
_TYPES = "type.googleapis.com/"
_TABLES: Mapping[str, Mapping[str, str]] = orjson.loads(Path(__file__).with_suffix(".json").read_bytes())
_STATUS = {int(status): name for status, name in _TABLES["status"].items()}
_SERVER_ERROR = 500
# Tools decide by the beginning of Google's own messages.
_GOOGLES_WORDS = _TABLES["words"]
# The fields of a chat or of embeddings that a later stage names, in the words of this API.
_PARAMS = _TABLES["params"]
_FIELD = re.compile(r"[A-Za-z_]+")
_renamed = renaming(_PARAMS)


def error_object(error: ApiError, request_id: str = "") -> dict[str, object]:
    """Return the object whose member `error` is the error."""
    status = error.status
    metadata = {"reason": str(error.reason)}
    message = _renamed(error.message)
    if error.param is not None:
        # Indexes of messages are not those of contents, so they are left out.
        word = _FIELD.match(error.param)
        param = metadata["param"] = _PARAMS.get(word[0], error.param) if word is not None else error.param
        message = message.replace(f"`{error.param}`", f"`{param}`")
    message = _GOOGLES_WORDS.get(error.code, "") + message
    if request_id:
        metadata["request_id"] = request_id
    details: list[dict[str, object]] = [
        {"@type": f"{_TYPES}google.rpc.ErrorInfo", "reason": error.code, "domain": _DOMAIN, "metadata": metadata}
    ]
    if error.retry_after_s is not None:
        delay = f"{max(1, math.ceil(error.retry_after_s))}s"
        details.append({"@type": f"{_TYPES}google.rpc.RetryInfo", "retryDelay": delay})
    if error.sentence is not None:
        sentence = {"locale": error.sentence.language, "message": error.sentence.text}
        details.append({"@type": f"{_TYPES}google.rpc.LocalizedMessage", **sentence})
    if error.extra:
        details.append({"@type": f"{_TYPES}google.protobuf.Struct", "value": dict(error.extra)})
    name = _STATUS.get(status) or ("INTERNAL" if status >= _SERVER_ERROR else "INVALID_ARGUMENT")
    return {"error": {"code": status, "message": message, "status": name, "details": details}, **error.outer}


def encode_error(error: ApiError, request_id: str = "") -> bytes:
    """Return the body of an error."""
    return orjson.dumps(error_object(error, request_id))
