"""Pages, docstrings, comments, messages and names of tests use plain technical English.

`not_yet_plain.txt` lists the files that are still to be rewritten. It may only get shorter.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.docs.plain_language import phrases_of
from tests.kit.case_files import cases
from tests.kit.doc_pages import ROOT

LIST = Path(__file__).with_name("not_yet_plain.txt")
# The patterns themselves, outputs that other tests freeze, and plug-ins of earlier releases.
_LEFT_OUT = ("tests/docs/plain_language.py", "tests/architecture/frozen/", "tests/fixtures/")


def _files() -> list[str]:
    kinds = ("*.md", "*.py", "gateway/cli/*.toml", "gateway/console/words.toml")
    listed = subprocess.run(["git", "ls-files", *kinds], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.splitlines() if not name.startswith(_LEFT_OUT)]


@pytest.mark.slow("reads every file of the project")
def test_files_use_plain_language() -> None:
    waiting = LIST.read_text("utf-8").split() if LIST.exists() else []
    found = {name: list(phrases_of(ROOT / name)) for name in _files()}
    phrases = [phrase for name, phrases in found.items() if name not in waiting for phrase in phrases]
    assert not phrases, "\n".join(map(str, phrases))
    assert [name for name in waiting if not found.get(name)] == [], "take these files from the list"


@cases("source", "complaint")
def test_each_complaint_states_what_to_write(tmp_path: Path, source: str, complaint: str) -> None:
    path = tmp_path / "test_module.py"
    path.write_text(f"{source}\n", "utf-8")
    [found] = phrases_of(path)
    assert f": {complaint}" in str(found)


def test_texts_are_checked_in_a_checkout_below_a_folder_named_tests(tmp_path: Path) -> None:
    path = tmp_path / "tests" / "module.py"
    path.parent.mkdir()
    path.write_text('OPENING = "You speak with somebody in a certain place."\n', "utf-8")
    assert [phrase.line for phrase in phrases_of(path)] == [1]
