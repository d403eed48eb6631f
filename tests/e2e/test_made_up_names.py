"""Names that a client makes up, such as that of an unknown field, are in no log line, receipt, span or metric."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx

from providers.testkit.server import SimulatorThread
from tests.e2e.conftest import KEYS, PATIENT, config_for
from tests.kit.chat_http import CHAT, body
from tests.kit.gateway_process import APP_KEY, running_gateway
from tests.kit.otlp_collector import collecting
from tests.kit.waiting import eventually

MARK = "ada_lovelace"
TOOL = {"type": "function", "function": {"name": f"tool_of_{MARK}", "parameters": {"type": "object"}}}
CALL = {"id": f"call_{MARK}", "type": "function", "function": {"name": "f", "arguments": "{}"}}
USER = {"role": "user", "content": "Hello"}
BODIES: dict[str, Any] = {
    "model": body(model=f"assistant_of_{MARK}"),
    "unknown field": body(**{MARK: 1}),
    "field with a long name": body(**{MARK + "x" * 200: 1}),
    "many unknown fields": body(**{f"{MARK}_{number}": 1 for number in range(200)}),
    "data-moving field in an unknown field": body(**{MARK: {"mcp_servers": [{"url": "https://mcp.example"}]}}),
    "field of a message": body(messages=[{**USER, MARK: 1}]),
    "field of a tool": body(tools=[{**TOOL, "function": {**TOOL["function"], MARK: 1}}]),  # type: ignore[dict-item]
    "field of the stream options": body(stream=True, stream_options={MARK: 1}),
    "role": body(messages=[{"role": MARK, "content": "Hello"}]),
    "type of a part": body(messages=[{"role": "user", "content": [{"type": MARK}]}]),
    "token of logit_bias": body(logit_bias={MARK: "much"}),
    "token of logit_bias out of bounds": body(logit_bias={MARK: 1000}),
    "tool": body(tools=[TOOL], tool_choice={"type": "function", "function": {"name": MARK}}),
    "id of an open call": body(messages=[USER, {"role": "assistant", "tool_calls": [CALL]}, USER]),
    "id of the last call": body(messages=[USER, {"role": "assistant", "tool_calls": [CALL]}]),
    "id of an unknown call": body(messages=[USER, {"role": "tool", "tool_call_id": MARK, "content": "x"}]),
    "name of a message": body(messages=[{**USER, "name": MARK}]),
    "name of the schema": body(
        response_format={"type": "json_schema", "json_schema": {"name": f"{MARK} {MARK}", "schema": {}}}
    ),
    "property of the schema": body(
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"properties": {MARK: {}}}}}
    ),
    "host of an image": body(
        messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"https://{MARK}"}}]}]
    ),
    "metadata": body(metadata={MARK: "x"}),
    "effort": body(reasoning_effort=MARK),
    "user": body(user=MARK),
}
DUPLICATE = json.dumps(body(**{MARK: 1}))[:-1] + f', "{MARK}": 2}}'
HEADERS = {
    "x-gateway-user": MARK, "x-gateway-territory": MARK, "x-gateway-claim": MARK, "x-gateway-consent": MARK,
    "x-gateway-timeout-ms": MARK, "accept-language": MARK, "user-agent": MARK, "x-ada-lovelace": MARK,
}  # fmt: skip


async def test_made_up_names_are_in_no_output(providers: SimulatorThread, tmp_path: Path) -> None:
    """Sixty requests to one gateway, which must be stopped before all that it writes can be read."""
    async with collecting() as collector:
        exporters = {"all": {"endpoint": collector.url, "stores": "DE", "processes": "DE", "regions": ["eu"]}}
        refusing = {name: {"unsupported": "refuse"} for name in ("chatgpt-us", "qwen-cn")}
        config = config_for(providers, PATIENT, {"exporters": exporters, "deployments": refusing}).write(tmp_path)
        state = tmp_path / "state"
        with running_gateway(config, {**KEYS, "GATEWAY_STATE_DIR": str(state)}) as gateway:
            headers = {"authorization": f"Bearer {APP_KEY}"}
            answers: dict[tuple[str, str], httpx.Response] = {}
            async with httpx.AsyncClient(base_url=gateway.url, headers=headers, trust_env=False, timeout=60) as client:
                for country in ("DE", "US", "CN"):
                    where = {"cf-ipcountry": country}
                    for kind, request in BODIES.items():
                        answers[kind, country] = await client.post(CHAT, json=request, headers=where)
                    await client.post(CHAT, content=DUPLICATE, headers={**where, "content-type": "application/json"})
                    for header, value in HEADERS.items():
                        await client.post(CHAT, json=body(), headers={**where, header: value})
                await client.post(CHAT, json=body(), headers={"cf-ipcountry": MARK})
                await client.get(f"/v1/{MARK}")
                await client.get(f"/v1/receipts/{MARK}")
                await client.get("/v1/disclosure", params={"assistant": MARK}, headers={"cf-ipcountry": "DE"})
                await client.post(CHAT, json=body(), headers={"authorization": f"Bearer {MARK}"})
                last = await client.post(CHAT, json=body(), headers={"cf-ipcountry": "US", "x-request-id": "last"})
                assert last.status_code == 200
            await asyncio.to_thread(gateway.wait_for, "request", request_id="last")
            async with httpx.AsyncClient(base_url=gateway.admin_url, trust_env=False) as admin:
                metrics = (await admin.get("/metrics")).text
            await asyncio.to_thread(eventually, lambda: bool(collector.bodies))
            assert await asyncio.to_thread(gateway.stop) == 0
            lines = [json.dumps(line) for line in gateway.lines]
    # The client gets the names that it sent.
    assert answers["unknown field", "DE"].headers["x-gateway-dropped"] == MARK
    for kind, country in (("unknown field", "US"), ("model", "DE"), ("token of logit_bias", "DE")):
        assert MARK in answers[kind, country].json()["error"]["message"], (kind, country)
    assert [line for line in lines if MARK in line] == []
    assert MARK not in metrics
    assert [path.name for path in state.rglob("*") if path.is_file() and MARK.encode() in path.read_bytes()] == []
    assert MARK.encode() not in b"".join(collector.bodies)
    by_id = {line["request_id"]: line for line in map(json.loads, lines) if "request_id" in line}
    refused = by_id[answers["unknown field", "US"].headers["x-request-id"]]
    assert "does not support 1 unknown field, and is set to refuse" in refused["detail"]
    dropped = by_id[answers["unknown field", "DE"].headers["x-request-id"]]
    assert (dropped["dropped"], dropped["dropped_unknown"]) == ([], 1)
