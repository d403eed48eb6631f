"""Each key of a region reaches the compiled region, or has a compiler of its own."""

from dataclasses import fields

from gateway.config.regions import AS_WRITTEN
from gateway.config.schema.location import RegionSection
from gateway.model.config_version import Region

COMPILED = {"territories", "boundary", "transit", "approvals", "log_prompts"}
OF_OTHERS = {"labels", "profile", "refusals", "moderation", "age_bands", "age_missing"}
MADE = {"name", "approvals_required", "texts", "keeps_receipts", "parts", "doors", "helps_first", "kinds"}
"""What the compiled region has besides its keys."""


def test_key_that_nothing_resolves_is_a_field_of_the_region() -> None:
    assert RegionSection.model_fields.keys() - COMPILED - OF_OTHERS == AS_WRITTEN, "gateway/model/config_version.py"
    known = {field.name for field in fields(Region)} - MADE
    assert known <= RegionSection.model_fields.keys(), "gateway/config/schema/location.py"
