"""A console over a demo's configuration whose state the test sets, without a server and without a browser."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from gateway.api.errors import ApiError
from gateway.config.examples import example_path
from gateway.console.application import Console
from gateway.console.page import PageSettings
from gateway.execution.failure_observations import EVERYBODY, Asker
from gateway.model.config_version import ConfigVersion
from gateway.model.status import Reload, SimulatedSite, Status, WorkerStatus
from gateway.telemetry.event_feed import EventFeed, Subscription
from tests.kit.config_cases import compiled

__all__ = ["DEMO", "Answered", "StatedControl", "ask_console", "console_of", "demo_config"]

DEMO = example_path("demo.yaml").read_text("utf-8")
BROWSER = {"host": "127.0.0.1:8080", "accept": "text/html,*/*", "sec-fetch-site": "none", "sec-fetch-mode": "navigate"}


_SITES = {
    "dashscope": ("cn-beijing", "hongkong", "intl"),
    "dashscope-compatible": ("cn-beijing",),
    "openai": ("eu", "us"),
    "gemini": ("global",),
    "siliconflow": ("cn", "intl"),
    "mistral": ("eu",),
}
_ORIGINS = {
    (provider, site): f"http://127.0.0.1:{9000 + 10 * row + column}"
    for row, (provider, sites) in enumerate(_SITES.items())
    for column, site in enumerate(sites)
}


@cache
def demo_config(text: str = DEMO) -> ConfigVersion:
    """Return a demo's configuration, as if its simulators were running."""
    return compiled(text, simulators=_ORIGINS, demo=True).config


@dataclass
class StatedControl:
    """A `Control` that returns what the test sets."""

    now: Status
    sites: list[SimulatedSite] = field(default_factory=list)
    documents: list[dict[str, object]] = field(default_factory=list)
    feed: EventFeed = field(default_factory=EventFeed)
    bodies: dict[str, str] = field(default_factory=dict)
    ahead_s: int = 0

    def activate(self, config: ConfigVersion) -> None:
        """Change the active version."""
        self.now = replace(self.now, config=config, failed=None)

    async def status(self, asker: Asker = EVERYBODY) -> Status:
        return self.now

    async def requests(self) -> list[dict[str, object]]:
        return self.documents

    def events(self) -> Subscription:
        return self.feed.subscribe()

    async def faults(self) -> tuple[SimulatedSite, ...]:
        return tuple(self.sites)

    async def set_fault(self, deployment: str, fault: str) -> None:
        if all(deployment not in site.deployments for site in self.sites):
            raise ApiError("invalid_request", "there is no simulated deployment with this name", "deployment")
        self.sites = [replace(one, fault=fault) if deployment in one.deployments else one for one in self.sites]

    async def clear_faults(self) -> None:
        self.sites = [replace(one, fault="", description="") for one in self.sites]

    async def arrived(self, deployment: str) -> str | None:
        return self.bodies.get(deployment)

    async def clock(self, ahead_s: int | None = None) -> int:
        self.ahead_s = self.ahead_s if ahead_s is None else ahead_s
        return self.ahead_s


def control_of(config: ConfigVersion) -> StatedControl:
    """Return a control of a gateway that has just started with this configuration."""
    loaded = Reload("start", True, config.version, datetime.now(UTC), 0.0)
    worker = WorkerStatus(1, 1, config.version, 0, False, {})
    names: dict[tuple[str, str], list[str]] = {}
    for one in config.deployments.values():
        if one.simulates is not None:
            names.setdefault((one.provider, one.simulates), []).append(one.name)
    sites = [SimulatedSite(*site, tuple(listed), "", "") for site, listed in names.items()]
    return StatedControl(Status(config, loaded, None, {}, False, (worker,), at_s=time.time()), sites)


async def _elsewhere(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": b"the gateway", "more_body": False})


def console_of(config: ConfigVersion, path: Path = Path("demo.yaml")) -> tuple[Console, StatedControl]:
    """Return a console and the control that it reads. Other requests get the status 299."""
    control = control_of(config)
    return Console(_elsewhere, control, PageSettings(path)), control


@dataclass(frozen=True, slots=True)
class Answered:
    """A response."""

    status: int
    headers: Mapping[str, str]
    text: str


async def ask_console(
    console: Console,
    target: str,
    method: str = "GET",
    headers: Mapping[str, str] = BROWSER,
    body: bytes = b"",
    peer: str = "127.0.0.1",
) -> Answered:
    """Return the console's response to a request."""
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "scheme": "http",
        "client": (peer, 1),
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await console(scope, receive, send)
    start, *rest = sent
    named = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answered(start["status"], named, b"".join(one.get("body", b"") for one in rest).decode())
