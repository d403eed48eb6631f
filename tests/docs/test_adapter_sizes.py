"""The page for adapter authors states how long adapters and simulators are."""

from __future__ import annotations

import re

from tests.kit.doc_pages import ROOT, blocks_of

PAGE = ROOT / "docs" / "extend" / "adapters.md"
_EXAMPLE = re.compile(r"its adapter has (\d+) lines, and its simulator (\d+)\.")
_VENDORS = re.compile(r"have (\d+) to (\d+) lines, and their simulators (\d+) to (\d+)\.")


def stated(pattern: re.Pattern[str]) -> list[int]:
    found = pattern.search(" ".join(PAGE.read_text("utf-8").split()))
    assert found, f"docs/extend/adapters.md has no sentence like {pattern.pattern!r}"
    return [int(number) for number in found.groups()]


def lines_of(vendor: str, *, simulator: bool) -> int:
    files = (ROOT / "providers" / "vendors" / vendor).glob("*.py")
    return sum(len(file.read_text("utf-8").splitlines()) for file in files if ("simulator" in file.name) == simulator)


def test_page_states_the_length_of_its_example() -> None:
    blocks = {block.title: len(block.text.splitlines()) for block in blocks_of(PAGE) if block.title is not None}
    assert stated(_EXAMPLE) == [blocks["parrot.py"], blocks["parrot_simulator.py"]]


def test_page_states_the_length_of_the_adapters_of_this_repository() -> None:
    vendors = [path.parent.name for path in (ROOT / "providers" / "vendors").glob("*/adapter.py")]
    adapters = [lines_of(vendor, simulator=False) for vendor in vendors]
    simulators = [lines_of(vendor, simulator=True) for vendor in vendors]
    expected = [min(adapters), max(adapters), min(simulators), max(simulators)]
    assert all(abs(said - number) <= 0.05 * number for said, number in zip(stated(_VENDORS), expected, strict=True))
