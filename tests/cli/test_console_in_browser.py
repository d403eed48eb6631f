"""The console of a running demo in a real Chromium: map, question, failures, edits, keyboard, small screens, axe."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.console.world import world
from scripts.world_map import position
from tests.cli.conftest import ROOT, Running
from tests.kit.browsers import LIMIT_MS, chromium, serious_problems, watched_pages
from tests.kit.case_files import cases
from tests.kit.config_cases import edited
from tests.kit.node_clients import installed_node, installed_packages
from tests.kit.places import PLACES

pytestmark = pytest.mark.slow("a browser and a demo for each test")

# A busy machine may need longer for an answer than the defaults allow.
_PATIENCE = "connect: 1m, first_token: 2m, commit: 3m, idle: 10m, total: 20m"
DUTIES = re.findall(
    r"^```yaml .*\n([^`]*)", (ROOT / "docs" / "operate" / "duties.md").read_text("utf-8"), re.MULTILINE
)[0]
_DEMO = (ROOT / "config" / "demo.yaml").read_text("utf-8") + f"resilience: {{{_PATIENCE}}}\n"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def demo(start: Callable[..., Running], request: pytest.FixtureRequest) -> Running:
    """Return a running demo with a configuration of its own, `my.yaml`. The parameter is the time of open breakers."""
    breaker = f"{_PATIENCE}, breaker: {{open: {getattr(request, 'param', '10s')}}}"
    Path("my.yaml").write_text(_DEMO.replace(_PATIENCE, breaker), "utf-8")
    running = start("demo", "--config", "my.yaml", "--port", "0")
    running.wait_for("Ctrl-C")
    return running


@pytest.fixture
def url(demo: Running) -> str:
    return demo.wait_for(r"listens on (\S+)\.")[1]


@pytest.fixture
def open_page(browser: Any, url: str) -> Iterator[Callable[..., Any]]:
    """Return a function that opens a page. A provider with a fault gives answers with an error status."""
    with watched_pages(browser, url, 1000, allowed=("data:",), with_error_status=True) as begin:
        yield lambda target="/", **options: begin(target, **options)


@pytest.fixture
def read_page(browser: Any, untouched_demo: Running) -> Iterator[Callable[..., Any]]:
    """Return a function that opens a page of a demo that no test changes."""
    url = untouched_demo.wait_for(r"listens on (\S+)\.")[1]
    with watched_pages(browser, url, 1000, allowed=("data:",)) as begin:
        yield lambda target="/", **options: begin(target, **options)


def chosen(page: Any, territory: str) -> None:
    """Wait until the page shows the decision for this territory."""
    page.wait_for_selector(f'#decision[data-territory="{territory}"]')


def ask(page: Any, question: str = "") -> None:
    """Ask by click, and wait for the attempts and for the page that follows."""
    if question:
        page.fill("#question", question)
    page.evaluate("document.getElementById('attempts').replaceChildren()")
    page.click("#ask button")
    page.wait_for_selector("#attempts li")
    page.evaluate("refreshing")


def until(page: Any, condition: str, argument: object = "") -> None:
    """Wait until an expression is true. Playwright's own wait evaluates a string, which the page's policy forbids."""
    deadline_s = time.monotonic() + LIMIT_MS / 1000
    while not page.evaluate(condition, argument):
        assert time.monotonic() < deadline_s, condition
        page.wait_for_timeout(50)


def focused(page: Any, selector: str) -> bool:
    return bool(page.evaluate("selector => document.activeElement.matches(selector)", selector))


def tab_to(page: Any, selector: str) -> None:
    """Press Tab until this element has the focus."""
    for _ in range(120):
        page.keyboard.press("Tab")
        if focused(page, selector):
            return
    raise AssertionError(f"Tab does not reach {selector}")


def test_hong_kong_is_chosen_by_click_and_by_keyboard(read_page: Callable[..., Any]) -> None:
    page = read_page("/?territory=JP&view=asia")
    page.click('#map [data-choose="HK"] .target')
    chosen(page, "HK")
    assert "territory=HK" in page.url
    assert "qwen-hk answers" in page.inner_text("#decision .verdict")

    page = read_page()
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


def test_everything_is_done_with_the_keyboard_alone(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.keyboard.press("Tab")
    assert focused(page, ".skip")
    tab_to(page, "#territory")
    page.keyboard.type("Macao")
    page.keyboard.press("Enter")
    chosen(page, "MO")
    tab_to(page, "#map .area")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    code = page.evaluate("document.activeElement.dataset.choose")
    page.keyboard.press("Enter")
    chosen(page, code)
    until(page, f"document.activeElement.dataset.choose === '{code}'")
    tab_to(page, '#find [data-choose="HK"]')
    page.keyboard.press("Enter")
    chosen(page, "HK")
    tab_to(page, "#ask button")
    page.keyboard.press("Enter")
    page.wait_for_selector("#attempts li")
    page.evaluate("refreshing")
    assert focused(page, "#ask button"), "the focus stays where the reader is"
    tab_to(page, 'select[data-fault="qwen-hk"]')
    page.keyboard.press("5")
    page.wait_for_selector("select.broken")
    until(page, "document.activeElement.matches('select.broken')")
    tab_to(page, "#heal")
    page.keyboard.press("Enter")
    page.wait_for_selector("select.broken", state="detached")
    until(page, "document.activeElement.id === 'heal'")


def test_decision_and_attempts_are_in_view_on_a_small_screen(read_page: Callable[..., Any]) -> None:
    page = read_page("/", viewport={"width": 360, "height": 640}, has_touch=True)
    is_in_view = """selector => {
        const {top, bottom} = document.querySelector(selector).getBoundingClientRect();
        return top >= 0 && bottom <= innerHeight + 1;
    }"""
    page.focus('#map [data-choose="DE"]')
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    page.wait_for_selector('#decision:not([data-territory="US"])')
    until(page, is_in_view, "#decision .verdict")
    page.focus("#question")
    page.keyboard.press("Enter")
    page.wait_for_selector("#attempts li")
    until(page, is_in_view, "#total")
    order = """() => ["#find", ".verdict", "#question", "#answer", "#why", "#map", "#legend"].map(
        (selector) => document.querySelector(selector).getBoundingClientRect().top)"""
    tops = page.evaluate(order)
    assert tops == sorted(tops), "question and answer are above legend and map"


def test_question_is_answered_as_a_stream_with_headers_and_attempts(open_page: Callable[..., Any]) -> None:
    page = open_page("/?territory=HK")
    page.select_option('select[data-fault="qwen-hk"]', "stall")
    page.wait_for_selector("select.broken")
    page.click("#ask button")
    until(page, "document.querySelector('#answer.live')?.textContent.length > 2")
    assert page.locator("#attempts li").count() == 0, "the text appears before the end of the answer"

    page = open_page("/?territory=HK")
    page.click("#heal")
    page.wait_for_selector("select.broken", state="detached")
    ask(page)
    assert "I am dashscope hongkong" in page.inner_text("#answer")
    headers = page.inner_text("#headers")
    assert re.search(r"x-gateway-deployment\s+qwen-hk", headers)
    assert re.search(r"x-gateway-region\s+default", headers)
    assert "qwen-hk answered: first token after" in page.inner_text("#attempts")
    assert page.locator("#attempts .bar i").count() == 2
    assert "Hello! Who are you?" in page.inner_text("#arrived"), "the request as the simulator got it"


def test_visitor_is_a_child_whose_session_ends_and_is_helped_in_a_crisis(
    start: Callable[..., Running], browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_STATE_DIR", "state")
    monkeypatch.setenv("CLAIM_SECRET", "a secret of the demo, of 32 bytes")
    Path("duties.yaml").write_text(DUTIES, "utf-8")
    running = start("demo", "--config", "duties.yaml", "--port", "0")
    running.wait_for("Ctrl-C")
    url = running.wait_for(r"listens on (\S+)\.")[1]
    with watched_pages(browser, url, 1000, allowed=("data:",), with_error_status=True) as begin:
        page = begin("/?territory=US", locale="es-ES")
        page.select_option("#person", label="child, US-CA")
        page.click("#ask > button")
        until(page, "!asking && document.getElementById('use').textContent !== ''")
        assert page.inner_text("#answer").startswith("You are chatting with an AI.")
        assert page.inner_text("#use") == "Time left in this session: 60 minutes · Time left today: 120 minutes"
        # The session ends after an hour without a pause of half an hour.
        for left in (40, 20, 0):
            with page.expect_response("**/console/clock"):
                page.click("#later")
            page.click("#ask > button")
            until(
                page,
                "left => !asking && document.getElementById('use').textContent.match(/session: (\\d+)/)?.[1] <= left",
                left,
            )
        assert "age_restricted" in page.inner_text("#refusal")
        assert "Es hora de descansar." in page.inner_text("#referral")
        page.select_option("#person", label="a user of unknown age, US-CA")
        page.click("#ask > button")
        until(page, "!asking && document.getElementById('referral').textContent.includes('menores')")
        page.select_option("#person", label="child, US-CA")
        page.click("#crisis")
        until(page, "!asking && document.getElementById('referral').textContent.includes('988')")
        assert "self-harm" in page.inner_text("#referral")


def test_copied_commands_send_the_same_request(read_page: Callable[..., Any]) -> None:
    page = read_page("/?territory=HK")
    page.fill("#question", 'it\'s "quoted" $HOME 两')
    page.keyboard.press("Tab")  # the end of the edit
    page.wait_for_selector("#curl >> text=$HOME 两", state="attached")
    environ = {**os.environ, "NO_PROXY": "127.0.0.1"}
    for command in (["sh", "-c", page.text_content("#curl")], [sys.executable, "-c", page.text_content("#python")]):
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=LIMIT_MS / 1000)
        assert "hongkong" in done.stdout


@pytest.mark.parametrize("demo", ["10m"], indirect=True)
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
    for number in range(4):
        ask(page, f"Question {number}")
    page.wait_for_selector("#why .countdown")
    assert "5 different requests failed" in page.inner_text("#why")
    page.wait_for_function("() => /probe in \\d+ s/.test(document.querySelector('#why').innerText)")
    assert "qwen-intl answers" in page.inner_text("#decision .verdict")


@pytest.mark.parametrize("demo", ["1s"], indirect=True)
def test_deployment_answers_again_without_its_faults(open_page: Callable[..., Any]) -> None:
    page = open_page("/?territory=HK")
    page.select_option('select[data-fault="qwen-hk"]', "500")
    page.wait_for_selector("select.broken")
    for number in range(5):
        ask(page, f"Question {number}")
    page.click("#heal")
    page.wait_for_selector("select.broken", state="detached")
    # The end of the countdown brings a fresh page.
    page.wait_for_selector("#decision .verdict >> text=qwen-hk answers")
    ask(page)
    assert "qwen-hk answered" in page.inner_text("#attempts")


def test_edit_of_the_file_changes_the_marks_and_is_named(open_page: Callable[..., Any]) -> None:
    page = open_page("/?territory=JP")
    assert page.locator(".area.changed").count() == 0
    route = "default: [gemini, qwen-hk, qwen-intl]", "default: [chatgpt-us, gemini]"
    text = edited(_DEMO, route, ('["@EEA", CH], boundary', '["@EEA", CH, JP], boundary'))
    Path("my.yaml").write_text(edited(_DEMO, route), "utf-8")
    page.wait_for_selector("#effect h4:has-text('gemini → chatgpt-us')")
    assert page.locator(".area.changed").count() > 50
    assert "changed" in page.get_attribute('.area[data-choose="JP"]', "class")
    assert "changed" not in page.get_attribute('.area[data-choose="DE"]', "class")
    before = page.get_attribute('.area[data-choose="CH"]', "class")
    Path("my.yaml").write_text(text, "utf-8")
    page.wait_for_selector("#effect h4:has-text('chatgpt-us → chatgpt-eu')")
    eu = page.get_attribute('.area[data-choose="DE"]', "class").split()[1]
    assert page.get_attribute('.area[data-choose="JP"]', "class").split()[1] == eu
    assert page.get_attribute('.area[data-choose="CH"]', "class").split()[1] == before.split()[1]
    page.wait_for_timeout(100)
    page.reload()
    assert page.locator("#effect .members a").all_inner_texts() == ["Japan"]
    page.get_by_role("button", name="Dismiss").click()
    page.wait_for_selector("#effect section", state="detached")
    assert page.locator(".area.changed").count() == 0
    page.reload()
    assert page.locator("#effect section").count() == 0


def test_control_writes_the_file_and_the_map_shows_the_effect_until_it_is_dismissed(
    open_page: Callable[..., Any],
) -> None:
    before = Path("my.yaml").read_text("utf-8")
    page = open_page("/?territory=JP")
    page.get_by_label("first ask").select_option("chatgpt-us")
    page.get_by_role("button", name="Write the file").click()
    page.wait_for_selector("#written >> text=default: [chatgpt-us, gemini, qwen-hk, qwen-intl]")
    assert "default: [chatgpt-us, gemini" in Path("my.yaml").read_text("utf-8")
    page.wait_for_selector("#decision .verdict >> text=chatgpt-us answers")
    assert "Japan" in page.inner_text("#effect .members >> nth=0")
    page.click('#effect [data-choose="IN"]')
    chosen(page, "IN")
    assert page.locator("#effect section").is_visible()
    page.get_by_role("button", name="Undo the edit").click()
    page.wait_for_selector("#decision .verdict >> text=gemini answers")
    assert Path("my.yaml").read_text("utf-8") == before


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


def test_page_is_readable_without_javascript(read_page: Callable[..., Any]) -> None:
    page = read_page("/?territory=CN", java_script_enabled=False)
    assert "qwen-cn answers" in page.inner_text("#decision .verdict")
    assert "prompts are stored and processed only in China" in page.inner_text("#why")
    assert page.locator("#ask").is_hidden()
    page.click("text=Oceania")
    assert page.get_attribute("#map", "viewBox") != "0 0 100000 43737"
    page.fill("#territory", "Hong Kong")
    page.click("#find button")
    assert "qwen-hk answers" in page.inner_text("#decision .verdict")
    page.click("#legend >> text=chatgpt-eu")


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (1280, "light"),
        (360, "dark"),
        *(pytest.param(*one, marks=pytest.mark.full) for one in ((1280, "dark"), (360, "light"))),
    ],
)
def test_axe_finds_no_serious_problem(open_page: Callable[..., Any], width: int, scheme: str) -> None:
    axe = (installed_packages(installed_node()) / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8")
    page = open_page("/?territory=HK", viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.select_option('select[data-fault="qwen-hk"]', "500")
    page.wait_for_selector("select.broken")
    ask(page)
    page.evaluate(axe)
    assert serious_problems(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def choose_by_pointer(page: Any, code: str, press: Callable[[float, float], None]) -> None:
    """Open clusters until the territory has a mark or an area that is large enough, and press there."""
    middle = "element => { const {x, y, width, height} = element.getBoundingClientRect(); return [x + width / 2, y + height / 2]; }"
    for _ in range(8):
        page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        cluster = page.query_selector(f'.cluster[data-members~="{code}"]')
        if cluster is None:
            break
        press(*cluster.query_selector(".target").evaluate(middle))
    mark = page.query_selector(f'#map [data-choose="{code}"] .mark:not([display]) .target')
    press(*(mark.evaluate(middle) if mark else client_position(page, world().places[code].position)))
    chosen(page, code)


def client_position(page: Any, point: tuple[float, float]) -> tuple[float, float]:
    """Return where a point of the map is in the window."""
    x, y = page.evaluate(
        """([x, y]) => {
            const {left, top, width} = map.getBoundingClientRect();
            return [left + (x - box[0]) * width / box[2], top + (y - box[1]) * width / box[2]];
        }""",
        list(point),
    )
    return x, y


@pytest.mark.parametrize("places", [PLACES[::3], pytest.param(PLACES, marks=pytest.mark.full)], ids=["some", "each"])
def test_clicks_inside_areas_open_their_territory(
    read_page: Callable[..., Any], places: Sequence[tuple[str, float, float]]
) -> None:
    page = read_page("/?territory=AQ", viewport={"width": 1440, "height": 1000})
    for code, latitude, longitude in places:
        page.evaluate("choose('AQ')")
        chosen(page, "AQ")
        x, y = position(longitude, latitude)
        page.evaluate(f"setBox([{x - 5000}, {y - 2187}, 10000, 4374])")
        page.mouse.click(*client_position(page, (x, y)))
        chosen(page, code)


SMALL = ("HK", "SG", "TW", *"VA MC MO SM LI AD GI MT LU SX MF BL BM MV NR TV PN TK AQ BV".split())


@pytest.mark.parametrize(
    ("width", "codes"),
    [
        pytest.param(1440, (*SMALL[::3], "MF"), id="wide"),
        pytest.param(360, SMALL[1::3], id="narrow"),
        *(pytest.param(width, SMALL, id=f"each-{width}", marks=pytest.mark.full) for width in (1440, 360)),
    ],
)
def test_small_territories_open_by_clicks_and_taps_alone(
    read_page: Callable[..., Any], width: int, codes: Sequence[str]
) -> None:
    page = read_page("/?territory=RU", viewport={"width": width, "height": 900}, has_touch=True)
    press = page.touchscreen.tap if width < 600 else page.mouse.click
    for code in codes:
        page.goto(re.sub(r"\?.*", "?territory=RU", page.url))
        page.locator("#map").scroll_into_view_if_needed()
        choose_by_pointer(page, code, press)


@cases("code", "size_px", "off_px", "chosen_code")
def test_finger_that_misses_a_small_territory_by_some_pixels_chooses_it(
    read_page: Callable[..., Any], code: str, size_px: int, off_px: int, chosen_code: str
) -> None:
    page = read_page("/?territory=RU", viewport={"width": 360, "height": 900}, has_touch=True)
    page.locator("#map").scroll_into_view_if_needed()
    place = world().places[code]
    unit = place.size / size_px if size_px else 20_000 / 360 / 4
    width = unit * page.evaluate("map.getBoundingClientRect().width")
    x, y = place.position
    page.evaluate(f"setBox([{x - width / 2}, {y - width * 0.22}, {width}, {width * 0.43737}])")
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    left, top = client_position(page, (x, y))
    page.touchscreen.tap(left + off_px, top)
    chosen(page, chosen_code)


@pytest.mark.parametrize("width", [1440, pytest.param(768, marks=pytest.mark.full), 360])
def test_no_mark_covers_another_one_and_four_are_never_in_a_cluster(read_page: Callable[..., Any], width: int) -> None:
    page = read_page("/?territory=DE", viewport={"width": width, "height": 900})
    views = page.locator(".views a")
    for number in range(views.count()):
        views.nth(number).click()
        page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        boxes = page.evaluate(
            "[...document.querySelectorAll('.cluster .target, .mark:not([display]) .target')]"
            ".map((one) => one.getBoundingClientRect().toJSON())"
        )
        for index, one in enumerate(boxes):
            assert min(one["width"], one["height"]) > 23.9
            for other in boxes[:index]:
                apart = max(abs(one["x"] - other["x"]), abs(one["y"] - other["y"]))
                assert apart > 23.9, (one, other)
        members = page.evaluate(
            "[...document.querySelectorAll('.cluster')].map((one) => one.dataset.members).join(' ')"
        )
        assert not {"HK", "MO", "SG", "TW"} & set(members.split())


def test_map_follows_wheel_drag_pinch_and_keys(read_page: Callable[..., Any]) -> None:
    page = read_page("/?territory=DE", has_touch=True)
    width = "Number(map.getAttribute('viewBox').split(' ')[2])"
    x, y = client_position(page, position(10, 51))
    at = round(x), round(y)
    page.mouse.move(*at)
    for _ in range(3):
        page.mouse.wheel(0, -200)
    until(page, f"{width} < 20000")
    assert client_position(page, position(10, 51)) == pytest.approx(at, abs=9), "the place under the pointer stays"
    page.mouse.down()
    page.mouse.move(at[0] + 100, at[1] + 40, steps=4)
    page.mouse.up()
    assert client_position(page, position(10, 51)) == pytest.approx((at[0] + 100, at[1] + 40), abs=9)
    page.wait_for_timeout(100)
    chosen(page, "DE")
    page.focus('#map [data-choose="DE"]')
    page.keyboard.press("0")
    until(page, f"{width} === 100000")
    page.keyboard.press("+")
    until(page, f"{width} === 50000")
    page.keyboard.press("-")
    until(page, f"{width} === 100000")
    client = page.context.new_cdp_session(page)
    for kind, spread in (("touchStart", 30), ("touchMove", 60), ("touchMove", 120)):
        points = [{"x": at[0] + side * spread, "y": at[1], "id": side} for side in (0, 1)]
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    client.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    until(page, f"{width} < 30000")
    chosen(page, "DE")


def test_language_of_the_visitor_chooses_the_first_territory(read_page: Callable[..., Any]) -> None:
    page = read_page("/", locale="ja-JP")
    chosen(page, "JP")
    assert page.get_by_label("Territory").input_value() == "Japan", "no other element has this label"
    assert "Gemini (Google): gemini answers" in page.inner_text("#decision .verdict")


def test_page_speaks_chinese_to_a_chinese_browser_and_english_on_request(read_page: Callable[..., Any]) -> None:
    page = read_page("/?territory=HK", locale="zh-CN")
    assert (page.title(), page.inner_text("h1")) == ("世界", "世界")
    assert "通义千问（阿里巴巴）" in page.inner_text("#legend")
    page.get_by_role("button", name="提问").click()
    page.wait_for_selector("#attempts li >> text=已回答")
    page.click("header >> text=English")
    page.wait_for_selector("h1 >> text=World")
    page.fill("#territory", "日本")
    page.keyboard.press("Enter")
    chosen(page, "JP")
    assert page.inner_text("#decision-title") == "Japan"


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


def test_more_pages_than_connections_follow_an_edit_and_do_not_delay_the_end(
    browser: Any, url: str, demo: Running
) -> None:
    context = browser.new_context()
    pages = [context.new_page() for _ in range(8)]  # a browser opens six connections to a host
    for page in pages:
        page.set_default_timeout(LIMIT_MS)
        page.goto(f"{url}/?territory=JP")
    Path("my.yaml").write_text(edited(_DEMO, ("default: [gemini,", "default: [chatgpt-us, gemini,")), "utf-8")
    for page in pages:
        page.bring_to_front()
        page.wait_for_selector("#effect h4:has-text('gemini → chatgpt-us')")
    assert demo.end(signal.SIGTERM).status == 0
    for page in pages:
        page.wait_for_selector("#offline:not([hidden])")
    context.close()
