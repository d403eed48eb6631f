"""The views of the console outside a demo in a real Chromium: axe, narrow screens, live requests, and no script of others."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from providers.testkit.server import SimulatorThread
from tests.e2e.conftest import KEYS, PATIENT, config_for
from tests.kit.browsers import chromium, serious_problems, watched_pages
from tests.kit.claim_tokens import jwks, public
from tests.kit.console_installation import PORT, Installation
from tests.kit.gateway_process import running_gateway
from tests.kit.node_clients import installed_node, installed_packages
from tests.kit.token_gateway import AUDIENCE, TENANT, signed
from tests.kit.waiting import eventually

pytestmark = pytest.mark.slow("a browser")
VIEWS = ("World", "Requests", "Changes", "Clients", "Spend", "Duties", "Providers")
_EVERY = "CONSOLE_COMBINATIONS" in os.environ
"""Whether axe looks at each view in every combination, as `make prove` does. Otherwise it looks at two."""
VISITORS = (("viewer", "operator", "admin"), ("en-US", "zh-CN")) if _EVERY else (("operator",), ("en-US",))
LOOKS = [*itertools.product((360, 768, 1280, 1920), ("light", "dark"))] if _EVERY else [(1280, "light"), (360, "dark")]
EVIL = "<img src=x onerror=alert(1)>'\"{{7*7}}"


_FAIL_ONCE_AND_WAIT = """() => {
  const own = fetch, back = new Promise((resolve) => { window.comeBack = () => setTimeout(resolve); });
  let calls = 0;
  window.fetch = (...given) => calls++ ? back.then(() => own(...given)) : Promise.reject(new TypeError("not reached"));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def axe() -> str:
    return (installed_packages(installed_node()) / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8")


@pytest.fixture(scope="module")
def installed(providers: SimulatorThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder, state = tmp_path_factory.mktemp("config"), tmp_path_factory.mktemp("state")
    patch = {"usage": {"currency": "USD"}, "deployments": {"chatgpt-us": {"model": "<b>gpt</b>"}}}
    config = config_for(providers, PATIENT, patch)
    path = config.merge({"clients": {"app": {"budgets": [{"amount": "10 USD", "per": "day"}]}}}).write(folder)
    with running_gateway(path, {**KEYS, **PORT, "GATEWAY_STATE_DIR": str(state)}) as gateway:
        installed = Installation(gateway, state, path)
        installed.ask()
        yield installed


@pytest.fixture
def open_console(browser: Any, installed: Installation) -> Iterator[Callable[..., Any]]:
    """Return a function that signs in. The test fails if a page reports an error, opens a dialog or asks another host."""
    with watched_pages(browser, installed.gateway.console_url, 900) as begin:

        def sign_in(role: str = "operator", **options: Any) -> Any:
            page = begin(**options)
            page.locator("input[name=token]").fill(installed.tokens[role])
            with page.expect_navigation():
                page.keyboard.press("Enter")
            return page

        yield sign_in


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("role", "language"), [*itertools.product(*VISITORS)])
def test_axe_finds_no_serious_problem_in_a_view(
    open_console: Callable[..., Any], axe: str, view: str, role: str, language: str
) -> None:
    page = open_console(role, locale=language)
    links = page.get_by_role("navigation").first.get_by_role("link")
    links.nth(VIEWS.index(view)).click()
    title = page.get_by_role("heading", level=1)
    title.wait_for()
    assert page.title() == title.inner_text()
    assert (title.inner_text() == view) is (language == "en-US")
    page.evaluate(axe)
    for width, scheme in LOOKS:
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        assert serious_problems(page) == [], (width, scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, (width, scheme)


def test_requests_appear_as_they_come(open_console: Callable[..., Any], installed: Installation) -> None:
    page = open_console("viewer")
    page.get_by_role("link", name="Requests", exact=True).click()
    page.get_by_role("button", name="Pause").wait_for()
    first = installed.ask()
    page.wait_for_selector(f'tr[data-id="{first}"]')
    page.get_by_role("button", name="Pause").click()
    second = installed.ask()
    page.get_by_role("button", name="Pause").click()
    third = installed.ask()
    page.wait_for_selector(f'tr[data-id="{third}"]')
    page.reload()
    page.get_by_role("link", name=second).click()
    page.get_by_text("Answered by").wait_for()


def test_providers_follow_the_configuration_and_keep_opened_facts(
    open_console: Callable[..., Any], installed: Installation
) -> None:
    page = open_console("operator")
    page.goto(f"{installed.gateway.console_url}/providers?deployment=chatgpt-us")
    page.locator("summary").click()
    before = installed.path.read_text()
    config = yaml.safe_load(before)
    config["deployments"]["chatgpt-us"]["enabled"] = False
    with page.expect_response(lambda one: one.url.endswith("deployment=chatgpt-us")):
        installed.path.write_text(yaml.safe_dump(config))
        installed.visit("operator").act("/changes", "/changes/reload")
    page.get_by_text("off", exact=True).and_(page.locator("td span")).wait_for()
    assert page.locator("details[open]").count() == 1
    installed.path.write_text(before)
    installed.visit("operator").act("/changes", "/changes/reload")


def test_text_of_others_is_never_markup(open_console: Callable[..., Any], installed: Installation) -> None:
    page = open_console("operator")
    page.goto(f"{installed.gateway.console_url}/providers")
    assert "<b>gpt</b>" in page.inner_text("table")
    page.goto(f"{installed.gateway.console_url}/requests?region=%3Cscript%3Ealert(1)%3C/script%3E&client={EVIL}")
    assert page.query_selector("main script, main img") is None
    page.goto(f"{installed.gateway.console_url}/changes")
    page.get_by_label("Text of the config file").fill(f"regions: {EVIL}")
    page.get_by_role("button", name="Plan", exact=True).click()
    page.get_by_text("does not compile").first.wait_for()
    assert page.query_selector("main script, main img") is None
    assert EVIL in page.get_by_label("Text of the config file").input_value()


def test_form_waits_while_the_gateway_is_not_reached_and_keeps_what_was_typed(
    open_console: Callable[..., Any], installed: Installation
) -> None:
    page = open_console("operator")
    page.goto(f"{installed.gateway.console_url}/changes")
    page.get_by_label("Text of the config file").fill("regions: {")
    page.evaluate(_FAIL_ONCE_AND_WAIT)
    page.get_by_role("button", name="Plan", exact=True).click()
    page.get_by_text("The page keeps what you typed and tries again.").wait_for()
    assert page.get_by_label("Text of the config file").input_value() == "regions: {"
    page.evaluate("() => window.comeBack()")
    page.get_by_text("does not compile").first.wait_for()


def test_views_and_forms_work_without_javascript(open_console: Callable[..., Any], installed: Installation) -> None:
    page = open_console("operator", java_script_enabled=False)
    page.get_by_role("link", name="Requests", exact=True).click()
    page.get_by_label("Region").select_option("eu")
    page.get_by_role("button", name="Show").click()
    assert page.url.partition("?")[2].startswith("region=eu")
    page.get_by_role("link", name="Changes").click()
    page.get_by_role("button", name="Reload").click()
    page.get_by_text("The config file is loaded, on this instance only").wait_for()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_text("You are signed out.").wait_for()
    page.go_back()
    page.reload()
    page.get_by_label("Admin token").wait_for()


def test_map_opens_a_territory_and_leads_to_views(open_console: Callable[..., Any], installed: Installation) -> None:
    page = open_console("viewer")
    page.get_by_role("navigation", name="Views").get_by_role("link", name="World").click()
    page.get_by_label("Territory", exact=True).fill("Hong Kong")
    page.get_by_label("Territory", exact=True).press("Enter")
    page.wait_for_selector('#decision[data-territory="HK"]')
    bar = page.get_by_role("navigation", name="Views").get_by_role("link", name="Providers")
    assert page.evaluate(
        "bar => bar.parentElement.parentElement.clientHeight >= bar.clientHeight", bar.element_handle()
    )
    assert page.get_by_role("button", name="Ask").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    page.get_by_role("link", name="Providers", exact=True).click()
    assert page.title() == "Providers"


def test_proxy_passes_the_token_of_the_company_and_its_group_decides(
    browser: Any, providers: SimulatorThread, tmp_path: Path
) -> None:
    """The headers of a browser context stand for those that a proxy adds to each request of a signed-in user."""
    keys, state = tmp_path / "keys.json", tmp_path / "state"
    keys.write_bytes(jwks(public("k1")))
    roles = [{"role": "operator", "where": {"groups": "g-ops"}}, {"role": "viewer", "where": {"groups": "g-audit"}}]
    issuer = {"issuer": TENANT, "audience": AUDIENCE, "algorithms": ["ES256"], "jwks": str(keys), "user": "oid"}
    path = (
        config_for(providers, PATIENT).merge({"token_issuers": {"entra": {**issuer, "roles": roles}}}).write(tmp_path)
    )
    settings = {
        **KEYS,
        **PORT,
        "GATEWAY_STATE_DIR": str(state),
        "GATEWAY_CONSOLE_PROXY_SECRET": "the secret of the proxy",
    }
    with (
        running_gateway(path, settings) as gateway,
        watched_pages(browser, gateway.console_url, 900, with_error_status=True) as begin,
    ):

        def page_of(user: str, group: str) -> Any:
            token = signed(oid=user, groups=[group])
            sent = {"x-gateway-proxy-secret": "the secret of the proxy", "authorization": f"Bearer {token}"}
            return begin("/changes", extra_http_headers=sent)

        viewer = page_of("bert", "g-audit")
        viewer.get_by_text("bert (viewer)").wait_for()
        assert viewer.get_by_role("button", name="Reload").count() == 0
        viewer.get_by_label("Text of the config file").fill("regions: {")
        viewer.evaluate("document.querySelector('textarea').form.action = '/changes/reload'")
        viewer.get_by_role("button", name="Plan", exact=True).click()
        viewer.get_by_text("Your role does not permit this.").wait_for()
        viewer.get_by_role("main").get_by_role("link", name="Rights by role").click()
        viewer.get_by_role("row", name="Reload the config file POST /reload – yes yes").wait_for()

        operator = page_of("anna", "g-ops")
        operator.get_by_role("button", name="Reload").click()
        operator.get_by_text("The config file is loaded, on this instance only").wait_for()
        operator.goto(f"{gateway.console_url}/clients?client=app")
        operator.get_by_role("button", name="Block").first.click()
        operator.get_by_role("button", name="Block").click()
        operator.get_by_text("The key is blocked.").wait_for()

        def blocked_by() -> list[str]:
            done = map(json.loads, (state / "audit.jsonl").read_text().splitlines())
            return [line["who"] for line in done if line["event"] == "key_blocked"]

        eventually(lambda: blocked_by() == ["anna (console)"])  # the trail follows the database

        stranger = page_of("carl", "g-other")
        stranger.get_by_text("no rule of `token_issuers.*.roles` gives your token a role here").wait_for()
        assert stranger.get_by_role("navigation").count() == 0
        assert "not accepted (expired)" in begin(
            "/",
            extra_http_headers={
                "x-gateway-proxy-secret": "the secret of the proxy",
                "authorization": f"Bearer {signed(groups=['g-ops'], iat=1_700_000_000, exp=1_700_000_600)}",
            },
        ).inner_text("main")
