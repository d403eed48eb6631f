"""The public paths of features. Each exists while the active config version has the part of its feature.

A request takes no key, and proves nothing that its body does not. Nothing of it is stored, logged or sent on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from gateway.policy.doors import PublicPath

_MOST_BODY_BYTES = 1024 * 1024
_MOST_AT_ONCE = 32
"""The requests of a path whose bodies are read at once in this process: at most 32 MB."""
STATUSES = {"GET": [403, 404], "POST": [400, 403, 404, 408, 413, 415, 429, 503]}
"""The statuses of errors by the method of a path."""


def add_feature_paths(app: FastAPI, paths: Sequence[PublicPath], current: Callable[[], ConfigVersion]) -> None:
    """Add the paths of features. `current` returns the active config version."""
    for path in paths:
        _add(app, path, current)


def _add(app: FastAPI, path: PublicPath, current: Callable[[], ConfigVersion]) -> None:
    asked, reading = FailedKeyLimiter(), 0

    class WhileThere(APIRoute):
        """A path that does not exist without the part, whatever the method."""

        def matches(self, scope: Any) -> tuple[Match, Any]:
            return super().matches(scope) if current().parts.of(path.part) is not None else (Match.NONE, {})

    async def get(request: Request) -> JSONResponse:
        config, part, headers = opened(request)
        document = remember(config, ("public path", path.path), lambda: path.answer(part, {}))
        return JSONResponse(document, headers={**headers, "cache-control": "max-age=3600"})

    async def post(request: Request) -> JSONResponse:
        nonlocal reading
        config, part, headers = opened(request)
        problem = f"too many {path.tag} were checked from this address"
        asked.count(caller_address(config, headers_of(request.scope)), problem=problem)
        if reading >= _MOST_AT_ONCE:
            message = f"too many {path.tag} are being checked: repeat the request later"
            raise ApiError("overloaded", message, retry_after_s=1)
        reading += 1
        try:
            body = await read_object(request.receive, _MOST_BODY_BYTES)
        finally:
            reading -= 1
        return JSONResponse(answer_of(path, part, body), headers=headers)

    def opened(request: Request) -> tuple[ConfigVersion, object, dict[str, str]]:
        """Return the config version, its part and the headers of each answer. Raises ApiError."""
        config, headers = current(), headers_of(request.scope)
        request.state.response_headers = answered = {"x-request-id": request_id_of(headers)}
        part: object | None = config.parts.of(path.part)
        if part is None:
            raise ApiError("not_found", f"this gateway has no {path.tag}")
        if not serves_others(config):
            require_this_machine(config, headers)
        return config, part, answered

    add: Any = app.router.add_api_route
    about: dict[str, Any] = {"summary": path.summary, "tags": [path.tag], "name": path.answer.__name__}
    if path.fields:
        about["openapi_extra"] = json_body(dict(path.fields), *path.fields)
    add(path.path, post if path.fields else get, methods=[path.method], route_class_override=WhileThere, **about)


def answer_of(path: PublicPath, part: object, body: Mapping[str, object]) -> dict[str, object]:
    """Return the answer to a body. Raises InvalidRequest, and ApiError for a field that is too large."""
    for name, most_bytes in path.most_bytes.items():
        if isinstance(text := body.get(name), str) and len(text.encode("utf-8", "surrogatepass")) > most_bytes:
            raise ApiError("request_too_large", f"`{name}` is larger than {most_bytes // 1024} KB", name)
    return path.answer(part, body)
