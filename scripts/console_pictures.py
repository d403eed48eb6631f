"""Take the pictures of the operator's views, for `make docs-pictures`: a gateway with clients, history and traffic."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from providers.testkit.scenario import Scenario, parse_fault
from providers.testkit.server import SimulatorServer, SimulatorThread
from tests.kit.browsers import LIMIT_MS
from tests.kit.chat_http import CHAT, body
from tests.kit.console_installation import PORT, Installation
from tests.kit.gateway_process import config_of_four_regions, running_gateway
from tests.kit.vendor_checks import checked_simulators
from tests.kit.waiting import eventually

_SITES = {"cn": "dashscope", "eu": "openai", "eu2": "openai", "us": "openai", "gemini": "gemini", "intl": "dashscope"}
_KEYS = {f"KEY_{name}": "a key" for name in ("CN", "EU", "US", "GEMINI", "INTL")}
_TERRITORIES = ("CN", "DE", "US", "JP", "FR", "HK", "CN", "GB")
_CLIENTS = {"ios-app": "Mobile", "web-shop": "Shop", "support": "Support"}
_EDIT = "assistants: {assistant: {routes: {eu: [chatgpt-eu-2, chatgpt-eu]}}}"


def take_views(browser: Any, folder: Path, images: Path) -> None:
    """Take a picture of each view."""
    with _installation(folder) as installed:
        page = browser.new_context(viewport={"width": 1280, "height": 760}).new_page()
        page.set_default_timeout(LIMIT_MS)
        page.goto(installed.gateway.console_url)
        page.get_by_label("Admin token").fill(installed.tokens["operator"])
        with page.expect_navigation():
            page.get_by_role("button", name="Sign in").click()
        for name in ("requests", "clients", "spend", "providers"):
            page.goto(f"{installed.gateway.console_url}/{name}")
            page.screenshot(path=images / f"console-{name}.png")
        page.goto(f"{installed.gateway.console_url}/changes")
        page.get_by_label("Text of the config file").fill(_config(folder, _EDIT).text)
        page.get_by_role("button", name="Plan", exact=True).click()
        page.locator("#planned").scroll_into_view_if_needed()
        page.screenshot(
            path=images / "console-changes.png", full_page=True, clip={"x": 0, "y": 0, "width": 1280, "height": 1500}
        )
        page.context.close()


_ORIGINS: dict[str, str] = {}


def _config(folder: Path, *patches: Any) -> Any:
    """Return the config, with a catalogue file of prices."""
    config = config_of_four_regions(_ORIGINS, *patches).without("clients")
    models: dict[str, dict[str, object]] = {}
    for number, one in enumerate(config.data["deployments"].values(), 1):
        price = {"input": 100 * number, "output": 300 * number, "currency": "USD", "as_of": "2026-11-01"}
        models.setdefault(one["provider"], {})[one["model"]] = {"price": {**price, "source": "an example"}}
    (folder / "models.yaml").write_text(json.dumps({"version": 1, "models": models}), "utf-8")
    more = {"clients_source": "database", "usage": {"currency": "USD"}, "catalogue": {"models": ["models.yaml"]}}
    return config.merge(more)


@contextmanager
def _installation(folder: Path) -> Iterator[Installation]:
    """Run a gateway whose providers answer, fail and cost something."""
    dialects = checked_simulators()
    servers = {name: SimulatorServer(dialects[provider], f"site {name}") for name, provider in _SITES.items()}
    with SimulatorThread(servers) as providers:
        _ORIGINS.update({name: providers[name].origin for name in _SITES})
        providers["gemini"].scenario = Scenario(faults=(parse_fault("503:0.5"),))
        path, state = _config(folder).write(folder), folder / "state"
        with running_gateway(path, {**_KEYS, **PORT, "GATEWAY_STATE_DIR": str(state)}) as gateway:
            installed = Installation(gateway, state, path)
            _send_traffic(installed)
            yield installed


def _send_traffic(installed: Installation) -> None:
    admin = installed.visit("admin")
    keys = []
    for number, (name, owner) in enumerate(_CLIENTS.items(), 1):
        admin.get("/clients")
        budgets = f'{{"budgets": [{{"amount": "{number * 20} USD", "per": "month"}}]}}'
        admin.post("/clients/create", name=name, definition=budgets)
        keys.append(json.loads(installed.run("keys", "create", "--client", name, "--owner", owner, "--json"))["key"])
    with httpx.Client(trust_env=False, timeout=60) as client:

        def ask(number: int) -> int:
            headers = {"authorization": f"Bearer {keys[number % 3]}", "cf-ipcountry": _TERRITORIES[number % 8]}
            answer = client.post(f"{installed.gateway.url}{CHAT}", json=body(), headers=headers)
            return answer.status_code

        eventually(lambda: ask(0) == 200)
        for number in range(24):
            ask(number)
