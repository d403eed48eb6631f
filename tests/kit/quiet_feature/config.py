"""Compile `regions.X.quiet`: the hours in which a region answers chats."""

from pydantic import Field

from gateway.config.feature_compiler import FeatureCompiler
from gateway.config.field_types import Section, TimeZone
from gateway.config.schema.file import FeatureKey
from gateway.config.schema.location import RegionSection, Texts
from gateway.config.sentences import sentences_of
from gateway.config.validation import Draft
from gateway.model.config_version import Region
from gateway.model.hours import Hours
from gateway.model.units import DailyHours
from providers.value import replace
from tests.kit.quiet_feature.model import QuietHours


class QuietSection(Section):
    """The hours in which chats are answered."""

    hours: DailyHours = Field(description="The daily hours in which chats are answered. They may go over midnight.")
    timezone: TimeZone = Field(description="Their time zone.")
    text: Texts = Field(description="The sentence for a user at other times, by language.")


def _with_quiet(_draft: Draft, section: RegionSection, region: Region) -> Region:
    quiet = section.of(QuietSection)
    if quiet is None:
        return region
    part = QuietHours(Hours(*quiet.hours, quiet.timezone), sentences_of(quiet.text))
    return replace(region, parts=region.parts.having(part))


QUIET_COMPILER = FeatureCompiler(
    name="quiet",
    keys=(
        FeatureKey(
            "regions",
            "quiet",
            QuietSection | None,
            Field(None, description="When chats are answered. Default: always."),
        ),
    ),
    of_draft=None,
    of_region=_with_quiet,
    of_deployment=None,
    of_assistant=None,
    of_config=None,
    check=None,
)
