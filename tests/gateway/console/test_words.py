"""The lines, commands and timelines that the console shows, and the words of plans: in English those of the gateway's own
sentences, in Chinese made of the same values.
"""

import ast
import json
import shlex
from typing import Any, get_args

import pytest

from gateway.changes.plan import MARKS, NO_CONFIG_VERSION, Kind, changed_values, plan_of
from gateway.changes.plan_text import plan_data, plan_summary, summary_data
from gateway.console.page import curl_command, python_program
from gateway.console.texts import texts_in
from gateway.console.timeline import duration, timeline
from gateway.console.views import ANSWER_WORDS, first_words, summary_words, value_words, why_words
from gateway.model.answer_change import AnswerChangeKind
from gateway.policy.territory_answers import answer_changes
from tests.kit.config_cases import edited
from tests.kit.console_pages import DEMO, demo_config

# --- lines, commands and timelines -----------------------------------------------------------------


ENGLISH, CHINESE = texts_in("en"), texts_in("zh-Hans")


QUESTIONS = [
    "Hello! Who are you?",
    'it\'s "quoted" $HOME `id` \\n',
    "两行\nand\ttabs",
    "</pre><script>",
    "{}'; rm -rf /; echo '",
]


@pytest.mark.parametrize("question", QUESTIONS)
def test_commands_carry_the_question_unchanged(question: str) -> None:
    words = shlex.split(curl_command("http://127.0.0.1:8080", "it's", "HK", question).replace("\\\n", ""))
    body = json.loads(words[words.index("-d") + 1])
    assert words[:3] == ["curl", "-iN", "http://127.0.0.1:8080/v1/chat/completions"]
    assert "cf-ipcountry: HK" in words
    assert (body["model"], body["stream"], body["messages"][0]["content"]) == ("it's", True, question)
    tree = ast.parse(python_program("http://127.0.0.1:8080", "it's", "HK", question))
    literals = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    assert {question, "it's", "HK", "http://127.0.0.1:8080/v1"} <= {*literals}


