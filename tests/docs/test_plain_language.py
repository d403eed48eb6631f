"""Pages, docstrings, comments, messages and names of tests use plain technical English.

`not_yet_plain.txt` lists the files that are still to be rewritten. It may only get shorter.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.kit.doc_pages import ROOT
from tests.kit.plain_language import phrases_of

LIST = Path(__file__).with_name("not_yet_plain.txt")
# The patterns themselves, outputs that other tests freeze, and plug-ins of earlier releases.
_LEFT_OUT = ("tests/kit/plain_language.py", "tests/architecture/frozen/", "tests/fixtures/")


def _files() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "*.md", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.splitlines() if not name.startswith(_LEFT_OUT)]


def test_files_use_plain_language() -> None:
    waiting = LIST.read_text("utf-8").split() if LIST.exists() else []
    found = {name: list(phrases_of(ROOT / name)) for name in _files()}
    for name, phrases in found.items():
        if name not in waiting:
            assert not phrases, "\n".join(map(str, phrases))
    assert [name for name in waiting if not found.get(name)] == [], "take these files from the list"
