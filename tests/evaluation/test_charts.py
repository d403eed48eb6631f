"""Charts of many candidates and of long names stay readable and distinguishable."""

from __future__ import annotations

import re

import pytest

from evaluation.report_page import _DASHES, _MARKS, COLOURS, distributions, dots

WHOLE = {"value": 0.5, "low": 0.4, "high": 0.6, "of": 20}


@pytest.mark.parametrize("looks", [_MARKS, None])
def test_no_two_of_24_candidates_look_alike(looks: str | None) -> None:
    found = {
        (number % len(COLOURS), looks[number % len(looks)] if looks else _DASHES[number // len(COLOURS)])
        for number in range(24)
    }
    assert len(found) == 24


def test_curves_of_candidates_with_the_same_colour_differ() -> None:
    names = [f"candidate-{number}" for number in range(9)]
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
    drawn = distributions("First token", {name: [0.1, 0.2] for name in names}, colours)
    lines = re.findall(r'<path d="[^"]*" clip-path[^>]*style="(fill: none;[^"]*stroke: #0072b2[^"]*)"', drawn)
    assert len(lines) == 2
    assert len(set(lines)) == 2


def test_long_name_is_shortened_in_charts() -> None:
    name = "a-very-long-deployment-name-of-a-vendor-in-a-zone-cn-beijing-1"
    drawn = dots("Weighted score", {name: WHOLE, "x": WHOLE}, {name: "#000000", "x": "#000000"}, None, "%")
    assert name not in drawn
    assert "a-very-long-de…one-cn-beijing-1"[:14] in drawn
    assert "cn-beijing-1" in drawn
    width = float(re.findall(r'<svg [^>]*width="([0-9.]+)pt"', drawn)[0])
    assert width < 500, "wider than this, it is shown too small to be read"
