"""The parts that both consoles share, of a demo and of operators: responses, static files and the view World."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

from gateway.api.admin_control import Control
from gateway.api.errors import ApiError
from gateway.api.front_page import HTML
from gateway.api.raw_responses import RawResponse, Send, error_response, send_response
from gateway.console.access import HEADERS
from gateway.console.assets import STATIC, assets
from gateway.console.own_config import OwnConfig
from gateway.console.page import Pages, PageSettings, Request
from gateway.model.status import SimulatedSite
from providers.value import replace

_NOT_KEPT = {"cache-control": "no-store"}


async def send_answer(scope: Any, answer: Awaitable[RawResponse | None], send: Send) -> None:
    """Send a response of the console, or the error that its computation raises, unless it was sent already."""
    try:
        response = await answer
        if response is None:
            return
    except ApiError as error:
        response = error_response(scope, error)
    except Exception as error:  # a fault of ours: the visitor gets an error, and the server logs it
        await send_response(send, _with_headers(error_response(scope, error)))
        raise
    await send_response(send, _with_headers(response))


def static_file(path: str) -> RawResponse | None:
    """Return the static file at a path, or None if there is none."""
    return assets().get(path.removeprefix(STATIC)) if path.startswith(STATIC) else None


def _with_headers(response: RawResponse) -> RawResponse:
    return replace(response, headers={**_NOT_KEPT, **HEADERS, **response.headers})


class WorldPage:
    """The view World. One page is rendered at a time, so that many pages leave the processor to requests.

    In a demo, the page may write `own_config`.
    """

    def __init__(self, control: Control, settings: PageSettings, own_config: OwnConfig | None) -> None:
        self._control = control
        self._pages = Pages(settings, own_config)
        self._rendering = asyncio.Lock()

    async def prepare(self) -> None:
        """Compute in advance what the first page needs."""
        status = await self._control.status()
        async with self._rendering:
            await asyncio.to_thread(self._pages.prepare, status)

    async def page(
        self, request: Request, headers: Mapping[str, str], sites: Sequence[SimulatedSite] = (), navigation: str = ""
    ) -> RawResponse:
        """Return the page of the map. `navigation` has the links to the other views."""
        status = await self._control.status()
        async with self._rendering:
            html, code = await asyncio.to_thread(self._pages.render, status, sites, request, navigation)
        return RawResponse(html.encode("utf-8", "replace"), code, headers, HTML)
