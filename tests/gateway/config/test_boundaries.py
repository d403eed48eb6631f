"""Compile regions and the cell: each key that decides about a boundary. `patches/sound.yaml` has the warnings."""

from gateway.model.config_version import Region
from providers.territories import NOWHERE, Places
from tests.kit.case_files import cases
from tests.kit.config_cases import compiled, sections

REGIONS = """\
regions:
  cn: {territories: [CN], boundary: [CN], approvals: required}
  eu: {territories: ["@EEA", CH], boundary: ["@EEA", CH]}
  us: {territories: [US], boundary: [US], approvals: none, transit: [DE]}
"""


def regions(cell: str, text: str = REGIONS) -> dict[str, Region]:
    return dict(compiled(sections(cell=cell, regions=text)).config.regions)


def test_approvals_are_checked_only_in_regions_that_require_them() -> None:
    found = regions("cell: {territory: DE, serves: [eu, us]}")
    assert {name: region.approvals_required for name, region in found.items()} == {"cn": True, "eu": False, "us": False}


@cases("cell", "kept", "transit")
def test_receipts_are_kept_only_by_a_cell_inside_the_boundary(
    cell: str, kept: set[str], transit: dict[str, set[str]]
) -> None:
    found = regions(cell)
    assert {name for name, region in found.items() if region.keeps_receipts} == kept
    expected = {name: Places(frozenset(transit[name])) if name in transit else NOWHERE for name in found}
    assert {name: region.transit for name, region in found.items()} == expected
