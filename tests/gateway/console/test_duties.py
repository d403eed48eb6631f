"""The view Duties has a column for each kind, with the sum of a region."""

from __future__ import annotations

from gateway.console.duties_view import KINDS, by_region
from gateway.model.help import DutyKind
from tests.kit.doc_pages import ROOT


def test_each_kind_has_a_column_and_its_words_on_the_page() -> None:
    assert set(KINDS) == set(DutyKind)
    page = (ROOT / "docs" / "operate" / "duties.md").read_text("utf-8")
    assert [kind for kind in DutyKind if f"`{kind}`" not in page] == []


def test_territories_and_bands_are_summed_by_region() -> None:
    rows = [
        {"region": region, "kind": kind, "count": count}
        for region, kind, count in (("us", "crisis", 2), ("us", "crisis", 3), ("us", "notice", 1), ("eu", "notice", 4))
    ]
    sums = by_region(rows)
    assert list(sums) == ["eu", "us"]
    assert (sums["us"]["crisis"], sums["us"]["notice"], sums["eu"]["crisis"], sums["eu"]["notice"]) == (5, 1, 0, 4)
