"""Pairs of a shadow's answer and the client's answer: only whole answers, in both orders, and with a permitted judge."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.candidate_client import QuestionResult, Timing
from evaluation.items import RecordedAnswer
from evaluation.judge import MAX_QUOTED_CHARACTERS, pair_axis
from evaluation.run_store import RunStore
from evaluation.shadow_scores import (
    ANSWERING_DEPLOYMENT,
    count_pair_questions,
    describe_pair,
    judged_pairs,
    store_pair_questions,
)
from gateway.model.shadow import ShadowRecord
from providers.testkit.scenario import Scenario
from tests.kit.evaluation_candidates import servers, suite_in
from tests.kit.shadow_records import RECORDS, ShadowWorkspace, answered_record, numbered

CLIENT_ANSWER = "This is the answer of the client."
JUDGE = "shadow: {checks: []}\njudge: {deployment: judge, pairs: 10, compliance: false}\n"


def both(prompt: str, answer: str, client_answer: str | None = CLIENT_ANSWER, **more: object) -> ShadowRecord:
    return answered_record(prompt, answer, beside_answer=client_answer, **{"answer_characters": len(answer), **more})


PAIRED = [both(f"Question {number}?", f"Answer {number}.") for number in range(4)]
UNPAIRED = [
    both("Cut by its provider?", "It is", finish_reason="length"),
    both("Cut by what is kept?", "It is", answer_characters=70_000),
    both("Too long to be quoted whole?", "x" * (MAX_QUOTED_CHARACTERS + 1)),
    both("And the other's?", "It is 7.", "x" * (MAX_QUOTED_CHARACTERS + 1)),
    both("Called a tool?", "Look:", calls=(("look", "{}"),), tool_calls=1),
    both("Said nothing?", ""),
    both("Refused by a filter?", "", finish_reason="content_filter"),
    both("Failed?", "", outcome="silent"),
    both("Is the client's not kept?", "It is 7.", None),
    replace(PAIRED[0], prompt=None, answer=None),
]


def test_only_whole_answers_are_paired_in_both_orders(tmp_path: Path) -> None:
    suite, store = suite_in(tmp_path, JUDGE), RunStore(tmp_path / "out", {})
    records = numbered([*UNPAIRED, *PAIRED, *RECORDS])
    asked = store_pair_questions(suite, records, store)
    assert list(asked) == [pair_axis("new", ANSWERING_DEPLOYMENT)]
    questions = {item.id: item.prompt for item in asked[pair_axis("new", ANSWERING_DEPLOYMENT)]}
    assert sorted(questions) == sorted(f"{number}#{order}" for number in range(11, 15) for order in (1, 2))
    assert count_pair_questions(suite, records) == len(questions) == 8
    first, second = questions["12#1"], questions["12#2"]
    assert first.index("user: Question 1?") < first.index("Answer 1.") < first.index(CLIENT_ANSWER)
    assert second.index("user: Question 1?") < second.index(CLIENT_ANSWER) < second.index("Answer 1.")
    store.close()


def test_end_of_a_long_conversation_is_quoted(tmp_path: Path) -> None:
    suite, store = suite_in(tmp_path, JUDGE), RunStore(tmp_path / "out", {})
    asked = store_pair_questions(
        suite, numbered([both("long " * MAX_QUOTED_CHARACTERS + "and the question?", "It is 7.")]), store
    )
    assert all("and the question?" in item.prompt for item in asked[pair_axis("new", ANSWERING_DEPLOYMENT)])
    store.close()


@pytest.mark.parametrize("judge", ["", "judge: {deployment: judge, compliance: false}"])
def test_pairs_need_a_judge_and_a_number(tmp_path: Path, judge: str) -> None:
    suite, store = suite_in(tmp_path, f"shadow: {{checks: []}}\n{judge}"), RunStore(tmp_path / "out", {})
    assert (count_pair_questions(suite, numbered(PAIRED)), store_pair_questions(suite, numbered(PAIRED), store)) == (
        0,
        {},
    )
    store.close()


def test_answer_preferred_in_both_orders_wins(tmp_path: Path) -> None:
    suite, store = suite_in(tmp_path, JUDGE), RunStore(tmp_path / "out", {})
    asked = store_pair_questions(suite, numbered(PAIRED), store)[pair_axis("new", ANSWERING_DEPLOYMENT)]
    better = {"1#1": "A", "1#2": "B", "2#1": "B", "2#2": "A", "3#1": "A", "3#2": "A", "4#1": "tie", "4#2": "tie"}
    for item in asked:
        verdict = RecordedAnswer(json.dumps({"better": better[item.id]}))
        store.add("judge", pair_axis("new", ANSWERING_DEPLOYMENT), item.id, QuestionResult(Timing(0.1), verdict))
    [pair] = judged_pairs(store, "judge", ["new", "older"])
    assert (pair.first, pair.won, pair.lost, pair.swayed, pair.tied) == ("new", 1, 1, 1, 1)
    assert describe_pair(pair) == (
        "new: of 4 pairs, the judge preferred the shadow in 1 and the deployment that answered the client in 1 "
        "(no measurable difference, p = 1); it had no preference in 1, and the order swayed it in 1."
    )
    store.close()


def test_the_whole_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with servers({"judge": Scenario(text='{"better": "A"}')}) as thread:
        place = ShadowWorkspace(tmp_path, thread["judge"].origin, monkeypatch, [*PAIRED, *UNPAIRED], JUDGE)
        suite = ("--suite", str(tmp_path / "suite.yaml"))
        assert place.run(*suite, "--dry-run") == 0
        assert "will get 8 questions" in capsys.readouterr().out
        assert place.run(*suite) == 0
        assert place.run(*suite) == 0
        assert thread["judge"].received == 8, "what was answered isn't asked again"
    [pair] = place.report["pairs"]
    assert (pair["first"], pair["swayed"], pair["won"]) == ("new", 4, 0)
    assert "the order swayed it in 4" in (tmp_path / "out" / "report.md").read_text("utf-8")
    assert "Pairs compared by the judge" in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_client_answers_are_read_only_if_the_config_keeps_text_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with servers({"judge": Scenario()}) as thread:
        records = [replace(PAIRED[0], refusal="It can't, CLIENT_ANSWER", calls=(("look", "CLIENT_ANSWER"),))]
        place = ShadowWorkspace(tmp_path, thread["judge"].origin, monkeypatch, records, JUDGE)
        place.write(thread["judge"].origin, keep_text=False)
        assert place.run("--suite", str(tmp_path / "suite.yaml")) == 0
        assert thread["judge"].accepted == 0
    kept = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
    assert CLIENT_ANSWER.encode() not in kept
    assert b"CLIENT_ANSWER" not in kept
