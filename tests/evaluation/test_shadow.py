"""Recorded shadow answers are scored like those of an evaluation. Text is read only if the config keeps it now."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from evaluation.items import RecordedAnswer
from evaluation.scorers import Score
from evaluation.shadow_run import _record
from evaluation.shadow_scores import describe_shadow, judge_items, last_user_message, score_shadow, texts_of
from gateway.cli import main
from providers.testkit.scenario import HttpError, Scenario
from tests.kit.evaluation_candidates import servers, suite_in
from tests.kit.shadow_records import CHECKS, JUDGED, RECORDS, ShadowWorkspace, answered_record, numbered


@pytest.mark.parametrize(
    ("prompt", "question"),
    [
        ("user: Hi", "Hi"),
        ("system: be kind\nuser: one\nassistant: two\nuser: three\nand four", "three\nand four"),
        ("user: one\ntool: {}\nassistant: ", "one"),
        ("the end of something long", "the end of something long"),
    ],
)
def test_last_user_message_is_found(prompt: str, question: str) -> None:
    assert last_user_message(prompt) == question


def test_only_whole_answers_with_text_are_scored() -> None:
    found = {number: answer for number, _, answer in texts_of(numbered(RECORDS))}
    assert list(found) == [1, 2, 3, 4, 5, 6]
    assert found[1] == RecordedAnswer("It is 7.")
    assert found[6].filtered
    kept = answered_record("Look it up.", "", tool_calls=1, calls=(("look", "{}"),), refusal="no")
    [(_, _, answer)] = texts_of([(1, kept)])
    assert (answer.refusal, [(call.name, call.arguments) for call in answer.calls]) == ("no", [("look", "{}")])


def test_shadow_scores_and_times_are_compared_with_the_answering_deployment(tmp_path: Path) -> None:
    suite = suite_in(tmp_path, CHECKS)
    [(name, one)] = score_shadow(suite, numbered(RECORDS), {}).items()
    assert (name, one.requests, one.texts, one.failures) == ("new", 9, 6, {"silent": 1})
    assert one.answered is not None
    assert one.answered.value == pytest.approx(8 / 9)
    assert one.refused is not None
    assert (one.refused.value, one.refusals) == (pytest.approx(2 / 6), {"provider": 1, "rule": 1})
    assert one.acceptable is None, "words and a judge are missing"
    assert one.in_language is not None
    assert (one.in_language.value, one.in_language.of) == (pytest.approx(3 / 4), 4)
    assert {check: (found.value, found.of) for check, found in one.checks.items()} == {
        "short": (pytest.approx(2 / 6), 6),
        "sum": (0.5, 2),
    }
    assert one.total is not None
    assert (one.total.later_s, one.total.of, one.total.p < 0.05) == (pytest.approx(0.2), 8, True)
    reasons = {(item.item, item.group): item.why for item in one.failed}
    assert reasons["r-1 (2)", "sum"] == "gives 8, not 7"
    assert reasons["r-1 (4)", "language"] == "the question is in en and the answer in de"
    words = "\n".join(describe_shadow(name, one))
    assert "200 ms longer than the deployment that answered the same 8 requests" in words
    assert "acceptability was not measured" in words


def test_prompt_equal_to_an_item_gets_its_check(tmp_path: Path) -> None:
    suite = suite_in(tmp_path, "performance: {sets: [{name: a, file: many.yaml}]}", items=3)
    right, wrong, _ = suite.performance
    assert right.right is not None
    records = [
        answered_record(right.prompt, right.right.text),
        answered_record(f"{wrong.prompt}  ", "no idea"),
        answered_record("Else?", "7"),
    ]
    one = score_shadow(suite, numbered(records), {})["new"]
    assert {check: (found.value, found.of) for check, found in one.checks.items()} == {"sums": (0.5, 2)}


def test_judge_gets_all_answers_that_have_a_text(tmp_path: Path) -> None:
    suite = suite_in(tmp_path, JUDGED)
    items = judge_items(suite, numbered(RECORDS))
    assert [item.id for item in items] == ["1", "2", "3 polite", "3", "4", "5"]
    verdicts = {"1": Score(1.0), "2": Score(0.0, "untrue"), "3 polite": Score(0.5, "so so"), "3": Score(1.0)}
    one = score_shadow(suite, numbered(RECORDS), verdicts)["new"]
    assert one.acceptable is not None
    # The provider's refusal is acceptable. The fourth and the fifth answer have no verdict and are not counted.
    assert (one.acceptable.value, one.acceptable.of, one.unjudged) == (pytest.approx(3 / 4), 4, 2)
    [worst] = [line for line in describe_shadow("new", one) if "no verdict of the judge" in line]
    assert "2 answers have no verdict of the judge; 50.0%" in worst
    assert one.checks["polite"].value == 0
    assert one.judged_by == ("judge",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shadow: {checks: [{name: a}]}", "needs exactly one check"),
        ("shadow: {checks: [{name: a, call: {name: x}}]}", "only the number of tool calls is recorded"),
        ("shadow: {checks: [{name: a, rubric: kind}]}", "needs a judge"),
        ("shadow: {checks: [{name: a, when: '(', number: 1}]}", "unterminated subpattern"),
        ("shadow: {checks: [{name: a, number: 1}, {name: a, number: 2}]}", "two checks have the name 'a'"),
    ],
)
def test_mistake_in_a_shadow_check_is_reported(tmp_path: Path, text: str, message: str) -> None:
    from gateway.config.problems import ConfigRejected

    with pytest.raises(ConfigRejected, match=message.replace("(", r"\(")):
        suite_in(tmp_path, text)


def test_record_of_a_run_that_an_earlier_release_began_is_read() -> None:
    stored = asdict(RECORDS[0])
    assert _record(dict(stored)) == RECORDS[0]
    stored["table"] = stored.pop("config_version")
    assert _record(stored) == RECORDS[0]


@pytest.mark.slow
def test_the_whole_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The judge fails, the run is resumed, and no answered question is repeated."""
    scenario = Scenario(text='{"acceptable": true, "score": 5, "reason": "fine"}', script=(HttpError(401),))
    with servers({"judge": scenario}) as thread:
        place = ShadowWorkspace(tmp_path, thread["judge"].origin, monkeypatch)
        suite = ("--suite", str(tmp_path / "suite.yaml"))
        assert place.run(*suite, "--dry-run") == 0
        assert thread["judge"].received == 0
        assert "will get 6 questions" in capsys.readouterr().out
        assert place.run(*suite) == 0
        assert thread["judge"].received == 6
        assert place.run(*suite) == 0
        assert thread["judge"].received == 7, "what failed is asked again, and nothing else"
        prompt = json.loads(thread["judge"].requests[-1].body)["messages"][-1]["content"]
        assert "How much is 3 and 4?" in prompt
    assert main(["evaluate", "--compare", str(tmp_path / "out"), str(tmp_path / "out")]) == 0
    assert "4 of 4 figures show no measurable difference" in capsys.readouterr().out
    one = place.report["shadows"]["new"]
    assert one["acceptable"]["value"] == 1
    assert one["checks"]["polite"]["value"] == 1
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "It is 8, I am quite sure of that." in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "")
    assert "gives 8, not 7" in (tmp_path / "out" / "report.md").read_text("utf-8")


