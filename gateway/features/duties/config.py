"""Compile the rules for the time of users: `regions.X.use`, the limits of age bands, and notices that repeat."""

from __future__ import annotations

from pydantic import Field

from gateway.config.age_bands import check_range
from gateway.config.feature_compiler import FeatureCompiler
from gateway.config.field_types import Section, TimeZone
from gateway.config.problems import KeyPath
from gateway.config.schema.file import FeatureKey
from gateway.config.schema.location import RegionSection
from gateway.config.sentences import built_in_sentences
from gateway.config.validation import Draft, Findings
from gateway.features.duties.model import DEFAULT_GAP_S, UseRules
from gateway.model.age import AgeRules
from gateway.model.config_version import ConfigVersion, Region
from gateway.model.refusal_reason import RefusalReason
from gateway.model.units import LifetimeSeconds
from gateway.policy.location.claim import ClaimRules
from providers.value import replace


class UseSection(Section):
    """How the time of a region's users is counted."""

    gap: LifetimeSeconds = Field(
        1800.0, description="A chat that arrives so long after the last one begins a new session: 5m to 12h."
    )
    timezone: TimeZone | None = Field(None, description="The time zone of days. Required where a band limits the day.")


USE_KEY = FeatureKey(
    "regions",
    "use",
    UseSection | None,
    Field(None, description="How the time of its users is counted, which age bands may limit. Default: not counted."),
)


def _with_use(draft: Draft, section: RegionSection, region: Region) -> Region:
    path: KeyPath = ("regions", region.name)
    use = section.of(UseSection)
    bands = section.age_bands or {}
    limited = {name: band.use for name, band in bands.items() if band.use is not None}
    labels = region.texts.default_locale.labels if region.texts is not None else ()
    repeat_s = next((label.repeat_s for label in labels if label.repeat_s is not None), None)
    _check_bands(draft, path, section, repeats=repeat_s is not None)
    if use is None and repeat_s is None and not limited:
        return region
    if region.transit.included:
        message = f"the time of users can't be kept in '{region.name}', which has `transit`"
        at = (*path, "use") if use is not None else (*path, "labels") if not limited else (*path, "age_bands")
        draft.error(at, message, "serve the region from a cell inside its boundary, or remove this key")
    gap_s = use.gap if use is not None else DEFAULT_GAP_S
    check_range(draft, (*path, "use", "gap"), gap_s, "5m", "12h")
    if use is not None and repeat_s is None and not limited:
        message = "has no effect but a record: no age band has `use`, and no label has `repeat`"
        draft.warn((*path, "use"), message, "limit a band, or remove it")
    zone = use.timezone if use is not None else None
    pause = None if RefusalReason.AGE in draft.config.messages else built_in_sentences("pauses")
    return replace(region, parts=region.parts.having(UseRules(gap_s, zone or "UTC", repeat_s, pause)))


def _check_bands(findings: Findings, path: KeyPath, section: RegionSection, *, repeats: bool) -> None:
    use = section.of(UseSection)
    zone = use.timezone if use is not None else None
    for name, band in (section.age_bands or {}).items():
        at = (*path, "age_bands", name)
        if band.use is not None and band.use.day_s is not None and zone is None:
            hint = f"write use: {{timezone: America/Los_Angeles}} in regions.{path[-1]}"
            findings.error((*at, "use", "day"), "needs `use.timezone` of the region", hint)
        if band.repeat is not None and not repeats:
            message = "no label of this region has `repeat`"
            findings.error((*at, "repeat"), message, "add `repeat` to a label with `show: first_turn`, or remove it")
        if band.refuse and (band.use is not None or band.repeat is not None):
            key = "use" if band.use is not None else "repeat"
            findings.warn((*at, key), "has no effect: no request of this band is answered", "remove it")


def _check(draft: Draft, config: ConfigVersion) -> None:
    """Warn if no signal can name a user, whose time would be counted."""
    rules = config.location.rules
    if rules.of(ClaimRules) is not None and "claim" in rules.signals:
        return
    if any(rule.names_user for issuer in config.token_issuers.values() for rule in issuer.clients):
        return
    if config.clients_source == "database" or any("user" in it.may_assert for it in config.clients.values()):
        return
    for name, region in config.regions.items():
        ages, use = region.parts.of(AgeRules), region.parts.of(UseRules)
        limited = ages is not None and any(band.use is not None for band in ages.bands)
        if use is None or not (limited or use.repeat_s is not None):
            continue
        effect = "chats of a band with limits are refused" if limited else "a notice is shown in each answer"
        at: KeyPath = (
            ("regions", name, "use") if draft.config.regions[name].of(UseSection) is not None else ("regions", name)
        )
        message = f"no signal can name a user, so {effect}"
        draft.warn(at, message, "set up `location.claim`, or add `may_assert: [user]` to a client")


DUTIES_COMPILER = FeatureCompiler(
    name="duties",
    keys=(USE_KEY,),
    of_draft=None,
    of_region=_with_use,
    of_deployment=None,
    of_assistant=None,
    of_config=None,
    check=_check,
)
