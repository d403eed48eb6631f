"""The FastAPI routes of the admin listener: reload, rollback and explain."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Query, Request, params
from fastapi.responses import JSONResponse
from starlette.routing import Route

from gateway import __version__
from gateway.api.admin_clients import AdminRoutes, add_client_routes
from gateway.api.admin_control import Control, Guard, reload_report, unavailable_by_deployment
from gateway.api.body import parse_json
from gateway.api.errors import ApiError
from gateway.api.public_routes import NO_TELEMETRY, add_errors, named_assistant
from gateway.api.raw_responses import Probe
from gateway.model.config_version import Assistant, Client, ConfigVersion
from gateway.model.decision import Unavailable
from gateway.model.location import Reports
from gateway.model.status import OPERATOR_HEADER, Reload, Status, WorkerStatus
from gateway.model.stored_client import Role
from gateway.service.assistants import AssistantNotFound, assistants_of
from gateway.service.explain import PlainRequest, explain, reports_from
from providers.territories import TerritoryError

_CONFLICT = 409
_MAX_NAME_CHARACTERS = 120
_MAX_BODY_BYTES = 64 * 1024
_BODY_TIME_S = 10.0
_ROLLBACK_FIELDS = {"version": 64, "signature": 16_384}
"""The fields of a rollback, and how many characters each may have."""


def build_admin_routes(control: Control, guard: Guard, probes: Mapping[str, Probe]) -> FastAPI:
    """Return the FastAPI application, which includes the probes."""

    def requires(role: Role) -> list[params.Depends]:
        async def check_access(request: Request) -> None:
            request.state.token_id = guard.check(request.scope["headers"], role)

        return [Depends(check_access)]

    app = FastAPI(
        title="Assistant gateway: admin API",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
    )
    add_errors(
        app,
        lambda _: (
            "the paths are /healthz, /readyz, /metrics, /explain, /reload, /rollback, and those of the admin API, "
            "which GET /v1/admin/openapi.json lists"
        ),
    )
    app.router.routes += [Route(path, probe) for path, probe in probes.items()]
    guarded = APIRouter(tags=["config"])

    @guarded.post("/reload", dependencies=requires(Role.OPERATOR))
    async def reload(request: Request) -> JSONResponse:
        done = await control.reload(_operator(request))
        if done.is_pinned:
            return JSONResponse({**_pinned_error(done.pinned), **reload_report(done)}, _CONFLICT)
        return JSONResponse(reload_report(done), _status_of(done))

    @guarded.post("/rollback", dependencies=requires(Role.OPERATOR))
    async def rollback(request: Request) -> JSONResponse:
        wanted = _rollback_request(await _read_object(request))
        if wanted.release:
            done = await control.release(_operator(request), wanted.signature)
        else:
            done = await control.rollback(wanted.version, _operator(request), wanted.signature)
        status = await control.status()
        extra = {"file_active": status.file_is_active, "pinned": status.pinned or None, "missing": done.missing}
        return JSONResponse({**reload_report(done), **extra}, _status_of(done))

    @guarded.get("/explain", dependencies=requires(Role.VIEWER))
    async def explain_request(
        assistant: Annotated[str | None, Query()] = None,
        territory: Annotated[str | None, Query()] = None,
        client: Annotated[str | None, Query()] = None,
        user: Annotated[str | None, Query()] = None,
    ) -> JSONResponse:
        return JSONResponse(_explain(await control.status(), assistant, territory, client, user))

    app.include_router(guarded)
    add_client_routes(app, AdminRoutes(control, requires, _read_object, _operator))
    return app


def _pinned_error(version: str) -> dict[str, object]:
    """Return the error of a reload while a version is pinned. Clients of the public listener never get this code."""
    message = f"version {version} is pinned by a rollback: `gateway rollback --release` activates the config file"
    kind = "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": "rollback_pinned"}}


def _status_of(done: Reload) -> int:
    """Return the HTTP status: 422 for a config that its author must fix, 503 if another attempt can succeed."""
    if done.activated:
        return 200
    return 503 if done.retriable else 422


async def _read_object(request: Request) -> dict[str, object]:
    """Return the JSON object in the body; an empty one if there is no body.

    FastAPI would read a body of any size, at any speed, before the access check.
    """
    data = b""
    try:
        async with asyncio.timeout(_BODY_TIME_S):
            is_whole = False
            while not is_whole:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ApiError("invalid_request", "the connection was closed before the body was complete")
                data += message.get("body", b"")
                is_whole = not message.get("more_body", False)
                if len(data) > _MAX_BODY_BYTES:
                    raise ApiError("request_too_large", f"the body is larger than {_MAX_BODY_BYTES // 1024} KB")
    except TimeoutError:
        raise ApiError("request_timeout", f"the body did not arrive within {_BODY_TIME_S:g} seconds") from None
    value = parse_json(data) if data else {}
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ApiError("invalid_request", "the body must be a JSON object, or empty")
    return value


@dataclass(frozen=True, slots=True)
class _RollbackRequest:
    version: str | None
    signature: str | None
    release: bool


def _rollback_request(given: Mapping[str, object]) -> _RollbackRequest:
    """Return the fields of a rollback request.

    An unknown field is refused: a typing error in `version` would otherwise activate another version than was meant.
    """
    fields: dict[str, str | None] = dict.fromkeys(_ROLLBACK_FIELDS)
    release = given.get("release", False)
    if not isinstance(release, bool):
        raise ApiError("invalid_request", "`release` must be true or false", "release")
    if release and given.get("version") is not None:
        raise ApiError("invalid_request", "`release` activates the config file: leave out `version`", "version")
    for name, value in given.items():
        if name == "release":
            continue
        max_characters = _ROLLBACK_FIELDS.get(name)
        if max_characters is None:
            raise ApiError("invalid_request", "unknown field: a rollback has only `version`, `signature` and `release`")
        if value is not None and not isinstance(value, str):
            raise ApiError("invalid_request", f"`{name}` must be a string", name)
        if len(value or "") > max_characters:
            raise ApiError("invalid_request", f"`{name}` must have at most {max_characters} characters", name)
        fields[name] = value
    return _RollbackRequest(fields["version"], fields["signature"], release)


def _operator(request: Request) -> str:
    """Return the name that the caller gives itself, and the id of its admin token, for the audit trail.

    The name is not verified and gives no access. The id is verified.
    """
    name = request.headers.get(OPERATOR_HEADER, "")
    with suppress(UnicodeDecodeError):
        # Names are in UTF-8, and the framework reads headers as Latin-1, which keeps every byte.
        name = name.encode("latin-1").decode()
    if len(name) > _MAX_NAME_CHARACTERS or not name.isprintable():
        message = f"`{OPERATOR_HEADER}` must be at most {_MAX_NAME_CHARACTERS} printable characters"
        raise ApiError("invalid_request", message)
    token_id = request.state.token_id
    return " ".join(filter(None, [name, f"(token {token_id})" if token_id else ""]))


def _explain(
    status: Status, assistant: str | None, territory: str | None, client: str | None, user: str | None
) -> dict[str, object]:
    config = status.config
    caller = _client(config, client)
    named = _assistant(config, caller, assistant)
    # A deployment that only some workers skip is still used by the others.
    everywhere = _unavailable_everywhere(status.workers)
    explained = explain(PlainRequest(config, caller, _reports(territory), named, status.at_s, everywhere, user))
    unavailable = {
        "benched": unavailable_by_deployment(status.workers, by_breaker=False),
        "breakers": unavailable_by_deployment(status.workers, by_breaker=True),
    }
    return {**explained, "client": client, **unavailable}


def _client(config: ConfigVersion, name: str | None) -> Client | None:
    if name is None:
        return None
    match = next((client for client in config.clients.values() if client.name == name), None)
    if match is None:
        known = ", ".join(sorted({client.name for client in config.clients.values()})) or "none"
        raise ApiError("invalid_request", f"there is no client with this name; the clients are: {known}", "client")
    return match


def _assistant(config: ConfigVersion, caller: Client | None, name: str | None) -> Assistant:
    """Return the assistant as `named_assistant` does. The error lists the names: operators have no `GET /v1/models`."""
    try:
        return named_assistant(config, caller, name)
    except AssistantNotFound as error:
        known = ", ".join(sorted({one.name for one in assistants_of(config, caller).values()}))
        hint = error.question or f"the assistants are: {known or 'none'}"
        scope = f" for the client {caller.name!r}" if caller is not None else ""
        raise ApiError("model_not_found", f"there is no assistant with this name{scope}; {hint}", "assistant") from None


def _reports(territory: str | None) -> Reports:
    try:
        return reports_from(territory) if territory is not None else Reports()
    except TerritoryError as error:
        raise ApiError("invalid_request", str(error), "territory") from None


def _unavailable_everywhere(workers: tuple[WorkerStatus, ...]) -> Mapping[str, Unavailable]:
    """Return the deployments that are unavailable in every worker that answers."""
    maps = [worker.unavailable for worker in workers if worker.answers]
    if not maps:
        return {}
    return {name: reason for name, reason in maps[0].items() if all(name in other for other in maps)}
