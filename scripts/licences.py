"""Generate the page of licences: those of the dependencies and of the data that a gateway is installed with."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path

_LOCK = Path(__file__).parents[1] / "locks/image.lock"
_HEAD = """\
# Licences

The packages in `locks/image.lock` and their licences, from each package's own metadata. The licence of the
gateway itself is in `LICENSE`. `make audit` checks the same list against the advisory database of the Python Package
Index and needs the network.

| package | licence |
|---|---|
"""
_DATA = """
## Data

Each file contains the text of its licence.

| data | file | licence |
|---|---|---|
| Parts of countries (ISO 3166-2) of Unicode CLDR {cldr} | `providers/subdivisions.toml` | Unicode-3.0 |
| Areas of Natural Earth, as world-atlas {atlas} | `gateway/console/static/world.svg` | public domain; ISC |
| Places of territories, of the same source | `gateway/console/world.toml` | public domain; ISC |
"""
_SUBDIVISIONS = Path(__file__).parents[1] / "providers/subdivisions.toml"
_POINTS = Path(__file__).parents[1] / "gateway/console/world.toml"
_SAME = {
    "Apache Software License": "Apache-2.0",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD License": "BSD",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}


def dependencies() -> Iterator[str]:
    """Return the package names in the lock file."""
    for line in _LOCK.read_text("utf-8").splitlines():
        if found := re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==", line):
            yield found[1]


def licence_of(name: str) -> str:
    """Return the licence expression of an installed package (PEP 639), or its classifiers or licence field."""
    fields = metadata(name)
    if "License-Expression" in fields:
        return fields["License-Expression"]
    names = [
        item.rpartition(" :: ")[2] for item in fields.get_all("Classifier") or [] if item.startswith("License :: ")
    ]
    names = names or [*fields.get_all("License", ["unknown"])]
    return " OR ".join(_SAME.get(item, item) for item in names)


def licences_page() -> str:
    """Return the page in Markdown."""
    rows = "".join(f"| {name} | {licence_of(name)} |\n" for name in dependencies())
    cldr = tomllib.loads(_SUBDIVISIONS.read_text("utf-8"))["cldr"]
    atlas = tomllib.loads(_POINTS.read_text("utf-8"))["world_atlas"]
    return _HEAD + rows + _DATA.format(cldr=cldr, atlas=atlas)
