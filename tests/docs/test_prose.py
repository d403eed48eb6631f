"""Everything that prose names in code format exists: paths of this repository, make targets, commands and their
options, and the code of each term of the glossary.
"""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.version import Version

from gateway import __version__
from gateway.cli import main
from tests.kit.doc_pages import PAGES, ROOT, blocks_of, name_of

_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"(?:gateway|providers|tests|config|docs|scripts)/[\w./-]+")


def spans_of(page: Path) -> Iterator[str]:
    """Return the code spans outside the fenced blocks."""
    text = page.read_text("utf-8")
    for block in blocks_of(page):
        text = text.replace(block.text, "", 1)
    yield from _CODE.findall(text)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_exist(page: Path) -> None:
    for span in spans_of(page):
        if _PATH.fullmatch(span) and "NAME" not in span:
            assert (ROOT / span).exists(), f"{name_of(page)}: there is no {span}"


def test_targets_of_make_exist() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    named = [span.split()[1:] for page in PAGES for span in spans_of(page) if span.startswith("make ")]
    assert named
    for words in named:
        assert next(word for word in words if "=" not in word) in targets, f"make {' '.join(words)}"


# A sentence that announces something for a version: "from 2.0 on, …", "until 2.0; …", "2.0 will …".
_ANNOUNCED = re.compile(
    r"(?i)(?<![\w./])(?:(?:from|until) (?:release )?)?([01]\.\d)(?:\.\d)?(?: on\b| will\b|(?<=until ...);)"
)


def announced_for(text: str) -> list[str]:
    """Return what a text announces for versions that are out."""
    found = _ANNOUNCED.finditer(text.replace("\n", " "))
    return [it[0] for it in found if Version(it[1]) <= Version(__version__)]


@pytest.mark.slow
def test_no_sentence_announces_something_for_a_version_that_has_passed() -> None:
    texts = {name_of(page): page.read_text("utf-8") for page in PAGES}
    texts["help"] = (ROOT / "gateway/cli/commands.json").read_text("utf-8")
    for folder in ("gateway", "providers", "evaluation"):
        texts |= {str(path): path.read_text("utf-8") for path in ROOT.glob(f"{folder}/**/*.py")}
    assert not {name: it for name, text in texts.items() if (it := announced_for(text))}, "say what holds now"
    assert all(map(announced_for, ("from 0.3 on, such", "until 1.0; then", "1.0 will end")))


COMMANDS_WITH_PARTS = set("db duties key keys clients projects budgets secrets admin-token providers".split())


def test_commands_and_options_exist(capsys: pytest.CaptureFixture[str]) -> None:
    spans = [span.removeprefix(".venv/bin/") for page in PAGES for span in spans_of(page)]
    named = {span for span in spans if re.match(r"gateway [a-z]", span)}
    assert {"gateway init", "gateway key new"} <= named
    for span in sorted(named):
        words = span.split()[1:]
        command = words[:2] if words[0] in COMMANDS_WITH_PARTS else words[:1]
        with pytest.raises(SystemExit) as ended:
            main([*command, "--help"])
        shown = capsys.readouterr().out
        assert ended.value.code == 0, f"there is no command {span!r}"
        for option in (word for word in words if word.startswith("--")):
            assert option in shown, f"{span!r}: there is no {option}"


PAGE = ROOT / "docs" / "glossary.md"
ROWS = re.findall(r"^\| ([^|]+) \| [^|]+ \| `([\w.]+)` \|$", PAGE.read_text("utf-8"), re.MULTILINE)


def test_terms_are_unique() -> None:
    assert len(ROWS) >= 40
    assert [term for term, count in Counter(term for term, _ in ROWS).items() if count > 1] == []


@pytest.mark.parametrize(("term", "definition"), ROWS)
def test_term_names_existing_code(term: str, definition: str) -> None:
    try:
        importlib.import_module(definition)
    except ModuleNotFoundError:
        module, _, name = definition.rpartition(".")
        assert hasattr(importlib.import_module(module), name), f"{term}: there is no {definition}"
