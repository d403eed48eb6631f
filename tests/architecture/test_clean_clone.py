"""`make test` needs nothing beyond `locks/dev.lock`: what fast tests and the blocks of pages import."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

from packaging.utils import canonicalize_name

from tests.kit.doc_pages import PAGES, blocks_of, earlier_files_of

ROOT = Path(__file__).parents[2]
OURS = frozenset({"bench", "evaluation", "gateway", "providers", "scripts", "tests"})
# Programs that no test of `make test` imports.
PROGRAMS = frozenset({"chaos", "evaluation", "fixtures", "fuzz", "mutation", "node", "selection", "soak", "typing"})
IMPORT = re.compile(
    r"^([ \t]*)(?:from ([\w.]+) import \(?([^#\n]*)|import ([\w.]+)(?: as \w+)?[ \t]*(?:#.*)?$)", re.MULTILINE
)
# A module with one of these words looks for the package first, or its tests are not part of `make test`.
GUARDS = re.compile(r"importorskip\(|find_spec\(|pytest\.mark\.slow")
FILE = re.compile(r"^([^,\n]+?)(?:/__init__)?\.(?:[\w-]+\.)?(?:py|so),", re.MULTILINE)


@cache
def locked_modules() -> frozenset[str]:
    """Return the modules of all packages in `locks/dev.lock`, by dotted name."""
    lock = (ROOT / "locks/dev.lock").read_text("utf-8")
    locked = {canonicalize_name(name) for name in re.findall(r"^([\w.-]+)(?:\[[^]]*\])?==", lock, re.MULTILINE)}
    records = [one.read_text("RECORD") or "" for one in distributions() if canonicalize_name(one.name) in locked]
    return frozenset(path.replace("/", ".") for record in records for path in FILE.findall(record))


def imports_in(text: str) -> Iterator[tuple[bool, set[str]]]:
    """Yield each import: whether it runs with the module, and the names of which one must be a module."""
    for indent, source, names, module in IMPORT.findall(text):
        imported = {f"{source}.{name.split()[0]}" for name in names.rstrip(") ").split(",") if name.strip()}
        yield not indent, {module} if module else {source, *imported}


def is_there(names: set[str], others: frozenset[str] = frozenset()) -> bool:
    """Return whether a clean clone has the module after `make install-dev`."""
    top = min(names).partition(".")[0]
    return top in sys.stdlib_module_names or top in OURS or top in others or not names.isdisjoint(locked_modules())


def test_packages_of_the_lock_are_found_and_those_of_the_sdks_are_not() -> None:
    for line in ("import pytest", "from google.auth import crypt", "import orjson", "import yaml", "import httpx"):
        assert [is_there(names) for _, names in imports_in(line)] == [True], line
    for line in (
        "from google import genai",
        "import google.genai",
        "    import anthropic",
        "from langchain_openai import X",
    ):
        assert [is_there(names) for _, names in imports_in(line)] == [False], line


def test_fast_tests_import_nothing_beyond_the_lock() -> None:
    """Also a slow test is imported when the fast ones are collected."""
    missing = []
    for path in (*(ROOT / "tests").rglob("*.py"), *(ROOT / "providers" / "conformance").rglob("*.py")):
        if PROGRAMS.isdisjoint(path.relative_to(ROOT).parts):
            text = path.read_text("utf-8")
            is_guarded = GUARDS.search(text) is not None
            missing += [
                (path.relative_to(ROOT).as_posix(), sorted(names))
                for runs_at_once, names in imports_in(text)
                if (runs_at_once or not is_guarded) and not is_there(names)
            ]
    assert missing == [], "import it where it is used, after pytest.importorskip, or mark the module as slow"


def test_blocks_of_pages_import_nothing_beyond_the_lock_unless_they_name_it() -> None:
    missing = []
    for page in PAGES:
        blocks = list(blocks_of(page))
        written = [*blocks, *earlier_files_of(page)]
        own = frozenset(Path(block.title).stem for block in written if block.title is not None)
        missing += [
            (str(block), sorted(names))
            for block in blocks
            if block.language == "python" and "needs" not in block.options
            for _, names in imports_in(block.text)
            if not is_there(names, own)
        ]
    assert missing == [], "write <!-- test: needs=PACKAGE --> before the block"
