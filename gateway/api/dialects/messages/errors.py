"""Errors in the form of Anthropic's API.

Source: platform.claude.com on errors, anthropic 2.12 (`_exceptions`, `ErrorObject`), read 2026-11-22; the protocol for
gateways of Claude Code 2.1.332, and its code that reads answers, read 2026-11-29.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from math import ceil
from pathlib import Path

import orjson

from gateway.api.errors import ApiError

_TABLES: Mapping[str, Mapping[str, str]] = orjson.loads(Path(__file__).with_suffix(".json").read_bytes())
_TYPES = {int(status): name for status, name in _TABLES["types"].items()}
_BLOCKED = "policy_blocked"
"""The type on which Claude Code shows the message without a retry, a question to sign in, or another model."""
_SERVER_ERROR = 500
_SPENT = "insufficient_quota"
_BY_CODE = {_SPENT: "billing_error"}
_PERIODS = {"day": "daily", "week": "weekly", "month": "monthly"}
_STANDING = "anthropic-ratelimit-unified-"
_ANTHROPICS_WORDS = _TABLES["words"]
"""Anthropic's own words for a failure, which stand before ours: tools decide by them what to do next."""


def error_object(error: ApiError, request_id: str = "") -> dict[str, object]:
    """Return the error as it stands in a body and in a stream."""
    words = _ANTHROPICS_WORDS.get(error.code)
    inner: dict[str, object] = {
        "type": _type_of(error),
        "message": error.message if words is None else f"{words}: {error.message}",
        "code": error.code,
        "reason": error.reason,
        "param": error.param,
        **error.user_fields,
    }
    return {"type": "error", "error": {**error.extra, **inner}, "request_id": request_id or None, **error.outer}


def _type_of(error: ApiError) -> str:
    if error.is_of_policy:
        return _BLOCKED
    known = _BY_CODE.get(error.code) or _TYPES.get(error.status)
    return known or ("api_error" if error.status >= _SERVER_ERROR else "invalid_request_error")


def budget_headers(error: ApiError, now_s: float) -> dict[str, str]:
    """Return the headers by which Claude Code shows that a budget is spent, and when it is renewed."""
    budget = error.extra.get("budget")
    if error.code != _SPENT or not isinstance(budget, Mapping):
        return {}
    shown = {
        "status": "rejected",
        "overage-utilization": "1",
        "overage-surpassed-threshold": "1",
        "overage-disabled-reason": "org_spend_cap_reached",
    }
    headers = {}
    if (renewed := budget["resets_at"]) is not None:
        at_s = int(datetime.fromisoformat(renewed).timestamp())
        shown |= {"reset": str(at_s), "overage-reset": str(at_s)}
        headers["retry-after"] = str(max(1, ceil(at_s - now_s)))
    if (period := _PERIODS.get(budget["per"])) is not None:
        shown["overage-period"] = period
    if budget["of"] == "project":
        shown["overage-scope"] = "group_pool"
    return headers | {f"{_STANDING}{name}": value for name, value in shown.items()}


def encode_error(error: ApiError, request_id: str = "") -> bytes:
    """Return the body of an error."""
    return orjson.dumps(error_object(error, request_id))
