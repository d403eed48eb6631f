"""The proxy that anybody would write first: FastAPI with a pydantic body, httpx.AsyncClient, tenacity around the call.

No key check, no location, no boundary, no log. Its one departure from the defaults is a pool without a limit, so that
the measurement isn't one of waiting for a free connection.

    NAIVE_UPSTREAMS='{"model": "http://127.0.0.1:8000/v1/chat/completions"}' uvicorn bench.naive:app
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_exponential, wait_random

UPSTREAMS: dict[str, str] = json.loads(os.environ["NAIVE_UPSTREAMS"])
HEADERS = {"authorization": "Bearer sk-bench"}


class Message(BaseModel):
    """One message of the chat."""

    role: str
    content: str


class ChatBody(BaseModel):
    """What a client sends; unknown fields pass."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: list[Message]
    stream: bool = False


class UpstreamError(Exception):
    """The provider answered with an error that another attempt may mend."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One client for the life of the process."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(timeout=httpx.Timeout(60.0, pool=None), limits=limits, headers=HEADERS) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    """Alive."""
    return {"status": "ok"}


@retry(
    retry=retry_if_exception_type((httpx.TransportError, UpstreamError)),
    stop=stop_after_attempt(3),
    wait=wait_exponential(multiplier=0.1, max=2) + wait_random(0, 1),
    reraise=True,
)
async def send(url: str, body: dict[str, Any]) -> httpx.Response:
    """The provider's response, its body unread."""
    client: httpx.AsyncClient = app.state.client
    response = await client.send(client.build_request("POST", url, json=body), stream=True)
    if response.status_code >= 500:
        await response.aclose()
        raise UpstreamError(str(response.status_code))
    return response


@app.post("/v1/chat/completions")
async def chat(body: ChatBody) -> Response:
    """Pass the request on, and the answer back."""
    url = UPSTREAMS.get(body.model)
    if url is None:
        raise HTTPException(404, f"no model {body.model}")
    response = await send(url, body.model_dump(exclude_unset=True))
    if body.stream and response.status_code == 200:
        return StreamingResponse(relay(response), media_type="text/event-stream")
    await response.aread()
    return JSONResponse(response.json(), response.status_code)


async def relay(response: httpx.Response) -> AsyncIterator[bytes]:
    """The body as it comes."""
    try:
        async for chunk in response.aiter_bytes():
            yield chunk
    finally:
        await response.aclose()
