"""The rest of the admin listener, as FastAPI: what an operator orders, and asks now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.responses import JSONResponse
from starlette.routing import Route

from gateway.api.admin_control import Control, Guard, reload_report, unavailable_by_deployment
from gateway.api.body import parse_json
from gateway.api.errors import ApiError
from gateway.api.public_routes import NO_TELEMETRY, add_errors, named_assistant
from gateway.api.raw_responses import Probe
from gateway.model.config_version import Assistant, Client, ConfigVersion
from gateway.model.decision import Unavailable
from gateway.model.location import Reports
from gateway.model.status import OPERATOR_HEADER, Reload, Status, WorkerStatus
from gateway.service.assistants import AssistantNotFound, assistants_of
from gateway.service.explain import PlainRequest, explain, reports_from
from providers.territories import TerritoryError

_LONGEST_NAME = 120
_MOST_BODY_BYTES = 64 * 1024
_BODY_TIME_S = 10.0
_ROLLBACK_TAKES = {"version": 64, "signature": 16_384}
"""How many characters each may have."""


def build_admin_routes(control: Control, guard: Guard, probes: Mapping[str, Probe]) -> FastAPI:
    """The FastAPI application; the probes stand in it as they are."""

    async def guarding(request: Request) -> None:
        guard.check(request.scope["headers"])

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False, telemetry=NO_TELEMETRY)
    add_errors(app, lambda _: "there are /healthz, /readyz, /metrics, /explain, /reload and /rollback")
    app.router.routes += [Route(path, probe) for path, probe in probes.items()]
    guarded = APIRouter(dependencies=[Depends(guarding)])

    @guarded.post("/reload")
    async def reload(request: Request) -> JSONResponse:
        done = await control.reload(_operator(request))
        return JSONResponse(reload_report(done), _status_of(done))

    @guarded.post("/rollback")
    async def rollback(request: Request) -> JSONResponse:
        version, signature = _version_and_signature(await _object_in(request))
        done = await control.rollback(version, _operator(request), signature)
        told = {"file_active": (await control.status()).file_is_active, "missing": done.missing}
        return JSONResponse({**reload_report(done), **told}, _status_of(done))

    @guarded.get("/explain")
    async def explain_there(
        assistant: Annotated[str | None, Query()] = None,
        territory: Annotated[str | None, Query()] = None,
        client: Annotated[str | None, Query()] = None,
        user: Annotated[str | None, Query()] = None,
    ) -> JSONResponse:
        return JSONResponse(_explain(await control.status(), assistant, territory, client, user))

    app.include_router(guarded)
    return app


def _status_of(done: Reload) -> int:
    """A config that is not taken is its author's to mend; what was in the way of one is not."""
    if done.activated:
        return 200
    return 503 if done.retriable else 422


async def _object_in(request: Request) -> dict[str, object]:
    """The object in the body, which may be missing; read here, and not by the framework: that would read all of it,
    however much and however slowly, before anybody has asked who sends it."""
    data = b""
    try:
        async with asyncio.timeout(_BODY_TIME_S):
            is_whole = False
            while not is_whole:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ApiError("invalid_request", "the client left before its body was whole")
                data += message.get("body", b"")
                is_whole = not message.get("more_body", False)
                if len(data) > _MOST_BODY_BYTES:
                    raise ApiError("request_too_large", f"the body is larger than {_MOST_BODY_BYTES // 1024} KB")
    except TimeoutError:
        raise ApiError("request_timeout", f"the body did not arrive within {_BODY_TIME_S:g} seconds") from None
    found = parse_json(data) if data else {}
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ApiError("invalid_request", "the body must be a JSON object, or empty")
    return found


def _version_and_signature(given: Mapping[str, object]) -> tuple[str | None, str | None]:
    """What a rollback is told. An unknown word is refused: with a slip of the pen in `version`, it would go back to
    another one than was meant."""
    told: dict[str, str | None] = dict.fromkeys(_ROLLBACK_TAKES)
    for name, value in given.items():
        most = _ROLLBACK_TAKES.get(name)
        if most is None:
            raise ApiError("invalid_request", "a rollback takes `version` and `signature`, and nothing else")
        if value is not None and not isinstance(value, str):
            raise ApiError("invalid_request", "it must be a string", name)
        if len(value or "") > most:
            raise ApiError("invalid_request", f"it must have at most {most} characters", name)
        told[name] = value
    return told["version"], told["signature"]


def _operator(request: Request) -> str:
    """Who says that they ask. It is written down as a claim: the token, or this machine, is what lets them."""
    name = request.headers.get(OPERATOR_HEADER, "")
    with suppress(UnicodeDecodeError):
        # Names are in UTF-8; a framework that reads headers as Latin-1 has every byte of them.
        name = name.encode("latin-1").decode()
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise ApiError("invalid_request", f"`{OPERATOR_HEADER}` must be at most {_LONGEST_NAME} printable characters")
    return name


def _explain(
    status: Status, assistant: str | None, territory: str | None, client: str | None, user: str | None
) -> dict[str, object]:
    table = status.table
    caller = _client(table, client)
    found = _assistant(table, caller, assistant)
    # What no worker asks is asked by nobody; what some don't, by the others.
    everywhere = _everywhere(status.workers)
    explained = explain(PlainRequest(table, caller, _reports(territory), found, status.at_s, everywhere, user))
    unwell = {
        "benched": unavailable_by_deployment(status.workers, by_breaker=False),
        "breakers": unavailable_by_deployment(status.workers, by_breaker=True),
    }
    return {**explained, "client": client, **unwell}


def _client(table: ConfigVersion, name: str | None) -> Client | None:
    if name is None:
        return None
    found = next((client for client in table.clients.values() if client.name == name), None)
    if found is None:
        known = ", ".join(sorted({client.name for client in table.clients.values()})) or "none"
        raise ApiError("invalid_request", f"there is no client of that name; there are: {known}", "client")
    return found


def _assistant(table: ConfigVersion, caller: Client | None, name: str | None) -> Assistant:
    """See named_assistant; who asks here has no key, and no list of models."""
    try:
        return named_assistant(table, caller, name)
    except AssistantNotFound as error:
        known = ", ".join(sorted({one.name for one in assistants_of(table, caller).values()}))
        hint = error.question or f"there are: {known or 'none'}"
        whose = f" that the client {caller.name!r} may ask" if caller is not None else ""
        raise ApiError("model_not_found", f"there is no assistant of that name{whose}; {hint}", "assistant") from None


def _reports(territory: str | None) -> Reports:
    try:
        return reports_from(territory) if territory is not None else Reports()
    except TerritoryError as error:
        raise ApiError("invalid_request", str(error), "territory") from None


def _everywhere(workers: tuple[WorkerStatus, ...]) -> Mapping[str, Unavailable]:
    told = [worker.unwell for worker in workers if worker.answers]
    if not told:
        return {}
    return {name: unwell for name, unwell in told[0].items() if all(name in other for other in told)}
