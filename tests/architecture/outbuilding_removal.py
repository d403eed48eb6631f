"""The text of other files and the commands that go with an outbuilding where the core opens it.

`tests/architecture/removal.py` takes an outbuilding out of a copy by the table `outbuilding_removal.yaml`: its rooms, and
the text at its doors.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.architecture.outbuildings import OUTBUILDINGS
from tests.architecture.source_tree import PACKAGES
from tests.kit.case_files import tables_of

Edits = Mapping[str, tuple[tuple[str, str], ...]]
"""By file, each pattern of a text and what is there without the outbuilding. In a pattern, `.` is any character."""


@dataclass(frozen=True)
class Takeout:
    """The text that goes with an outbuilding, the commands that go, and the outbuildings that have to go first."""

    edits: Edits
    commands: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


def _edit(given: Any) -> tuple[str, str]:
    """Return a pattern with what is there instead. An entry that is a text alone goes."""
    if isinstance(given, str):
        return given, ""
    lines = rf"^ *from {re.escape(given['import'])} import [^\n]*\n" if "import" in given else given["text"]
    return lines, given.get("instead", "")


def _takeout(edits: Mapping[str, list[Any]] = {}, **more: list[str]) -> Takeout:  # it is read only
    by_file = {file: tuple(map(_edit, of_file)) for file, of_file in edits.items()}
    return Takeout(by_file, **{name: tuple(names) for name, names in more.items()})


TAKEOUTS: Mapping[str, Takeout] = {name: _takeout(**given) for name, given in tables_of(__file__).items()}


def take_out(name: str, tree: Path) -> None:
    """Take an outbuilding out of a copy of the product, after those that open it."""
    takeout, rooms = TAKEOUTS[name], _rooms_of(name, tree)
    if not rooms:  # it went before one that it opens
        return
    for other in takeout.after:
        take_out(other, tree)
    for room in rooms:
        room.unlink()
        if not any(room.parent.rglob("*.py")):  # nor may its data stay: Python would take the folder for a package
            shutil.rmtree(room.parent)
    for place, edits in takeout.edits.items():
        if not (tree / place).exists():  # it went with another outbuilding
            continue
        text = (tree / place).read_text("utf-8")
        for pattern, instead in edits:
            text, count = re.subn(pattern, instead, text, flags=re.MULTILINE | re.DOTALL)
            assert count, f"{place} has no text that goes with {name}: {pattern}"
        (tree / place).write_text(text, "utf-8")
    listed = tree / "gateway/cli/commands.json"
    tables = json.loads(listed.read_text("utf-8"))
    for command in takeout.commands:
        del tables["commands"][command]
    listed.write_text(json.dumps(tables), "utf-8")


def _rooms_of(name: str, tree: Path) -> list[Path]:
    rooms = OUTBUILDINGS[name].rooms
    return [file for file in _python_of(tree) if re.match(rooms, str(file.relative_to(tree)))]


def dangling(tree: Path) -> list[str]:
    """Return the imports of modules that a copy has not. mypy would find these in the checkout."""
    files = {
        ".".join(it.relative_to(tree).with_suffix("").parts).removesuffix(".__init__"): it for it in _python_of(tree)
    }
    imports = [(name, target) for name, file in files.items() for target in _imports_of(file.read_text("utf-8"))]
    return [f"{name} imports {it}" for name, it in imports if it.partition(".")[0] in PACKAGES and it not in files]


@cache
def _imports_of(source: str) -> set[str]:
    """Return the modules that a source imports. Most files are the same in each copy."""
    nodes = [*ast.walk(ast.parse(source))]
    modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return modules.union(alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names)


def _python_of(tree: Path) -> list[Path]:
    return [file for package in PACKAGES for file in sorted((tree / package).rglob("*.py"))]
