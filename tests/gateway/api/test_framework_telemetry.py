"""FastAPI's own telemetry, which environment variables configure, is off: only the config's exporters get data."""

import httpx
import pytest
from opentelemetry import trace

from gateway.api.admin import build_admin
from gateway.api.admin_guard import Guard
from gateway.assembly.application import Gateway
from tests.gateway.admin_calls import AdminCallbacks
from tests.kit.configs import BASE, table_of


class Listening(trace.TracerProvider):
    """A provider such as an agent of the environment sets up for the whole process."""

    def __init__(self) -> None:
        self.asked = 0

    def get_tracer(self, *args: object, **more: object) -> trace.Tracer:
        self.asked += 1
        return trace.NoOpTracer()


@pytest.mark.parametrize("name", ["public", "admin"])
async def test_framework_exports_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    listening = Listening()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", listening)
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    app = Gateway(table_of(BASE)) if name == "public" else build_admin(AdminCallbacks(), Guard())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/nowhere")).status_code == 404
    assert listening.asked == 0
