"""Recorded answers of a shadow are scored like those of an evaluation. Text is read only if the config keeps it now."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluation.recorded import last_user_message
from gateway.cli import main
from providers.testkit.scenario import HttpError, Scenario
from tests.evaluation.candidates import servers
from tests.evaluation.shadow_records import CHECKS, RECORDS, ShadowWorkspace, answered_record
from tests.kit.case_files import cases


@cases("prompt", "question")
def test_last_user_message_is_found(prompt: str, question: str) -> None:
    assert last_user_message(prompt) == question


def test_answers_and_times_are_compared_with_the_answering_deployment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [*RECORDS, *(answered_record(f"How much is 3 and {n}?", "7", beside_answer="No idea.") for n in range(9))]
    place = ShadowWorkspace(tmp_path, "http://127.0.0.1:9", monkeypatch, records, CHECKS)
    assert place.run("--suite", str(tmp_path / "suite.yaml")) == 0
    shown = capsys.readouterr().out
    one = place.report["candidates"]["new"]
    figures = {name: (round(found["value"], 3), found["of"]) for name, found in one["figures"].items()}
    assert figures["answered"] == (round(17 / 18, 3), 18)
    assert figures["refusals"] == (round(2 / 15, 3), 15), "one by the provider, one by its wording"
    assert figures["passed short"] == (round(11 / 15, 3), 15)
    assert figures["passed sum"] == (round(10 / 11, 3), 11)
    assert "acceptable" not in figures, "words and a judge are missing"
    assert {(item["item"], item["why"]) for item in one["failed"]} >= {
        ("2", "gives 8, not 7"),
        ("4", "the question is in en and the answer in de"),
    }
    assert "200 ms later than the time of the deployment that answered the same 17 requests" in shown
    assert "passed sum: new is better than who answered by 100.0 points" in shown
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "It is 8, I am quite sure of that." in page
    assert main(["evaluate", "--compare", str(tmp_path / "out"), str(tmp_path / "out")]) == 0


@pytest.mark.slow
def test_judge_reads_all_texts_and_is_asked_again_only_where_it_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario = Scenario(text='{"acceptable": true, "score": 5, "reason": "fine"}', script=(HttpError(401),))
    with servers({"judge": scenario}) as thread:
        place = ShadowWorkspace(tmp_path, thread["judge"].origin, monkeypatch)
        suite = ("--suite", str(tmp_path / "suite.yaml"))
        assert place.run(*suite, "--dry-run") == 0
        assert thread["judge"].received == 0
        assert place.run(*suite) == 0
        assert thread["judge"].received == 6
        assert place.run(*suite) == 0
        assert thread["judge"].received == 7, "what failed is asked again, and nothing else"
        prompt = json.loads(thread["judge"].requests[-1].body)["messages"][-1]["content"]
        assert "How much is 3 and 4?" in prompt
    one = place.report["candidates"]["new"]
    assert one["figures"]["acceptable"]["value"] == 1
    assert one["figures"]["passed polite"]["value"] == 1


def test_text_is_not_read_if_the_config_does_not_keep_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with servers({"judge": Scenario()}) as thread:
        place = ShadowWorkspace(tmp_path, thread["judge"].origin, monkeypatch)
        place.write(thread["judge"].origin, keep_text=False)
        assert place.run() == 0
        assert thread["judge"].accepted == 0
    one = place.report["candidates"]["new"]
    assert (list(one["figures"]), one["figures"]["answered"]["of"]) == (["answered"], 9)
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
