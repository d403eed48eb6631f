from __future__ import annotations

from pathlib import Path

from tests.kit.fault_page import page


def test_the_page_is_the_table() -> None:
    assert (Path(__file__).parents[2] / "docs" / "faults.md").read_text("utf-8") == page()
