"""The promise of 1.x: each list of names has a frozen file, and a test that reads it."""

from __future__ import annotations

import re
from datetime import date

from tests.architecture.promised_names import PLUG_IN_MODULES
from tests.kit.doc_pages import ROOT, docs_table


def test_each_name_of_the_promise_has_a_file_that_a_test_holds() -> None:
    rows = docs_table("| names | frozen file |")
    assert len(rows) >= 13
    for _, files, tests in rows:
        texts = [(ROOT / test).read_text("utf-8") for test in re.findall("`([^`]+)`", tests)]
        assert texts
        for file in re.findall("`([^`]+)`", files):
            path = ROOT / file
            assert path.is_file(), file
            words = (f'"{path.name}"', f'"{path.parent.name}"', "RELEASES.iterdir()")
            held = any(word in text for word in words for text in texts)
            assert held, f"no test of the row reads {file}"


def test_modules_of_the_promise_are_those_whose_names_are_frozen() -> None:
    text = (ROOT / "docs/operate/promise.md").read_text("utf-8")
    assert all(f"`{name}`" in text for name in PLUG_IN_MODULES)


def test_security_page_states_the_deadlines_and_where_to_report() -> None:
    text = (ROOT / "SECURITY.md").read_text("utf-8")
    for words in ("Report a vulnerability", "three working days", "14 days", "90 days", "last two minor versions"):
        assert words in text


def test_dates_of_the_act_are_in_order() -> None:
    days = [row[0] for row in docs_table("| date | what applies")]
    assert days == sorted(days, key=date.fromisoformat)
    assert {"2026-09-11", "2027-12-11"} <= {*days}


def test_changelog_of_a_release_is_read_in_minutes() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    unreleased = text.partition("## [Unreleased]\n")[2].partition("\n## [")[0]
    assert len(unreleased.splitlines()) <= 150, "state what a user must do, then a line for what is new, with its page"
