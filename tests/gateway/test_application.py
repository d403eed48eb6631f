"""The gateway as one application: the log lines, metrics and traces of requests with each outcome."""

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import structlog

from gateway.api.caller.authentication import MOST_FAILED_KEYS
from gateway.assembly.application import Gateway
from gateway.telemetry import log, trace_export
from gateway.telemetry.metric_snapshots import unpack
from tests.kit.configs import Config, key_hash, table_of
from tests.kit.httpx_transport import HttpxTransport

CHAT = "/v1/chat/completions"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
CONFIG = Config.parse("""
version: 1
assistants: {assistant: {routes: {eu: [house], us: [house]}}}
regions: {eu: {territories: [DE], boundary: [DE]}, us: {territories: [US], boundary: ["*"]}}
deployments:
  house: {provider: openai-compatible, model: m, endpoint: "https://house.example/v1", stores: DE, processes: DE, api_key: "${KEY}"}
location: {signals: [edge_header], edges: [{from: [127.0.0.0/8], country: CF-IPCountry}]}
""")
KEY = "gk-app"
CONFIG = CONFIG.merge({"clients": {"app": {"keys": [key_hash(KEY)]}}})


def answer(request: httpx.Request) -> httpx.Response:
    """Answer as the provider, or as the collector."""
    if request.url.host == "otel.example":
        return httpx.Response(200)
    choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3}
    return httpx.Response(200, json={"id": "a", "created": 1, "model": "m", "choices": [choice], "usage": usage})


@pytest.fixture(autouse=True)
def log_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(log, "_write_requests", log._write_requests)
    monkeypatch.setattr(log, "_out", log._out)
    yield
    structlog.reset_defaults()


class RunningGateway:
    """A gateway with its client, all requests that it sent, and its log."""

    def __init__(self, patch: str) -> None:
        self.sent: list[httpx.Request] = []
        self.stream = io.StringIO()
        log.configure("json", "info", self.stream)

        def handle(request: httpx.Request) -> httpx.Response:
            self.sent.append(request)
            return answer(request)

        table = table_of(CONFIG.merge(patch), {"KEY": "sk-secret"})
        self.gateway = Gateway(table, HttpxTransport(httpx.MockTransport(handle)))
        transport: Any = httpx.ASGITransport(self.gateway, client=("127.0.0.1", 1))
        self.client = httpx.AsyncClient(
            transport=transport, base_url="http://gateway", headers={"authorization": f"Bearer {KEY}"}
        )

    async def ask(self, country: str = "DE", model: str = "assistant", **headers: str) -> httpx.Response:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": "a secret thought"}],
            "user": "mail@example.org",
        }
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(CHAT, json=body, headers={"cf-ipcountry": country, **names})

    def lines(self) -> list[dict[str, Any]]:
        self.gateway.metrics.settle()
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    @property
    def series(self) -> dict[str, dict[tuple[str, ...], list[int]]]:
        return unpack(self.gateway.metrics.snapshot())

    async def end(self) -> None:
        """Shut down as the server does at its end."""
        messages = iter([{"type": "lifespan.shutdown"}])

        async def receive() -> Any:
            return next(messages)

        async def send(_: Any) -> None:
            return None

        await self.gateway({"type": "lifespan"}, receive, send)


@asynccontextmanager
async def running_gateway(patch: str = "{}") -> AsyncIterator[RunningGateway]:
    made = RunningGateway(patch)
    async with made.client:
        yield made
    await made.end()


async def test_answer_is_logged_and_counted() -> None:
    async with running_gateway() as one:
        assert (await one.ask()).status_code == 200
        (line,) = one.lines()
        assert (line["outcome"], line["region"], line["client"], line["prompt_tokens"]) == ("ok", "eu", "app", 3)
        assert 0 <= line["provider_ms"] <= line["first_ms"] <= line["total_ms"]
        assert "trace_id" not in line, "no trace was requested"
        series = one.series
        assert series["gateway_requests_total"] == {("eu", "assistant", "ok", "200", "", "", "chat"): [1]}
        assert series["gateway_tokens_total"]["eu", "assistant", "house", "openai-compatible", "completion"] == [0]
        assert series["gateway_requests_in_flight"] == {(): [0]}
        assert series["gateway_open_streams"] == {(): [0]}
        assert series["gateway_log_lines_dropped_total"] == {(): [0]}


