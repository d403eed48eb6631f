"""A request to a route of the admin listener: its sender, its body, and the actions that it may run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Annotated

from fastapi import Depends, Request
from fastapi.responses import JSONResponse, Response

from gateway.api.admin_control import Control
from gateway.api.admin_guard import Identity
from gateway.api.body import SMALL_OBJECT_BYTES, read_object
from gateway.api.errors import ApiError
from gateway.model.status import OPERATOR_HEADER, Who
from gateway.model.stored_client import Role, facts_of
from gateway.operator_errors import NotStored
from gateway.service.admin_operations import OPERATIONS
from gateway.service.client_admin import AdminRefused, ClientAdmin, FileClients, InvalidFields, Json, clients_in_file

_MAX_NAME_CHARACTERS = 120
_IN_DATABASE = {it.command for it in OPERATIONS if it.group in ("keys", "clients", "projects") and not it.of_file}
"""The operations on clients that need `clients_source: database`."""


class AdminRequest:
    """A request whose sender may use its route."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.control: Control = request.app.state.control

    @property
    def role(self) -> Role:
        """The role of the sender."""
        role: Role = self.request.state.identity.role
        return role

    @property
    def who(self) -> Who:
        """Return the name that the sender gives itself, which is not verified, and its token's id. Raises ApiError."""
        name = self.request.headers.get(OPERATOR_HEADER, "")
        with suppress(UnicodeDecodeError):
            # Names are in UTF-8, and the framework reads headers as Latin-1, which keeps every byte.
            name = name.encode("latin-1").decode()
        if len(name) > _MAX_NAME_CHARACTERS or not name.isprintable():
            message = f"`{OPERATOR_HEADER}` must be at most {_MAX_NAME_CHARACTERS} printable characters"
            raise ApiError("invalid_request", message)
        identity: Identity = self.request.state.identity
        by_token = f"(token {identity.token_id})" if identity.token_id else ""
        return Who(identity.who or " ".join(filter(None, [name, by_token])), identity.how)

    async def body(self) -> dict[str, object]:
        """Return the JSON object in the body. Raises ApiError."""
        return await read_object(self.request.receive)

    async def texts(self, *allowed: str, most_bytes: int = SMALL_OBJECT_BYTES) -> dict[str, str]:
        """Return the texts of the body, which may have these members. Raises ApiError."""
        return texts_of(await read_object(self.request.receive, most_bytes), *allowed)

    def expect_admin(self, subject: str) -> None:
        """Raise ApiError unless the sender has the role `admin`: no other role sees end users, also as pseudonyms."""
        if self.role is not Role.ADMIN:
            message = f"{subject} needs the role `admin`, and you have the role `{self.role}`"
            raise ApiError("permission_denied", message)

    async def run(self, action: str, work: Callable[[ClientAdmin], Json | Response]) -> Response:
        """Run an action in a thread, and answer with its result."""
        admin = self.control.client_admin(self.who)
        if admin is None:
            config = (await self.control.status()).config
            if config.clients_source == "file" and action in _IN_DATABASE:
                raise clients_in_file(action, "NAME", facts_of(config))
            raise AdminRefused(409, "no_state_directory", "there is no state directory: set GATEWAY_STATE_DIR")
        try:
            result = await asyncio.to_thread(work, admin)
        except InvalidFields as error:
            raise ApiError("invalid_request", str(error)) from None
        return result if isinstance(result, Response) else JSONResponse(result)

    async def show(self, action: str, work: Callable[[ClientAdmin | FileClients], Json]) -> Response:
        """Answer with stored clients, or with the clients of the config file."""
        config = (await self.control.status()).config
        if config.clients_source != "file":
            return await self.run(action, work)
        return JSONResponse(work(FileClients(config)))


async def _asked(request: Request) -> AdminRequest:
    return AdminRequest(request)


Asked = Annotated[AdminRequest, Depends(_asked)]
"""The parameter of a route for its request."""


def texts_of(given: Mapping[str, object], *allowed: str) -> dict[str, str]:
    """Return the members of a body that are not null. An unknown member is refused: no mistyped name is lost."""
    texts: dict[str, str] = {}
    for name, value in given.items():
        if name not in allowed:
            raise ApiError("invalid_request", f"unknown field {name[:40]!r}: the fields are {', '.join(allowed)}")
        if value is None:
            continue
        if not isinstance(value, str):
            raise ApiError("invalid_request", f"`{name}` must be a string", name)
        texts[name] = value
    return texts


async def refusal_response(_: Request, error: Exception) -> JSONResponse:
    """Return a refusal in the envelope of all errors. Its codes are of the admin API alone."""
    match error:
        case AdminRefused():
            refused = error
        case NotStored():
            refused = AdminRefused(404, "version_not_found", str(error))
        case _:
            refused = AdminRefused(503, "state_unavailable", str(error))
    kind = "api_error" if refused.status >= 500 else "invalid_request_error"
    shown = {"message": str(refused), "type": kind, "param": None, "code": refused.code, **refused.details}
    return JSONResponse({"error": shown}, refused.status)
