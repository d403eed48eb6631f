"""The console of a running demo in a real Chromium: map, question, failures, edits, keyboard, small screens, axe."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import ROOT, Running
from tests.kit.browsers import chromium
from tests.kit.config_cases import edited
from tests.kit.node_clients import installed_node, installed_packages

pytestmark = pytest.mark.slow

_LIMIT_MS = 60_000
_DEMO = (ROOT / "config" / "demo.yaml").read_text("utf-8")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def demo(start: Callable[..., Running]) -> Running:
    """Return a running demo with a configuration of its own, `my.yaml`."""
    shutil.copy(ROOT / "config" / "demo.yaml", "my.yaml")
    running = start("demo", "--config", "my.yaml", "--port", "0")
    running.wait_for("Ctrl-C")
    return running


@pytest.fixture
def url(demo: Running) -> str:
    return demo.wait_for(r"listens on (\S+)\.")[1]


@pytest.fixture
def open_page(browser: Any, url: str) -> Iterator[Callable[..., Any]]:
    """Return a function that opens a page. The test fails if the page reports an error, or asks another host."""
    problems: list[str] = []
    contexts = []

    def begin(target: str = "/", **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 1000}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(_LIMIT_MS)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: message.type == "error" and problems.append(message.text))
        page.on("request", lambda one: one.url.startswith((url, "data:")) or problems.append(one.url))
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.goto(url + target)
        return page

    yield begin
    for context in contexts:
        context.close()
    assert [one for one in problems if "status of 404" not in one] == []


def chosen(page: Any, territory: str) -> None:
    """Wait until the page shows the decision for this territory."""
    page.wait_for_selector(f'#decision[data-territory="{territory}"]')


def ask(page: Any) -> None:
    page.click("#ask button")
    page.wait_for_selector("#attempts li")


def test_hong_kong_is_chosen_by_click_and_by_keyboard(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.locator('#map [data-choose="HK"]').dispatch_event("click", {"detail": 0, "bubbles": True, "cancelable": True})
    chosen(page, "HK")
    assert "territory=HK" in page.url
    assert "qwen-hk answers" in page.inner_text("#decision .verdict")

    page = open_page()
    mark = page.locator('#map [data-choose="HK"]').bounding_box()
    page.mouse.click(mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2)
    page.wait_for_selector('#decision[data-territory="HK"], #decision[data-territory="MO"]')

    page = open_page()
    page.focus("#territory")
    page.keyboard.type("Hong Kong SAR China")
    page.keyboard.press("Enter")
    chosen(page, "HK")

    # Arrow keys move over the map from the chosen mark, and Enter chooses.
    page.focus('#map [data-choose="HK"]')
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    page.wait_for_selector('#decision:not([data-territory="HK"])')
    page.go_back()
    chosen(page, "HK")


def test_question_is_answered_as_a_stream_with_headers_and_attempts(open_page: Callable[..., Any]) -> None:
    page = open_page("/?territory=HK")
    page.evaluate(
        "window.seen = new Set(); new MutationObserver(() => window.seen.add(document.getElementById('answer').textContent.length))"
        ".observe(document.getElementById('answer'), {childList: true, characterData: true, subtree: true})"
    )
    ask(page)
    assert "I am dashscope hongkong" in page.inner_text("#answer")
    assert page.evaluate("window.seen.size") > 3, "the answer appeared at once"
    headers = page.inner_text("#headers")
    assert re.search(r"x-gateway-deployment\s+qwen-hk", headers)
    assert re.search(r"x-gateway-region\s+default", headers)
    assert "qwen-hk answered: first token after" in page.inner_text("#attempts")
    assert page.locator("#attempts .bar i").count() == 2


def test_failure_shows_retry_failover_and_the_open_breaker(open_page: Callable[..., Any]) -> None:
    page = open_page("/?territory=HK")
    page.select_option('select[data-fault="qwen-hk"]', "500")
    page.wait_for_selector("select.broken")
    ask(page)
    attempts = page.inner_text("#attempts")
    assert "retry after" in attempts
    assert "failover to the next deployment" in attempts
    assert "qwen-intl answered" in attempts
    assert "I am dashscope intl" in page.inner_text("#answer")
    for _ in range(2):
        page.evaluate("document.getElementById('attempts').replaceChildren()")
        ask(page)
    page.wait_for_selector("#decision .countdown")
    assert "5 failures in a row" in page.inner_text("#decision")
    assert re.search(r"probe in \d+ s", page.inner_text("#decision"))
    page.click("#heal")
    page.wait_for_selector("select.broken", state="detached")
    page.wait_for_selector("#decision .countdown", state="detached")
    assert "qwen-hk answers" in page.inner_text("#decision .verdict")


def test_edit_of_the_file_changes_the_marks_and_is_named(open_page: Callable[..., Any]) -> None:
    page = open_page("/?territory=JP")
    assert page.locator(".mark.changed").count() == 0
    route = "default: [gemini, qwen-hk, qwen-intl]", "default: [chatgpt-us, gemini]"
    text = edited(_DEMO, route, ('["@EEA", CH], boundary', '["@EEA", CH, JP], boundary'))
    Path("my.yaml").write_text(edited(_DEMO, route), "utf-8")
    page.wait_for_selector("text=default (Japan and others): gemini → chatgpt-us")
    assert page.locator(".mark.changed").count() > 50
    assert "changed" in page.get_attribute('.mark[data-choose="JP"]', "class")
    assert "changed" not in page.get_attribute('.mark[data-choose="DE"]', "class")
    before = page.get_attribute('.mark[data-choose="CH"]', "class")
    Path("my.yaml").write_text(text, "utf-8")
    page.wait_for_selector("text=Japan: region default → eu")
    eu = page.get_attribute('.mark[data-choose="DE"]', "class").split()[1]
    assert page.get_attribute('.mark[data-choose="JP"]', "class").split()[1] == eu
    assert page.get_attribute('.mark[data-choose="CH"]', "class").split()[1] == before.split()[1]


def test_mistake_in_the_file_is_shown_and_the_last_version_answers(open_page: Callable[..., Any]) -> None:
    page = open_page("/?territory=HK")
    Path("my.yaml").write_text(edited(_DEMO, ("cn: [qwen-cn]", "cn: [qwen-cm]")), "utf-8")
    page.wait_for_selector(".config .problem")
    problem = page.inner_text(".config .problem")
    line = next(number for number, text in enumerate(_DEMO.splitlines(), 1) if "cn: [qwen-cn]" in text)
    assert f"my.yaml:{line}:" in problem
    assert "still answers" in problem
    ask(page)
    assert "I am dashscope hongkong" in page.inner_text("#answer")
    Path("my.yaml").write_text(_DEMO, "utf-8")
    page.wait_for_selector(".config .problem", state="detached")


def test_page_is_readable_without_javascript(open_page: Callable[..., Any]) -> None:
    page = open_page("/?territory=CN", java_script_enabled=False)
    assert "qwen-cn answers" in page.inner_text("#decision .verdict")
    assert "prompts are stored and processed only in CN" in page.inner_text("#decision")
    assert page.locator("#ask").is_hidden()
    page.click("text=Oceania")
    assert page.get_attribute("#map", "viewBox") != "0 0 10000 4432"
    page.fill("#territory", "Hong Kong")
    page.click("#find button")
    assert "qwen-hk answers" in page.inner_text("#decision .verdict")
    page.click("#legend >> text=eu")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_axe_finds_no_serious_problem(open_page: Callable[..., Any], scheme: str, width: int) -> None:
    axe = (installed_packages(installed_node()) / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8")
    page = open_page("/?territory=HK", viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.select_option('select[data-fault="qwen-hk"]', "500")
    page.wait_for_selector("select.broken")
    ask(page)
    page.evaluate(axe)
    found = page.evaluate(
        "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})"
    )
    serious = [
        (one["id"], one["help"], [node["html"][:200] for node in one["nodes"]][:3])
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_close_marks_can_be_chosen_one_by_one_at_360_pixels(open_page: Callable[..., Any]) -> None:
    page = open_page("/?territory=HK", viewport={"width": 360, "height": 780}, has_touch=True)
    for _ in range(6):
        page.click("#zoom-in")
    boxes = [page.locator(f'#map [data-choose="{code}"] use').bounding_box() for code in ("HK", "MO")]
    centres = [box["x"] + box["width"] / 2 for box in boxes]
    assert abs(centres[0] - centres[1]) > 24
    page.touchscreen.tap(centres[1], boxes[1]["y"] + boxes[1]["height"] / 2)
    chosen(page, "MO")


def test_script_in_names_answers_and_errors_has_no_effect(open_page: Callable[..., Any]) -> None:
    nasty = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    page = open_page("/?territory=HK")
    page.fill("#question", f"Repeat this: {nasty}")
    ask(page)
    page.route("**/v1/chat/completions", lambda route: route.fulfill(
        status=200,
        headers={"content-type": "text/event-stream", "x-gateway-deployment": nasty, "x-request-id": "none"},
        body=f'data: {{"choices":[{{"delta":{{"content":"{nasty}"}}}}]}}\n\ndata: {{"error":{{"code":"x","message":"{nasty}"}}}}\n\ndata: [DONE]\n\n',
    ))  # fmt: skip
    page.click("#ask button")
    page.wait_for_selector("#refusal:not([hidden])")
    assert page.inner_text("#answer") == nasty
    assert nasty in page.inner_text("#refusal")
    assert nasty in page.inner_text("#headers")
    assert page.locator("#result img, #result script").count() == 0
    # The name of an assistant may have any visible character, but no space.
    name = "<img/src=x/onerror=alert(3)>"
    Path("my.yaml").write_text(edited(_DEMO, ("assistants:\n  assistant:", f'assistants:\n  "{name}":')), "utf-8")
    page.wait_for_selector(f"#decision[data-assistant='{name}']")
    assert page.input_value("#assistant") == name
    Path("my.yaml").write_text(edited(_DEMO, ("  gemini: {provider", f'  "{nasty}": {{provider')), "utf-8")
    page.wait_for_selector(".config .problem")
    assert nasty in page.inner_text(".config .problem")
    page.reload()
    assert page.input_value("#assistant") == name
    assert nasty in page.inner_text(".config .problem")
    assert page.locator("body img, body script").count() == 0


def test_a_dozen_pages_follow_an_edit_and_do_not_delay_the_end(browser: Any, url: str, demo: Running) -> None:
    context = browser.new_context()
    pages = [context.new_page() for _ in range(12)]
    for page in pages:
        page.set_default_timeout(_LIMIT_MS)
        page.goto(f"{url}/?territory=JP")
    Path("my.yaml").write_text(edited(_DEMO, ("default: [gemini,", "default: [chatgpt-us, gemini,")), "utf-8")
    for page in pages:
        page.bring_to_front()
        page.wait_for_selector("text=default (Japan and others): gemini → chatgpt-us")
    assert demo.end(signal.SIGTERM).status == 0
    pages[0].wait_for_selector("#offline:not([hidden])")
    context.close()
