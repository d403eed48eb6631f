"""The routes of the admin listener in one table, and their application.

The OpenAPI document, the pages of the admin API and of rights, and the answer to a path that does not exist follow from
the table.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from inspect import getdoc
from typing import Any

from fastapi import FastAPI, Request, Security
from fastapi.openapi.models import HTTPBearer
from fastapi.responses import JSONResponse, Response
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.routing import Route

from gateway import __version__
from gateway.api import admin_clients as clients
from gateway.api import admin_config as config
from gateway.api.admin_control import Control
from gateway.api.admin_guard import Guard
from gateway.api.admin_request import Asked, refusal_response
from gateway.api.errors import ApiError
from gateway.api.public_routes import NO_TELEMETRY, add_errors
from gateway.api.raw_responses import Probe
from gateway.model.stored_client import Role
from gateway.operator_errors import StateError
from gateway.service.admin_operations import OPERATIONS
from gateway.service.client_admin import AdminRefused
from providers.value import Value

PATH = "/v1/admin"


class AdminRoute(Value, frozen=True):
    """A route of the admin listener, and the weakest role that may call it.

    FastAPI reads the query from the parameters of `answer`, and the document from its text. `tag` is its group in the
    document, or empty for a route that is not there. `extra` has a body, or the parameters of an action.
    """

    method: str
    path: str
    role: Role
    answer: Callable[..., Awaitable[Response]]
    tag: str = ""
    extra: dict[str, Any] | None = None


async def _document(asked: Asked) -> Response:
    return JSONResponse(asked.request.app.openapi())


def _of_actions() -> Iterable[AdminRoute]:
    """Yield the routes of the actions on clients, keys, projects, budgets, tokens and end users."""
    for it in OPERATIONS:
        tag = it.path.split("/")[1]
        yield AdminRoute(it.method, PATH + it.path, Role(it.role), clients.answer_to(it), tag, clients.described(it))


ROUTES = (
    AdminRoute("GET", "/status", Role.VIEWER, config.show_status, "config"),
    AdminRoute("GET", "/explain", Role.VIEWER, config.explain_request, "config"),
    AdminRoute("GET", "/territories", Role.VIEWER, config.show_territories, "config"),
    AdminRoute("GET", "/requests", Role.VIEWER, config.list_requests, "config"),
    AdminRoute("GET", "/events", Role.VIEWER, config.send_events),
    AdminRoute("GET", "/faults", Role.VIEWER, config.list_faults, "config"),
    AdminRoute("PUT", "/faults", Role.OPERATOR, config.set_fault, "config"),
    AdminRoute("DELETE", "/faults", Role.OPERATOR, config.clear_faults, "config"),
    AdminRoute("GET", "/clock", Role.VIEWER, config.show_clock, "config"),
    AdminRoute("PUT", "/clock", Role.OPERATOR, config.move_clock, "config"),
    AdminRoute("POST", "/drain", Role.OPERATOR, config.drain, "config"),
    AdminRoute("POST", "/reload", Role.OPERATOR, config.reload, "config"),
    AdminRoute("POST", "/rollback", Role.OPERATOR, config.roll_back, "config"),
    AdminRoute("GET", f"{PATH}/receipts/{{id}}", Role.VIEWER, config.find_receipts_of, "config"),
    AdminRoute("GET", f"{PATH}/deployments", Role.VIEWER, config.list_deployments, "config"),
    AdminRoute("GET", f"{PATH}/history", Role.VIEWER, config.list_history, "changes"),
    AdminRoute("GET", f"{PATH}/history/{{name}}", Role.VIEWER, config.show_version, "changes"),
    AdminRoute("GET", f"{PATH}/diff", Role.VIEWER, config.compare, "changes"),
    AdminRoute("POST", f"{PATH}/plan", Role.VIEWER, config.plan, "changes", config.PLAN_BODY),
    AdminRoute("POST", f"{PATH}/schedules/stop", Role.OPERATOR, config.stop_schedule, "changes", config.STOP_BODY),
    AdminRoute("POST", f"{PATH}/deployments/resume", Role.OPERATOR, config.resume, "changes", config.RESUME_BODY),
    *_of_actions(),
    AdminRoute("GET", f"{PATH}/usage", Role.VIEWER, clients.report_usage, "usage"),
    AdminRoute("GET", f"{PATH}/usage/rows", Role.VIEWER, clients.send_rows, "usage"),
    AdminRoute("GET", f"{PATH}/duties", Role.VIEWER, clients.report_duties, "usage"),
    AdminRoute("GET", f"{PATH}/openapi.json", Role.VIEWER, _document),
)
"""All routes of the admin listener but the probes, in the order of the pages."""


def build_admin_routes(control: Control, guard: Guard, probes: Mapping[str, Probe]) -> FastAPI:
    """Return the FastAPI application, which includes the probes."""
    app = FastAPI(
        title="Assistant gateway: admin API",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
    )
    app.state.control = control
    outside = [it.path for it in ROUTES if not it.path.startswith(PATH)]
    own_paths = dict.fromkeys(["/healthz", "/readyz", "/metrics", *outside])
    hint = f"the paths are {', '.join(own_paths)}, and those of the admin API, which GET {PATH}/openapi.json lists"
    add_errors(app, lambda _: hint)
    for refusal in (AdminRefused, StateError):
        app.add_exception_handler(refusal, refusal_response)
    app.router.routes += [Route(path, probe) for path, probe in probes.items()]
    access = _Access(guard)
    for route in ROUTES:
        app.add_api_route(
            route.path,
            route.answer,
            methods=[route.method],
            dependencies=[Security(access, scopes=[route.role.value])],
            tags=[route.tag],
            summary=getdoc(route.answer),
            openapi_extra=route.extra,
            include_in_schema=bool(route.tag),
        )
    return app


class _Access(SecurityBase):
    """The dependency of every route: the document of the API has the needed role as the scope of its security."""

    def __init__(self, guard: Guard) -> None:
        self.model = HTTPBearer()
        self.scheme_name = "token"
        self._guard = guard

    async def __call__(self, request: Request, needed: SecurityScopes) -> None:
        request.state.identity = await self._guard.check(request.scope, Role(needed.scopes[0]))
        if request.method == "GET" and request.query_params and request.url.path.startswith(PATH):
            # A report without its filter would be another one.
            route = request.scope["route"]
            described = (route.openapi_extra or {}).get("parameters", ())
            known = [
                *(it.alias for it in route.dependant.query_params),
                *(it["name"] for it in described if it["in"] == "query"),
            ]
            for name in request.query_params:
                if name not in known:
                    message = f"unknown parameter {name!r}: the parameters are {', '.join(known) or 'none'}"
                    raise ApiError("invalid_request", message, name)
