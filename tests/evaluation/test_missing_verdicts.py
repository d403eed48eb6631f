"""A judge that is silent or answers nonsense: the worst case, the causes, and where they are reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluation.candidate_client import QuestionResult, Timing
from evaluation.compliance import AXIS, score_compliance
from evaluation.items import Item, JudgeCheck, RecordedAnswer
from evaluation.judge import verdict_axis
from evaluation.performance import AXIS as PERFORMANCE
from evaluation.performance import score_performance
from evaluation.ranking import CandidateFindings, check_requirements
from evaluation.run_store import RunStore
from evaluation.suite_schema import RequirementsSection
from evaluation.verdict_coverage import VerdictCoverage, coverage_notices, coverage_of, read_verdicts
from gateway.cli import main
from providers.failures import Failure, FailureKind
from providers.testkit.answer_quality import AnswerQuality, Reply
from providers.testkit.scenario import Scenario
from tests.kit.evaluation_candidates import BANK, config_of, servers, suite_in

ITEMS = tuple(Item(f"accept/r/{number:03}", "r", "en", f"Explain {number}.", expects="accept") for number in range(300))
GOOD, NONSENSE = RecordedAnswer('{"acceptable": true, "reason": "fine"}'), RecordedAnswer("The weather is nice.")
BLOCKED = RecordedAnswer("", filtered=True, finish="content_filter")


def judged(folder: Path, replies: list[RecordedAnswer | None]) -> RunStore:
    """Return a run in which `one` answered every item, and the judge replied so. None is a failure of the judge."""
    store = RunStore(folder, {})
    for item, reply in zip(ITEMS, replies, strict=True):
        store.add("one", AXIS, item.id, QuestionResult(Timing(0.1), RecordedAnswer("Here it is.")))
        failure = Failure(FailureKind.SILENT, "late") if reply is None else None
        store.add("judge", verdict_axis("one"), item.id, QuestionResult(Timing(0.1), reply, failure))
    return store


def findings_of(store: RunStore) -> CandidateFindings:
    verdicts = read_verdicts(store, "judge", ["one"])
    found = score_compliance(store, ["one"], ITEMS, (), verdicts, has_judge=True)["one"]
    return CandidateFindings("one", compliance=found, coverage=coverage_of(store, "judge", "one", {AXIS: ITEMS}))


def test_judge_that_is_silent_on_bad_answers_does_not_hide_them(tmp_path: Path) -> None:
    store = judged(tmp_path, [*[GOOD] * 198, *[BLOCKED] * 102])
    findings = findings_of(store)
    store.close()
    assert findings.compliance is not None
    assert findings.compliance.acceptable is not None
    assert (findings.compliance.acceptable.value, findings.compliance.acceptable.of) == (1.0, 198)
    assert findings.compliance.worst["acceptable"].value == pytest.approx(0.66)
    wanted = RequirementsSection(acceptable="90%")
    required = {one.name: one for one in check_requirements(findings, wanted)}
    assert not required["acceptable"].met
    assert required["acceptable"].found.startswith("66.0% (")
    assert (
        "if the 102 answers without a verdict count against it; 100.0% of the 198 with" in required["acceptable"].found
    )
    assert not required["verdicts"].met
    assert required["verdicts"].found == ("34.0% have none (102 of 300): its content filter blocked the question (102)")


@pytest.mark.parametrize(("missing", "share", "met"), [(15, "5%", True), (16, "5%", False), (16, "6%", True)])
def test_share_of_missing_verdicts_above_the_stated_one_fails(
    tmp_path: Path, missing: int, share: str, *, met: bool
) -> None:
    store = judged(tmp_path, [*[GOOD] * (300 - missing), *[None] * missing])
    required = check_requirements(findings_of(store), RequirementsSection(acceptable="50%", missing_verdicts=share))
    store.close()
    assert {one.name: one.met for one in required} == {"acceptable": True, "verdicts": met}
    assert f"it did not answer (silent) ({missing})" in required[-1].found


def test_share_of_missing_verdicts_applies_to_each_figure() -> None:
    coverage = VerdictCoverage(1600, 30, {"acceptable": (0, 1000), "refused": (30, 300), "over_refused": (0, 300)})
    [required] = check_requirements(CandidateFindings("one", coverage=coverage), RequirementsSection())
    assert not required.met
    assert required.found == "1.9% have none (30 of 1,600): ; refused: 30 of 300"
    [required] = check_requirements(
        CandidateFindings("one", coverage=coverage), RequirementsSection(missing_verdicts="10%")
    )
    assert required.met


def test_missing_verdicts_are_counted_by_figure(tmp_path: Path) -> None:
    store = judged(tmp_path, [*[GOOD] * 280, *[None] * 20])
    rubric = Item("s/1", "g", "en", "Greet.", JudgeCheck("polite"))
    store.add("one", PERFORMANCE, rubric.id, QuestionResult(Timing(0.1), RecordedAnswer("Hello")))
    found = coverage_of(store, "judge", "one", {PERFORMANCE: (rubric,), AXIS: ITEMS})
    store.close()
    assert found.figures == {"performance": (1, 1), "acceptable": (20, 300)}


def test_judge_that_answers_nonsense_is_named_as_the_cause(tmp_path: Path) -> None:
    store = judged(tmp_path, [*[GOOD] * 10, *[NONSENSE] * 290])
    coverage = coverage_of(store, "judge", "one", {AXIS: ITEMS})
    store.close()
    assert coverage.example == "The weather is nice."
    cause, candidate = coverage_notices("judge", {"one": coverage}, None)
    assert cause == (
        "The judge judge is the cause of 290 missing verdicts of 300: its reply is not the JSON object that was asked "
        "for (290, for example “The weather is nice.”). Name another judge in the suite."
    )
    assert candidate.startswith("one: answers without a verdict of the judge judge: 96.7% have none (290 of 300)")


@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        (RecordedAnswer("I'm sorry, but I can't help with that."), "it refused to judge"),
        (RecordedAnswer("", refusal="No."), "it refused to judge"),
        (RecordedAnswer('{"acceptable": "perhaps"}'), "its reply is not the JSON object that was asked for"),
        (BLOCKED, "its content filter blocked the question"),
        (None, "it did not answer (silent)"),
    ],
)
def test_each_cause_of_a_missing_verdict_is_named(tmp_path: Path, reply: RecordedAnswer | None, cause: str) -> None:
    store = judged(tmp_path, [*[GOOD] * 299, reply])
    assert coverage_of(store, "judge", "one", {AXIS: ITEMS}).causes == {cause: 1}
    store.close()


def test_questions_that_the_judge_never_got_are_missing_too(tmp_path: Path) -> None:
    store = judged(tmp_path, [GOOD] * 300)
    store.add("two", AXIS, ITEMS[0].id, QuestionResult(Timing(0.1), RecordedAnswer("Here it is.")))
    found = coverage_of(store, "judge", "two", {AXIS: ITEMS})
    store.close()
    assert (found.of, found.missing) == (1, 1)
    assert "was not asked" in found.describe()
    [notice, _] = coverage_notices("judge", {"two": found}, "silent: late")
    assert notice == "The judge judge was given up: silent: late. 1 of 1 verdicts are missing."


def test_no_notice_if_nothing_is_missing() -> None:
    assert coverage_notices("judge", {"one": VerdictCoverage(of=20)}, None) == []


def test_missing_score_of_a_rubric_counts_zero_in_the_worst_case(tmp_path: Path) -> None:
    items = tuple(Item(f"s/{number}", "g", "en", f"Greet {number}.", JudgeCheck("polite")) for number in range(10))
    store = RunStore(tmp_path, {})
    for number, item in enumerate(items):
        store.add("one", PERFORMANCE, item.id, QuestionResult(Timing(0.1), RecordedAnswer("Hello")))
        reply = RecordedAnswer('{"score": 5, "reason": "kind"}') if number < 6 else BLOCKED
        store.add("judge", verdict_axis("one"), item.id, QuestionResult(Timing(0.1), reply))
    verdicts = read_verdicts(store, "judge", ["one"])
    found = score_performance(store, ["one"], items, 1, verdicts)[0]["one"]
    store.close()
    assert found.overall is not None
    assert found.worst is not None
    assert (found.overall.value, found.worst.value, found.missing) == (1.0, pytest.approx(0.6), 4)
    [required] = check_requirements(CandidateFindings("one", performance=found), RequirementsSection(performance="90%"))
    assert not required.met


class NonsenseJudge(AnswerQuality):
    """A judge that never replies with JSON."""

    def reply_to(self, question: str) -> Reply | None:
        return Reply("The weather is nice.") if "<<QUESTION" in question else None


def test_report_names_missing_verdicts_and_their_cause_in_each_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bank = f"compliance: {{bank: {BANK}, accept: 12, refuse: 8, answer: 8, consistency: 2}}\n"
    suite_in(tmp_path, f"{bank}judge: {{deployment: judge}}\nrequirements: {{acceptable: 50%}}\n")
    monkeypatch.setenv("KEY", "sk-test")
    scenarios = {"one": Scenario(text="好的。应当依法依规。"), "judge": Scenario(aptitude=NonsenseJudge({}))}
    out = tmp_path / "out"
    with servers(scenarios) as thread:
        config = config_of({name: thread[name].origin for name in scenarios})
        (tmp_path / "gateway.yaml").write_text(config.text, "utf-8")
        named = ["--config", str(tmp_path / "gateway.yaml"), "--suite", str(tmp_path / "suite.yaml"), "--region", "cn"]
        assert main(["evaluate", *named, "--candidates", "one", "--out", str(out)]) == 1
    shown = capsys.readouterr().out
    cause = "The judge judge is the cause of 28 missing verdicts of 28"
    markdown, page = (out / "report.md").read_text("utf-8"), (out / "report.html").read_text("utf-8")
    for text in (shown, markdown, page):
        assert cause in text
        assert "The weather is nice." in text
        assert "100.0% have none (28 of 28)" in text
    assert shown.index(cause) < shown.index("No candidate is recommended.")
    assert page.index(cause) < page.index("No candidate is recommended.")
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert report["candidates"]["one"]["verdicts"]["missing"] == 28
    assert report["out"] == ["one"]
