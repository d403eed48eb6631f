"""Take a feature out of a copy of the product: its folder, and the lines of other files that name it.

The same for outbuildings, one or several, or all of `TAKEOUTS` together.

python -m tests.architecture.removal marks
python -m tests.architecture.removal cell
python -m tests.architecture.removal outbuildings
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.model.assistant import RoutePart
from gateway.model.parts import LabelProof
from gateway.model.record import FeatureNote
from gateway.model.wrapper import Wrapped
from gateway.policy.doors import RegionDoor
from tests.architecture.outbuilding_removal import TAKEOUTS, dangling, take_out
from tests.architecture.source_tree import PACKAGES, ROOT

MOST_FILES = 8
"""So many files outside its folder may name a feature."""
_DOORS = (Wrapped, RegionDoor, RoutePart, LabelProof, FeatureNote)
"""Bases of the parts of features. A door stays when the last feature that asks it goes."""
_COPIED = (
    *PACKAGES,
    *("tests", "scripts", "docs", "config", "deploy", "bench", "locks", "examples"),
    *(
        "pyproject.toml",
        "mkdocs.yml",
        "Makefile",
        "README.md",
        "README.zh-Hans.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "Dockerfile",
    ),
)
_CACHE = ".mypy_cache"


@dataclass(frozen=True)
class Removal:
    """The text that goes with a feature outside its folder.

    Attributes:
        modules: The modules that are only for it.
        texts: For each other file, the pattern of the text that goes.
        commands: The commands that go, with their options.
        words: The pattern of words by which a test names the feature.
        keys: The pattern of its keys and metrics on generated pages.
    """

    modules: tuple[str, ...]
    texts: Mapping[str, str]
    words: str
    keys: str
    commands: tuple[str, ...] = ()

    @property
    def files(self) -> set[str]:
        """The files outside the folder."""
        return {*self.modules, *self.texts, *(["gateway/cli/commands.json"] if self.commands else [])}


REMOVALS = {
    "marks": Removal(
        ("gateway/cli/marks.py",),
        {
            "gateway/features/configuration.py": r".*MARKS_COMPILER.*\n",
            "gateway/features/running.py": r".*import MARKS\n|, MARKS",
        },
        r"(?i)features\.marks|\bmarks?:|\"marks?\"|ai-mark|signed mark|/v1/marks|\bMARKS\b",
        r"`marks?`|\"marks?\"|marks\.key",
        ("marks", "marks verify"),
    ),
    "shadow": Removal(
        ("evaluation/recorded.py",),
        {
            "gateway/features/configuration.py": r".*SHADOW_COMPILER.*\n",
            "gateway/features/running.py": r".*import SHADOW\n|SHADOW, ",
            "gateway/cli/evaluate.py": r"def _score_shadow\(.*?\n\n\n|        if options\.shadow:\n.*?\n"
            r'|\("region", "out"\) if options\.shadow else ',
            "gateway/cli/commands.json": r'.*"name": "--shadow".*\n',
            "gateway/cli/receipts.py": r'    if entry := receipt\.get\("shadow"\):\n.*?\n',
        },
        r"(?i)shadow|evaluation\.recorded",
        r"`shadow`|\"shadow\"|gateway_shadow",
    ),
}


def without(feature: str, tree: Path) -> None:
    """Take a feature out of a copy of the product."""
    removal = REMOVALS[feature]
    shutil.rmtree(tree / "gateway/features" / feature)
    for module in removal.modules:
        (tree / module).unlink()
    for file, pattern in removal.texts.items():
        text = (tree / file).read_text("utf-8")
        flags = re.DOTALL if "_score_" in pattern else re.NOFLAG
        changed = re.sub(pattern, "", text, flags=flags)
        assert changed != text, f"{file} has nothing that goes with {feature}"
        (tree / file).write_text(changed, "utf-8")
    if removal.commands:
        listed = tree / "gateway/cli/commands.json"
        tables = json.loads(listed.read_text("utf-8"))
        for command in removal.commands:
            del tables["commands"][command]
        listed.write_text(json.dumps(tables), "utf-8")


def copy_of_the_product(tree: Path, *, with_cache: bool = True) -> None:
    """Copy what mypy reads, and its cache, which has more bytes than all the rest."""
    for name in (*_COPIED, _CACHE) if with_cache else _COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy2(source, tree / name)


def dead_names(tree: Path) -> set[tuple[str, str]]:
    """Return the file and the name of all that vulture finds unused in a copy, without the methods of doors."""
    found = re.findall(r"(.+?):\d+: unused [a-z]+ '(\w+)'", run(["-m", "vulture", *PACKAGES], tree).stdout)
    kept = {name for door in _DOORS for name in dir(door)}
    return {(file, name) for file, name in found if name not in kept}


def files_without(feature: str, folder: str, tree: Path) -> list[str]:
    """Return the test files of a folder of a copy that name no feature, as do their own configs and what they import."""
    sources = {
        str(file.relative_to(tree)): "\n".join(
            it.read_text("utf-8") for it in (file, *file.parent.glob(f"{file.stem.removeprefix('test_')}.*yaml"))
        )
        for file in (tree / "tests").rglob("*.py")
    }
    imported = {
        file: {name.replace(".", "/") + ".py" for name in re.findall(r"^from (tests[\w.]+) import", text, re.MULTILINE)}
        for file, text in sources.items()
    }
    words = re.compile(REMOVALS[feature].words)
    naming = {file for file, text in sources.items() if words.search(text)}
    while more := {file for file, others in imported.items() if file not in naming and others & naming}:
        naming |= more
    tests = {file for file in sources if file.startswith(folder) and Path(file).name.startswith("test_")}
    return sorted(tests - naming)


def drop_cases(feature: str, folder: Path) -> None:
    """Remove the cases of a feature from the files of cases in a folder of a copy."""
    words = re.compile(REMOVALS[feature].words)
    for file in folder.glob("patches/*.yaml"):
        cases = file.read_text("utf-8").split("---\n")
        file.write_text("---\n".join(case for case in cases if not words.search(case)), "utf-8")
    for file in folder.glob("golden/*.yaml"):
        if words.search(file.read_text("utf-8")):
            file.unlink()


def run(command: Sequence[str], tree: Path) -> subprocess.CompletedProcess[str]:
    """Run a program of this environment in the copy."""
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=tree, check=False)


def left_without(names: Sequence[str], tree: Path) -> str:
    """Take outbuildings out of a copy. Return what is wrong with the rest, or an empty text."""
    copy_of_the_product(tree)
    for name in names:
        take_out(name, tree)
    packages = [it for it in PACKAGES if (tree / it).exists()]
    # A value of an outbuilding is None for ever, and what the core does with it is never run.
    checked = run(["-m", "mypy", "--no-warn-unreachable", *packages], tree)
    return "\n".join((*dangling(tree), *([checked.stdout] if checked.returncode else [])))


def main() -> int:
    """Take out the feature that the command line names, and check the types and the names of what is left."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("names", nargs="+", choices=[*REMOVALS, *TAKEOUTS, "outbuildings"])
    feature, *_ = names = parser.parse_args().names
    if feature not in REMOVALS:
        names = [*TAKEOUTS] if "outbuildings" in names else names
        with tempfile.TemporaryDirectory() as folder:
            wrong = left_without(names, Path(folder))
            files = sum(1 for package in PACKAGES for _ in (Path(folder) / package).rglob("*.py"))
        print(wrong or f"without {', '.join(names)}, the types of {files} files hold")
        return int(wrong != "")
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy_of_the_product(tree)
        before = dead_names(tree)
        without(feature, tree)
        dead = sorted(dead_names(tree) - before)
        checked = run(["-m", "mypy", *PACKAGES], tree)
    files = REMOVALS[feature].files
    title = f"{feature} and {len(files)} files outside its folder: {', '.join(sorted(files))}"
    print(title, checked.stdout, *map(str, dead), sep="\n")
    return checked.returncode or int(len(files) > MOST_FILES or bool(dead))


if __name__ == "__main__":
    sys.exit(main())
