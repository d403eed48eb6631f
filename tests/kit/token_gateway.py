"""A gateway whose clients send signed tokens, as an application with a scripted provider and issuer."""

import asyncio
import json
import time
from collections.abc import Coroutine, Mapping
from typing import Any, Self, TypeVar

import httpx

from gateway.assembly.application import Gateway
from gateway.model.config_version import ConfigVersion
from tests.kit.claim_tokens import jwks, public, token
from tests.kit.configs import Config, key_hash, table_of
from tests.kit.httpx_transport import HttpxTransport

T = TypeVar("T")
CHAT = "/v1/chat/completions"
TENANT = "https://login.example/tenant/v2.0"
AUDIENCE = "api://gateway"
BODY = {"model": "assistant", "messages": [{"role": "user", "content": "hello"}]}
CONFIG = Config.beside(__file__).merge({"clients": {"app": {"keys": [key_hash("app-key")]}}})
"""One issuer, with a rule for people, one for programs, and one for a client that has a key too."""
RESEARCH: dict[str, Any] = {"groups": ["g-other", "g-lab"], "realm_access": {"roles": ["alpha", "beta"]}}
BATCH: dict[str, Any] = {"roles": ["Batch"]}


def signed(
    kid: str | None = "k1", algorithm: str = "ES256", *, header: Mapping[str, Any] | None = None, **changes: Any
) -> str:
    """Return a token of the issuer that is valid now, with changes. None removes a member."""
    now = time.time()
    members = {"iss": TENANT, "aud": AUDIENCE, "iat": now, "exp": now + 600, "sub": "s-1", "oid": "u-1", **changes}
    return token(kid, algorithm, header=header, territory=None, **members)


class TokenGateway:
    """The gateway. Use it as a context manager: all its requests run in one event loop.

    Attributes:
        keys: The key set that the issuer serves, or the status of its refusal.
        fetched: How often its keys were fetched.
        traces: The bodies that the exporter `https://traces.example` got.
        ahead_s: How much later it is for tokens than now.
    """

    def __init__(self, config: Config = CONFIG, environ: dict[str, str] | None = None) -> None:
        self.keys: bytes | int = jwks(public("k1"))
        self.fetched = 0
        self.ahead_s = 0.0
        self.sent: list[dict[str, Any]] = []
        self.traces: list[bytes] = []
        self._runner = asyncio.Runner()
        self._environ = environ or {}
        self.gateway = Gateway(self.compiled(config), HttpxTransport(httpx.MockTransport(self._answer)))
        tokens = self.tokens = self.gateway._tokens
        tokens.clock = lambda: time.time() + self.ahead_s
        tokens._ticks = lambda: time.monotonic() + self.ahead_s

    def compiled(self, config: Config) -> ConfigVersion:
        """Return the version of a configuration."""
        return table_of(config, self._environ)

    def reload(self, config: Config) -> None:
        """Use another configuration."""

        async def activate() -> None:
            self.gateway.activate(self.compiled(config))

        self._runner.run(activate())

    def run(self, waiting: Coroutine[Any, Any, T]) -> T:
        """Wait in the event loop of the gateway."""
        return self._runner.run(waiting)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self.tokens.aclose())
        self._runner.close()

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == "login.example":
            self.fetched += 1
            if isinstance(self.keys, int):
                return httpx.Response(self.keys)
            return httpx.Response(200, content=self.keys)
        if request.url.host == "traces.example":
            self.traces.append(request.content)
            return httpx.Response(200)
        self.sent.append(json.loads(request.content))
        message = {"role": "assistant", "content": "hello"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        body = {"id": "1", "object": "chat.completion", "model": "c", "choices": [choice], "usage": usage}
        return httpx.Response(200, json=body)

    def ask(
        self, text: str | None, *, header: str = "authorization", headers: Mapping[str, str] | None = None, **body: Any
    ) -> httpx.Response:
        """Send a chat with this token, and return the answer."""
        given = {header: f"Bearer {text}" if header == "authorization" else text} if text is not None else {}
        return self.send("POST", CHAT, {**given, **(headers or {})}, {**BODY, **body})

    def get(self, path: str, text: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """Get a resource with this token."""
        return self.send("GET", path, {"authorization": f"Bearer {text}", **(headers or {})})

    def send(self, method: str, path: str, headers: Mapping[str, str], body: object = None) -> httpx.Response:
        """Send a request, and return the answer."""

        async def sending() -> httpx.Response:
            asgi = httpx.ASGITransport(app=self.gateway)
            async with httpx.AsyncClient(transport=asgi, base_url="http://gateway") as client:
                answer = await client.request(method, path, json=body, headers=headers)
            self.gateway.flush()
            return answer

        return self._runner.run(sending())

    def last(self) -> dict[str, object]:
        """Return the last request as operators see it."""
        return self.gateway.recent_requests()[0]
