"""Each addition of `docs/where-to-add.md` needs few files, is true, and fails by name while a place is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture.addition import (
    ADDITIONS,
    Addition,
    Place,
    Slip,
    add,
    changed_in,
    copy_of_the_repository,
    freeze,
    run_tests,
)
from tests.architecture.source_tree import ROOT


@pytest.mark.parametrize("name", ADDITIONS)
def test_addition_has_its_bound_and_its_places(name: str) -> None:
    addition = ADDITIONS[name]
    assert len(addition.by_hand) <= addition.most
    for place in addition.places:
        if place.before:
            assert (ROOT / place.file).read_text("utf-8").count(place.before) == 1, (place.file, place.before)
        assert not place.what or place.file.partition("/")[0] in addition.row, "the page names where it is"
    assert addition.row in PAGE
    assert all((ROOT / test.partition("::")[0]).exists() for test in addition.near)


PAGE = (ROOT / "docs/where-to-add.md").read_text("utf-8").splitlines()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    copy_of_the_repository(tmp_path)
    return tmp_path


@pytest.mark.full  # it generates the pages of a copy of the repository, and runs its tests
@pytest.mark.parametrize("name", ADDITIONS)
def test_addition_passes_the_tests_next_to_it(name: str, tree: Path) -> None:
    addition = ADDITIONS[name]
    add(addition, tree)
    freeze(tree)
    done = run_tests(addition.near, tree)
    assert done.returncode == 0, done.stdout
    assert addition.by_hand <= {*changed_in(tree)}


MISTAKES = [
    *((name, place) for name, addition in ADDITIONS.items() for place in addition.places if place.test),
    *((name, slip) for name, addition in ADDITIONS.items() for slip in addition.slips),
]


@pytest.mark.full
@pytest.mark.parametrize(("name", "missing"), MISTAKES, ids=lambda it: it if isinstance(it, str) else "")
def test_missing_place_is_named_by_its_test(name: str, missing: Place | Slip, tree: Path) -> None:
    addition: Addition = ADDITIONS[name]
    if isinstance(missing, Place) and len(addition.places) == 1:
        pytest.skip("without its only place there is no addition")
    add(addition, tree, missing)
    done = run_tests([missing.test], tree)
    assert done.returncode == 1, f"{missing.test} passes without {missing}"
    assert missing.test.partition("::")[2] in done.stdout
