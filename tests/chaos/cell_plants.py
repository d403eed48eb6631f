"""Faults that are planted into a copy of the product, to prove that the experiment finds them: `cell_plants.toml`.

`python -m tests.chaos.cell --plant NAME` runs the cell from a copy with this change, and one of its rules has to find it.
"""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

from providers.value import Value
from tests.architecture.source_tree import PACKAGES, ROOT


class Plant(Value, frozen=True):
    """A change of one place of a file, the rules of which one finds it, and the seed by which it does."""

    file: str
    before: str
    after: str
    rules: tuple[str, ...]
    seed: int


_WRITTEN = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
PLANTS = {name: Plant(**{**fields, "rules": tuple(fields["rules"])}) for name, fields in _WRITTEN.items()}


def planted_copy(folder: Path, name: str) -> Path:
    """Return a copy of the product with a planted fault."""
    plant, tree = PLANTS[name], folder / "product"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    path = tree / plant.file
    text = path.read_text("utf-8")
    assert text.count(plant.before) == 1, f"{plant.file} has no single {plant.before!r}"
    path.write_text(text.replace(plant.before, plant.after), "utf-8")
    return tree
