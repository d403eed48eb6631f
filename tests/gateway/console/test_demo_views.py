"""The views of a demo below `/console/`, which only this machine reads and which change nothing, and the users whom a
visitor of its page can be.
"""

import json
import re
import time
from pathlib import Path

import pytest

from gateway.console.all_views import VIEWS
from gateway.console.demo_users import users_of
from gateway.model.signed_token import SharedKey
from gateway.policy.location.claim import ClaimRules
from gateway.policy.location.claim_verification import KeySet, verify
from tests.kit.case_files import cases
from tests.kit.config_cases import compiled
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


PAGE = (Path(__file__).parents[3] / "docs" / "operate" / "duties.md").read_text("utf-8")
EXAMPLE = re.findall(r"^```yaml .*\n([^`]*)", PAGE, re.MULTILINE)[0]
ORIGINS = {("openai", "us"): "http://127.0.0.1:9002"}
DUTIES = compiled(EXAMPLE, {"CLAIM_SECRET": "a secret of the demo, of 32 bytes"}, simulators=ORIGINS, demo=True).config
JSON = {**BROWSER, "content-type": "application/json", "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}


def test_each_band_and_the_unknown_user_of_each_region_can_be_chosen() -> None:
    assert [(user.territory, user.band) for user in users_of(DUTIES)] == [
        ("US-WA", "child"),
        ("US-WA", "adult"),
        ("US-WA", ""),
        ("US-CA", "child"),
        ("US-CA", "child_long"),
        ("US-CA", "adult"),
        ("US-CA", ""),
    ]
    assert users_of(demo_config()) == []


@pytest.mark.parametrize(("band", "subject"), [("child", "child in US-CA"), ("", None)])
async def test_gateway_accepts_the_claim_that_the_demo_signs(band: str, subject: str | None) -> None:
    console, _ = console_of(DUTIES)
    answer = await ask_console(
        console, "/console/claim", "POST", JSON, json.dumps({"region": "us-ca", "band": band}).encode()
    )
    rules = DUTIES.location.rules.of(ClaimRules)
    assert isinstance(rules.keys, SharedKey)
    report = verify(rules, KeySet.shared(rules.keys), json.loads(answer.text)["claim"], time.time()).report
    assert (report.territory, report.subject, report.age_band) == ("US-CA", subject, band or None)


async def test_unknown_user_is_refused_and_other_sites_get_no_claim() -> None:
    console, _ = console_of(DUTIES)
    body = json.dumps({"region": "us-ca", "band": "baby"}).encode()
    assert (await ask_console(console, "/console/claim", "POST", JSON, body)).status == 404
    for change in ({"origin": "https://evil.example", "sec-fetch-site": "cross-site"}, {"host": "evil.example"}):
        assert (await ask_console(console, "/console/claim", "POST", {**JSON, **change}, body)).status == 403


async def test_clock_of_the_users_moves_on() -> None:
    console, control = console_of(DUTIES)
    for ahead_s in (1200, 2400):
        answer = await ask_console(console, "/console/clock", "POST", JSON, b'{"later_s": 1200}')
        assert (json.loads(answer.text), control.ahead_s) == ({"ahead_s": ahead_s}, ahead_s)
    assert (await ask_console(console, "/console/clock", "POST", JSON, b'{"later_s": -1}')).status == 400


async def test_page_shows_the_choice_where_a_region_has_ages_or_a_crisis() -> None:
    page = (await ask_console(console_of(DUTIES)[0], "/?territory=US")).text
    assert '<option value="4" data-region="us-ca" data-band="child">child, US-CA</option>' in page
    assert 'id="crisis"' in page
    assert 'id="person"' not in (await ask_console(console_of(demo_config())[0], "/?territory=US")).text


async def test_request_that_arrived_at_a_deployment_is_returned() -> None:
    console, control = console_of(demo_config())
    control.bodies["gemini"] = '{"contents": "QEMAIL1Z"}'
    for name, body in (("gemini", control.bodies["gemini"]), ("chatgpt-us", None)):
        answer = await ask_console(console, f"/console/arrived?deployment={name}", headers=JSON)
        assert json.loads(answer.text) == {"body": body}
