"""Compile regions and the cell: each key that decides about a boundary."""

from __future__ import annotations

import pytest

from gateway.model.config_version import Region
from providers.territories import NOWHERE, Places
from tests.kit.config_cases import compiled, edited, problems_of, sections

REGIONS = """\
regions:
  cn: {territories: [CN], boundary: [CN], approvals: required}
  eu: {territories: ["@EEA", CH], boundary: ["@EEA", CH]}
  us: {territories: [US], boundary: [US], approvals: none, transit: [DE]}
"""
PLAIN = edited(REGIONS, (", transit: [DE]", ""), (", approvals: required", ""))


def regions(cell: str, text: str = REGIONS) -> dict[str, Region]:
    return dict(compiled(sections(cell=cell, regions=text)).config.regions)


def test_approvals_are_checked_only_in_regions_that_require_them() -> None:
    found = regions("cell: {territory: DE, serves: [eu, us]}")
    assert {name: region.approvals_required for name, region in found.items()} == {"cn": True, "eu": False, "us": False}


@pytest.mark.parametrize(
    ("cell", "kept", "transit"),
    [
        ("", {"cn", "eu", "us"}, {}),
        ("cell: {territory: DE, serves: [eu, us]}", {"eu"}, {"us": {"DE"}}),
        ("cell: {territory: DE, serves: [us]}", set(), {"us": {"DE"}}),
        ("cell: {territory: US, serves: [us]}", {"us"}, {}),
        ("cell: {territory: US-CA, serves: [us]}", {"us"}, {}),
        ("cell: {territory: CN, serves: [cn]}", {"cn"}, {}),
    ],
)
def test_receipts_are_kept_only_by_a_cell_inside_the_boundary(
    cell: str, kept: set[str], transit: dict[str, set[str]]
) -> None:
    found = regions(cell)
    assert {name for name, region in found.items() if region.keeps_receipts} == kept
    expected = {name: Places(frozenset(transit[name])) if name in transit else NOWHERE for name in found}
    assert {name: region.transit for name, region in found.items()} == expected


def test_invalid_region_causes_no_errors_about_its_routes() -> None:
    text = edited(REGIONS, ("boundary: [CN]", "boundary: [Chinaa]"))
    errors = [str(problem) for problem in problems_of(sections(regions=text)) if problem.severity == "error"]
    assert len(errors) == 1, errors


def test_invalid_cell_causes_no_errors_about_regions() -> None:
    accepting = edited(PLAIN, ("boundary: [US]", "boundary: [US], transit: [DE], log_prompts: true"))
    for cell, place in (("cell: {territory: Germany}", ("cell", "territory")), ("cell: 5", ("cell",))):
        for text in (PLAIN, accepting):
            assert [problem.path for problem in problems_of(sections(cell=cell, regions=text))] == [place]


@pytest.mark.parametrize(
    ("cell", "messages"),
    [
        ("cell: {territory: US, serves: [us], homes: {cn: 'https://cn.example'}}", []),
        ("cell: {territory: US, serves: [us], homes: {us: 'https://us.example'}}", ["this cell serves 'us' itself"]),
        ("cell: {territory: US, homes: {us: 'https://us.example'}}", ["this cell serves 'us' itself"]),
        ("cell: {territory: US, homes: {usa: 'https://us.example'}}", ["unknown region 'usa'"]),
    ],
)
def test_home_of_a_served_region_is_a_warning(cell: str, messages: list[str]) -> None:
    found = problems_of(sections(cell=cell, regions=PLAIN))
    assert [problem.message for problem in found if problem.path[:1] == ("cell",)] == messages


@pytest.mark.parametrize(
    ("cell", "transit", "message"),
    [
        ("cell: {territory: DE, serves: [us]}", "DE, FR", "FR is not where this cell runs (DE)"),
        ("cell: {territory: US, serves: [us]}", "US", "US is already inside the boundary"),
        ("cell: {territory: DE, serves: [eu]}", "DE", "DE has no effect: no cell serves the region"),
        ("", "DE", "DE has no effect: no cell serves the region"),
    ],
)
def test_transit_without_effect_is_a_warning(cell: str, transit: str, message: str) -> None:
    text = sections(cell=cell, regions=edited(PLAIN, ("boundary: [US]", f"boundary: [US], transit: [{transit}]")))
    assert [problem.message for problem in problems_of(text) if problem.path == ("regions", "us", "transit")] == [
        message
    ]


def test_missing_cell_is_a_warning() -> None:
    (warning,) = problems_of(sections(cell="", regions=PLAIN))
    assert warning.message.startswith("there is no `cell`: the gateway's own location is not checked")
