"""`make test` needs nothing but the packages of `requirements-dev.lock`, so a stranger can run it after one install."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import pytest

from tests.kit.doc_pages import PAGES, ROOT, Block, blocks_of, name_of

LOCK = ROOT / "requirements-dev.lock"
# A test with such a call skips itself where the package is missing.
SKIPPING = {"importorskip", "find_spec", "needs"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
# Programs that a command starts.
PROGRAMS = {"chaos", "fuzz", "mutation", "selection", "soak"}
BLOCKS = [
    block
    for page in PAGES
    for block in blocks_of(page)
    if block.language == "python" and not block.title and "needs" not in block.options
]


@cache
def locked_modules() -> frozenset[str]:
    """Return the modules and packages of the lock's distributions, with dots."""
    modules = set()
    for name in re.findall(r"^([\w.-]+)==", LOCK.read_text("utf-8"), re.MULTILINE):
        try:
            paths = files(name) or ()
        except PackageNotFoundError:  # for another platform
            continue
        for path in paths:
            if path.suffix in {".py", ".so", ".pyi"}:
                parts = [*path.parts[:-1], path.name.partition(".")[0]]
                modules.update(".".join(parts[: end + 1]) for end in range(len(parts)))
    return frozenset(modules)


def is_available(module: str) -> bool:
    """Return whether a module belongs to Python, to this project or to a locked distribution."""
    top = module.partition(".")[0]
    return top in sys.stdlib_module_names or (ROOT / top).is_dir() or module in locked_modules()


def imported(tree: ast.AST) -> Iterator[str]:
    """Return the imported modules. `from google import genai` is `google.genai` if `google` is only a folder."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            if node.module == "google":
                yield from (f"google.{alias.name}" for alias in node.names)
            else:
                yield node.module


def skipped(tree: ast.AST) -> set[str]:
    """Return the modules without which a test skips itself."""
    return {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", getattr(node.func, "id", None)) in SKIPPING
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }


def missing_in(path: Path) -> list[str]:
    """Return the modules that the fast tests of a file import without having them."""
    tree = ast.parse(path.read_text("utf-8"))
    # A module is imported at collection, also if all its tests are slow. The body of a slow test, or of what it calls, is not run.
    is_slow = any("pytestmark" in ast.unparse(node) and "mark.slow" in ast.unparse(node) for node in tree.body)
    names = {
        name
        for node in tree.body
        for name in imported(node)
        if not isinstance(node, FUNCTIONS) or not (is_slow or is_kit(path) or is_marked_slow(node))
    }
    optional = skipped(tree)
    return sorted(
        name
        for name in names
        if not is_available(name) and not any(f"{name}.".startswith(f"{one}.") for one in optional)
    )


def is_kit(path: Path) -> bool:
    return ROOT / "tests" / "kit" in path.parents


def is_marked_slow(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    return any("mark.slow" in ast.unparse(decorator) for decorator in node.decorator_list)


def test_modules_of_the_lock_are_known() -> None:
    assert is_available("openai.types")
    assert is_available("google.auth")
    assert not is_available("google.genai")
    assert not is_available("anthropic")


@pytest.mark.slow  # it parses every test
def test_fast_tests_import_only_locked_packages() -> None:
    tests = ROOT / "tests"
    paths = [path for path in sorted(tests.rglob("*.py")) if path.relative_to(tests).parts[0] not in PROGRAMS]
    missing = {str(path.relative_to(ROOT)): missing_in(path) for path in paths}
    assert {path: names for path, names in missing.items() if names} == {}


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_example_of_a_page_names_the_package_that_it_needs(block: Block) -> None:
    missing = sorted(name for name in imported(ast.parse(block.text)) if not is_available(name))
    local = {other.title.removesuffix(".py") for other in blocks_of(block.page) if other.title is not None}
    assert [name for name in missing if name.partition(".")[0] not in local] == [], (
        f"{name_of(block.page)}:{block.line}: write `<!-- test: needs={missing[:1]} -->` in the line before"
    )
