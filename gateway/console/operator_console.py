"""The console outside a demo, on a listener of its own: sign-in, sessions, and the views."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from gateway.api.admin_guard import Guard, Identity
from gateway.api.errors import ApiError
from gateway.api.raw_responses import Application, RawResponse, Send, method_not_allowed
from gateway.console.access import HEADERS, headers_by_name
from gateway.console.all_views import VIEWS
from gateway.console.forms import MOST_BYTES, read_form, read_query
from gateway.console.page import Request
from gateway.console.serving import WorldPage, send_answer, static_file
from gateway.console.sessions import Sessions
from gateway.console.texts import _, language_of
from gateway.console.views import ViewAnswer, Views, Visit
from gateway.console.visitors import ConsoleAccess, NotShown, Visitor, Visitors, cookies_of
from gateway.model.stored_client import Role
from gateway.operator_errors import StateError
from providers.value import replace

_LANGUAGE = "gateway-console-language"
_HOME = "/requests"
_EVENTS = ("/events", "/console/events")
"""The events of the views, and of the map, whose script is that of the demo."""
_MOST_SIGN_IN_BYTES = 16 * 1024
_Headers = Mapping[str, list[str]]
NOBODY = Visitor(Identity(Role.VIEWER), "", "")
"""Stands for a visitor who has not signed in. Such pages read no data."""


class OperatorConsole:
    """The application of the console's listener. The admin API decides by the role of the visitor."""

    def __init__(self, admin: Application, guard: Guard, access: ConsoleAccess, world: WorldPage) -> None:
        self._world = world
        self._visitors = Visitors(access, guard, Sessions())
        self._views = Views(admin, VIEWS)

    async def __call__(self, scope: Any, receive: Callable[[], Any], send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            return
        await send_answer(scope, self._answer(scope, receive, send), send)

    async def _answer(self, scope: Any, receive: Callable[[], Any], send: Send) -> RawResponse | None:
        headers = headers_by_name(scope)
        if scope["path"] in _EVENTS and scope["method"] == "GET":
            await self._stream(headers, scope, receive, send)
            return None
        return await self._respond(scope, headers, receive)

    async def _respond(self, scope: Any, headers: _Headers, receive: Callable[[], Any]) -> RawResponse:
        path, method = scope["path"], scope["method"]
        query = read_query(scope)
        try:
            self._visitors.access.check(method, headers)
            if (file := static_file(path)) is not None:
                return file
            self._visitors.expect_sign_in()
            visitor = await self._visitors.visitor(headers)
            form: Mapping[str, str] = {}
            if method == "POST" and (visitor is not None or path == "/sign-in"):
                most_bytes = MOST_BYTES if visitor is not None else _MOST_SIGN_IN_BYTES
                form = await read_form((headers.get("content-type") or [""])[0], receive, most_bytes)
            response = await self._page(method, path, visitor, self._visit(visitor, headers, query, form), scope)
        except NotShown as error:
            visit = self._visit(None, headers, query, {})
            values = {"title": _("Console"), "message": error.message(visit.texts), "sign_in": False}
            return await self._views.page(ViewAnswer("message.html", values, error.status), visit)
        if (chosen := query.get("lang")) and response.status == 200:
            language = f"{_LANGUAGE}={language_of(chosen[-1], '')}; Path=/; SameSite=Lax; Max-Age=31536000"
            response = replace(response, headers={**response.headers, "set-cookie": language})
        return response

    async def _page(self, method: str, path: str, visitor: Visitor | None, visit: Visit, scope: Any) -> RawResponse:
        if path == "/sign-in":
            return await self._sign_in(method, visit, scope)
        if path != "/" and path != "/sign-out" and not self._views.has(path):
            raise NotShown(_("the console has no page at this path"), 404)
        if visitor is None:
            if method in ("GET", "HEAD"):
                target = path + (f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else "")
                return RawResponse(b"", 303, {"location": f"/sign-in?{urlencode({'next': target})}"})
            message = visit.texts.gettext(_("Your session has ended. Nothing was changed."))
            values = {"title": _("Sign in"), "message": message, "sign_in": True}
            return await self._views.page(ViewAnswer("message.html", values, 403), visit)
        if method == "POST" and not hmac.compare_digest(visit.form.get("csrf", "").encode(), visitor.csrf.encode()):
            raise NotShown(_("the form does not belong to your session: open the page again"))
        if path == "/" and method in ("GET", "HEAD"):
            headers = headers_by_name(scope)
            origin = self._visitors.access.url or f"http://{headers['host'][0]}"
            known = {name: visit.query.get(name, "") for name in ("territory", "assistant", "view", "dismissed")}
            languages = ",".join(headers.get("accept-language", []))
            shown = Request(origin, languages, lang=visit.texts.language, **known)
            return await self._world.page(shown, {}, navigation=await self._views.navigation(visit))
        if path == "/sign-out":
            if method != "POST":
                raise method_not_allowed(method, "POST")
            await self._visitors.sign_out(headers_by_name(scope))
            cleared = {"set-cookie": self._visitors.set_cookie(""), "clear-site-data": '"cache"'}
            return RawResponse(b"", 303, {"location": "/sign-in?ended=yes", **cleared})
        if method not in (allowed := self._views.methods(path)):
            raise method_not_allowed(method, ", ".join(allowed))
        return await self._views.respond(method, path, visit)

    async def _sign_in(self, method: str, visit: Visit, scope: Any) -> RawResponse:
        if self._visitors.access.proxy_secrets:
            raise NotShown(_("sign-in by token is off: the proxy signs users in (GATEWAY_CONSOLE_PROXY_SECRET)"))
        target = self._own_target(visit.form.get("next") or visit.query.get("next") or "")
        values: dict[str, Any] = {"title": _("Sign in"), "next": target, "problem": "", "ended": "ended" in visit.query}
        if method in ("GET", "HEAD"):
            return await self._views.page(ViewAnswer("sign_in.html", values), visit)
        if method != "POST":
            raise method_not_allowed(method, "GET, HEAD, POST")
        peer = (scope.get("client") or ("", 0))[0]
        status, more = 403, {}
        try:
            cookie = await self._visitors.sign_in(visit.form.get("token", ""), peer)
            if cookie is not None:
                return RawResponse(b"", 303, {"location": target, "set-cookie": self._visitors.set_cookie(cookie)})
            values["problem"] = visit.texts.gettext(_("This admin token is not valid."))
        except ApiError as error:
            if error.code != "rate_limited":
                raise
            values["problem"], status = visit.texts.gettext(error.message), 429
            more = {"retry-after": str(round(error.retry_after_s or 60.0) + 1)}
        page = await self._views.page(ViewAnswer("sign_in.html", values, status), visit)
        return replace(page, headers={**page.headers, **more})

    def _own_target(self, target: str) -> str:
        """Return the path of a view with its query. Anything else is replaced, so that no link leads elsewhere."""
        path, __, query = target.partition("?")
        if path != "/" and "GET" not in (self._views.methods(path) if self._views.has(path) else ()):
            return _HOME
        return f"{path}?{urlencode(parse_qsl(query))}" if query else path

    def _visit(
        self, visitor: Visitor | None, headers: _Headers, query: Mapping[str, list[str]], form: Mapping[str, str]
    ) -> Visit:
        chosen = (query.get("lang") or cookies_of(headers, _LANGUAGE) or [""])[-1]
        language = language_of(chosen, ",".join(headers.get("accept-language", [])))
        return self._views.visit(visitor or NOBODY, language, query, form)

    async def _stream(self, headers: _Headers, scope: Any, receive: Callable[[], Any], send: Send) -> None:
        """Send events until the visitor leaves or the session has ended."""
        try:
            self._visitors.access.check("GET", headers)
            self._visitors.expect_sign_in()
            visitor = await self._visitors.visitor(headers)
        except NotShown as error:
            raise ApiError("permission_denied", str(error)) from None
        if visitor is None:
            raise ApiError("permission_denied", "the session has ended: sign in")

        async def is_alive() -> bool:
            # An open stream is not a use: a page that is only open must not keep its session alive.
            try:
                return await self._visitors.visitor(headers, is_use=False) is not None
            except (NotShown, ApiError, StateError):
                return False

        visit = self._visit(visitor, headers, {}, {})
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        await visit.admin.stream(("/events", query), receive, send, HEADERS, is_alive)
