"""The application of the admin listener, for operators. It answers no chat request and never shows a secret.

Health checks and metrics are answered here. FastAPI answers the rest, and is imported with the first such request.
"""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.api.admin_control import Control, is_ready, readiness
from gateway.api.admin_guard import Guard
from gateway.api.body import CloseUnread
from gateway.api.raw_responses import (
    Application,
    LazyApplication,
    Probe,
    ProbesFirst,
    RawResponse,
    alive,
    json_response,
)


def build_admin(control: Control, guard: Guard) -> Application:
    """Return the ASGI application of the admin listener."""
    probes = _probes(control, guard)

    def rest() -> Application:
        from gateway.api.admin_routes import build_admin_routes

        return build_admin_routes(control, guard, probes)

    return CloseUnread(ProbesFirst(probes, LazyApplication(rest)))


def _probes(control: Control, guard: Guard) -> dict[str, Probe]:
    async def ready(scope: Any) -> RawResponse:
        await guard.check(scope)
        status = await control.status()
        # After a rollback, the document names who answers, which takes too long for the event loop.
        document = await asyncio.to_thread(readiness, status) if status.pinned else readiness(status)
        return json_response(document, 200 if is_ready(status) else 503)

    async def metrics(scope: Any) -> RawResponse:
        await guard.check(scope)
        accept = next((value for name, value in scope["headers"] if name == b"accept"), b"")
        body, kind = await control.metrics(accept.decode("latin-1"))
        return RawResponse(body, kind=kind)

    return {
        "/healthz": Probe(alive),
        "/health": Probe(alive),
        "/readyz": Probe(ready),
        "/metrics": Probe(metrics, takes_head=False),
    }
