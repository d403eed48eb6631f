"""The structure of the tests: test modules stand alone, and what they share lives in `tests/kit` or in a conftest."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
MODULES = sorted(path for path in TESTS.rglob("*.py") if "fixtures" not in path.relative_to(TESTS).parts)
# Folders with a program of their own, which a command starts, and what mypy checks without running it.
PROGRAMS = {"chaos", "fuzz", "mutation", "soak", "typing"}
# The tables that the architecture tests hold the packages against; one of them is also a command.
TABLES = {"known_exceptions.py", "source_tree.py"}
IMPORT = re.compile(r"\btests(?:\.\w+)+")


def of_program(path: Path) -> bool:
    return path.relative_to(TESTS).parts[0] in PROGRAMS


def test_there_are_modules_of_each_kind() -> None:
    assert len([path for path in MODULES if path.name.startswith("test_")]) > 100
    assert list((TESTS / "kit").glob("*.py"))
    assert {path.relative_to(TESTS).parts[0] for path in MODULES if of_program(path)} == PROGRAMS


def test_no_module_imports_a_test_module() -> None:
    """Also not in the code that a test hands to another process as text."""
    found = [
        (str(path.relative_to(TESTS)), name)
        for path in MODULES
        for name in IMPORT.findall(path.read_text("utf-8"))
        if any(part.startswith("test_") for part in name.split("."))
    ]
    assert found == []


def test_shared_helpers_live_in_the_kit_or_in_a_conftest() -> None:
    elsewhere = [
        str(path.relative_to(TESTS))
        for path in MODULES
        if not path.name.startswith("test_") and path.name not in {"conftest.py", *TABLES} and not of_program(path)
        if path.parent != TESTS / "kit"
    ]
    assert elsewhere == []


def test_the_kit_imports_nothing_of_a_folder_of_tests() -> None:
    """A conftest of one folder is for the tests below it, so a helper that others use must not need it."""
    for path in (TESTS / "kit").glob("*.py"):
        named = IMPORT.findall(path.read_text("utf-8"))
        assert all(name.startswith("tests.kit.") for name in named), path.name


def test_each_helper_module_has_a_user() -> None:
    texts = {path: path.read_text("utf-8") for path in MODULES}
    for path in (TESTS / "kit").glob("*.py"):
        users = [user for user, text in texts.items() if user != path and re.search(rf"\b{path.stem}\b", text)]
        assert users, path.name