def test_text_is_not_read_if_the_config_does_not_keep_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with servers({"judge": Scenario()}) as thread:
        place = ShadowWorkspace(tmp_path, thread["judge"].origin, monkeypatch)
        assert place.run() == 0
        place.write(thread["judge"].origin, keep_text=False)
        assert place.run() == 0
        assert thread["judge"].accepted == 0
    assert "keeps no text of this shadow" in capsys.readouterr().out
    one = place.report["shadows"]["new"]
    assert (one["requests"], one["texts"], one["failed"]) == (9, 0, [])
    assert "quite sure" not in (tmp_path / "out" / "report.html").read_text("utf-8")


@pytest.mark.parametrize(("judge_in", "approved"), [("US", True), ("CN", False)])
def test_judge_without_permission_gets_no_text_of_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], judge_in: str, approved: bool
) -> None:
    with servers({"judge": Scenario()}) as thread:
        place = ShadowWorkspace(tmp_path, thread["judge"].origin, monkeypatch)
        place.write(thread["judge"].origin, judge_in=judge_in, approved=approved)
        assert place.run("--suite", str(tmp_path / "suite.yaml")) == 2
        assert thread["judge"].accepted == 0
    assert "may not read text of users" in capsys.readouterr().err


def test_missing_shadow_or_records_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ShadowWorkspace(tmp_path, "http://127.0.0.1:9", monkeypatch)
    asked = ["evaluate", "--config", str(place.config), "--out", str(tmp_path / "out"), "--shadow"]
    for more, message in (
        ([str(tmp_path / "nowhere"), "--region", "cn"], "shadow.db can't be read"),
        ([str(tmp_path / "state"), "--region", "us"], "has no shadow in region us"),
        ([str(tmp_path / "state"), "--region", "xx"], "no region 'xx'"),
        ([str(tmp_path / "state"), "--region", "cn", "--candidates", "one"], "leave out --candidates"),
    ):
        assert main([*asked, *more]) == 2
        assert message in capsys.readouterr().err
