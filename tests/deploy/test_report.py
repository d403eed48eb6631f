"""`make report`: what it counts, what it keeps, and that its page is that of its data."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from scripts import report
from tests.kit.case_files import cases

STEPS = '[[step]]\nname = "%s"\nwhat = "all"\n%s\n'


def test_page_is_that_of_the_data_and_has_every_step() -> None:
    data = json.loads(report.DATA.read_text("utf-8"))
    assert report.PAGE.read_text("utf-8") == report.page_of(data)
    steps = tomllib.loads(Path(report.__file__).with_suffix(".toml").read_text("utf-8"))["step"]
    assert [it["name"] for it in data["steps"]] == [it["name"] for it in steps], "run make report"


def test_counts_are_those_of_pytest(tmp_path: Path) -> None:
    (tmp_path / "counts.xml").write_text(
        '<testsuites><testsuite><testcase classname="a" name="b"/><testcase classname="a" name="c"><skipped/></testcase>'
        '<testcase classname="a" name="d"><failure message="no&#10;more"/></testcase></testsuite></testsuites>'
    )
    assert report.counts_of(tmp_path / "counts.xml") == {
        "passed": 1, "failed": 1, "skipped": 1, "failures": ["a::d: no"]
    }  # fmt: skip


@cases("status", "said", "pattern", "counts")
def test_counts_of_a_program_are_of_its_output_or_its_status(
    status: int, said: str, pattern: str | None, counts: tuple[int, int, list[str]]
) -> None:
    found = report.counts_of_output(subprocess.CompletedProcess([], status, said), pattern)
    assert (found["passed"], found["failed"], found["failures"]) == counts


@pytest.mark.slow("starts two processes")
def test_one_step_is_run_again_and_the_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "PAGE", tmp_path / "report.md")
    monkeypatch.setattr(report, "DATA", tmp_path / "report.json")
    monkeypatch.setattr(report, "__file__", str(tmp_path / "report.py"))
    good, bad = 'command = "platform"\nsmall = "--terse"', 'command = "no_such_module"'
    (tmp_path / "report.toml").write_text(STEPS % ("good", good) + STEPS % ("bad", bad))
    monkeypatch.setattr(sys, "argv", ["report", "--small"])
    assert report.main() == 1
    monkeypatch.setattr(sys, "argv", ["report", "--only", "bad"])
    assert report.main() == 1
    one, other = json.loads((tmp_path / "report.json").read_text())["steps"]
    assert (one["form"], one["command"], one["passed"]) == ("small", "python -m platform --terse", 1)
    assert (other["form"], other["failed"], other["failures"]) == ("full", 1, ["exit status 1"])
    assert "| small | 1 | 0 | 0 |" in (tmp_path / "report.md").read_text()
