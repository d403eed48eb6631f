"""Put the door for minors in front of a region whose age bands have hours, or may use no tools."""

from __future__ import annotations

from gateway.config.feature_compiler import FeatureCompiler
from gateway.config.schema.location import RegionSection
from gateway.config.validation import Draft
from gateway.features.minors.policy import MinorRules
from gateway.model.age import AgeRules
from gateway.model.config_version import Region
from providers.value import replace


def _with_door(_draft: Draft, _section: RegionSection, region: Region) -> Region:
    ages = region.parts.of(AgeRules)
    if ages is None or all(band.hours is None and band.tools for band in ages.bands):
        return region
    return replace(region, parts=region.parts.having(MinorRules()))


MINORS_COMPILER = FeatureCompiler(
    name="minors",
    keys=(),
    of_draft=None,
    of_region=_with_door,
    of_deployment=None,
    of_assistant=None,
    of_config=None,
    check=None,
)
