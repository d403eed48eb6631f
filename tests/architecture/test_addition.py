"""Each addition of `docs/where-to-add.md` needs few files, is true, and fails by name while a place is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture import addition
from tests.architecture.source_tree import ROOT


@pytest.mark.parametrize("name", addition.ADDITIONS)
def test_addition_has_its_bound_and_its_places(name: str) -> None:
    made = addition.ADDITIONS[name]
    assert len(made.by_hand) <= made.most
    for place in made.places:
        if place.before:
            assert (ROOT / place.file).read_text("utf-8").count(place.before) == 1, (place.file, place.before)
        assert not place.what or place.file.partition("/")[0] in made.row, "the page names where it is"
    assert made.row in PAGE
    assert all((ROOT / test.partition("::")[0]).exists() for test in made.near)


PAGE = (ROOT / "docs/where-to-add.md").read_text("utf-8").splitlines()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    addition.copy_of_the_repository(tmp_path)
    return tmp_path


@pytest.mark.full  # it generates the pages of a copy of the repository, and runs its tests
@pytest.mark.parametrize("name", addition.ADDITIONS)
def test_addition_passes_the_tests_next_to_it(name: str, tree: Path) -> None:
    made = addition.ADDITIONS[name]
    addition.add(made, tree)
    addition.freeze(tree)
    done = addition.run_tests(made.near, tree)
    assert done.returncode == 0, done.stdout
    assert made.by_hand <= {*addition.changed_in(tree)}


MISTAKES = [
    *((name, place) for name, made in addition.ADDITIONS.items() for place in made.places if place.test),
    *((name, slip) for name, made in addition.ADDITIONS.items() for slip in made.slips),
]


@pytest.mark.full
@pytest.mark.parametrize(("name", "missing"), MISTAKES, ids=lambda it: it if isinstance(it, str) else "")
def test_missing_place_is_named_by_its_test(name: str, missing: addition.Place | addition.Slip, tree: Path) -> None:
    made = addition.ADDITIONS[name]
    if isinstance(missing, addition.Place) and len(made.places) == 1:
        pytest.skip("without its only place there is no addition")
    addition.add(made, tree, missing)
    done = addition.run_tests([missing.test], tree)
    assert done.returncode == 1, f"{missing.test} passes without {missing}"
    assert missing.test.partition("::")[2] in done.stdout
