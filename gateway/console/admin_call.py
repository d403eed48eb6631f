"""Call the admin API inside the process, as a person whom the console has identified.

The console has no other access: a view shows, and an action does, what the admin API permits to the person's role.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from gateway.api.admin_guard import IDENTITY, Identity
from gateway.api.errors import ApiError
from gateway.api.raw_responses import Application
from gateway.console.texts import ViewTexts, _
from gateway.model.stored_client import Role
from providers.value import Value

_JSON = (b"content-type", b"application/json")
_ALIVE_EVERY_S = 2.0


class AdminFailed(Exception):
    """The admin API has refused or failed. The message is its own, or that of its code in the visitor's language."""

    def __init__(self, status: int, code: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.details = details or {}


class AdminCall(Value, frozen=True):
    """The admin API for one person."""

    application: Application
    identity: Identity
    texts: ViewTexts

    def expect(self, needed: Role) -> None:
        """Raise AdminFailed for a person without this role, before a confirmation or a definition is read."""
        try:
            self.identity.expect(needed)
        except ApiError as error:
            message = self.texts.code("error", error.code, error.message)
            raise AdminFailed(403, error.code, message) from None

    async def get(self, path: str, **query: str) -> Any:
        """Return the document at a path. Raises AdminFailed."""
        return await self.call("GET", path, query=query)

    async def call(self, method: str, path: str, body: object = None, query: Mapping[str, str] | None = None) -> Any:
        """Return the document that answers a request. Raises AdminFailed."""
        status, kind, data = await self.raw(method, path, body, query)
        try:
            document = json.loads(data) if kind.startswith("application/json") else None
        except ValueError:
            document = None
        error = document.get("error") if isinstance(document, dict) else None
        if isinstance(error, dict):
            code, own = str(error.get("code")), str(error.get("message"))
            raise AdminFailed(status, code, self.texts.code("error", code, own), error)
        if document is None and status >= 400:
            raise AdminFailed(status, "", self.texts.gettext(_("the admin API failed: read the log of the gateway")))
        return document

    async def raw(
        self, method: str, path: str, body: object = None, query: Mapping[str, str] | None = None
    ) -> tuple[int, str, bytes]:
        """Return the status, the content type and the body of an answer."""
        data = json.dumps(body).encode() if body is not None else b""
        parts: list[bytes] = []
        start: dict[str, Any] = {}

        async def receive() -> Any:
            return {"type": "http.request", "body": data, "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                parts.append(message.get("body", b""))

        await self.application(self._scope(method, path, query or {}, data), receive, send)
        kinds = [value for name, value in start["headers"] if name.lower() == b"content-type"]
        return start["status"], (kinds or [b""])[0].decode("latin-1"), b"".join(parts)

    async def stream(
        self,
        target: tuple[str, Mapping[str, str]],
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
        headers: Mapping[str, str],
        is_alive: Callable[[], Awaitable[bool]],
    ) -> None:
        """Pass on the answer of a path and query with more headers, until the client leaves or the session ends."""
        more = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        async def receive_while_alive() -> Any:
            waiting = asyncio.ensure_future(receive())
            try:
                while await is_alive():
                    if (await asyncio.wait((waiting,), timeout=_ALIVE_EVERY_S))[0]:
                        return waiting.result()
                return {"type": "http.disconnect"}
            finally:
                waiting.cancel()

        await self.application(self._scope("GET", *target, b""), receive_while_alive, send_with_headers)

    def _scope(self, method: str, path: str, query: Mapping[str, str], data: bytes) -> dict[str, Any]:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": quote(path, safe="/").encode(),
            "root_path": "",
            "query_string": urlencode(query).encode(),
            "headers": [(b"host", b"console"), *([_JSON, (b"content-length", b"%d" % len(data))] if data else [])],
            "client": None,
            "server": None,
            "state": {},
            IDENTITY: self.identity,
        }
