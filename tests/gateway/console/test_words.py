"""The lines, commands and timelines that the console shows."""

import ast
import json
import shlex
from typing import Any

import pytest

from gateway.console.page import curl_command, python_program
from gateway.console.texts import texts_in
from gateway.console.timeline import duration, timeline

ENGLISH = texts_in("en")


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
