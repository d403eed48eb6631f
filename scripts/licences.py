"""The page of licences: the licence of each dependency that a gateway is installed with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path

_LOCK = Path(__file__).parents[1] / "requirements.lock"
_HEAD = """\
# Licences

What `requirements.lock` installs, and under which licence, by each package's own metadata. The gateway itself is under
the licence in `LICENSE`. `make audit` asks the advisory database of the Python Package Index about the same list; it
needs the network.

| package | licence |
|---|---|
"""
_SAME = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}


def dependencies() -> Iterator[str]:
    """The names in the lock."""
    for line in _LOCK.read_text("utf-8").splitlines():
        if found := re.match(r"([A-Za-z0-9._-]+)==", line):
            yield found[1]


def licence_of(name: str) -> str:
    """The licence expression of an installed package (PEP 639), else what its classifiers or its field say."""
    told = metadata(name)
    if expression := told.get("License-Expression"):
        return str(expression)
    names = [item.rpartition(" :: ")[2] for item in told.get_all("Classifier") or [] if item.startswith("License :: ")]
    names = names or [str(told.get("License") or "unknown")]
    return " OR ".join(_SAME.get(item, item) for item in names)


def licences_page() -> str:
    """Return the page in Markdown."""
    return _HEAD + "".join(f"| {name} | {licence_of(name)} |\n" for name in dependencies())
