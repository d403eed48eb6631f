"""A stream whose answer is emulated begins before it is known who answers."""

import asyncio
import json
from typing import Any

import httpx

from gateway.assembly.application import Gateway
from gateway.model.record import Record
from tests.kit.case_files import cases
from tests.kit.configs import Config, table_of
from tests.kit.httpx_transport import HttpxTransport
from tests.kit.judged_chats import events_of

CONFIG = Config.parse("""
version: 1
assistants: {assistant: {routes: {default: [model]}}}
regions: {default: {territories: ["*"], boundary: ["*"]}}
deployments:
  model: {provider: anthropic, model: claude-haiku-4-5, endpoint: global, api_key: sk-test, structured_output: emulate,
          capabilities: [tools, reasoning]}
location: {unknown: default}
resilience: {first_token: 20ms, total: 60s}
""")
OTHER = {"deployments": {"other": {**CONFIG.data["deployments"]["model"], "model": "claude-sonnet-4-6"}}}
STATE = "c3RhdGU="
ANSWER = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": "claude-haiku-4-5",
    "content": [
        {"type": "thinking", "thinking": "Hm.", "signature": STATE},
        {"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {}},
    ],
    "stop_reason": "tool_use",
    "usage": {"input_tokens": 5, "output_tokens": 7},
}
QUESTION = {"role": "user", "content": "Where is it?"}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "format": "any"}}}


def client_of(served: Gateway, begun: asyncio.Event) -> httpx.AsyncClient:
    """Return a client of a gateway that sets the event when a response begins."""

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        async def noting(message: Any) -> None:
            if message["type"] == "http.response.start":
                begun.set()
            await send(message)

        await served(scope, receive, noting)

    return httpx.AsyncClient(transport=httpx.ASGITransport(app=watched), base_url="http://gateway")


async def test_call_of_a_late_answer_brings_its_state_back() -> None:
    begun, asked = asyncio.Event(), list[bytes]()

    async def provider(request: httpx.Request) -> httpx.Response:
        asked.append(request.content)
        await begun.wait()
        return httpx.Response(200, json=ANSWER)

    served = Gateway(table_of(CONFIG), HttpxTransport(httpx.MockTransport(provider)))

    async with client_of(served, begun) as client:
        body: dict[str, Any] = {"model": "assistant", "messages": [QUESTION], "tools": [TOOL]}
        path = "/v1/chat/completions"
        late = await client.post(path, json={**body, "response_format": FORMAT, "stream": True})
        (call,) = [call for one in events_of(late) for call in one["choices"][0]["delta"].get("tool_calls", ())]
        turn = {"role": "assistant", "content": None, "tool_calls": [call]}
        result = {"role": "tool", "tool_call_id": call["id"], "content": "In Rome."}
        again = await client.post(path, json={**body, "messages": [QUESTION, turn, result]})
    assert (late.status_code, again.status_code) == (200, 200)
    # Every deployment of the route would emulate, so the headers of a stream that has begun can state it.
    assert late.headers["x-gateway-emulated"] == "response_format"
    assert late.headers["x-gateway-dropped"] == "response_format.format"
    assert "x-gateway-deployment" not in late.headers
    assert STATE.encode() in asked[1]
    assert STATE not in call["id"].partition(".")[0]
    assert "reasoning_state" not in again.headers.get("x-gateway-dropped", "")


def _whole(text: str) -> dict[str, Any]:
    return {**ANSWER, "content": [{"type": "text", "text": text}], "stop_reason": "end_turn"}


@cases("assistants", "end")
async def test_late_answer_is_asked_again_as_the_active_version_decides(assistants: str, end: str) -> None:
    begun, asked, records = asyncio.Event(), list[str](), list[Record]()

    async def provider(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content)["model"])
        await begun.wait()
        if len(asked) == 1:
            served.activate(table_of(CONFIG.merge(OTHER).replace(assistants=Config.parse(assistants).data)))
            return httpx.Response(200, json=_whole("no JSON"))
        return httpx.Response(200, json=_whole('{"a": 1}'))

    served = Gateway(table_of(CONFIG.merge(OTHER)), HttpxTransport(httpx.MockTransport(provider)))
    served._chat._observe = records.append

    async with client_of(served, begun) as client:
        body = {"model": "assistant", "messages": [QUESTION], "response_format": FORMAT, "stream": True}
        late = await client.post("/v1/chat/completions", json=body)
    chunks = events_of(late)
    texts = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.get("choices", ())]
    errors = [chunk["error"]["code"] for chunk in chunks if "error" in chunk]
    assert late.status_code == 200
    assert ("".join(texts) or errors[0]) == (end.rpartition(" ")[2] if errors else end), late.text
    # A prompt that was sent under one version goes nowhere that this version does not allow.
    assert set(asked) == {"claude-haiku-4-5"}
    (record,) = records
    assert record.outcome == ("ok" if end.startswith("{") else end.partition(":")[0])
    assert late.text.rstrip().endswith("[DONE]") == end.startswith("{")
    assert record.config_version == served.config.version
