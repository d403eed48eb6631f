"""The structure of the tests: test modules are independent, and shared code stands where its users are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from os.path import commonpath
from pathlib import Path

from tests.architecture.known_exceptions import shrinking
from tests.kit.case_files import rows_in

TESTS = Path(__file__).parents[1]
MODULES = sorted(path for path in TESTS.rglob("*.py") if "fixtures" not in path.relative_to(TESTS).parts)
# Folders with a program of their own, which a command starts, and what mypy checks without running it.
PROGRAMS = {"field", "chaos", "evaluation", "fuzz", "later", "mutation", "parallel", "selection", "soak", "typing"}
# The tables with the architecture rules. Some of these modules are also commands.
TABLES = {"addition.py", "known_exceptions.py", "source_tree.py"}
IMPORT = re.compile(r"\btests(?:\.\w+)+")
# A key with a colon, or the beginning of a list or a mapping, as YAML writes them.
YAML = re.compile(r"(?<![\w\"])(?!https?:)[\w*-]+:(\s|$)|^\s*[\[{](?!\")")
SECTION = re.compile(r"^\s*[\w-]+:$", re.MULTILINE)
# These tests write configurations.
WITH_CONFIGS = {"attacks", "chaos", "cli", "e2e", "evaluation", "faults", "gateway", "kit", "node", "soak"}


def of_program(path: Path) -> bool:
    return path.relative_to(TESTS).parts[0] in PROGRAMS


def test_there_are_modules_of_each_kind() -> None:
    assert len([path for path in MODULES if path.name.startswith("test_")]) > 100
    assert list((TESTS / "kit").glob("*.py"))
    assert {path.relative_to(TESTS).parts[0] for path in MODULES if of_program(path)} == PROGRAMS


def test_no_module_imports_a_test_module() -> None:
    """Also not in the code that a test passes to another process as text."""
    found = [
        (str(path.relative_to(TESTS)), name)
        for path in MODULES
        for name in IMPORT.findall(path.read_text("utf-8"))
        if any(part.startswith("test_") for part in name.split("."))
    ]
    assert found == []


def test_helper_stands_in_the_folder_of_all_its_users() -> None:
    """The kit has what the tests of several folders use, and what other modules of the kit or other programs use."""
    kit = TESTS / "kit"
    others = [path for folder in ("bench", "scripts") for path in (TESTS.parent / folder).rglob("*.[ps][yh]")]
    named = {path: set(re.findall(r"[\w.]+", path.read_text("utf-8"))) for path in [*MODULES, *others]}
    for path in MODULES:
        if path.name.startswith("test_") or path.name in {"conftest.py", *TABLES} or of_program(path):
            continue
        if path.parent.parent == kit:  # its package is imported
            continue
        name = ".".join(path.relative_to(TESTS.parent).with_suffix("").parts)
        users = [user.parent for user, words in named.items() if user != path and {name, path.name} & words]
        shared = Path(commonpath(users))
        is_shared = kit in users or not shared.is_relative_to(TESTS) or shared == TESTS
        assert path.parent == (kit if is_shared else shared), f"{path}: {shared}"


def test_every_list_of_cases_belongs_to_a_test() -> None:
    """A list in `cases/` that lost its test by a new name would test nothing."""
    for path in TESTS.glob("**/cases/*.yaml"):
        module = (path.parent.parent / f"test_{path.stem}.py").read_text("utf-8")
        users = re.findall(r"^@cases\(.*\n(?:@.*\n)*(?:async )?def test_(\w+)", module, re.MULTILINE)
        assert set(rows_in(path)) == set(users), path


def test_kit_imports_no_module_of_a_test_folder() -> None:
    """A conftest of one folder is for the tests below it, so a helper that others use must not need it."""
    for path in (TESTS / "kit").rglob("*.py"):
        named = IMPORT.findall(path.read_text("utf-8"))
        assert all(name.startswith("tests.kit.") for name in named), path.name


def test_file_whose_tests_are_all_slow_has_the_reason() -> None:
    marks = r"^pytestmark = .*mark\.slow\b(?!\(\".+\"\))"
    assert [str(path) for path in MODULES if re.search(marks, path.read_text("utf-8"), re.MULTILINE)] == []


def text_edits_of_configs(tree: ast.AST) -> Iterator[ast.expr]:
    """Find `str.replace` and `str.index` with words of YAML, and whole configurations as f-strings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            words = [
                constant.value
                for argument in node.args
                for constant in ast.walk(argument)
                if isinstance(constant, ast.Constant)
            ]
            texts = [word for word in words if isinstance(word, str)]
            is_replace = node.func.attr == "replace"
            if (
                (is_replace and len(node.args) > 1 and any(map(YAML.search, texts)))
                or (is_replace and any(isinstance(argument, ast.Starred) for argument in node.args))
                or (node.func.attr == "index" and any(map(SECTION.search, texts)))
            ):
                yield node
        elif isinstance(node, ast.JoinedStr):
            text = "".join(constant.value for constant in node.values if isinstance(constant, ast.Constant))
            if "version: 1\n" in text and re.search("^deployments:", text, re.MULTILINE):
                yield node


@shrinking
def test_tests_change_configs_as_data() -> Iterator[str]:
    """Tests use `tests.kit.configs.Config`. A test of a file's text uses `tests.kit.config_cases.edited`."""
    for path in MODULES:
        if path.relative_to(TESTS).parts[0] in WITH_CONFIGS:
            text = path.read_text("utf-8")
            # Parsing takes long, and most modules have none of these.
            if not any(word in text for word in (".replace(", ".index(", "version: 1")):
                continue
            for node in text_edits_of_configs(ast.parse(text)):
                yield f"{path.relative_to(TESTS)}: {ast.unparse(node)}"


def test_text_edits_of_configs_are_found() -> None:
    for source in (
        "text.replace('blocked: [CU', 'blocked: [DE, CU')",
        "text.replace(old, '[a, b]')",
        "text.replace(*change)",
        "text[: text.index('clients:')]",
        """f'version: 1\\nassistants: {a}\\ndeployments: {b}'""",
    ):
        assert len(list(text_edits_of_configs(ast.parse(source)))) == 1, source
    for source in ("replace(config, 'a: b', 1)", "name.replace('_', '-')", "config.replace(location={'a': 1})"):
        assert list(text_edits_of_configs(ast.parse(source))) == [], source
