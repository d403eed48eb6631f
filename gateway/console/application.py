"""The console of the demo in front of the gateway's application: the page at `/`, and its own paths below `/console/`.

Everything that the page shows is read through `Control`, as the admin API does. The browser never calls the admin
listener. Questions go to the public API, as every client's.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any
from urllib.parse import parse_qsl

from gateway.api.admin import build_admin
from gateway.api.admin_config import fault_request
from gateway.api.admin_control import Control
from gateway.api.admin_guard import Guard, Identity
from gateway.api.body import read_object
from gateway.api.errors import ApiError
from gateway.api.event_stream import stream_events
from gateway.api.front_page import accepts_html
from gateway.api.raw_responses import Application, RawResponse, Send, json_response, method_not_allowed
from gateway.console.access import HEADERS, check_access, headers_by_name
from gateway.console.all_views import VIEWS
from gateway.console.demo_users import claim_of
from gateway.console.forms import read_form, read_query
from gateway.console.own_config import OwnConfig
from gateway.console.page import PageSettings, Request
from gateway.console.serving import WorldPage, send_answer, static_file
from gateway.console.texts import language_of, texts_in
from gateway.console.timeline import timeline
from gateway.console.views import Views
from gateway.console.visitors import Visitor
from gateway.model.stored_client import Role

_Receive = Callable[[], Any]
_REQUEST = re.compile(r"/console/requests/([!-~]{1,200})")
_MOST_LATER_S = 86_400
_FOUND_WITHIN_S, _LOOK_EVERY_S = 2.0, 0.05

_DEMO_VISITOR = Visitor(Identity(Role.VIEWER, who="the demo"), "demo", "")


class Console:
    """The application of a demo with the console in front of it."""

    def __init__(self, application: Application, control: Control, settings: PageSettings) -> None:
        self._application = application
        self._control = control
        self._own_config = OwnConfig(settings.config)
        self._world = WorldPage(control, settings, self._own_config)
        # The visitors of a demo have no account: they read, and the admin API refuses everything else.
        self._views = Views(build_admin(control, Guard()), VIEWS, "/console", is_demo=True)

    def __call__(self, scope: Any, receive: _Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Handle one ASGI connection."""
        if scope["type"] == "http" and _is_ours(scope):
            return send_answer(scope, self._answer(scope, receive, send), send)
        return self._application(scope, receive, send)

    async def prepare(self) -> None:
        """Compute in advance what the first page needs."""
        await self._world.prepare()

    async def _answer(self, scope: Any, receive: _Receive, send: Send) -> RawResponse | None:
        path = scope["path"]
        check_access(scope, is_page=path == "/" or self._views.has(path))
        if path == "/console/events":
            _expect(scope, "GET")
            await stream_events(self._control, scope, receive, send, HEADERS)
            return None
        return await self._respond(scope, path, receive)

    async def _respond(self, scope: Any, path: str, receive: _Receive) -> RawResponse:
        if path == "/":
            return await self._page(scope)
        if path in ("/console", "/console/"):
            return RawResponse(b"", 303, {"location": "/"})
        if (file := static_file(path)) is not None:
            _expect(scope, "GET")
            return file
        if path == "/console/faults":
            if scope["method"] == "PUT":
                await self._control.set_fault(*fault_request(await read_object(receive)))
            elif scope["method"] == "DELETE":
                await self._control.clear_faults()
            else:
                raise method_not_allowed(scope["method"], "PUT, DELETE")
            return RawResponse(b"", 204)
        if self._views.has(path):
            return await self._view(scope, path, receive)
        if path == "/console/arrived":
            _expect(scope, "GET")
            deployment = read_query(scope).get("deployment", [""])[-1]
            return json_response({"body": await self._control.arrived(deployment)})
        if path == "/console/claim":
            _expect(scope, "POST")
            body, config = await read_object(receive), (await self._control.status()).config
            claim = claim_of(config, str(body.get("region")), str(body.get("band")), time.time())
            return json_response({"claim": claim})
        if path == "/console/clock":
            _expect(scope, "POST")
            return await self._move_clock(receive)
        if path == "/console/configuration":
            try:
                return await self._edit(scope, receive)
            except ApiError as error:
                message = texts_in(_language(scope)).gettext(error.message)
                raise ApiError(error.code, message, error.param) from None
        if (named := _REQUEST.fullmatch(path)) is not None:
            _expect(scope, "GET")
            return json_response(timeline(await self._find_request(named[1]), texts_in(_language(scope))))
        raise ApiError("not_found", "there is nothing at this path of the console: its page is at /")

    async def _page(self, scope: Any) -> RawResponse:
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        sent = {name: value.decode("latin-1") for name, value in scope["headers"]}
        known = {
            name: query.get(name, "") for name in ("territory", "assistant", "question", "view", "dismissed", "lang")
        }
        origin = f"{scope['scheme']}://{sent[b'host']}"
        request = Request(origin, sent.get(b"accept-language", ""), **known)
        visit = self._views.visit(_DEMO_VISITOR, _language(scope), read_query(scope), {})
        navigation = await self._views.navigation(visit)
        headers = {"vary": "accept, accept-language"}
        return await self._world.page(request, headers, await self._control.faults(), navigation)

    async def _view(self, scope: Any, path: str, receive: _Receive) -> RawResponse:
        method, headers = scope["method"], headers_by_name(scope)
        if method not in (allowed := self._views.methods(path)):
            raise method_not_allowed(method, ", ".join(allowed))
        query = read_query(scope)
        form = await read_form((headers.get("content-type") or [""])[0], receive) if method == "POST" else {}
        visit = self._views.visit(_DEMO_VISITOR, _language(scope), query, form)
        return await self._views.respond(method, path, visit)

    async def _move_clock(self, receive: _Receive) -> RawResponse:
        later_s = (await read_object(receive)).get("later_s")
        if not isinstance(later_s, int) or not 0 < later_s <= _MOST_LATER_S:
            raise ApiError("invalid_request", f"send `later_s`: whole seconds from 1 to {_MOST_LATER_S}", "later_s")
        return json_response({"ahead_s": await self._control.clock(await self._control.clock() + later_s)})

    async def _edit(self, scope: Any, receive: _Receive) -> RawResponse:
        if scope["method"] == "PUT":
            body = await read_object(receive)
            words = [body.get(name) for name in ("assistant", "region", "deployment")]
            if len(body) != len(words) or not all(isinstance(word, str) for word in words):
                raise ApiError("invalid_request", "the body must have the texts assistant, region and deployment")
            config = (await self._control.status()).config
            await asyncio.to_thread(self._own_config.put_first, config, *map(str, words))
        elif scope["method"] == "DELETE":
            is_rejected = (await self._control.status()).failed is not None
            await asyncio.to_thread(self._own_config.undo, is_rejected=is_rejected)
        else:
            raise method_not_allowed(scope["method"], "PUT, DELETE")
        return RawResponse(b"", 204)

    async def _find_request(self, request_id: str) -> Mapping[str, Any]:
        """Return a finished request. The page asks at its last byte, a moment before its record is complete."""
        for _ in range(round(_FOUND_WITHIN_S / _LOOK_EVERY_S)):
            for document in await self._control.requests():
                if document["request_id"] == request_id:
                    return document
            await asyncio.sleep(_LOOK_EVERY_S)
        message = "the request is not among the last ones, or has not ended"
        raise ApiError("not_found", message)


def _language(scope: Any) -> str:
    accepted = ",".join(headers_by_name(scope).get("accept-language", []))
    return language_of(read_query(scope).get("lang", [""])[-1], accepted)


def _is_ours(scope: Any) -> bool:
    path = scope["path"]
    return (
        path == "/console"
        or path.startswith("/console/")
        or (path == "/" and scope["method"] == "GET" and accepts_html(scope))
    )


def _expect(scope: Any, method: str) -> None:
    if scope["method"] != method:
        raise method_not_allowed(scope["method"], method)
