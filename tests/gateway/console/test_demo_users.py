"""The users whom a visitor of the demo's page can be, the clock that it moves, and the request that arrived."""

import json
import re
import time
from pathlib import Path

import pytest

from gateway.console.demo_users import users_of
from gateway.model.signed_token import SharedKey
from gateway.policy.location.claim import ClaimRules
from gateway.policy.location.claim_verification import KeySet, verify
from tests.kit.config_cases import compiled
from tests.kit.console_pages import BROWSER, ask_console, console_of, demo_config

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
    assert rules is not None
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
