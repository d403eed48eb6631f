"""Make an addition in a copy of the repository, as `docs/where-to-add.md` states it, and run the tests next to it.

    python -m tests.architecture.addition response-header

The rows of that page are written from `addition.yaml`. An addition is true: with it the copy passes its near tests, and
without any of its places one of them fails.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests.architecture.source_tree import ROOT
from tests.kit.case_files import tables_of

_FACTS = ".dist-info"
_MADE = {"__pycache__", ".hypothesis"}
"""Folders that a run leaves in a copy."""
_FROZEN = "tests/architecture/test_frozen_words.py"


@dataclass(frozen=True)
class Place:
    """One place that is edited by hand.

    Attributes:
        file: It may be a new one.
        what: The text that is written there, in the words of the page. Empty for one that another place names.
        before: The text before which the new one is put. Empty for a new file.
        text: The new text.
        test: The test that fails while it is missing. Empty if nothing can be imported then.
    """

    file: str
    what: str = ""
    before: str = ""
    text: str = ""
    test: str = ""

    def write(self, tree: Path, text: str) -> None:
        """Write a text at this place of a copy."""
        path = tree / self.file
        if self.before:
            present = path.read_text("utf-8")
            assert present.count(self.before) == 1, f"{self.file} must have this text once: {self.before}"
            text = present.replace(self.before, text + self.before)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


@dataclass(frozen=True)
class Slip:
    """A mistake at one place that is easy to make: a part of its text is forgotten, and a test fails."""

    place: int
    forgotten: str
    test: str


@dataclass(frozen=True)
class Addition:
    """One kind of addition with an example of it.

    Attributes:
        title: Its name on the page.
        most: So many files may be edited by hand. All that commands write is one file more.
        note: A further sentence of the page.
        tests: Further tests that pass with it.
        own: The files that are for it alone begin so, and do not count.
    """

    title: str
    most: int
    places: tuple[Place, ...]
    note: str = ""
    tests: tuple[str, ...] = ()
    slips: tuple[Slip, ...] = ()
    own: tuple[str, ...] = ()

    @property
    def by_hand(self) -> set[str]:
        """The files that are edited by hand, but for its own."""
        return {place.file for place in self.places if not place.file.startswith(self.own or "/")}

    @property
    def near(self) -> list[str]:
        """The tests next to it, each once."""
        named = [*(place.test for place in self.places), *(it.test for it in self.slips), *self.tests]
        return list(dict.fromkeys(filter(None, named)))

    @property
    def row(self) -> str:
        """Its row of the page."""
        edits = "; ".join([*(place.what for place in self.places if place.what), "`make generate`"])
        files = dict.fromkeys(f"`{test.partition('::')[0]}`" for test in self.near)
        return f"| {self.title} | {edits}{self.note} | {', then '.join(files)} |"


def _copied(file: str) -> str:
    """Return the text of a file as that of an addition: the feature of the exercise, or a vendor under another name."""
    text = (ROOT / file).read_text("utf-8").replace("tests.kit.quiet_feature", "gateway.features.quiet")
    return re.sub(r"known_as = .*\n", "", text).replace("[dialect]\n", "[dialect]\nunconfirmed = true\n")


def _place(given: Mapping[str, str]) -> Mapping[str, str]:
    return {name: value for name, value in given.items() if name != "copied"} | (
        {"text": _copied(given["copied"])} if "copied" in given else {}
    )


ADDITIONS = msgspec.convert(
    {name: it | {"places": [*map(_place, it["places"])]} for name, it in tables_of(__file__).items()},
    dict[str, Addition],
)


def rows() -> dict[str, str]:
    """Return the rows of the page by the cell that begins each."""
    return {f"| {addition.title} |": addition.row for addition in ADDITIONS.values()}


def copy_of_the_repository(tree: Path) -> None:
    """Copy all files that are kept, as they are now."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)


def add(addition: Addition, tree: Path, without: Place | Slip | None = None) -> None:
    """Make an addition in a copy, but for one place or for what is forgotten there, and write the generated files."""
    for number, place in enumerate(addition.places):
        if isinstance(without, Slip) and without.place == number:
            place.write(tree, place.text.replace(without.forgotten, ""))
        elif place is not without:
            place.write(tree, place.text)
    _install(tree)
    run(["-m", "scripts.generate"], tree)


def _install(tree: Path) -> None:
    """Make the new entry points of a copy known, as an installation does."""
    here, there = (
        tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"] for root in (ROOT, tree)
    )
    new = {group: there[group].items() - here[group].items() for group in there}
    facts = tree / f"copy-1{_FACTS}"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: copy\nVersion: 1\n", "utf-8")
    sections = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in it) for group, it in new.items() if it
    ]
    (facts / "entry_points.txt").write_text("".join(sections), "utf-8")


def freeze(tree: Path) -> None:
    """Write the frozen files of a copy."""
    run_tests([_FROZEN], tree, WRITE="1")


def run(command: Sequence[str], tree: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program of this environment in the copy."""
    known = {**os.environ, "PYTHONPATH": str(tree), **environ}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=tree, env=known, check=False)


def run_tests(tests: Sequence[str], tree: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run tests of the copy there."""
    return run(["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests], tree, **environ)


def changed_in(tree: Path) -> Iterator[str]:
    """Yield the files of a copy that differ from those of the repository."""
    for path in sorted(tree.rglob("*")):
        name = path.relative_to(tree)
        if path.is_file() and not any(part in _MADE or part.endswith(_FACTS) for part in name.parts):
            known = ROOT / name
            if not known.is_file() or known.read_bytes() != path.read_bytes():
                yield str(name)


def main() -> int:
    """Make the addition that the command line names, and run the tests next to it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", choices=ADDITIONS)
    addition = ADDITIONS[parser.parse_args().name]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy_of_the_repository(tree)
        add(addition, tree)
        freeze(tree)
        done = run_tests(addition.near, tree)
        changed = [*changed_in(tree)]
    by_hand = addition.by_hand
    counts = f"{len(by_hand)} files by hand, {len(set(changed) - by_hand)} by commands"
    print(f"{addition.title}: {counts}", *changed, sep="\n  ")
    print(done.stdout)
    return done.returncode or int(len(by_hand) > addition.most)


if __name__ == "__main__":
    sys.exit(main())
