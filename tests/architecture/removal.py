"""Take a feature out of a copy of the product: its folder, and the lines of other files that name it.

The same for outbuildings, one or several, or all of `TAKEOUTS` together.

python -m tests.architecture.removal marks
python -m tests.architecture.removal cell
python -m tests.architecture.removal outbuildings
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.architecture.outbuilding_removal import TAKEOUTS, dangling, take_out
from tests.architecture.source_tree import PACKAGES, ROOT

MOST_FILES = 8
"""So many files outside its folder may name a feature."""
_COPIED = ("gateway", "providers", "evaluation", "pyproject.toml", ".mypy_cache")


@dataclass(frozen=True)
class Removal:
    """The text that goes with a feature outside its folder.

    Attributes:
        modules: The modules that are only for it.
        texts: For each other file, the pattern of the text that goes.
        commands: The commands that go, with their options.
    """

    modules: tuple[str, ...]
    texts: Mapping[str, str]
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
        ("marks", "marks verify"),
    ),
    "shadow": Removal(
        ("evaluation/recorded.py",),
        {
            "gateway/features/configuration.py": r".*SHADOW_COMPILER.*\n",
            "gateway/features/running.py": r".*import SHADOW\n|SHADOW, ",
            "gateway/cli/evaluate.py": r"def _score_shadow\(.*?\n\n\n|        if options\.shadow:\n.*?\n",
            "gateway/cli/commands.json": r'.*"name": "--shadow".*\n',
            "gateway/cli/receipts.py": r'    if entry := receipt\.get\("shadow"\):\n.*?\n',
        },
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


def copy_of_the_product(tree: Path) -> None:
    """Copy what mypy reads, with its cache."""
    for name in _COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy2(source, tree / name)


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
    """Take out the feature that the command line names, and check the types of what is left."""
    feature = sys.argv[1]
    if feature not in REMOVALS:
        names = [*TAKEOUTS] if feature == "outbuildings" else sys.argv[1:]
        with tempfile.TemporaryDirectory() as folder:
            wrong = left_without(names, Path(folder))
            files = sum(1 for package in PACKAGES for _ in (Path(folder) / package).rglob("*.py"))
        print(wrong or f"without {', '.join(names)}, the types of {files} files hold")
        return int(wrong != "")
    with tempfile.TemporaryDirectory() as folder:
        copy_of_the_product(Path(folder))
        without(feature, Path(folder))
        checked = run(["-m", "mypy", "gateway", "providers", "evaluation"], Path(folder))
    files = REMOVALS[feature].files
    print(f"{feature} and {len(files)} files outside its folder: {', '.join(sorted(files))}", checked.stdout, sep="\n")
    return checked.returncode or int(len(files) > MOST_FILES)


if __name__ == "__main__":
    sys.exit(main())
