"""The house grows no more: a commit that raises a number states the reason."""

from __future__ import annotations

import pytest

from tests.architecture.source_tree import PACKAGES, ROOT

MOST_LINES = {"product": (PACKAGES, 130_000), "tests": (("tests",), 144_000)}
"""The most lines of Python. The product of this stage ends at 130,000 lines, and its tests at 144,000."""


@pytest.mark.parametrize("what", MOST_LINES)
def test_the_house_does_not_grow(what: str) -> None:
    folders, most = MOST_LINES[what]
    lines = sum(path.read_bytes().count(b"\n") for folder in folders for path in ROOT.joinpath(folder).rglob("*.py"))
    assert lines <= most, f"{what} has {lines:,} lines of {most:,}: take out what is not needed"
