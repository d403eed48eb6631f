"""The admin listener: what an operator asks and orders, never a client. It answers no chat, and shows no secret.

It is for programs and `curl`, not for pages: a browser on the same machine is kept from it, because any page could make
that browser send a request here (CWE-352), or pass for this listener by a name of its own (DNS rebinding, CWE-350).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Protocol

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.responses import JSONResponse, Response

from gateway.api.errors import ApiError
from gateway.api.routes import add_errors
from gateway.model.approval import days_at, terms_of
from gateway.model.decision import Unwell
from gateway.model.status import Reload, Status, WorkerStatus
from gateway.model.table import Client, Table
from gateway.policy.location import EdgeReport, Sighting
from gateway.policy.routing import off
from gateway.service.explain import explain
from gateway.service.journey import assistants_of, find_assistant
from providers.catalogue import territory_data
from providers.territories import TerritoryError, parse_territory

__all__ = ["Control", "Guard", "build_admin"]


class Control(Protocol):
    """What the listener speaks for: one process, or the supervisor of several."""

    async def status(self) -> Status:
        """How it all is at this moment."""
        ...

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """Everything that is counted: the body and its content type, by an Accept header."""
        ...

    async def reload(self) -> Reload:
        """Load the config now, and what came of it."""
        ...


@dataclass(frozen=True, slots=True)
class Guard:
    """Who may ask. token: what a request must bring; None where only this machine can reach the listener.

    hosts: the names by which a request without a token may call it.
    """

    token: str | None = field(default=None, repr=False)
    hosts: frozenset[str] = frozenset({"localhost", "127.0.0.1", "[::1]"})

    def check(self, request: Request) -> None:
        """Raise ApiError for who may not."""
        headers = request.headers
        if "origin" in headers or headers.get("sec-fetch-site", "none") != "none":
            raise ApiError("permission_denied", "no page in a browser may ask here")
        kind = headers.get("content-type")
        if kind is not None and kind.partition(";")[0].strip().lower() != "application/json":
            raise ApiError("unsupported_media_type", "send no body, or `content-type: application/json`")
        if self.token is None:
            host = headers.get("host", "").lower()
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if name not in self.hosts:
                raise ApiError("permission_denied", "call this listener by its address, such as http://127.0.0.1")
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        is_ours = hmac.compare_digest(given.strip().encode("utf-8", "replace"), self.token.encode())
        if scheme.lower() != "bearer" or not is_ours:
            raise ApiError("invalid_api_key", "send the admin token: `authorization: Bearer TOKEN`")


def build_admin(control: Control, guard: Guard) -> FastAPI:
    """The application."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    add_errors(app, "there are /healthz, /readyz, /metrics, /explain and /reload")
    guarded = APIRouter(dependencies=[Depends(guard.check)])

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @guarded.get("/readyz")
    async def readyz() -> JSONResponse:
        status = await control.status()
        return JSONResponse(_readiness(status), 200 if _word(status) == "ready" else 503)

    @guarded.get("/metrics")
    async def metrics(request: Request) -> Response:
        body, kind = await control.metrics(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": kind})

    @guarded.post("/reload")
    async def reload() -> JSONResponse:
        done = await control.reload()
        return JSONResponse(_reload(done), 200 if done.activated else 422)

    @guarded.get("/explain")
    async def explain_there(
        assistant: Annotated[str | None, Query()] = None,
        territory: Annotated[str | None, Query()] = None,
        client: Annotated[str | None, Query()] = None,
    ) -> JSONResponse:
        return JSONResponse(_explain(await control.status(), assistant, territory, client))

    app.include_router(guarded)
    return app


# --- readiness ------------------------------------------------------------------------------------


def _word(status: Status) -> str:
    if status.is_draining:
        return "draining"
    return "ready" if any(worker.answers for worker in status.workers) else "not ready"


def _readiness(status: Status) -> dict[str, object]:
    table = status.table
    off_now = {name: reason for name, item in table.deployments.items() if (reason := off(item)) is not None}
    return {
        "status": _word(status),
        "table": {"version": table.version, "demo": table.demo, "loaded": _reload(status.loaded)},
        "last_failed_reload": _reload(status.failed) if status.failed is not None else None,
        "deployments": {
            "count": len(table.deployments),
            "off": {name: detail for name, (_, detail) in off_now.items()},
            "benched": _unwell(status.workers, by_breaker=False),
            "breakers": _unwell(status.workers, by_breaker=True),
        },
        "approvals": _approvals(status),
        "workers": {
            "wanted": status.workers_wanted,
            "restarts": status.worker_restarts,
            "running": [_worker(worker) for worker in status.workers],
        },
    }


def _approvals(status: Status) -> list[dict[str, object]]:
    """Each that has an end, the nearest first; warned_days: the bound that it has come under."""
    return [
        {
            "deployment": term.deployment,
            "region": term.region,
            "last_day": term.last_day.isoformat(),
            "days_left": term.days_left,
            "warned_days": term.warned_days,
        }
        for term in sorted(terms_of(status.table.approvals, days_at(status.at_s)), key=lambda term: term.days_left)
    ]


def _reload(done: Reload) -> dict[str, object]:
    return {
        "result": done.result,
        "table": done.table,
        "cause": done.cause,
        "at": done.at.isoformat(timespec="milliseconds"),
        "duration_ms": round(done.duration_s * 1000, 1),
        "findings": [asdict(finding) for finding in done.findings],
        "changes": {name: list(values) for name, values in asdict(done.changes).items() if values},
        "workers_behind": list(done.behind),
    }


def _worker(worker: WorkerStatus) -> dict[str, object]:
    told = {name: getattr(worker, name) for name in ("seat", "pid", "table", "running", "answers")}
    return {**told, "draining": worker.is_draining, "benched": _names(worker, False), "breakers": _names(worker, True)}


def _names(worker: WorkerStatus, by_breaker: bool) -> list[str]:
    return sorted(name for name, unwell in worker.unwell.items() if unwell.by_breaker is by_breaker)


def _unwell(workers: tuple[WorkerStatus, ...], *, by_breaker: bool) -> dict[str, list[dict[str, object]]]:
    """By deployment, what each worker that has benched it, or whose breaker of it is open, says."""
    found: dict[str, list[dict[str, object]]] = {}
    for worker in workers:
        for name, unwell in worker.unwell.items():
            told = {"worker": worker.seat, "reason": unwell.reason, "for_s": round(unwell.for_s, 1)}
            if unwell.by_breaker is by_breaker:
                found.setdefault(name, []).append(told)
    return found


# --- explain --------------------------------------------------------------------------------------


def _explain(status: Status, assistant: str | None, territory: str | None, client: str | None) -> dict[str, object]:
    table = status.table
    caller = _client(table, client)
    names = sorted({found.name for found in assistants_of(table, caller).values()})
    if assistant is None and len(names) != 1:
        raise ApiError("invalid_request", f"say which `assistant`: one of {', '.join(names)}", "assistant")
    found = find_assistant(table, caller, assistant if assistant is not None else names[0])
    # What no worker asks is asked by nobody; what some don't, by the others.
    everywhere = _everywhere(status.workers)
    explained = explain(table, caller, _sighting(territory), found, everywhere, status.at_s)
    unwell = {
        "benched": _unwell(status.workers, by_breaker=False),
        "breakers": _unwell(status.workers, by_breaker=True),
    }
    return {**explained, "client": client, **unwell}


def _client(table: Table, name: str | None) -> Client | None:
    if name is None:
        return None
    found = next((client for client in table.clients.values() if client.name == name), None)
    if found is None:
        known = ", ".join(sorted({client.name for client in table.clients.values()})) or "none"
        raise ApiError("invalid_request", f"there is no client of that name; there are: {known}", "client")
    return found


def _sighting(territory: str | None) -> Sighting:
    """What a trusted edge would bring that says so."""
    if territory is None:
        return Sighting()
    data, code = territory_data(), territory.strip().upper()
    if code not in data.aliases and code not in data.unknown and code not in data.hidden:
        try:
            parse_territory(code)
        except TerritoryError as error:
            raise ApiError("invalid_request", str(error), "territory") from None
    return Sighting(EdgeReport("territory", (territory,)))


def _everywhere(workers: tuple[WorkerStatus, ...]) -> Mapping[str, Unwell]:
    told = [worker.unwell for worker in workers if worker.answers]
    if not told:
        return {}
    return {name: unwell for name, unwell in told[0].items() if all(name in other for other in told)}
