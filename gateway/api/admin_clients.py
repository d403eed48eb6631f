"""The routes of the admin API for clients, keys, projects, admin tokens and usage reports, below `/v1/admin`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import date
from itertools import islice
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from gateway.api.admin_control import Control
from gateway.api.errors import ApiError
from gateway.api.openapi import json_body
from gateway.config.problems import choice_hint, quoted
from gateway.model.status import ROWS_DELETED_HEADER
from gateway.model.stored_client import Role, facts_of
from gateway.operator_errors import NotStored
from gateway.service.admin_operations import OPERATIONS, Operation
from gateway.service.client_admin import AdminRefused, ClientAdmin, FileClients, InvalidFields, Json, clients_in_file
from gateway.usage.duty_counts import Period, report_rows
from gateway.usage.installation import counted_regions, duty_sums, usage_reader
from gateway.usage.reports import DIMENSIONS, UsageQuery, UsageReader
from gateway.usage.usage_row import json_line
from providers.value import Value

PATH = "/v1/admin"
_MONTH = r"^[0-9]{4}-(0[1-9]|1[0-2])$"
_ASSISTANT = "only the calls for this assistant; empty: only those without one"
_FirstDay = Annotated[date | None, Query(alias="from", description="the first day, in place of `month`")]
_LastDay = Annotated[date | None, Query(alias="to", description="the last day, in place of `month`")]
_ROWS_AT_ONCE = 500
_IN_DATABASE = {it.command for it in OPERATIONS if it.group in ("keys", "clients", "projects") and not it.of_file}
"""The operations on clients that need `clients_source: database`."""


class ReadBody(Protocol):
    """Reads the JSON object of a request."""

    def __call__(self, request: Request, most_bytes: int = ...) -> Awaitable[dict[str, object]]:
        """Return the object in the body. Raises ApiError."""


class AdminRoutes(Value, frozen=True):
    """The functions that the routes share.

    Attributes:
        requires: Returns the dependencies of a route that needs a role.
        read_body: Reads the JSON object of a request.
        operator: Returns the name of the sender, for the audit trail.
    """

    control: Control
    requires: Callable[[Role], Any]
    read_body: ReadBody
    operator: Callable[[Request], str]

    async def run(self, request: Request, action: str, work: Callable[[ClientAdmin], Json | Response]) -> Response:
        """Run an action in a thread, and answer with its result."""
        admin = self.control.client_admin(self.operator(request))
        if admin is None:
            config = (await self.control.status()).config
            if config.clients_source == "file" and action in _IN_DATABASE:
                raise clients_in_file(action, "NAME", facts_of(config))
            raise AdminRefused(409, "no_state_directory", "there is no state directory: set GATEWAY_STATE_DIR")
        try:
            result = await asyncio.to_thread(work, admin)
        except InvalidFields as error:
            raise ApiError("invalid_request", str(error)) from None
        return result if isinstance(result, Response) else JSONResponse(result)

    async def show(self, request: Request, action: str, work: Callable[[ClientAdmin | FileClients], Json]) -> Response:
        """Answer with stored clients, or with the clients of the config file."""
        config = (await self.control.status()).config
        if config.clients_source != "file":
            return await self.run(request, action, work)
        return JSONResponse(work(FileClients(config)))


async def refusal_response(_: Request, error: Exception) -> JSONResponse:
    """Return a refusal in the envelope of all errors. Its codes are of the admin API alone."""
    match error:
        case AdminRefused():
            refused = error
        case NotStored():
            refused = AdminRefused(404, "version_not_found", str(error))
        case _:
            refused = AdminRefused(503, "state_unavailable", str(error))
    kind = "api_error" if refused.status >= 500 else "invalid_request_error"
    shown = {"message": str(refused), "type": kind, "param": None, "code": refused.code, **refused.details}
    return JSONResponse({"error": shown}, refused.status)


def add_client_routes(app: FastAPI, routes: AdminRoutes) -> None:
    """Add all routes below `/v1/admin`, and the OpenAPI document."""
    router = APIRouter(prefix=PATH)
    for operation in OPERATIONS:
        router.add_api_route(
            operation.path,
            _endpoint(routes, operation),
            methods=[operation.method],
            tags=[operation.path.split("/")[1]],
            summary=operation.about[0].upper() + operation.about[1:],
            dependencies=routes.requires(Role(operation.role)),
            openapi_extra=_described(operation),
        )
    _add_usage(router, routes)
    _add_duties(router, routes)

    @router.get("/openapi.json", dependencies=routes.requires(Role.VIEWER), include_in_schema=False)
    async def openapi() -> Response:
        return JSONResponse(app.openapi())

    app.include_router(router)


def _endpoint(routes: AdminRoutes, operation: Operation) -> Callable[[Request], Awaitable[Response]]:
    """Return the function that answers the requests for an operation."""

    async def answer(request: Request) -> Response:
        given = await _given(routes, request, operation)
        if operation.shows_file:
            return await routes.show(request, operation.command, lambda admin: operation.run(admin, given))
        if operation.group == "budgets" and given.get("user") is not None:
            _expect_admin(request, "a budget of an end user")
        config = (await routes.control.status()).config if operation.uses_config else None
        return await routes.run(
            request, operation.command, lambda admin: operation.run(operation.on(admin, config), given)
        )

    answer.__name__ = operation.command.replace(" ", "_").replace("-", "_")
    return answer


async def _given(routes: AdminRoutes, request: Request, operation: Operation) -> dict[str, Any]:
    """Return the fields of a request: in its path, its query or its body. Raises ApiError."""
    given: dict[str, Any] = dict(request.path_params)
    if operation.method == "GET":
        return {**{it.name: request.query_params.get(it.name) for it in operation.fields}, **given}
    body = await routes.read_body(request) if operation.method != "DELETE" else {}
    fields = [it for it in operation.fields if it.name not in given]
    texts = {it.name: body.pop(it.name, None) for it in fields} if operation.definition else body
    for it in fields:
        value = texts.get(it.name)
        if it.is_number_too and isinstance(value, int) and not isinstance(value, bool):
            texts[it.name] = str(value)
        if it.required and it.name != "per" and not isinstance(texts.get(it.name), str):
            problem = "is missing" if value is None else "must be a string"
            raise ApiError("invalid_request", f"`{it.name}` {problem}: {it.about}", it.name)
    given |= texts_of(texts, *(it.name for it in fields))
    for it in fields:
        if it.choices and it.name != "per" and given.get(it.name) not in it.choices:
            raise ApiError("invalid_request", f"`{it.name}` must be one of {', '.join(it.choices)}", it.name)
    if operation.definition:
        is_new = operation.method == "POST"
        given["definition"] = {name: value for name, value in body.items() if value is not None or not is_new}
    return given


def _described(operation: Operation) -> dict[str, Any]:
    """Return the parameters and the body of an operation for the OpenAPI document."""
    places = {name: "path" for name in ("id", "name") if f"{{{name}}}" in operation.path}
    if operation.method == "GET":
        places = {it.name: places.get(it.name, "query") for it in operation.fields}
    parameters = [
        {
            "name": it.name,
            "in": places[it.name],
            "required": places[it.name] == "path",
            "description": it.about,
            "schema": {"type": "string"},
        }
        for it in operation.fields
        if it.name in places
    ]
    inside = [it for it in operation.fields if it.name not in places]
    has_body = operation.method in ("POST", "PATCH") and (inside or operation.definition)
    body = json_body({it.name: it.about for it in inside}, *(it.name for it in inside if it.required))
    return {"parameters": parameters, **(body if has_body else {})}


def _expect_admin(request: Request, subject: str) -> None:
    """Raise ApiError unless the sender has the role `admin`: no other role sees end users, also as pseudonyms."""
    role: Role = request.state.identity.role
    if role is not Role.ADMIN:
        raise ApiError("permission_denied", f"{subject} needs the role `admin`, and you have the role `{role}`")


def _add_usage(router: APIRouter, routes: AdminRoutes) -> None:
    @router.get(
        "/usage",
        tags=["usage"],
        summary="Report a month or days, in the form of `gateway usage --json`, with the period and `timezone`",
        dependencies=routes.requires(Role.VIEWER),
    )
    async def usage(
        request: Request,
        by: Annotated[str, Query(description=", ".join(DIMENSIONS))] = "client",
        month: Annotated[str | None, Query(pattern=_MONTH)] = None,
        client: Annotated[str | None, Query()] = None,
        assistant: Annotated[str | None, Query(description=_ASSISTANT)] = None,
        first: _FirstDay = None,
        last: _LastDay = None,
    ) -> Response:
        names = tuple(name.strip() for name in by.split(","))
        if not set(names) <= set(DIMENSIONS) or len(set(names)) < len(names):
            raise ApiError("invalid_request", f"`by` has one or several of {', '.join(DIMENSIONS)}", "by")
        if "user" in names:
            _expect_admin(request, "a report by end user")
        days = _days(month, first, last)
        stores = (await routes.control.status()).config.stores

        def report(admin: ClientAdmin) -> Json:
            with usage_reader(stores, admin.directory) as reader:
                query, period = reader.period_query(month, days, names, client, assistant)
                return {**reader.report_data(query), **period}

        return await routes.run(request, "usage", report)

    @router.get(
        "/usage/rows",
        tags=["usage"],
        summary="Send the rows of a month or of days, oldest first, as the JSON lines of `gateway usage --rows --json`",
        dependencies=routes.requires(Role.VIEWER),
    )
    async def rows(
        request: Request,
        month: Annotated[str | None, Query(pattern=_MONTH)] = None,
        client: Annotated[str | None, Query()] = None,
        assistant: Annotated[str | None, Query(description=_ASSISTANT)] = None,
        request_id: Annotated[str | None, Query(description="only the calls of this request, of any month")] = None,
        first: _FirstDay = None,
        last: _LastDay = None,
    ) -> Response:
        days = _days(month, first, last)
        stores = (await routes.control.status()).config.stores
        shows_users = request.state.identity.role is Role.ADMIN

        def send(admin: ClientAdmin) -> Response:
            reader = usage_reader(stores, admin.directory)
            query = (
                reader.period_query(month, days, (), client, assistant)[0]
                if request_id is None
                else UsageQuery.of_request(request_id)
            )
            deleted = reader.deleted_through_in(query)
            return StreamingResponse(
                _row_lines(reader, query, shows_users=shows_users),
                headers={ROWS_DELETED_HEADER: deleted} if deleted is not None else {},
                media_type="application/x-ndjson",
            )

        return await routes.run(request, "usage", send)


def _add_duties(router: APIRouter, routes: AdminRoutes) -> None:
    @router.get(
        "/duties",
        tags=["usage"],
        summary="Report what was done for duties of time and crisis, in the form of `gateway duties report --json`",
        dependencies=routes.requires(Role.VIEWER),
    )
    async def duties(
        request: Request,
        first: Annotated[str, Query(alias="from", pattern=_MONTH, description="the first month, such as `2027-01`")],
        last: Annotated[str, Query(alias="to", pattern=_MONTH, description="the last month")],
        region: Annotated[str | None, Query(description="only this region")] = None,
        by: Annotated[Period, Query(description="the period of a row")] = "month",
        least: Annotated[int, Query(ge=0, description="show a smaller count above 0 as `<` and this number")] = 0,
    ) -> Response:
        if last < first:
            raise ApiError("invalid_request", "`to` is before `from`: name the first month in `from`", "to")
        config = (await routes.control.status()).config

        def report(admin: ClientAdmin) -> Json:
            sums = duty_sums(config.stores, admin.directory, (first, last))
            rows = report_rows(sums, by, region, least)
            if region is not None and not rows and region not in config.regions:
                known = config.regions.keys() | counted_regions(config.stores, admin.directory)
                if region not in known:
                    message = f"unknown region {quoted(region)}; {choice_hint(region, known)}"
                    raise ApiError("invalid_request", message, "region")
            return {"object": "duties.report", "rows": rows}

        return await routes.run(request, "duties", report)


def _days(month: str | None, first: date | None, last: date | None) -> tuple[date, date] | None:
    """Return the days that replace a month, or None. Raises ApiError."""
    if first is None and last is None:
        return None
    if first is None or last is None or month is not None:
        raise ApiError("invalid_request", "name a `month`, or the days `from` and `to`")
    if first > last:
        raise ApiError("invalid_request", f"`from` ({first}) is after `to` ({last}): exchange them", "from")
    return first, last


def _row_lines(reader: UsageReader, query: UsageQuery, *, shows_users: bool) -> Iterator[bytes]:
    """Yield rows as JSON lines, many in one piece."""
    with reader:
        rows = reader.rows(query)
        while lines := [json_line(row, shows_user=shows_users) for row in islice(rows, _ROWS_AT_ONCE)]:
            yield "".join(lines).encode()


def texts_of(given: Mapping[str, object], *allowed: str) -> dict[str, str]:
    """Return the members of a body that are not null. Unknown members are refused, so that no mistyped one is lost."""
    texts: dict[str, str] = {}
    for name, value in given.items():
        if name not in allowed:
            raise ApiError("invalid_request", f"unknown field {name[:40]!r}: the fields are {', '.join(allowed)}")
        if value is None:
            continue
        if not isinstance(value, str):
            raise ApiError("invalid_request", f"`{name}` must be a string", name)
        texts[name] = value
    return texts
