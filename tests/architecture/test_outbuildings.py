"""The core opens each outbuilding in few places, and grows no more. The numbers in `outbuildings.py` only fall."""

from __future__ import annotations

import re

import pytest

from tests.architecture.outbuildings import MOST_CORE_LINES, MOST_DOORS, OUTBUILDINGS, doors, lines_of
from tests.architecture.source_tree import ROOT, modules


@pytest.mark.parametrize("name", OUTBUILDINGS)
def test_the_core_opens_an_outbuilding_in_few_places(name: str) -> None:
    opened = sorted(doors()[name])
    assert len(opened) <= OUTBUILDINGS[name].doors, f"{name} is opened by {', '.join(opened)}"


@pytest.mark.parametrize("name", OUTBUILDINGS)
def test_an_outbuilding_has_rooms(name: str) -> None:
    paths = [str(module.path.relative_to(ROOT)) for module in modules().values()]
    assert any(re.match(OUTBUILDINGS[name].rooms, path) for path in paths)


def test_all_doors_together_are_few() -> None:
    assert sum(map(len, doors().values())) <= MOST_DOORS


def test_the_core_does_not_grow() -> None:
    assert lines_of("core") <= MOST_CORE_LINES
