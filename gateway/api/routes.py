"""Everything but the hot path, as FastAPI: models, explain, health, docs, and the chat endpoint's place in OpenAPI.

The errors of these routes have the same envelope as those of the chat endpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.routing import Route

from gateway.api.chat import ChatEndpoint
from gateway.api.door import Visitor, address_of, authenticate, claims_of, headers_of, request_id_of, sighting_of
from gateway.api.errors import ApiError, encode_error, from_domain, whole_seconds
from gateway.api.openapi import CHAT_OPERATION
from gateway.model.table import Client, Table
from gateway.policy.location import Sighting, resolve
from gateway.service.explain import explain
from gateway.service.journey import AssistantNotFound, Journeys, assistants_of, find_assistant

__all__ = ["CHAT_PATH", "build_routes"]

CHAT_PATH = "/v1/chat/completions"


def build_routes(journeys: Journeys, chat: ChatEndpoint, is_ready: Callable[[], bool], version: str) -> FastAPI:
    """The FastAPI application."""
    # FastAPI's own /docs loads its page from a CDN: here it is served from the package, with no network.
    app = FastAPIOffline(
        title="Assistant gateway",
        version=version,
        summary="One chat endpoint, answered by region.",
        redirect_slashes=False,
    )
    app.router.routes.append(Route(CHAT_PATH, chat, methods=["POST"]))
    _add_health(app, is_ready)
    _add_models(app, journeys)
    _add_explain(app, journeys)
    _add_errors(app)
    _document_chat(app)
    return app


def _visit(request: Request, journeys: Journeys) -> tuple[Table, Visitor, Client | None]:
    table = journeys.current()
    visitor = headers_of(request.scope)
    request.state.request_id = request_id_of(visitor)
    return table, visitor, authenticate(table, visitor)


async def _sighted(table: Table, visitor: Visitor, journeys: Journeys) -> Sighting:
    sighting = sighting_of(table, visitor)
    if not table.location.beyond_headers:
        return sighting
    return await journeys.signals.complete(table.location, sighting, claims_of(visitor), address_of(table, visitor))


def _add_health(app: FastAPI, is_ready: Callable[[], bool]) -> None:
    @app.get("/healthz", tags=["health"], summary="Is the process alive?")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", tags=["health"], summary="Can it serve?", responses={503: {"description": "Not (yet)."}})
    async def readyz() -> Response:
        ready = is_ready()
        return JSONResponse({"status": "ready" if ready else "not ready"}, 200 if ready else 503)


def _add_models(app: FastAPI, journeys: Journeys) -> None:
    created = int(time.time())

    async def offered(request: Request) -> list[dict[str, object]]:
        table, visitor, client = _visit(request, journeys)
        location = resolve(table, client, await _sighted(table, visitor, journeys))
        region = location.region.name if location.region else None
        return [
            {"id": name, "object": "model", "created": created, "owned_by": "gateway"}
            for name, assistant in sorted(assistants_of(table, client).items())
            if region in assistant.routes
        ]

    @app.get("/v1/models", tags=["models"], summary="The assistants that this caller can ask, where it is")
    async def models(request: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": await offered(request)})

    @app.get("/v1/models/{name}", tags=["models"], summary="One of them")
    async def model(request: Request, name: str) -> JSONResponse:
        entry = next((entry for entry in await offered(request) if entry["id"] == name), None)
        if entry is None:
            raise AssistantNotFound(name, None)
        return JSONResponse(entry)


def _add_explain(app: FastAPI, journeys: Journeys) -> None:
    @app.get("/v1/explain", tags=["explain"], summary="Who would answer this caller, and why")
    async def explain_here(
        request: Request,
        assistant: Annotated[str | None, Query(description="A name; the only assistant, if there is one.")] = None,
    ) -> JSONResponse:
        table, visitor, client = _visit(request, journeys)
        names = sorted({found.name for found in assistants_of(table, client).values()})
        if assistant is None and len(names) != 1:
            raise ApiError("invalid_request", f"say which `assistant`: one of {', '.join(names)}", "assistant")
        found = find_assistant(table, client, assistant if assistant is not None else names[0])
        health = journeys.runner.health.snapshot()
        return JSONResponse(explain(table, client, await _sighted(table, visitor, journeys), found, health))


def _add_errors(app: FastAPI) -> None:
    def respond(request: Request, error: ApiError) -> JSONResponse:
        headers = {"x-request-id": getattr(request.state, "request_id", ""), **error.headers}
        if error.retry_after_s is not None:
            headers["retry-after"] = whole_seconds(error.retry_after_s)
        return JSONResponse(
            encode_error(error), error.status, {name: value for name, value in headers.items() if value}
        )

    async def on_domain(request: Request, error: Exception) -> JSONResponse:
        return respond(request, from_domain(error, []))

    async def on_http(request: Request, error: Exception) -> JSONResponse:
        status = error.status_code if isinstance(error, HTTPException) else 500
        if status == 405:
            allowed = (error.headers or {}).get("Allow", "") if isinstance(error, HTTPException) else ""
            message = f"{request.method} is not allowed here" + (f"; use {allowed}" if allowed else "")
            return respond(request, ApiError("method_not_allowed", message, headers={"allow": allowed}))
        if status == 404:
            return respond(request, ApiError("not_found", "there is nothing at this path; the API is under /v1/"))
        return respond(request, ApiError("invalid_request", str(getattr(error, "detail", error))))

    async def on_validation(request: Request, error: Exception) -> JSONResponse:
        first: Any = error.errors()[0] if isinstance(error, RequestValidationError) else {}
        place = ".".join(str(part) for part in first.get("loc", ())[1:]) or None
        return respond(request, ApiError("invalid_request", str(first.get("msg", "invalid request")), place))

    app.add_exception_handler(ApiError, on_domain)
    app.add_exception_handler(AssistantNotFound, on_domain)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(Exception, on_domain)


def _document_chat(app: FastAPI) -> None:
    """Put the chat endpoint, which FastAPI only delegates to, first in the OpenAPI document; our errors are no 422."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        if CHAT_PATH not in document["paths"]:
            document["paths"] = {CHAT_PATH: {"post": CHAT_OPERATION}, **document["paths"]}
            document.pop("components", None)
            for operations in document["paths"].values():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document
