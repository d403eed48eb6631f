"""The languages of the console: every text is translated, and dates, numbers and money have the form of the locale."""

import ast
import re
from string import Formatter
from typing import get_args

from gateway.console.requests_view import OUTCOMES
from gateway.console.texts import FOLDER, LANGUAGES, language_of, texts_in
from gateway.model.budget import Window
from gateway.model.decision import RefusalCode, SkipReason
from gateway.model.location import LocationProblem
from gateway.model.moderation import Judged
from gateway.model.refusal_reason import REASON_BY_CODE, RefusalReason
from gateway.model.schedule import Phase
from gateway.model.served import Use
from gateway.model.status import Cause, ReloadRefusal
from gateway.policy.location import SIGNALS
from tests.gateway.console.console_texts import texts_to_translate
from tests.kit.case_files import cases

GATEWAY = FOLDER.parents[1]


def fields_of(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def entries() -> list[tuple[str, str, str]]:
    """Return the context, the text and its translation of each entry of the Chinese catalogue."""
    pattern = r'^(?:msgctxt "(.+)"\n)?msgid "(.+)"\nmsgstr "(.*)"$'
    return re.findall(pattern, (FOLDER / "zh-Hans.po").read_text("utf-8"), re.MULTILINE)


def literals_of(call: str, position: int) -> set[str]:
    """Return the constants at a position of every such call in the gateway."""
    sources = (path.read_text("utf-8") for path in GATEWAY.rglob("*.py"))
    trees = (ast.parse(source) for source in sources if f"{call}(" in source)
    calls = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call))
    given = (one.args[position] for one in calls if getattr(one.func, "id", "") == call and len(one.args) > position)
    return {one.value for one in given if isinstance(one, ast.Constant)}


def test_every_code_of_the_gateway_has_chinese_words() -> None:
    admin = literals_of("AdminRefused", 1) | {"client_exists", "project_exists", "rollback_pinned"}
    wanted: dict[str, set[str]] = {
        "skip": {*SkipReason, "skipped"},
        "health": {"breaker", "cooldown"},
        "problem": {*LocationProblem},
        "error": {*REASON_BY_CODE, *RefusalCode, *admin, "conflict", "blocked"},
        "reason": {*RefusalReason},
        "outcome": {*OUTCOMES},
        "window": {*Window},
        "cause": {*get_args(Cause)},
        "phase": {*Phase},
        "judged": {*get_args(Judged)},
        "signal": {*SIGNALS, "unknown"},
        "use": {*get_args(Use)},
        "check": literals_of("Check", 0),
        "change": {*get_args(ReloadRefusal)},
    }
    known: dict[str, set[str]] = {}
    for kind, code, words in entries():
        if kind:
            known.setdefault(kind, set()).add(code)
            assert re.search("[\u4e00-\u9fff]", words), code
            assert fields_of(words) <= {"detail"}, code
    assert known == wanted


def test_code_has_its_own_words_in_english_and_the_catalogues_in_chinese() -> None:
    english, chinese = texts_in("en"), texts_in("zh-Hans")
    assert english.code("skip", "disabled", "disabled in the config") == "disabled in the config"
    assert english.code("window", Window.DAY) == "day"
    assert chinese.code("window", Window.DAY) == "每天"
    assert chinese.code("skip", "credential", "KEY is not set") == "没有设置凭据（KEY is not set）"
    assert chinese.code("error", "a_new_code", "its words") == "its words"


def test_chinese_catalogue_has_every_text_and_no_other() -> None:
    catalogue = {text: translated for kind, text, translated in entries() if not kind}
    texts = texts_to_translate()
    assert {text: file for text, file in texts.items() if not catalogue.get(text)} == {}, "missing"
    assert set(catalogue) - set(texts) == set(), "left over"
    for text, translated in catalogue.items():
        assert re.search("[\u4e00-\u9fff]|Token|^[，：；。（）]$", translated), text
        assert fields_of(text) == fields_of(translated), text


def test_every_offered_language_but_english_has_a_catalogue() -> None:
    assert {path.stem for path in FOLDER.glob("*.po")} == set(LANGUAGES) - {"en"}
    assert texts_in("zh-Hans").gettext("Requests") == "请求"
    assert texts_in("en").gettext("Requests") == "Requests"


@cases("chosen", "accepted", "language")
def test_language_is_the_chosen_or_the_first_accepted_one(chosen: str, accepted: str, language: str) -> None:
    assert language_of(chosen, accepted) == language


def test_times_name_their_zone_and_money_its_currency() -> None:
    english, chinese = texts_in("en"), texts_in("zh-Hans")
    assert english.time("2026-11-25T01:02:03.000+00:00").replace("\u202f", " ") == "Nov 25, 2026, 1:02:03 AM UTC"
    assert chinese.time("2026-11-25T09:02:03+08:00") == "2026年11月25日 01:02:03 UTC"
    assert (english.money("1234.5", "EUR"), chinese.money("0.000001", "USD")) == ("€1,234.50", "US$0.000001")
    assert (english.number(1234567), english.percent(0.125), english.money(None, "EUR")) == ("1,234,567", "12.5%", "–")
