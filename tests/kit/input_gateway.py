"""A gateway for requests for embeddings and moderations, as an application with scripted providers."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from gateway.assembly.application import Gateway
from tests.kit.audio import BOUNDARY
from tests.kit.configs import Config, table_of
from tests.kit.httpx_transport import HttpxTransport

EMBEDDINGS, MODERATIONS = "/v1/embeddings", "/v1/moderations"
CONFIG = Config.parse("""
version: 1
assistants:
  assistant:
    routes: {default: [chat]}
    embeddings: {default: [house, spare]}
    moderations: {default: [judge]}
regions: {default: {territories: ["*"], boundary: ["*"]}}
deployments:
  chat: {provider: openai-compatible, model: c, endpoint: "https://chat.example/v1", stores: any, processes: any}
  house: {provider: openai-compatible, model: m, endpoint: "https://house.example/v1", stores: any, processes: any}
  spare: {provider: openai-compatible, model: m, endpoint: "https://spare.example/v1", stores: any, processes: any}
  judge: {provider: openai-compatible, model: j, endpoint: "https://judge.example/v1", stores: any, processes: any}
location: {unknown: default}
""")
"""Two deployments of one embedding model, and a server that answers moderations."""

Provider = Callable[[httpx.Request], httpx.Response]
PERSONAL = {"kinds": ["email", "phone", "iban", "card", "id", "secret"], "countries": ["DE", "CN", "US"]}
REDACTED = CONFIG.merge({"redactions": {"personal": PERSONAL}, "regions": {"default": {"redact": "personal"}}})
JUDGED = {"input": ["judge"], "output": ["judge"], "on_failure": "closed", "window_chars": 20, "hold_chars": 60}
"""The moderation of a region."""


def vectors_of(request: httpx.Request, dimensions: int = 3) -> dict[str, Any]:
    """Return a good answer to a request in OpenAI's format. The first number of a vector names its input."""
    body = json.loads(request.content)
    size = body.get("dimensions", dimensions)
    data = [
        {"object": "embedding", "index": index, "embedding": [float(len(str(text)))] + [0.5] * (size - 1)}
        for index, text in enumerate(body["input"])
    ]
    return {"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 2, "total_tokens": 2}}


class InputGateway:
    """A gateway whose providers are one function. `requests` are those that arrived there."""

    def __init__(self, provider: Provider, config: Config = CONFIG, environ: dict[str, str] | None = None) -> None:
        self.requests: list[httpx.Request] = []
        self._provider = provider
        self._transport = HttpxTransport(httpx.MockTransport(self._answer))
        self.gateway = Gateway(table_of(config, environ or {}), self._transport)
        self.gateway._executor.draw = lambda: 0.0  # no wait before another attempt: its jitter is up to the whole of it

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self._provider(request)

    @property
    def bodies(self) -> list[Any]:
        """The JSON bodies that the providers received."""
        return [json.loads(request.content) for request in self.requests]

    def post(self, path: str, body: object, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """Send one request, and return the answer."""
        return asyncio.run(self._send("POST", path, body, headers or {}))

    def post_form(self, path: str, form: bytes, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """Send a form, and return the answer."""
        media = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
        return asyncio.run(self._send("POST", path, None, {**media, **(headers or {})}, form))

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """Get a resource of the gateway."""
        return asyncio.run(self._send("GET", path, None, headers or {}))

    def counts(self) -> bytes:
        """Return the counts of the gateway, as a worker writes them down."""

        async def snapshot() -> bytes:
            return self.gateway.metrics.snapshot()

        return asyncio.run(snapshot())

    async def _send(
        self, method: str, path: str, body: object, headers: Mapping[str, str], content: bytes | None = None
    ) -> httpx.Response:
        asgi = httpx.ASGITransport(app=self.gateway)
        async with httpx.AsyncClient(transport=asgi, base_url="http://gateway") as client:
            answer = await client.request(method, path, json=body, content=content, headers=dict(headers))
        self.gateway.flush()
        return answer
