"""The two public paths of signed marks: the keys, and a check by anybody. Both exist while `marks` does.

A check takes no key and proves nothing that the mark itself does not. Nothing of it is stored, logged or sent on.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.routing import Match

from gateway.api.body import read_object
from gateway.api.caller.authentication import FailedKeyLimiter, caller_address, require_this_machine, serves_others
from gateway.api.caller.request_headers import headers_of, request_id_of
from gateway.api.errors import ApiError
from gateway.api.openapi import json_body
from gateway.model.config_version import ConfigVersion, remember
from gateway.policy.labels import MOST_MARK_BYTES, TextMarks

KEYS_PATH = "/.well-known/ai-marks.json"
CHECK_PATH = "/v1/marks/verify"
MARK_PATHS = frozenset({KEYS_PATH, CHECK_PATH})
_MOST_BODY_BYTES = 1024 * 1024
_MOST_AT_ONCE = 32
"""The checks whose bodies are read at once in this process: at most 32 MB."""
_HASH = re.compile("[0-9a-f]{64}")
_TOO_MANY = "too many marks were checked from this address"
_FIELDS = {"mark": "an entry of `x_gateway.labels[].marks`", "text": "the answer as the client got it"}


def add_mark_routes(app: FastAPI, current: Callable[[], ConfigVersion]) -> None:
    """Add both paths. `current` returns the active config version."""
    checks, reading = FailedKeyLimiter(), 0

    class WhileMarks(APIRoute):
        """A path that does not exist without `marks`, whatever the method."""

        def matches(self, scope: Any) -> tuple[Match, Any]:
            return super().matches(scope) if current().parts.of(TextMarks) is not None else (Match.NONE, {})

    async def keys(request: Request) -> JSONResponse:
        config, rules, headers = opened(request)
        document = remember(config, ("mark_keys",), rules.keys)
        return JSONResponse(document, headers={**headers, "cache-control": "max-age=3600"})

    async def check(request: Request) -> JSONResponse:
        nonlocal reading
        config, rules, headers = opened(request)
        checks.count(caller_address(config, headers_of(request.scope)), problem=_TOO_MANY)
        if reading >= _MOST_AT_ONCE:
            message = "too many marks are being checked: repeat the request later"
            raise ApiError("overloaded", message, retry_after_s=1)
        reading += 1
        try:
            mark, text, sha256 = _read(await read_object(request.receive, _MOST_BODY_BYTES))
        finally:
            reading -= 1
        return JSONResponse(rules.check(mark, text, sha256), headers=headers)

    def opened(request: Request) -> tuple[ConfigVersion, TextMarks, dict[str, str]]:
        """Return the config version, its marks and the headers of each answer. Raises ApiError."""
        config, headers = current(), headers_of(request.scope)
        request.state.response_headers = answered = {"x-request-id": request_id_of(headers)}
        rules = config.parts.of(TextMarks)
        if rules is None:
            raise ApiError("not_found", "this gateway signs no marks")
        if not serves_others(config):
            require_this_machine(config, headers)
        return config, rules, answered

    add: Any = app.router.add_api_route
    about = {"tags": ["marks"], "route_class_override": WhileMarks}
    add(KEYS_PATH, keys, methods=["GET"], summary="Get the public keys of signed marks", **about)
    add(
        CHECK_PATH,
        check,
        methods=["POST"],
        summary="Check the signed mark of a text",
        openapi_extra=json_body(_FIELDS, *_FIELDS),
        **about,
    )


def _read(body: dict[str, object]) -> tuple[str, str | None, str | None]:
    """Return the mark, and the text or the hash of a file, of a body. Raises ApiError."""
    if unknown := body.keys() - {"mark", "text", "sha256"}:
        raise ApiError("invalid_request", f"unknown field {min(unknown)[:40]!r}: send `mark` and `text`, or `sha256`")
    mark, text, sha256 = body.get("mark"), body.get("text"), body.get("sha256")
    if not isinstance(mark, str):
        raise ApiError("invalid_request", "`mark` must be a text: an entry of `x_gateway.labels[].marks`", "mark")
    if sha256 is not None and (text is not None or not isinstance(sha256, str) or not _HASH.fullmatch(sha256)):
        message = "`sha256` must be the SHA-256 of a file as 64 hexadecimal digits, in place of `text`"
        raise ApiError("invalid_request", message, "sha256")
    if sha256 is None and not isinstance(text, str):
        raise ApiError("invalid_request", "`text` must be a text: the answer as the client got it", "text")
    if len(mark.encode("utf-8", "surrogatepass")) > MOST_MARK_BYTES:
        raise ApiError("request_too_large", f"`mark` is larger than {MOST_MARK_BYTES // 1024} KB", "mark")
    return mark, text if isinstance(text, str) else None, sha256 if isinstance(sha256, str) else None
