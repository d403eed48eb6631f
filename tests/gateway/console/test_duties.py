"""The view Duties has a column for each kind, with the sum of a region."""

import re

from gateway.console.duties_view import KINDS, by_region, headings
from gateway.console.texts import LANGUAGES
from tests.kit.doc_pages import ROOT


def test_each_kind_that_is_noted_has_its_column() -> None:
    """A kind is a word that a feature notes, or that its help has."""
    sources = [path.read_text("utf-8") for path in (ROOT / "gateway/features").rglob("*.py")]
    noted = {word for text in sources for word in re.findall(r'note_duty\("(\w+)"\)', text)}
    assert noted
    assert noted <= {*KINDS}
    assert [kind for kind in KINDS if not any(f'"{kind}"' in text for text in sources)] == []
    assert all(headings(language).keys() == {*KINDS} for language in LANGUAGES)


def test_territories_and_bands_are_summed_by_region() -> None:
    rows = [
        {"region": region, "kind": kind, "count": count}
        for region, kind, count in (("us", "crisis", 2), ("us", "crisis", 3), ("us", "notice", 1), ("eu", "notice", 4))
    ]
    sums = by_region(rows)
    assert list(sums) == ["eu", "us"]
    assert (sums["us"]["crisis"], sums["us"]["notice"], sums["eu"]["crisis"], sums["eu"]["notice"]) == (5, 1, 0, 4)