def request(*attempts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    known = {
        "request_id": "one",
        "outcome": "ok",
        "total_ms": 500.0,
        "stream": True,
        "skipped": {},
        "attempts": attempts,
    }
    return known | fields


FAILED = {
    "deployment": "qwen-hk", "start_ms": 1.0, "ms": 2.0, "outcome": "unavailable", "status": 500,
    "decision": "retry", "decision_reason": "backoff", "wait_s": 0.25,
}  # fmt: skip
MOVED = {**FAILED, "start_ms": 253.0, "decision": "failover", "decision_reason": "attempts_per_deployment"}
ANSWER = {"deployment": "qwen-intl", "start_ms": 260.0, "ms": 40.0, "outcome": "ok"}


def test_timeline_names_each_attempt_with_its_reason() -> None:
    shown: Any = timeline(request(FAILED, MOVED, ANSWER, skipped={"gemini": "breaker open"}), ENGLISH)
    assert [(row["deployment"], row["words"], row["next"]) for row in shown["rows"]] == [
        ("qwen-hk", "failed after 2.0 ms: it is unavailable (500)", "retry after 250 ms (a random wait)"),
        (
            "qwen-hk",
            "failed after 2.0 ms: it is unavailable (500)",
            "failover to the next deployment (it has had all its attempts)",
        ),
        ("qwen-intl", "answered: first token after 40 ms, text for 200 ms", ""),
    ]
    assert [(row["start_ms"], row["waited_ms"], row["end_ms"]) for row in shown["rows"]] == [
        (1.0, 3.0, 3.0),
        (253.0, 255.0, 255.0),
        (260.0, 300.0, 500.0),
    ]
    assert shown["skipped"] == ["gemini was not asked: breaker open"]


def test_timeline_names_an_answer_that_broke_off() -> None:
    shown: Any = timeline(request(ANSWER, outcome="interrupted"), ENGLISH)
    assert shown["rows"][0]["words"].endswith(", but its answer broke off")
    whole: Any = timeline(request(ANSWER, stream=False), ENGLISH)
    assert whole["rows"][0]["words"] == "answered: answer after 40 ms"
    assert timeline(request(total_ms=None), ENGLISH)["rows"] == []


def test_every_failure_kind_and_decision_has_words() -> None:
    from gateway.console import timeline as module
    from gateway.model.record import ABANDONED, DecisionReason
    from providers.failures import FailureKind

    assert {*module._WORDS} == {*map(str, FailureKind), ABANDONED}
    assert {*module._REASONS} == {str(reason) for reason in DecisionReason}


def test_durations_have_few_figures() -> None:
    assert [duration(one) for one in (0.04, 9.94, 312.4, 2510)] == ["0.0 ms", "9.9 ms", "312 ms", "2.5 s"]


# --- plans -----------------------------------------------------------------------------------------


NOW_S = 1_795_132_800.0
ROUTE = "default: [gemini, qwen-hk, qwen-intl]"


def losses() -> list[dict[str, Any]]:
    """Return the territories that lose their answer, as the admin API describes them."""
    new = demo_config(edited(DEMO, (ROUTE, "default: [gemini]")))
    changes = answer_changes(demo_config(DEMO), new, NOW_S)
    return [change.data() for change in changes if change.kind == "lost"]


def test_every_kind_of_change_has_words() -> None:
    assert {*ANSWER_WORDS} == {*get_args(AnswerChangeKind)}
    assert {*MARKS} == {*get_args(Kind)}


def test_lost_answer_is_the_own_sentence_in_english_and_has_chinese_reasons() -> None:
    lost = next(one for one in losses() if "HK" in one["territories"])
    assert first_words(ENGLISH, lost, "before") == lost["before"] == "qwen-hk"
    assert first_words(ENGLISH, lost, "after") == lost["after"] == "refused (no_eligible_deployment)"
    assert why_words(ENGLISH, lost) == lost["why"]
    reason = CHINESE.code("skip", lost["skipped"][0]["reason"], lost["skipped"][0]["detail"])
    assert first_words(CHINESE, lost, "after") == f"拒绝（{CHINESE.code('error', 'no_eligible_deployment')}）"
    assert why_words(CHINESE, lost) == f"gemini: {reason}"
    assert reason != lost["skipped"][0]["detail"]


def test_plan_without_codes_is_shown_as_an_earlier_release_stored_it() -> None:
    added = ("before_refusal", "after_refusal", "skipped")
    stored = {name: value for name, value in losses()[0].items() if name not in added}
    assert first_words(CHINESE, stored, "after") == stored["after"]
    assert why_words(CHINESE, stored) == stored["why"]
    assert value_words(CHINESE, {"what": "a", "before": "not set", "after": "1"}, "before") == "not set"


def test_text_not_set_is_not_shown_as_a_missing_key() -> None:
    added, changed, removed = changed_values({"b": "not set", "c": 1}, {"a": 2, "b": 3})
    data: Any = plan_data(plan_of(NO_CONFIG_VERSION, NO_CONFIG_VERSION, (added, changed, removed)))["values"]
    shown = {one["what"]: (value_words(CHINESE, one, "before"), value_words(CHINESE, one, "after")) for one in data}
    assert shown == {"a": ("未设置", "2"), "b": ("not set", "3"), "c": ("1", "未设置")}
    assert all(value_words(ENGLISH, one, side) == one[side] for one in data for side in ("before", "after"))


@pytest.mark.parametrize("text", [DEMO, edited(DEMO, (ROUTE, "default: [gemini]"))])
def test_summary_of_values_is_the_sentence_of_the_gateway(text: str) -> None:
    for old in (NO_CONFIG_VERSION, demo_config(DEMO)):
        plan = plan_of(old, demo_config(text))
        assert summary_words(ENGLISH, summary_data(plan_data(plan))) == plan_summary(plan)


def test_summary_has_chinese_words() -> None:
    items: list[dict[str, object]] = [
        {"of": "region", "name": "region x, y", "kind": "added"},
        {"of": "section", "name": "usage", "kind": None},
    ]
    assert summary_words(CHINESE, {"summary_items": items, "summary_more": 3}) == "+区域 region x, y, usage 等另外 3 项"
    assert summary_words(CHINESE, {"summary_items": [], "summary_more": 0}) == "无变化"
