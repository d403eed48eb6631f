"""The FastAPI routes of the admin listener: reload, rollback and explain."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, FastAPI, Query, Request, Security, params
from fastapi.openapi.models import HTTPBearer
from fastapi.responses import JSONResponse, Response
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.routing import Route

from gateway import __version__
from gateway.api.admin_changes import add_change_routes
from gateway.api.admin_clients import AdminRoutes, add_client_routes, refusal_response, texts_of
from gateway.api.admin_control import Control, answers_report, fault_report, reload_report
from gateway.api.admin_deployments import deployments_document
from gateway.api.admin_explain import explain_document, explained_asker, territories_document
from gateway.api.admin_guard import Guard, Identity
from gateway.api.admin_status import status_document
from gateway.api.body import SMALL_OBJECT_BYTES, read_object
from gateway.api.errors import ApiError
from gateway.api.event_stream import EventStream
from gateway.api.public_routes import NO_TELEMETRY, add_errors
from gateway.api.raw_responses import Probe
from gateway.model.status import OPERATOR_HEADER, Reload, Who
from gateway.model.stored_client import Role
from gateway.operator_errors import StateError
from gateway.service.client_admin import AdminRefused, ClientAdmin, Json
from gateway.state.receipts import find_receipts
from providers.value import Value

_CONFLICT = 409
_MAX_NAME_CHARACTERS = 120
_MAX_FAULT_CHARACTERS = 200
_MOST_AHEAD_S = 30 * 86_400
_PATHS = (
    "the paths are /healthz, /readyz, /metrics, /status, /explain, /territories, /requests, /events, /faults, /clock, "
    "/drain, /reload, /rollback, and those of the admin API, which GET /v1/admin/openapi.json lists"
)
_ROLLBACK_FIELDS = {"version": 64, "signature": 16_384}
"""The fields of a rollback, and how many characters each may have."""


def build_admin_routes(control: Control, guard: Guard, probes: Mapping[str, Probe]) -> FastAPI:
    """Return the FastAPI application, which includes the probes."""

    access = _Access(guard)

    def requires(role: Role) -> list[params.Depends]:
        return [Security(access, scopes=[role.value])]

    app = FastAPI(
        title="Assistant gateway: admin API",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
    )
    add_errors(app, lambda _: _PATHS)
    for refusal in (AdminRefused, StateError):
        app.add_exception_handler(refusal, refusal_response)
    app.router.routes += [Route(path, probe) for path, probe in probes.items()]
    app.router.routes.append(Route("/events", EventStream(control, guard)))
    routes = AdminRoutes(control, requires, _read_body, _operator)
    app.include_router(_Endpoints(routes).router())
    add_change_routes(app, routes)
    add_client_routes(app, routes)
    return app


class _Access(SecurityBase):
    """The dependency of every route: the document of the API has the needed role as the scope of its security."""

    def __init__(self, guard: Guard) -> None:
        self.model = HTTPBearer()
        self.scheme_name = "token"
        self._guard = guard

    async def __call__(self, request: Request, needed: SecurityScopes) -> None:
        request.state.identity = await self._guard.check(request.scope, Role(needed.scopes[0]))


class _Endpoints:
    """The functions that answer. FastAPI takes their names, parameters and docstrings into the document of the API."""

    def __init__(self, routes: AdminRoutes) -> None:
        self._routes = routes
        self._control = routes.control

    def router(self) -> APIRouter:
        """Return the routes, each with the role that it needs."""
        router = APIRouter(tags=["config"])
        for method, path, role, endpoint in (
            ("GET", "/status", Role.VIEWER, self.status_of_all),
            ("POST", "/drain", Role.OPERATOR, self.drain),
            ("POST", "/reload", Role.OPERATOR, self.reload),
            ("POST", "/rollback", Role.OPERATOR, self.rollback),
            ("GET", "/explain", Role.VIEWER, self.explain_request),
            ("GET", "/territories", Role.VIEWER, self.territories),
            ("GET", "/requests", Role.VIEWER, self.requests),
            ("GET", "/v1/admin/receipts/{id}", Role.VIEWER, self.receipts),
            ("GET", "/v1/admin/deployments", Role.VIEWER, self.deployments),
            ("GET", "/faults", Role.VIEWER, self.faults),
            ("PUT", "/faults", Role.OPERATOR, self.set_fault),
            ("DELETE", "/faults", Role.OPERATOR, self.clear_faults),
            ("GET", "/clock", Role.VIEWER, self.clock),
            ("PUT", "/clock", Role.OPERATOR, self.move_clock),
        ):
            router.add_api_route(path, endpoint, methods=[method], dependencies=self._routes.requires(role))
        return router

    async def status_of_all(self) -> JSONResponse:
        """Show the document of `gateway status --json`"""
        overview, status = await self._control.overview(), await self._control.status()
        # This decides for every region, which takes too long for the event loop.
        return JSONResponse(await asyncio.to_thread(status_document, status, overview))

    async def drain(self) -> JSONResponse:
        """Begin the end of traffic"""
        return JSONResponse({"status": "draining", "delay_s": self._control.drain()})

    async def reload(self, request: Request) -> JSONResponse:
        """Reload the config file"""
        done = await self._control.reload(_operator(request))
        if done.is_pinned:
            return JSONResponse({**_pinned_error(done.pinned), **reload_report(done)}, _CONFLICT)
        return JSONResponse({**reload_report(done), "scope": done.scope}, _status_of(done))

    async def rollback(self, request: Request) -> JSONResponse:
        """Activate and pin a version of the history, or release it"""
        wanted = _rollback_request(await read_object(request.receive))
        if wanted.release:
            done = await self._control.release(_operator(request), wanted.signature)
        else:
            done = await self._control.rollback(wanted.version, _operator(request), wanted.signature)
        status = await self._control.status()
        answers = await asyncio.to_thread(answers_report, status) if done.activated else []
        extra = {
            "file_active": status.file_is_active,
            "pinned": status.pinned or None,
            "missing": done.missing,
            "scope": done.scope,
            "answers": answers,
        }
        return JSONResponse({**reload_report(done), **extra}, _status_of(done))

    async def explain_request(
        self,
        assistant: Annotated[str | None, Query()] = None,
        territory: Annotated[str | None, Query()] = None,
        client: Annotated[str | None, Query()] = None,
        user: Annotated[str | None, Query()] = None,
        intent: Annotated[str | None, Query()] = None,
        prefer: Annotated[str | None, Query()] = None,
        age_band: Annotated[str | None, Query()] = None,
    ) -> JSONResponse:
        """Explain which deployments would answer a request, and why"""
        status = await self._control.status()
        if asker := explained_asker(status.config, client, user):
            status = await self._control.status(asker)
        return JSONResponse(explain_document(status, assistant, territory, client, user, (intent, prefer, age_band)))

    async def territories(self, assistant: Annotated[str | None, Query()] = None) -> JSONResponse:
        """Show for each territory which deployments answer, or the refusal"""
        status = await self._control.status()
        # This decides for every territory, which takes too long for the event loop.
        return JSONResponse(await asyncio.to_thread(territories_document, status.config, assistant, status.at_s))

    async def requests(
        self,
        id: Annotated[str | None, Query()] = None,
        region: Annotated[str | None, Query()] = None,
        deployment: Annotated[str | None, Query()] = None,
        client: Annotated[str | None, Query()] = None,
        outcome: Annotated[str | None, Query()] = None,
    ) -> JSONResponse:
        """Show the last finished requests, without prompts and answers"""
        wanted = {"request_id": id, "region": region, "deployment": deployment, "client": client, "outcome": outcome}
        expected = {name: value for name, value in wanted.items() if value is not None}
        documents = await self._control.requests()
        return JSONResponse(
            {"requests": [one for one in documents if all(one[name] == value for name, value in expected.items())]}
        )

    async def receipts(self, request: Request, id: str) -> Response:  # the name in the path
        """Show the stored receipts of a request"""

        def search(admin: ClientAdmin) -> Json:
            return {"receipts": find_receipts(admin.directory, id)}

        return await self._routes.run(request, "receipts", search)

    async def deployments(self) -> JSONResponse:
        """Show each deployment: breaker, calls, errors, latency, approvals, retirement, site; and each barrier"""
        status, snapshots = await self._control.status(), await self._control.snapshots()
        return JSONResponse(await asyncio.to_thread(deployments_document, status, snapshots))

    async def faults(self) -> JSONResponse:
        """Show the faults of simulated providers"""
        return JSONResponse({"sites": [*map(fault_report, await self._control.faults())]})

    async def set_fault(self, request: Request) -> JSONResponse:
        """Set or remove a fault of a simulated provider"""
        await self._control.set_fault(*fault_request(await read_object(request.receive)))
        return await self.faults()

    async def clear_faults(self) -> JSONResponse:
        """Remove all faults of simulated providers"""
        await self._control.clear_faults()
        return await self.faults()

    async def clock(self) -> JSONResponse:
        """Show the clock of a demo"""
        return JSONResponse({"ahead_s": await self._control.clock()})

    async def move_clock(self, request: Request) -> JSONResponse:
        """Move the clock of a demo"""
        match await read_object(request.receive):
            case {"ahead_s": int(ahead_s), **others} if not others and 0 <= ahead_s <= _MOST_AHEAD_S:
                return JSONResponse({"ahead_s": await self._control.clock(ahead_s)})
        message = f"send `ahead_s`, and nothing else: whole seconds from 0 to {_MOST_AHEAD_S}"
        raise ApiError("invalid_request", message, "ahead_s")


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


async def _read_body(request: Request, most_bytes: int = SMALL_OBJECT_BYTES) -> dict[str, object]:
    return await read_object(request.receive, most_bytes)


def fault_request(given: Mapping[str, object]) -> tuple[str, str]:
    """Return the deployment and the fault of a request that sets a fault; no fault is an empty text."""
    texts = texts_of(given, "deployment", "fault")
    if "deployment" not in texts:
        raise ApiError("invalid_request", "`deployment` must be the name of a simulated deployment", "deployment")
    fault = texts.get("fault", "")
    if len(fault) > _MAX_FAULT_CHARACTERS:
        message = f"`fault` must be a text of at most {_MAX_FAULT_CHARACTERS} characters, such as 429=2, or null"
        raise ApiError("invalid_request", message, "fault")
    return texts["deployment"], fault


class _RollbackRequest(Value, frozen=True):
    version: str | None
    signature: str | None
    release: bool


def _rollback_request(given: Mapping[str, object]) -> _RollbackRequest:
    """Return the fields of a rollback request.

    An unknown field is refused: a typing error in `version` would otherwise activate another version than was meant.
    """
    release = given.get("release", False)
    if not isinstance(release, bool):
        raise ApiError("invalid_request", "`release` must be true or false", "release")
    if release and given.get("version") is not None:
        raise ApiError("invalid_request", "`release` activates the config file: leave out `version`", "version")
    others = {name: value for name, value in given.items() if name != "release"}
    texts = texts_of(others, *_ROLLBACK_FIELDS, "release")
    for name, text in texts.items():
        if len(text) > (max_characters := _ROLLBACK_FIELDS[name]):
            raise ApiError("invalid_request", f"`{name}` must have at most {max_characters} characters", name)
    return _RollbackRequest(texts.get("version"), texts.get("signature"), release)


def _operator(request: Request) -> Who:
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
    identity: Identity = request.state.identity
    by_token = f"(token {identity.token_id})" if identity.token_id else ""
    return Who(identity.who or " ".join(filter(None, [name, by_token])), identity.how)
