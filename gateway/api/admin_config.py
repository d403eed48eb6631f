"""The answers of the admin listener about the config, its changes and the state, and about the faults of a demo."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Literal

from fastapi import Depends, Query
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from gateway.api.admin_control import answers_report, fault_report, reload_report
from gateway.api.admin_deployments import deployments_document
from gateway.api.admin_explain import (
    Wishes,
    explain_document,
    explained_asker,
    supposed_request,
    supposed_text,
    territories_document,
)
from gateway.api.admin_request import Asked, texts_of
from gateway.api.admin_status import status_document
from gateway.api.errors import ApiError
from gateway.api.event_stream import stream_events
from gateway.api.openapi import json_body
from gateway.model.served import Use
from gateway.model.status import Reload
from gateway.service.client_admin import AdminRefused, ClientAdmin, Json
from gateway.state.receipts import find_receipts
from gateway.telemetry.metric_snapshots import requests_by_route

_CONFLICT = 409
_MAX_FAULT_CHARACTERS = 200
_MOST_ACTIVATIONS = 500
_MOST_TEXT_BYTES = 2 * 1024 * 1024
_MOST_AHEAD_S = 30 * 86_400
_ROLLBACK_FIELDS = {"version": 64, "signature": 16_384}
"""The fields of a rollback, and how many characters each may have."""

PLAN_BODY = json_body({"text": "the text of the whole config file"}, "text")
STOP_BODY = json_body({"assistant": "the assistant", "region": "the region"}, "assistant", "region")
RESUME_BODY = json_body({"deployment": "the deployment"}, "deployment")

_Text = Annotated[str | None, Query()]
_Version = Annotated[str, Query(max_length=64)]


async def show_status(asked: Asked) -> Response:
    """Show the document of `gateway status --json`"""
    overview, status = await asked.control.overview(), await asked.control.status()
    # This decides for every region, which takes too long for the event loop.
    return JSONResponse(await asyncio.to_thread(status_document, status, overview))


async def _wishes(
    intent: _Text = None,
    prefer: _Text = None,
    age_band: _Text = None,
    use: Annotated[Use, Query()] = "chat",
    form: Annotated[Literal["json", "text"], Query()] = "json",
) -> tuple[Wishes, bool]:
    """Return what the request would wish, and whether it is explained as text."""
    return Wishes(intent, prefer, age_band, use), form == "text"


async def explain_request(
    asked: Asked,
    assistant: _Text = None,
    territory: _Text = None,
    client: _Text = None,
    user: _Text = None,
    *,
    wishes: Annotated[tuple[Wishes, bool], Depends(_wishes)],
) -> Response:
    """Explain which deployments would answer a request, and why"""
    status = await asked.control.status()
    if asker := explained_asker(status.config, client, user):
        status = await asked.control.status(asker)
    chosen, as_text = wishes
    supposed = supposed_request(status, assistant, territory, client, user, chosen)
    if as_text:
        return PlainTextResponse(supposed_text(supposed, territory))
    return JSONResponse(explain_document(status, supposed, territory))


async def show_territories(asked: Asked, assistant: _Text = None) -> Response:
    """Show for each territory which deployments answer, or the refusal"""
    status = await asked.control.status()
    # This decides for every territory, which takes too long for the event loop.
    return JSONResponse(await asyncio.to_thread(territories_document, status.config, assistant, status.at_s))


async def list_requests(
    asked: Asked,
    id: _Text = None,
    region: _Text = None,
    deployment: _Text = None,
    client: _Text = None,
    outcome: _Text = None,
) -> Response:
    """Show the last finished requests, without prompts and answers"""
    wanted = {"request_id": id, "region": region, "deployment": deployment, "client": client, "outcome": outcome}
    expected = {name: value for name, value in wanted.items() if value is not None}
    documents = await asked.control.requests()
    found = [it for it in documents if all(it[name] == value for name, value in expected.items())]
    return JSONResponse({"requests": found})


class _Events(Response):
    """The events of the gateway, until the client leaves or the process ends."""

    def __init__(self, asked: Asked) -> None:
        self.background = None
        self._control = asked.control

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await stream_events(self._control, scope, receive, send)


async def send_events(asked: Asked) -> Response:
    """Send each event as it happens"""
    return _Events(asked)


async def find_receipts_of(asked: Asked, id: str) -> Response:  # the name in the path
    """Show the stored receipts of a request"""

    def search(admin: ClientAdmin) -> Json:
        return {"receipts": find_receipts(admin.directory, id)}

    return await asked.run("receipts", search)


async def list_deployments(asked: Asked) -> Response:
    """Show each deployment: breaker, calls, errors, latency, approvals, retirement, site; and each barrier"""
    status, snapshots = await asked.control.status(), await asked.control.snapshots()
    return JSONResponse(await asyncio.to_thread(deployments_document, status, snapshots))


async def list_faults(asked: Asked) -> Response:
    """Show the faults of simulated providers"""
    return JSONResponse({"sites": [*map(fault_report, await asked.control.faults())]})


async def set_fault(asked: Asked) -> Response:
    """Set or remove a fault of a simulated provider"""
    await asked.control.set_fault(*fault_request(await asked.body()))
    return await list_faults(asked)


async def clear_faults(asked: Asked) -> Response:
    """Remove all faults of simulated providers"""
    await asked.control.clear_faults()
    return await list_faults(asked)


async def show_clock(asked: Asked) -> Response:
    """Show the clock of a demo"""
    return JSONResponse({"ahead_s": await asked.control.clock()})


async def move_clock(asked: Asked) -> Response:
    """Move the clock of a demo"""
    match await asked.body():
        case {"ahead_s": int(ahead_s), **others} if not others and 0 <= ahead_s <= _MOST_AHEAD_S:
            return JSONResponse({"ahead_s": await asked.control.clock(ahead_s)})
    message = f"send `ahead_s`, and nothing else: whole seconds from 0 to {_MOST_AHEAD_S}"
    raise ApiError("invalid_request", message, "ahead_s")


async def drain(asked: Asked) -> Response:
    """Begin the end of traffic"""
    return JSONResponse({"status": "draining", "delay_s": asked.control.drain()})


async def reload(asked: Asked) -> Response:
    """Reload the config file"""
    done = await asked.control.reload(asked.who)
    if done.is_pinned:
        # Clients of the public listener never get this code.
        pinned = f"version {done.pinned} is pinned by a rollback"
        message = f"{pinned}: `gateway rollback --release` activates the config file"
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": "rollback_pinned"}
        return JSONResponse({"error": error, **reload_report(done)}, _CONFLICT)
    return JSONResponse({**reload_report(done), "scope": done.scope}, _status_of(done))


async def roll_back(asked: Asked) -> Response:
    """Activate and pin a version of the history, or release it"""
    given = await asked.body()
    release = given.get("release", False)
    if not isinstance(release, bool):
        raise ApiError("invalid_request", "`release` must be true or false", "release")
    if release and given.get("version") is not None:
        raise ApiError("invalid_request", "`release` activates the config file: leave out `version`", "version")
    others = {name: value for name, value in given.items() if name != "release"}
    # An unknown field is refused: a typing error in `version` would activate another version than was meant.
    texts = texts_of(others, *_ROLLBACK_FIELDS, "release")
    for name, text in texts.items():
        if len(text) > (max_characters := _ROLLBACK_FIELDS[name]):
            raise ApiError("invalid_request", f"`{name}` must have at most {max_characters} characters", name)
    signature = texts.get("signature")
    if release:
        done = await asked.control.release(asked.who, signature)
    else:
        done = await asked.control.rollback(texts.get("version"), asked.who, signature)
    status = await asked.control.status()
    extra = {
        "file_active": status.file_is_active,
        "pinned": status.pinned or None,
        "missing": done.missing,
        "scope": done.scope,
        "answers": await asyncio.to_thread(answers_report, status) if done.activated else [],
    }
    return JSONResponse({**reload_report(done), **extra}, _status_of(done))


async def list_history(asked: Asked, limit: Annotated[int, Query(ge=1, le=_MOST_ACTIVATIONS)] = 50) -> Response:
    """List the activations, newest first"""
    return JSONResponse(await asyncio.to_thread(asked.control.review().history, limit))


async def show_version(asked: Asked, name: str) -> Response:
    """Show a version"""
    return JSONResponse(await asyncio.to_thread(asked.control.review().version, name))


async def compare(asked: Asked, before: _Version, after: _Version) -> Response:
    """Compare two versions of the history"""
    return JSONResponse(await asked.control.review().differences(before, after))


async def plan(asked: Asked) -> Response:
    """Plan a text of a config file: what it would change, without a change"""
    text = (await asked.texts("text", most_bytes=_MOST_TEXT_BYTES)).get("text", "")
    if not text.strip():
        raise ApiError("invalid_request", "`text` is missing: the text of the whole config file", "text")
    traffic = requests_by_route(await asked.control.snapshots())
    return JSONResponse(await asked.control.review().plan(text.encode("utf-8", "replace"), traffic))


async def stop_schedule(asked: Asked) -> Response:
    """Stop a canary schedule: its candidate gets no more users"""
    given = await asked.texts("assistant", "region")
    assistant, region = given.get("assistant", ""), given.get("region", "")
    if not await asked.control.stop_schedule(assistant, region, asked.who):
        message = f"no schedule of {assistant[:80]!r} runs in the region {region[:80]!r}"
        raise AdminRefused(404, "schedule_not_found", message)
    return JSONResponse({"assistant": assistant, "region": region, "phase": "rolled_back"})


async def resume(asked: Asked) -> Response:
    """Use a deployment again that is in a cooldown or has an open breaker, at this instance"""
    name = (await asked.texts("deployment")).get("deployment", "")
    if not await asked.control.resume(name, asked.who):
        raise AdminRefused(404, "deployment_in_use", f"no deployment {name[:80]!r} is out of use here")
    return JSONResponse({"deployment": name})


def _status_of(done: Reload) -> int:
    """Return the HTTP status: 422 for a config that its author must fix, 503 if another attempt can succeed."""
    if done.activated:
        return 200
    return 503 if done.retriable else 422


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
