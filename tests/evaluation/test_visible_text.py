"""Control characters of answers are visible in each output, and only the owner can read outputs with answers."""

from __future__ import annotations

import csv
import io
import json
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.candidate_client import QuestionResult, Timing
from evaluation.human_marks import new_sheet, write_sheet
from evaluation.items import Item, RecordedAnswer
from evaluation.performance import AXIS
from evaluation.run_store import RunStore
from evaluation.visible_text import escaped_json, open_private, visible_line, visible_text
from gateway.cli import main
from providers.testkit.answer_quality import AnswerQuality, Lesson, Reply
from providers.testkit.scenario import Scenario
from tests.kit.chat_strategies import unhurried
from tests.kit.evaluation_candidates import config_of, servers, suite_in

ESC, RLO, PDF, ZERO_WIDTH, TAG = "\x1b[31m", "\u202e", "\u202c", "\u200b", "\U000e0041"
HOSTILE = f"{ESC}red{RLO}drow{PDF}{ZERO_WIDTH}{TAG}\x9bend\r"
HIDDEN = ("\x1b", RLO, PDF, ZERO_WIDTH, TAG, "\x9b")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_control_characters_become_their_codes() -> None:
    assert visible_text(HOSTILE) == ("⟨U+001B⟩[31mred⟨U+202E⟩drow⟨U+202C⟩⟨U+200B⟩⟨U+E0041⟩⟨U+009B⟩end⟨U+000D⟩")


@pytest.mark.parametrize("text", ["a\tb\nc", "👩\u200d💻", "می\u200cخواهم", "　全角", "naïve — “x”", "שלום"])
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert visible_text(text) == text
    assert visible_text(f"{text}\r\n") == f"{text}\n"


def test_visible_line_is_one_line() -> None:
    assert visible_line(f"a\n\n{RLO}b\u2028c") == "a ⟨U+202E⟩b⟨U+2028⟩c"


@unhurried
@given(st.text(st.characters(codec=None), max_size=60))
def test_escaped_json_has_the_same_value(text: str) -> None:
    written = escaped_json(json.dumps({"text": text}, ensure_ascii=False))
    assert json.loads(written) == {"text": text}
    assert visible_text(written) == written.replace("\r\n", "\n")


def test_private_file_replaces_the_permissions_of_an_existing_one(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("older and longer")
    path.chmod(0o644)
    with open_private(path) as file:
        file.write("new")
    assert (path.read_text(), mode_of(path)) == ("new", 0o600)
    with pytest.raises(FileExistsError):
        open_private(path, "x")


def test_sheet_for_people_is_private_and_visible(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "out", {})
    item = Item("set/1", "group", "en", f"Question{RLO}?")
    store.add("one", AXIS, item.id, QuestionResult(Timing(0.1), RecordedAnswer(HOSTILE)))
    write_sheet(tmp_path / "sheet.csv", new_sheet(store, ["one"], [item], 5, 1))
    store.close()
    text = (tmp_path / "sheet.csv").read_text("utf-8-sig")
    [row] = csv.DictReader(io.StringIO(text, newline=""))
    assert (row["prompt"], row["answer"]) == ("Question⟨U+202E⟩?", visible_text(HOSTILE))
    assert mode_of(tmp_path / "sheet.csv") == 0o600


def test_no_output_of_an_evaluation_has_a_hidden_character(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The answers, and the reasons of a judge, contain control characters."""
    rubric = "items:\n  g:\n    - {ask: Greet me., rubric: is polite, right: Hello}\n"
    (tmp_path / "polite.yaml").write_text(f"version: 1\nlanguage: en\n{rubric}", "utf-8")
    sets = "[{name: a, file: many.yaml}, {name: b, file: polite.yaml}]"
    suite = suite_in(tmp_path, f"performance: {{sets: {sets}}}\njudge: {{deployment: judge, pairs: 2}}\n", items=3)
    lessons = {item.prompt: Lesson(Reply(HOSTILE), Reply(HOSTILE)) for item in suite.performance}
    verdict = json.dumps({"score": 4, "better": "A", "reason": HOSTILE})
    scenarios = {
        "one": Scenario(aptitude=AnswerQuality(lessons, 1)),
        "two": Scenario(aptitude=AnswerQuality(lessons, 2)),
        "judge": Scenario(text=verdict),
    }
    out = tmp_path / "out"
    out.mkdir()
    for name in ("report.html", "report.md", "report.json"):
        (out / name).write_text("of an older version")
        (out / name).chmod(0o644)
    monkeypatch.setenv("KEY", "sk-test")
    with servers(scenarios) as thread:
        config = config_of({name: thread[name].origin for name in scenarios})
        (tmp_path / "gateway.yaml").write_text(config.text, "utf-8")
        named = ["--config", str(tmp_path / "gateway.yaml"), "--suite", str(tmp_path / "suite.yaml"), "--region", "cn"]
        sheet = ["--sheet", str(tmp_path / "sheet.csv")]
        main(["evaluate", *named, "--candidates", "one,two", "--out", str(out), *sheet])
    shown = capfd.readouterr()
    for text in (shown.out, shown.err, *((out / name).read_text("utf-8") for name in ("report.html", "report.md"))):
        assert not [character for character in HIDDEN if character in text]
    written = (out / "report.json").read_text("utf-8")
    assert not [character for character in HIDDEN if character in written]
    failed = json.loads(written)["candidates"]["one"]["performance"]["failed"]
    assert {item["answer"] for item in failed} == {HOSTILE}, "programs get the exact answer"
    assert "⟨U+202E⟩" in (out / "report.html").read_text("utf-8")
    assert "⟨U+202E⟩" in (out / "report.md").read_text("utf-8")
    private = (*(out / name for name in ("report.html", "report.md", "report.json", "run.db")), tmp_path / "sheet.csv")
    assert {path.name: mode_of(path) for path in private} == {path.name: 0o600 for path in private}
