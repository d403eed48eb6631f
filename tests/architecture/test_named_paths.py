"""Modules and files that are named in texts exist. A wrong import would fail, but a wrong text would not.
`tests/docs/test_prose.py` checks whole paths in pages. These tests check names in the source, in commands and in code
blocks.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.source_tree import PACKAGES, ROOT, modules
from tests.kit.doc_pages import PAGES, name_of
from tests.mutation.run import MODULES

PYTHON = sorted(path for folder in (*PACKAGES, "bench", "tests", "scripts") for path in ROOT.glob(f"{folder}/**/*.py"))
_DOTTED = re.compile(r"(?:evaluation|gateway|providers)(?:\.[a-z_]\w*)+(?:[.:]\w+)*")
_IN_STRING = re.compile(
    r"(?:evaluation|gateway|providers)(?:\.[a-z_]\w*){2,}(?<!_)"
)  # `gateway.line` is a key of a scope
_PATH = re.compile(r"(?<![\w./-])(?:evaluation|gateway|providers|tests|bench|scripts)/[\w/.-]*\.(?:py|toml)\b")
_FILE = re.compile(r"`([a-z_]+\.py)`")
# Dotted names that look like modules of the packages and are not: files, hosts, loggers, entry points.
_NOT_MODULES = re.compile(
    r".*\.(?:ya?ml|json|db|lock|log|md|example|sock|whl|txt|pem|internal|local|svg)(?:\W.*)?|providers\.(?:adapters|simulators)"
)


@pytest.mark.parametrize("path", MODULES)
def test_modules_and_tests_of_the_mutation_run_exist(path: str) -> None:
    missing = [name for name in (path, *MODULES[path]) if not (ROOT / name.partition("::")[0]).exists()]
    assert MODULES[path]
    assert missing == []


def trace_attributes() -> Iterator[str]:
    """Return the attribute names that a trace has for a request, such as `gateway.region`."""
    for name in ("gateway.telemetry.otlp", "gateway.telemetry.trace_export"):
        if name in modules():
            for node in modules()[name].nodes:
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


def is_module(dotted: str) -> bool:
    """Return whether this is a module, a name in one, or not a module name at all."""
    if _NOT_MODULES.fullmatch(dotted) or "NAME" in dotted:
        return True
    words = re.split("[.:]", dotted)
    for length in range(len(words), 0, -1):
        module = modules().get(".".join(words[:length]))
        if module is not None:
            rest = words[length:]
            return not rest or not {rest[0], "__getattr__"}.isdisjoint(_bound_in(module.nodes))
    return False


def _bound_in(nodes: tuple[ast.AST, ...]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).partition(".")[0]


@pytest.mark.slow("reads every module")
def test_strings_name_modules_that_exist() -> None:
    """A module that is started with `-m`, or patched in a test, is named by a string."""
    unknown, attributes = [], set(trace_attributes())
    for path in (path for path in PYTHON if path.parent != Path(__file__).parent):  # planned layers
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
                continue
            text = node.value
            if _IN_STRING.fullmatch(text) and text not in attributes and not is_module(text):
                unknown.append(f"{path.relative_to(ROOT)}:{node.lineno}: {text}")
    assert unknown == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_name_files_and_modules_that_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    files, attributes = {path.name for path in PYTHON}, set(trace_attributes())
    unknown = [path for path in _PATH.findall(text) if "NAME" not in path and not (ROOT / path).exists()]
    unknown += [name for name in _FILE.findall(text) if name not in files]
    dotted = {name.rstrip(".") for name in re.findall(rf"(?<![\w./-]){_DOTTED.pattern}", text)}
    if page.name == "CHANGELOG.md":  # the changelog also names removed files
        dotted = set()
    unknown += [name for name in sorted(dotted) if name not in attributes and not is_module(name)]
    assert unknown == []