async def test_running_request_is_in_flight() -> None:
    async with running_gateway() as one:
        seen: list[Any] = []
        real = answer

        def watching(request: httpx.Request) -> httpx.Response:
            seen.append(one.series["gateway_requests_in_flight"][()])
            return real(request)

        one.gateway._transport._inner.handler = watching  # type: ignore[attr-defined]
        await one.ask()
        assert seen == [[1]]
        assert one.series["gateway_requests_in_flight"] == {(): [0]}


async def test_callers_trace_is_logged_and_not_forwarded() -> None:
    async with running_gateway() as one:
        await one.ask(traceparent=PARENT, tracestate="a=1")
        assert one.lines()[0]["trace_id"] == TRACE
        (request,) = one.sent
        assert {"traceparent", "tracestate", "x-request-id"}.isdisjoint(request.headers)
        assert TRACE not in str(request.headers) + request.content.decode()


async def test_hostile_client_creates_no_series() -> None:
    """Values that clients choose freely, in headers and body, add no series after the first few requests."""
    async with running_gateway() as one:

        async def attack(number: int) -> None:
            word = f"x{number}"
            await one.ask(model=word)
            await one.ask(country=f"{chr(65 + number % 26)}{chr(65 + number // 26)}", x_request_id=word)
            await one.ask(authorization=f"Bearer {word}")
            await one.ask(traceparent=f"00-{number + 1:032x}-{number + 1:016x}-01", user_agent=word)
            await one.ask(x_gateway_user=word, x_gateway_territory=word, x_gateway_timeout_ms=word)
            await one.ask(**{"content-type": word})
            await one.client.post(CHAT, content=f'{{"model": "assistant", "{word}": 1}}')
            await one.client.post(f"{CHAT}?{word}={word}", content=b"{")

        for number in range(MOST_FAILED_KEYS + 1):
            await attack(number)
        before = {name: set(rows) for name, rows in one.series.items()}
        for number in range(MOST_FAILED_KEYS + 1, 130):
            await attack(number)
        after = {name: set(rows) for name, rows in one.series.items()}
        assert after == before
        assert sum(map(len, after.values())) < 60
        logged = json.dumps([[list(labels) for labels in rows] for rows in after.values()])
        assert '"x' not in logged
        assert sum(count for (count,) in one.series["gateway_requests_total"].values()) == 130 * 8


EXPORTER = """
exporters:
  traces: {endpoint: "https://otel.example/v1/traces", stores: DE, processes: DE, headers: {authorization: "${KEY}"}}
"""


async def test_trace_is_sent_at_shutdown_without_text_of_a_user() -> None:
    async with running_gateway(EXPORTER) as one:
        await one.ask(x_request_id="mail@example.org")
        await one.ask(country="KP")
        began = [line["trace_id"] for line in one.lines()]
        assert len(set(began)) == 2, "each request has its own trace"
        await one.end()
        exported = [request for request in one.sent if request.url.host == "otel.example"]
        assert [request.headers["authorization"] for request in exported] == ["sk-secret"]
        assert one.series["gateway_traces_total"] == {("traces", "exported"): [2]}
        body = exported[0].content
        assert bytes.fromhex(began[0]) in body
        for written in (b"secret thought", b"mail@example.org", b"gk-app", b"sk-secret"):
            assert written not in body


@pytest.mark.parametrize("way", ["down", "slow", "garbage"])
async def test_failing_collector_does_not_affect_a_request(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_export, "_CLOSE_S", 0.05)
    async with running_gateway() as well, running_gateway(EXPORTER) as ill:

        async def trouble(request: httpx.Request) -> httpx.Response:
            if request.url.host != "otel.example":
                return answer(request)
            if way == "down":
                raise httpx.ConnectError("refused")
            if way == "slow":
                await asyncio.Event().wait()
            return httpx.Response(418, content=b"\xff" * 1_000_000)

        ill.gateway._transport._inner.handler = trouble  # type: ignore[attr-defined]
        for _ in range(300):
            usual, other = await well.ask(), await ill.ask()
            assert (usual.status_code, usual.content) == (other.status_code, other.content)
            assert usual.headers.keys() == other.headers.keys()
        async with asyncio.timeout(10):
            await ill.end()
        (outcomes,) = {tuple(sorted(outcome for _, outcome in ill.series["gateway_traces_total"]))}
        assert outcomes
        assert "exported" not in outcomes
        assert sum(count for (count,) in ill.series["gateway_traces_total"].values()) == 300


def test_worker_without_exporters_loads_neither_library() -> None:
    code = "import gateway.app, sys; print([name for name in ('opentelemetry.proto', 'prometheus_client') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.stdout == "[]\n", done.stderr
