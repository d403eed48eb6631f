"""The routes of the admin API for clients, keys, projects, admin tokens and usage reports, below `/v1/admin`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from gateway.api.admin_control import Control
from gateway.api.errors import ApiError
from gateway.model.budget import Window
from gateway.model.status import ROWS_DELETED_HEADER
from gateway.model.stored_client import Role, facts_of
from gateway.operator_errors import StateError
from gateway.service.budget_admin import BudgetAdmin, BudgetOwner
from gateway.service.client_admin import (
    DEFAULT_GRACE,
    AdminRefused,
    ClientAdmin,
    FileClients,
    Json,
    KeyRequest,
    clients_in_file,
)
from gateway.state.client_store import Section
from gateway.usage.gate import CounterKind
from gateway.usage.installation import usage_reader
from gateway.usage.reports import APART, DIMENSIONS, UsageQuery, UsageReader, are_apart
from gateway.usage.usage_row import json_line

if TYPE_CHECKING:
    from gateway.usage.postgres_reader import PostgresUsageReader

PATH = "/v1/admin"
_MONTH = r"^[0-9]{4}-(0[1-9]|1[0-2])$"
_ASSISTANT = "only the calls for this assistant; empty: only those without one"
_ROWS_AT_ONCE = 500
_OF_CLIENTS = frozenset({"keys", "clients", "projects"})


class ReadBody(Protocol):
    """Reads the JSON object of a request."""

    def __call__(self, request: Request, most_bytes: int = ...) -> Awaitable[dict[str, object]]:
        """Return the object in the body. Raises ApiError."""
        ...


@dataclass(frozen=True, slots=True)
class AdminRoutes:
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
        try:
            if admin is None:
                config = (await self.control.status()).config
                if config.clients_source == "file" and action.partition(" ")[0] in _OF_CLIENTS:
                    raise clients_in_file(action, "NAME", facts_of(config))
                raise AdminRefused(409, "no_state_directory", "there is no state directory: set GATEWAY_STATE_DIR")
            result = await asyncio.to_thread(work, admin)
            return result if isinstance(result, Response) else JSONResponse(result)
        except AdminRefused as refused:
            return refusal_response(refused)
        except StateError as error:
            return refusal_response(AdminRefused(503, "state_unavailable", str(error)))

    async def show(self, request: Request, action: str, work: Callable[[ClientAdmin | FileClients], Json]) -> Response:
        """Answer with stored clients, or with those of the config file."""
        config = (await self.control.status()).config
        if config.clients_source != "file":
            return await self.run(request, action, work)
        try:
            return JSONResponse(work(FileClients(config)))
        except AdminRefused as refused:
            return refusal_response(refused)


def refusal_response(refused: AdminRefused) -> JSONResponse:
    """Return the error in the envelope of all errors. Its codes are of the admin API alone."""
    kind = "api_error" if refused.status >= 500 else "invalid_request_error"
    error = {"message": str(refused), "type": kind, "param": None, "code": refused.code, **refused.details}
    return JSONResponse({"error": error}, refused.status)


def add_client_routes(app: FastAPI, routes: AdminRoutes) -> None:
    """Add all routes below `/v1/admin`, and the OpenAPI document."""
    router = APIRouter(prefix=PATH)
    _add_keys(router, routes)
    _add_definitions(router, routes, "clients")
    _add_definitions(router, routes, "projects")
    _add_budgets(router, routes)
    _add_usage(router, routes)
    _add_tokens(router, routes)

    @router.get("/openapi.json", dependencies=routes.requires(Role.VIEWER), include_in_schema=False)
    async def openapi() -> Response:
        return JSONResponse(app.openapi())

    app.include_router(router)


def _add_keys(router: APIRouter, routes: AdminRoutes) -> None:
    @router.get("/keys", tags=["keys"], summary="List the keys", dependencies=routes.requires(Role.VIEWER))
    async def list_keys(request: Request, client: Annotated[str | None, Query()] = None) -> Response:
        return await routes.show(request, "keys list", lambda admin: admin.list_keys(client))

    @router.post(
        "/keys",
        tags=["keys"],
        summary="Create a key of a client. The answer has the key, this one time.",
        dependencies=routes.requires(Role.OPERATOR),
        openapi_extra=json_body({"client": "the client's name", **_KEY_FIELDS}, "client"),
    )
    async def create_key(request: Request) -> Response:
        given = texts_of(await routes.read_body(request), "client", *_KEY_FIELDS)
        if "client" not in given:
            raise ApiError("invalid_request", "`client` is missing: the name of the client that gets the key", "client")
        wanted = KeyRequest(
            given["client"], given.get("expires"), given.get("owner", ""), given.get("note", ""), given.get("hash")
        )
        return await routes.run(request, "keys create", lambda admin: admin.create_key(wanted))

    @router.get("/keys/{id}", tags=["keys"], summary="Show a key", dependencies=routes.requires(Role.VIEWER))
    async def show_key(request: Request, id: str) -> Response:  # the name in the path
        return await routes.show(request, "keys show", lambda admin: admin.show_key(id))

    @router.post(
        "/keys/{id}/rotate",
        tags=["keys"],
        summary="Give a key a new secret. The old one works until the grace time ends.",
        dependencies=routes.requires(Role.OPERATOR),
        openapi_extra=json_body({"grace": f"how long the old secret works, such as 10m; {DEFAULT_GRACE} by default"}),
    )
    async def rotate_key(request: Request, id: str) -> Response:
        grace = texts_of(await routes.read_body(request), "grace").get("grace", DEFAULT_GRACE)
        return await routes.run(request, "keys rotate", lambda admin: admin.rotate_key(id, grace))

    @router.post(
        "/keys/{id}/revoke",
        tags=["keys"],
        summary="End a key at once, with all its secrets",
        dependencies=routes.requires(Role.OPERATOR),
    )
    async def revoke_key(request: Request, id: str) -> Response:
        return await routes.run(request, "keys revoke", lambda admin: admin.revoke_key(id))


_KEY_FIELDS = {
    "expires": "how long it works, such as 30d; without it, until it is revoked",
    "owner": "the person or team that is responsible for it",
    "note": "a note",
    "hash": "the hash (sha256:…) of a key that exists; without it, a key is made",
}


def _add_definitions(router: APIRouter, routes: AdminRoutes, section: Section) -> None:
    """Add the routes of clients or of projects."""
    word = section.removesuffix("s")
    fields = f"the keys of `{section}.NAME` in the config file" + (", without `keys`" if section == "clients" else "")

    @router.get(f"/{section}", tags=[section], summary=f"List the {section}", dependencies=routes.requires(Role.VIEWER))
    async def list_all(request: Request) -> Response:
        return await routes.show(request, f"{section} list", lambda admin: admin.list_all(section))

    @router.post(
        f"/{section}",
        tags=[section],
        summary=f"Create a {word}",
        dependencies=routes.requires(Role.ADMIN),
        openapi_extra=json_body({"name": f"its name; besides it, {fields}"}, "name"),
    )
    async def create(request: Request) -> Response:
        given = await routes.read_body(request)
        name = given.pop("name", None)
        if not isinstance(name, str):
            problem = "is missing" if name is None else "must be a string"
            raise ApiError("invalid_request", f"`name` {problem}: the name of the {word}", "name")
        definition = {key: value for key, value in given.items() if value is not None}
        return await routes.run(request, f"{section} create", lambda admin: admin.create(section, name, definition))

    @router.get(
        f"/{section}/{{name}}",
        tags=[section],
        summary=f"Show a {word}",
        dependencies=routes.requires(Role.VIEWER),
    )
    async def show(request: Request, name: str) -> Response:
        return await routes.show(request, f"{section} show", lambda admin: admin.show(section, name))

    @router.patch(
        f"/{section}/{{name}}",
        tags=[section],
        summary=f"Change a {word}: the given members are replaced, and null removes one",
        dependencies=routes.requires(Role.ADMIN),
        openapi_extra=json_body({}),
    )
    async def update(request: Request, name: str) -> Response:
        given = await routes.read_body(request)
        return await routes.run(request, f"{section} update", lambda admin: admin.update(section, name, given))

    @router.delete(
        f"/{section}/{{name}}",
        tags=[section],
        summary=f"Remove a {word}" + (" and its keys" if section == "clients" else " that no client uses"),
        dependencies=routes.requires(Role.ADMIN),
    )
    async def remove(request: Request, name: str) -> Response:
        return await routes.run(request, f"{section} remove", lambda admin: admin.remove(section, name))


def _add_budgets(router: APIRouter, routes: AdminRoutes) -> None:
    owner = {str(kind): f"the {kind}; one owner: client, project, or user with its client" for kind in CounterKind}
    per = {"per": f"the window: {', '.join(Window)}"}

    async def run(request: Request, action: str, work: Callable[[BudgetAdmin], Json]) -> Response:
        config = (await routes.control.status()).config
        return await routes.run(request, action, lambda admin: work(BudgetAdmin(admin, config)))

    @router.get(
        "/budgets",
        tags=["budgets"],
        summary="Show budgets with what is spent and held: of one owner, or of all clients and projects",
        dependencies=routes.requires(Role.VIEWER),
    )
    async def show_budgets(
        request: Request,
        client: Annotated[str | None, Query()] = None,
        project: Annotated[str | None, Query()] = None,
        user: Annotated[str | None, Query()] = None,
    ) -> Response:
        if user is not None:
            _expect_admin(request, "a budget of an end user")
        given = {"client": client, "project": project, "user": user}
        named = _owner_of({name: value for name, value in given.items() if value is not None})
        return await run(request, "budgets show", lambda budgets: budgets.show(named))

    @router.post(
        "/budgets/reset",
        tags=["budgets"],
        summary="Set what was spent in the open window to 0",
        dependencies=routes.requires(Role.OPERATOR),
        openapi_extra=json_body({**owner, **per}, "per"),
    )
    async def reset_budget(request: Request) -> Response:
        given = texts_of(await routes.read_body(request), *owner, "per")
        named, window = _expected_owner(request, given), given.get("per", "")
        return await run(request, "budgets reset", lambda budgets: budgets.reset(named, window))

    @router.post(
        "/budgets/top-up",
        tags=["budgets"],
        summary="Add an amount to the open window of a budget",
        dependencies=routes.requires(Role.OPERATOR),
        openapi_extra=json_body({**owner, **per, "amount": "such as `5 EUR`, or `5000` for tokens"}, "per", "amount"),
    )
    async def top_up_budget(request: Request) -> Response:
        body = await routes.read_body(request)
        amount = body.get("amount")
        if isinstance(amount, int) and not isinstance(amount, bool):
            body["amount"] = str(amount)
        given = texts_of(body, *owner, "per", "amount")
        named, window, added = _expected_owner(request, given), given.get("per", ""), given.get("amount", "")
        return await run(request, "budgets top-up", lambda budgets: budgets.top_up(named, window, added))


def _owner_of(given: Mapping[str, str]) -> BudgetOwner | None:
    if CounterKind.USER in given and CounterKind.PROJECT not in given:
        return BudgetOwner(CounterKind.USER, given[CounterKind.USER], given.get(CounterKind.CLIENT))
    owners = [BudgetOwner(kind, given[kind]) for kind in CounterKind if kind in given]
    if len(owners) > 1:
        raise ApiError("invalid_request", "name one owner: `client`, `project`, or `user` with its `client`")
    return owners[0] if owners else None


def _expected_owner(request: Request, given: Mapping[str, str]) -> BudgetOwner:
    if CounterKind.USER in given:
        _expect_admin(request, "a budget of an end user")
    owner = _owner_of(given)
    if owner is None:
        raise ApiError("invalid_request", "name the owner of the budget: `client`, `project` or `user`")
    return owner


def _expect_admin(request: Request, subject: str) -> None:
    """Raise ApiError unless the sender has the role `admin`: no other role sees end users, also as pseudonyms."""
    role: Role = request.state.identity.role
    if role is not Role.ADMIN:
        raise ApiError("permission_denied", f"{subject} needs the role `admin`, and you have the role `{role}`")


def _add_usage(router: APIRouter, routes: AdminRoutes) -> None:
    @router.get(
        "/usage",
        tags=["usage"],
        summary="Report a month, in the form of `gateway usage --json`, with `month` and `timezone`",
        dependencies=routes.requires(Role.VIEWER),
    )
    async def usage(
        request: Request,
        by: Annotated[str, Query(description=", ".join(DIMENSIONS))] = "client",
        month: Annotated[str | None, Query(pattern=_MONTH)] = None,
        client: Annotated[str | None, Query()] = None,
        assistant: Annotated[str | None, Query(description=_ASSISTANT)] = None,
        first: Annotated[date | None, Query(alias="from", description="the first day, in place of `month`")] = None,
        last: Annotated[date | None, Query(alias="to", description="the last day, in place of `month`")] = None,
    ) -> Response:
        names = tuple(name.strip() for name in by.split(","))
        if not set(names) <= set(DIMENSIONS) or len(set(names)) < len(names) or are_apart(names, assistant):
            message = f"`by` has one or several of {', '.join(DIMENSIONS)}; {APART}"
            raise ApiError("invalid_request", message, "by")
        if "user" in names:
            _expect_admin(request, "a report by end user")
        if (first is None) != (last is None) or (first is not None and month is not None):
            raise ApiError("invalid_request", "name a `month`, or the days `from` and `to`")

        stores = (await routes.control.status()).config.stores

        def report(admin: ClientAdmin) -> Json:
            with usage_reader(stores, admin.directory) as reader:
                zone = {"timezone": str(reader.zone)}
                if first is not None and last is not None:
                    days = {"from": first.isoformat(), "to": last.isoformat()}
                    query = UsageQuery(names, days["from"], days["to"], client, assistant)
                    return {**reader.report(query).data(), **days, **zone}
                shown_month = month or reader.month(time.time())
                data = reader.report(UsageQuery.of_month(shown_month, names, client, assistant)).data()
                return {**data, "month": shown_month, **zone}

        return await routes.run(request, "usage", report)

    @router.get(
        "/usage/rows",
        tags=["usage"],
        summary="Send the rows of a month, oldest first, one JSON line each, as `gateway usage --rows --json`",
        dependencies=routes.requires(Role.VIEWER),
    )
    async def rows(
        request: Request,
        month: Annotated[str | None, Query(pattern=_MONTH)] = None,
        client: Annotated[str | None, Query()] = None,
        assistant: Annotated[str | None, Query(description=_ASSISTANT)] = None,
    ) -> Response:
        stores = (await routes.control.status()).config.stores
        shows_users = request.state.identity.role is Role.ADMIN

        def send(admin: ClientAdmin) -> Response:
            reader = usage_reader(stores, admin.directory)
            query = UsageQuery.of_month(month or reader.month(time.time()), (), client, assistant)
            deleted = reader.deleted_through or ""
            return StreamingResponse(
                _row_lines(reader, query, shows_users=shows_users),
                headers={ROWS_DELETED_HEADER: deleted} if query.first_day <= deleted else {},
                media_type="application/x-ndjson",
            )

        return await routes.run(request, "usage", send)


def _row_lines(reader: UsageReader | PostgresUsageReader, query: UsageQuery, *, shows_users: bool) -> Iterator[bytes]:
    """Yield rows as JSON lines, many at once."""
    with reader:
        rows = reader.rows(query)
        while lines := [json_line(row, shows_user=shows_users) for row in islice(rows, _ROWS_AT_ONCE)]:
            yield "".join(lines).encode()


def _add_tokens(router: APIRouter, routes: AdminRoutes) -> None:
    @router.get("/tokens", tags=["tokens"], summary="List the admin tokens", dependencies=routes.requires(Role.VIEWER))
    async def list_tokens(request: Request) -> Response:
        return await routes.run(request, "admin-token list", lambda admin: admin.list_tokens())

    @router.post(
        "/tokens",
        tags=["tokens"],
        summary="Create an admin token. The answer has the token, this one time.",
        dependencies=routes.requires(Role.ADMIN),
        openapi_extra=json_body({"role": ", ".join(Role), "note": "a note"}, "role"),
    )
    async def create_token(request: Request) -> Response:
        given = texts_of(await routes.read_body(request), "role", "note")
        if given.get("role") not in set(Role):
            raise ApiError("invalid_request", f"`role` must be one of {', '.join(Role)}", "role")
        role, note = Role(given["role"]), given.get("note", "")
        return await routes.run(request, "admin-token create", lambda admin: admin.create_token(role, note))

    @router.delete(
        "/tokens/{id}", tags=["tokens"], summary="End an admin token", dependencies=routes.requires(Role.ADMIN)
    )
    async def revoke_token(request: Request, id: str) -> Response:
        return await routes.run(request, "admin-token revoke", lambda admin: admin.revoke_token(id))


def texts_of(given: Mapping[str, object], *allowed: str) -> dict[str, str]:
    """Return the members of a body that are not null. Unknown members are refused, so that no mistyped one is lost."""
    texts: dict[str, str] = {}
    for name, value in given.items():
        if name not in allowed:
            raise ApiError("invalid_request", f"unknown field: the fields are {', '.join(allowed)}")
        if value is None:
            continue
        if not isinstance(value, str):
            raise ApiError("invalid_request", f"`{name}` must be a string", name)
        texts[name] = value
    return texts


def json_body(fields: Mapping[str, str], *required: str) -> dict[str, Any]:
    """Return the request body in the OpenAPI document. The routes read bodies themselves, after the access check."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: {"type": "string", "description": text} for name, text in fields.items()},
    }
    if required:
        schema["required"] = list(required)
    return {"requestBody": {"required": bool(required), "content": {"application/json": {"schema": schema}}}}
