"""The routes of the admin API for changes: the history, differences, the plan of a text, and schedules."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import JSONResponse, Response

from gateway.api.admin_clients import PATH, AdminRoutes, texts_of
from gateway.api.errors import ApiError
from gateway.api.openapi import json_body
from gateway.model.stored_client import Role
from gateway.service.client_admin import AdminRefused
from gateway.telemetry.metric_snapshots import requests_by_route

_MOST_ACTIVATIONS = 500
_MOST_TEXT_BYTES = 2 * 1024 * 1024
_MOST_NAME = 64


def add_change_routes(app: FastAPI, routes: AdminRoutes) -> None:
    """Add the routes of changes below `/v1/admin`."""
    router = APIRouter(prefix=PATH, tags=["changes"])
    control = routes.control

    @router.get("/history", summary="List the activations, newest first", dependencies=routes.requires(Role.VIEWER))
    async def history(limit: Annotated[int, Query(ge=1, le=_MOST_ACTIVATIONS)] = 50) -> Response:
        return JSONResponse(await control.review().history(limit))

    @router.get("/history/{name}", summary="Show a version", dependencies=routes.requires(Role.VIEWER))
    async def version(name: str) -> Response:
        return JSONResponse(await control.review().version(name))

    @router.get("/diff", summary="Compare two versions of the history", dependencies=routes.requires(Role.VIEWER))
    async def differences(
        before: Annotated[str, Query(max_length=_MOST_NAME)], after: Annotated[str, Query(max_length=_MOST_NAME)]
    ) -> Response:
        return JSONResponse(await control.review().differences(before, after))

    @router.post(
        "/plan",
        summary="Plan a text of a config file: what it would change, without a change",
        dependencies=routes.requires(Role.VIEWER),
        openapi_extra=json_body({"text": "the text of the whole config file"}, "text"),
    )
    async def plan(request: Request) -> Response:
        given = texts_of(await routes.read_body(request, _MOST_TEXT_BYTES), "text")
        if not given.get("text", "").strip():
            raise ApiError("invalid_request", "`text` is missing: the text of the whole config file", "text")
        traffic = requests_by_route(await control.snapshots())
        return JSONResponse(await control.review().plan(given["text"].encode("utf-8", "replace"), traffic))

    @router.post(
        "/schedules/stop",
        summary="Stop a canary schedule: its candidate gets no more users",
        dependencies=routes.requires(Role.OPERATOR),
        openapi_extra=json_body({"assistant": "the assistant", "region": "the region"}, "assistant", "region"),
    )
    async def stop_schedule(request: Request) -> Response:
        given = texts_of(await routes.read_body(request), "assistant", "region")
        assistant, region = given.get("assistant", ""), given.get("region", "")
        if not await control.stop_schedule(assistant, region, routes.operator(request)):
            message = f"no schedule of {assistant[:80]!r} runs in the region {region[:80]!r}"
            raise AdminRefused(404, "schedule_not_found", message)
        return JSONResponse({"assistant": assistant, "region": region, "phase": "rolled_back"})

    @router.post(
        "/deployments/resume",
        summary="Use a deployment again that is in a cooldown or has an open breaker, at this instance",
        dependencies=routes.requires(Role.OPERATOR),
        openapi_extra=json_body({"deployment": "the deployment"}, "deployment"),
    )
    async def resume(request: Request) -> Response:
        name = texts_of(await routes.read_body(request), "deployment").get("deployment", "")
        if not await control.resume(name, routes.operator(request)):
            raise AdminRefused(404, "deployment_in_use", f"no deployment {name[:80]!r} is out of use here")
        return JSONResponse({"deployment": name})

    app.include_router(router)
