"""What the compiler makes of a region, and of where the cell stands: each word of it that decides about a border."""

from __future__ import annotations

import pytest

from gateway.model.table import Region
from providers.territories import NOWHERE, Places
from tests.gateway.config.cases import compiled, problems_of, sections

REGIONS = """\
regions:
  cn: {territories: [CN], boundary: [CN], approvals: required}
  eu: {territories: ["@EEA", CH], boundary: ["@EEA", CH]}
  us: {territories: [US], boundary: [US], approvals: none, transit: [DE]}
"""
PLAIN = REGIONS.replace(", transit: [DE]", "").replace(", approvals: required", "")


def regions(cell: str, text: str = REGIONS) -> dict[str, Region]:
    return dict(compiled(sections(cell=cell, regions=text)).table.regions)


def test_only_who_requires_approvals_has_them_asked_for() -> None:
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
def test_receipts_are_kept_where_the_cell_stands_inside(
    cell: str, kept: set[str], transit: dict[str, set[str]]
) -> None:
    found = regions(cell)
    assert {name for name, region in found.items() if region.keeps_receipts} == kept
    expected = {name: Places(frozenset(transit[name])) if name in transit else NOWHERE for name in found}
    assert {name: region.transit for name, region in found.items()} == expected


def test_a_region_that_is_unsound_is_no_reason_to_complain_of_its_routes() -> None:
    text = REGIONS.replace("boundary: [CN]", "boundary: [Chinaa]")
    errors = [str(problem) for problem in problems_of(sections(regions=text)) if problem.severity == "error"]
    assert len(errors) == 1, errors


def test_a_cell_that_is_unsound_is_no_reason_to_complain_of_regions() -> None:
    for cell, place in (("cell: {territory: Germany}", ("cell", "territory")), ("cell: 5", ("cell",))):
        assert [problem.path for problem in problems_of(sections(cell=cell, regions=PLAIN))] == [place]


def test_only_a_gateway_that_says_nothing_of_its_place_is_warned_of_it() -> None:
    (told,) = problems_of(sections(cell="", regions=PLAIN))
    assert told.message.startswith("no `cell` is described: the gateway's own place is not counted")
