"""A simple proxy as most would write it first: FastAPI with a pydantic body, httpx.AsyncClient, and tenacity for the
call.
No key check, no location, no boundary, no log. Its only change of the defaults is a pool without a limit, so that the
measurement does not include waiting for a free connection.

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
    """The request of a client. Unknown fields are allowed."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: list[Message]
    stream: bool = False


class UpstreamError(Exception):
    """The provider answered with an error that a retry may fix."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Create one client for the life of the process."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(timeout=httpx.Timeout(60.0, pool=None), limits=limits, headers=HEADERS) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    """Report that the process is alive."""
    return {"status": "ok"}


@retry(
    retry=retry_if_exception_type((httpx.TransportError, UpstreamError)),
    stop=stop_after_attempt(3),
    wait=wait_exponential(multiplier=0.1, max=2) + wait_random(0, 1),
    reraise=True,
)
async def send(url: str, body: dict[str, Any]) -> httpx.Response:
    """Return the provider's response with an unread body."""
    client: httpx.AsyncClient = app.state.client
    response = await client.send(client.build_request("POST", url, json=body), stream=True)
    if response.status_code >= 500:
        await response.aclose()
        raise UpstreamError(str(response.status_code))
    return response


@app.post("/v1/chat/completions")
async def chat(body: ChatBody) -> Response:
    """Forward the request and return the answer."""
    url = UPSTREAMS.get(body.model)
    if url is None:
        raise HTTPException(404, f"no model {body.model}")
    response = await send(url, body.model_dump(exclude_unset=True))
    if body.stream and response.status_code == 200:
        return StreamingResponse(relay(response), media_type="text/event-stream")
    await response.aread()
    return JSONResponse(response.json(), response.status_code)


async def relay(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yield the body as it arrives."""
    try:
        async for chunk in response.aiter_bytes():
            yield chunk
    finally:
        await response.aclose()
