"""The views of a demo below `/console/`: only this machine reads them, and they change nothing."""

import pytest

from gateway.console.all_views import VIEWS
from tests.kit.case_files import cases
from tests.kit.console_pages import BROWSER, ask_console, console_of, demo_config

FORM = {**BROWSER, "content-type": "application/x-www-form-urlencoded", "sec-fetch-site": "same-origin"}
ACTIONS = [path for view in VIEWS for path in view.actions if path != "/changes/plan"]
EVIL = "<script>alert(1)</script>"


def request_of(name: str) -> dict[str, object]:
    attempt = {"deployment": EVIL, "provider": EVIL, "start_ms": 0.0, "ms": 3.0, "outcome": EVIL, "detail": EVIL}
    texts = ("client", "assistant", "region", "territory", "outcome", "code", "reason", "deployment", "provider")
    numbers = {"status": 200, "first_ms": 1.0, "total_ms": 2.0, "input_tokens": 1, "output_tokens": 1}
    more = {
        "at": "2026-11-25T01:00:00.000+00:00",
        "config_version": EVIL,
        "evidence": EVIL,
        "intent": EVIL,
        "cost": None,
    }
    none = {
        "resumed_from": EVIL,
        "moderation": {"input": EVIL, "output": EVIL, "by": [EVIL]},
        "stream": True,
        "use": EVIL,
    }
    lists = {"attempts": [attempt], "skipped": {EVIL: EVIL}, "passed_over": {EVIL: EVIL}}
    return {"request_id": name, **dict.fromkeys(texts, EVIL), **numbers, **more, **none, **lists}


@pytest.mark.parametrize("path", [view.path for view in VIEWS])
@cases("peer", "headers")
async def test_view_refuses_other_machines_hosts_sites_and_frames(
    path: str, peer: str, headers: dict[str, str]
) -> None:
    console, _ = console_of(demo_config())
    answer = await ask_console(console, f"/console{path}", headers={**BROWSER, **headers}, peer=peer)
    assert answer.status == 403


@pytest.mark.parametrize("path", ACTIONS)
async def test_visitor_of_a_demo_may_not_act(path: str) -> None:
    console, _ = console_of(demo_config())
    body = b"confirmed=yes&version=abcd&client=app&id=abcd&per=day&owner=app&name=x&assistant=assistant&region=eu&project=p"
    answer = await ask_console(console, f"/console{path}", "POST", FORM, body)
    assert answer.status == 403
    assert "Your role does not permit this." in answer.text
    # Neither a confirmation nor a mistake in the form comes before the role.
    answer = await ask_console(console, f"/console{path}", "POST", FORM, b"definition=%5B")
    assert answer.status == 403


async def test_another_site_cannot_send_a_form() -> None:
    console, _ = console_of(demo_config())
    headers = {**FORM, "origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    assert (await ask_console(console, "/console/changes/plan", "POST", headers, b"text=x")).status == 403


async def test_no_field_of_a_request_is_markup() -> None:
    console, control = console_of(demo_config())
    control.documents = [request_of(f'"><{EVIL}'), request_of("one")]
    columns = "&".join(
        f"column={name}" for name in ("client", "assistant", "region", "territory", "deployment", "outcome")
    )
    shown = await ask_console(console, f"/console/requests?{columns}&region=%3Cscript%3E")
    assert (shown.status, shown.text.count("<script")) == (200, 1)
    control.client_admin = lambda _: None  # type: ignore[attr-defined]
    one = await ask_console(console, "/console/requests?id=one")
    assert (one.status, one.text.count("<script"), one.text.count("&lt;script&gt;") > 15) == (200, 1, True)
    assert one.headers["content-security-policy"].startswith("default-src 'none'")


async def test_view_refuses_other_methods_and_large_forms() -> None:
    console, _ = console_of(demo_config())
    assert (await ask_console(console, "/console/requests", "POST", FORM)).status == 405
    assert (await ask_console(console, "/console/changes/plan", "GET")).status == 405
    large = await ask_console(console, "/console/changes/plan", "POST", FORM, b"text=" + b"x" * 4_000_000)
    assert large.status == 413
    assert (await ask_console(console, f"/console/requests?{'a=b&' * 300}")).status == 400
    wrong = {**FORM, "content-type": "text/plain"}
    assert (await ask_console(console, "/console/changes/plan", "POST", wrong, b"text=x")).status == 415
