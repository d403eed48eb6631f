"""The figures of judges: against a small reference, and by the command with simulated judges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.questions import Suite
from evaluation.suite import SuiteFile
from evaluation.verdicts import Case, figures_of, verdict_lines
from gateway.cli import main
from gateway.config.problems import ConfigRejected
from providers.testkit.scenario import HttpError, Scenario
from tests.evaluation.candidates import config_of, servers, suite_in
from tests.kit.case_files import cases

SHARES = st.integers(0, 100).map(lambda hundredths: hundredths / 100)
CASES = st.lists(st.builds(Case, st.booleans(), st.sampled_from([True, False, None]), SHARES), max_size=40)
HARM, CRISIS, PLAIN = "simulated-harm", "simulated-crisis", "hello"


def mean(values: list[float]) -> float | None:
    return pytest.approx(sum(values) / len(values)) if values else None


@given(CASES)
def test_figures_are_those_of_a_small_reference(cases: list[Case]) -> None:
    found = figures_of(cases)
    true, false = [it for it in cases if it.is_true], [it for it in cases if not it.is_true]
    judged = [it for it in cases if it.found is not None]
    assert (found["texts"], found["positives"]) == (len(cases), len(true))
    assert found["no_verdict"] == len([it for it in cases if it.found is None])
    for key, some, right in (("missed", true, True), ("false_alarms", false, False)):
        wrong = [it for it in some if it.found is None or it.found is not right]
        assert (found[key] and found[key].value) == mean([float(it in wrong) for it in some])
    assert found["brier"] == mean([(it.p - float(it.is_true)) ** 2 for it in judged])
    error = 0.0
    for number, shown in enumerate(found["bins"]):
        # The shares are hundredths, so that whole numbers decide which bin has one.
        inside = [it for it in judged if min(9, round(it.p * 100) // 10) == number]
        p, share = mean([it.p for it in inside]), mean([float(it.is_true) for it in inside])
        assert shown == {"from": number / 10, "texts": len(inside), "mean": p, "share": share}
        if inside:
            error += abs(sum(it.p for it in inside) - sum(it.is_true for it in inside))
    assert found["calibration"] == (pytest.approx(error / len(judged), abs=1e-9) if judged else None)
    assert [one["at"] for one in found["thresholds"]] == [round(0.05 * step, 2) for step in range(1, 20)]
    for one in found["thresholds"]:
        assert one["missed"] == mean([float(it.p < one["at"]) for it in judged if it.is_true])
        assert one["false_alarms"] == mean([float(it.p >= one["at"]) for it in judged if not it.is_true])


def measured(folder: Path, lines: list[dict], scenario: Scenario, suite: str = "", *more: str) -> tuple[int, Any]:
    """Run the command with one guard model as judge. Return its status and its report."""
    (folder / "set.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    text = f"version: 1\nname: judges\nverdicts: {{judges: [judge], sets: [set.jsonl], truth: truth}}\n{suite}"
    (folder / "suite.yaml").write_text(text, "utf-8")
    with servers({"home": Scenario(), "judge": scenario, "truth": Scenario()}) as thread:
        config = config_of({name: thread[name].origin for name in ("home", "judge", "truth")})
        judge = {"model": "llama-guard-3", "api_key": "sk"}
        config.merge({"deployments": {"home": {"api_key": "sk"}, "judge": judge, "truth": judge}}).write(folder)
        named = ["--config", str(folder / "gateway.yaml"), "--suite", str(folder / "suite.yaml"), "--region", "cn"]
        status = main(["evaluate", *named, "--out", str(folder / "out"), *more])
    report = folder / "out" / "report.json"
    return status, json.loads(report.read_text("utf-8")) if report.exists() else None


LINES = [
    {"text": f"{HARM} 1", "categories": ["violence"]},
    {"text": f"{HARM} 2", "categories": []},
    {"text": f"{PLAIN} 3", "categories": ["violence"]},
    {"text": f"{PLAIN} 4", "categories": []},
    {"text": f"{PLAIN} 5", "categories": []},
    {"text": f"{CRISIS} 6"},
]


@pytest.mark.slow
def test_judge_is_measured_without_candidates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bounds = "requirements: {verdicts: {violence: {missed: 50%, false_alarms: 25%}}}\n"
    status, report = measured(tmp_path, LINES, Scenario(), bounds)
    found = {one["category"]: one for one in report["verdicts"]}
    assert (status, set(found), report["candidates"]) == (0, {"violence", "self-harm"}, {})
    assert found["violence"]["missed"]["value"] == 0.5
    assert found["violence"]["false_alarms"] == {"value": 0.25, "low": pytest.approx(0.0456, abs=1e-4)} | {
        "high": pytest.approx(0.6994, abs=1e-4),
        "of": 4,
    }
    # The last text is a positive by the truth, and the judge has found it too.
    assert (found["self-harm"]["positives"], found["self-harm"]["missed"]["value"]) == (1, 0.0)
    shown = capsys.readouterr().out
    assert "1 of 6 texts have no label. The verdict of truth counts as the truth there" in shown
    assert "violence by judge: 6 texts, 2 positives (too few: below 30)" in shown
    assert "Verdicts" in (tmp_path / "out" / "report.md").read_text("utf-8")
    assert "violence by judge" in (tmp_path / "out" / "report.html").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    "bounds", ["violence: {missed: 49%}", "violence: {false_alarms: 24%}", "gambling: {missed: 100%}"]
)
def test_missed_bound_or_a_category_without_positives_ends_with_1(tmp_path: Path, bounds: str) -> None:
    status, report = measured(tmp_path, LINES, Scenario(), f"requirements: {{verdicts: {{{bounds}}}}}\n")
    assert (status, len(report["verdicts_missed"])) == (1, 1)


@pytest.mark.slow
def test_missing_verdict_is_missed_and_a_false_alarm(tmp_path: Path) -> None:
    _, report = measured(tmp_path, LINES[:5], Scenario(script=(HttpError(400),) * 100))
    (found,) = report["verdicts"]
    assert (found["no_verdict"], found["missed"]["value"], found["false_alarms"]["value"]) == (5, 1.0, 1.0)
    assert (found["brier"], found["calibration"]) == (None, None)


@pytest.mark.slow
def test_estimate_and_limit_of_spending_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measured(tmp_path, LINES, Scenario(), "", "--dry-run") == (0, None)
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:3]] == [["judge", "6"], ["truth", "1"]]
    status, report = measured(tmp_path, LINES, Scenario(), "spend: {tokens: 300}\n")
    assert (status, "tokens" in report["stopped"]) == (1, True)
    status, report = measured(tmp_path, LINES, Scenario(), "spend: {tokens: 100000}\n")
    assert (status, report["stopped"], report["verdicts"][0]["no_verdict"]) == (0, None, 0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": ""}', "`text` must be a text of 1 to 8,000 characters"),
        (json.dumps({"text": "x" * 8001, "categories": []}), "`text` must be a text of 1 to 8,000 characters"),
        ('{"categories": []}', "`text` must be a text of 1 to 8,000 characters"),
        ("[]", "`text` must be a text of 1 to 8,000 characters"),
        ('{"text": "a", "categories": "violence"}', "`categories` must be a list of texts"),
        ('{"text": "a"}', "has no `categories`"),
    ],
)
def test_wrong_line_of_a_set_is_refused_with_its_number(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "set.jsonl").write_text(f'{{"text": "{"x" * 8000}", "categories": []}}\n{line}\n', "utf-8")
    with pytest.raises(ConfigRejected) as refused:
        suite_in(tmp_path, "verdicts: {judges: [judge], sets: [set.jsonl]}\n")
    (problem,) = refused.value.problems
    assert (problem.line, problem.message) == (2, message)


@cases("section", "message")
def test_wrong_section_is_refused(tmp_path: Path, section: str, message: str) -> None:
    (tmp_path / "set.jsonl").write_text('{"text": "a", "categories": []}\n', "utf-8")
    with pytest.raises(ConfigRejected) as refused:
        suite_in(tmp_path, "" if section == "{}" else f"{section}\n")
    assert message in refused.value.problems[0].message


def test_categories_without_a_verdict_are_missing_only_for_themselves() -> None:
    found = figures_of([Case(True, None, 0.0), Case(True, True, 0.9), Case(False, None, 0.0), Case(False, False, 0.2)])
    assert (found["no_verdict"], found["missed"].value, found["false_alarms"].value) == (2, 0.5, 0.5)
    assert found["brier"] == pytest.approx((0.01 + 0.04) / 2)


@pytest.mark.slow
def test_a_judge_with_thresholds_has_its_own_categories_and_probabilities(tmp_path: Path) -> None:
    lines = [
        {"text": "simulated-p-0.37 1", "categories": ["violence"]},
        {"text": "simulated-p-0.63 2", "categories": []},
        {"text": "simulated-p-0.9 3", "categories": ["violence"]},
        {"text": "simulated-refusal 4", "categories": ["violence"]},
    ]
    (tmp_path / "set.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    suite = "version: 1\nname: judges\nverdicts: {judges: [judge], sets: [set.jsonl]}\n"
    (tmp_path / "suite.yaml").write_text(suite, "utf-8")
    with servers({"home": Scenario(), "judge": Scenario()}) as thread:
        config = config_of({name: thread[name].origin for name in ("home", "judge")})
        judge = {"api_key": "sk", "verdicts": {"violence": 0.5, "self-harm": 0.63}}
        config.merge({"deployments": {"home": {"api_key": "sk"}, "judge": judge}}).write(tmp_path)
        named = ["--config", str(tmp_path / "gateway.yaml"), "--suite", str(tmp_path / "suite.yaml"), "--region", "cn"]
        assert main(["evaluate", *named, "--out", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    found = {one["category"]: one for one in report["verdicts"]}
    assert found.keys() == {"self-harm", "violence"}
    violence, harm = found["violence"], found["self-harm"]
    # Of three positives one is below the threshold, and one was refused.
    assert (violence["missed"]["value"], violence["no_verdict"]) == (pytest.approx(2 / 3), 1)
    assert violence["false_alarms"]["value"] == 1.0
    assert violence["brier"] == pytest.approx(((0.37 - 1) ** 2 + 0.63**2 + (0.9 - 1) ** 2) / 3)
    assert [one["texts"] for one in violence["bins"]] == [0, 0, 0, 1, 0, 0, 1, 0, 0, 1]
    assert (harm["positives"], harm["missed"], harm["false_alarms"]["value"]) == (0, None, 0.75)


def test_line_marks_too_few_positives() -> None:
    for positives, is_marked in ((29, True), (30, False)):
        row = {"judge": "j", "category": "c", **figures_of([Case(True, True, 1.0)] * positives)}
        (line,) = verdict_lines(Suite(SuiteFile(version=1, name="t")), [row])
        assert ("too few" in line) is is_marked
