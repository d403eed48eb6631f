"""Compile the rules for the time of users: `regions.X.use`, the limits of age bands, and notices that repeat."""

from __future__ import annotations

from gateway.config.feature_compiler import FeatureCompiler
from gateway.config.problems import KeyPath
from gateway.config.region_text import built_in_sentences
from gateway.config.schema.location import RegionSection
from gateway.config.validation import Draft, Findings
from gateway.features.duties.model import DEFAULT_GAP_S, UseRules
from gateway.features.duties.schema import UseLimitsSection
from gateway.model.age import AgeRules, UseLimits
from gateway.model.config_version import ConfigVersion, Region
from gateway.model.refusal_reason import RefusalReason
from gateway.policy.location.claim import ClaimRules
from providers.value import replace

_MINUTE_S = 60.0
_HOUR_S = 3600.0
_LEAST_REPEAT_S = 600.0


def limits_of(findings: Findings, path: KeyPath, section: UseLimitsSection | None) -> UseLimits | None:
    """Return the limits of an age band, or None if it has none."""
    if section is None:
        return None
    if section.session is None and section.day is None:
        findings.error(path, "limits nothing", "write session, day, or both, such as {session: 1h, day: 2h}")
        return None
    for name, seconds in (("session", section.session), ("day", section.day)):
        if seconds is not None:
            _check_range(findings, (*path, name), seconds, "1m", "24h")
    return UseLimits(_whole(section.session), _whole(section.day))


def repeat_of(findings: Findings, path: KeyPath, seconds: float | None) -> float | None:
    """Return after how long a band's users see the label with `repeat` again, or None."""
    if seconds is not None and seconds < _LEAST_REPEAT_S:
        findings.error(path, "must be 10m or more", "write 10m")
    return seconds


def _check_range(findings: Findings, path: KeyPath, seconds: float, least: str, most: str) -> None:
    bounds = {"1m": _MINUTE_S, "5m": 5 * _MINUTE_S, "12h": 12 * _HOUR_S, "24h": 24 * _HOUR_S}
    if not bounds[least] <= seconds <= bounds[most]:
        near = least if seconds < bounds[least] else most
        findings.error(path, f"must be from {least} to {most}", f"write {near}")


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds)


def _with_use(draft: Draft, findings: Findings, section: RegionSection, region: Region) -> Region:
    path: KeyPath = ("regions", region.name)
    bands = section.age_bands or {}
    limited = {name: band.use for name, band in bands.items() if band.use is not None}
    repeat_s = _repeat_of_labels(region)
    _check_bands(findings, path, section, repeats=repeat_s is not None)
    if section.use is None and repeat_s is None and not limited:
        return region
    if region.transit.included:
        message = f"the time of users can't be kept in '{region.name}', which has `transit`"
        at = (*path, "use") if section.use is not None else (*path, "labels") if not limited else (*path, "age_bands")
        findings.error(at, message, "serve the region from a cell inside its boundary, or remove this key")
    gap_s = section.use.gap if section.use is not None else DEFAULT_GAP_S
    _check_range(findings, (*path, "use", "gap"), gap_s, "5m", "12h")
    if section.use is not None and repeat_s is None and not limited:
        message = "has no effect but a record: no age band has `use`, and no label has `repeat`"
        findings.warn((*path, "use"), message, "limit a band, or remove it")
    zone = section.use.timezone if section.use is not None else None
    pause = None if RefusalReason.AGE in draft.config.messages else built_in_sentences("pauses")
    return replace(region, parts=region.parts.having(UseRules(gap_s, zone or "UTC", repeat_s, pause)))


def _repeat_of_labels(region: Region) -> float | None:
    labels = region.texts.default_locale.labels if region.texts is not None else ()
    return next((label.repeat_s for label in labels if label.repeat_s is not None), None)


def _check_bands(findings: Findings, path: KeyPath, section: RegionSection, *, repeats: bool) -> None:
    zone = section.use.timezone if section.use is not None else None
    for name, band in (section.age_bands or {}).items():
        at = (*path, "age_bands", name)
        if band.use is not None and band.use.day is not None and zone is None:
            hint = f"write use: {{timezone: America/Los_Angeles}} in regions.{path[-1]}"
            findings.error((*at, "use", "day"), "needs `use.timezone` of the region", hint)
        if band.repeat is not None and not repeats:
            message = "no label of this region has `repeat`"
            findings.error((*at, "repeat"), message, "add `repeat` to a label with `show: first_turn`, or remove it")
        if band.refuse and (band.use is not None or band.repeat is not None):
            key = "use" if band.use is not None else "repeat"
            findings.warn((*at, key), "has no effect: no request of this band is answered", "remove it")


def _check(draft: Draft, findings: Findings, config: ConfigVersion) -> None:
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
        at: KeyPath = ("regions", name, "use") if draft.config.regions[name].use is not None else ("regions", name)
        message = f"no signal can name a user, so {effect}"
        findings.warn(at, message, "set up `location.claim`, or add `may_assert: [user]` to a client")


DUTIES_COMPILER = FeatureCompiler(
    keys=("regions.*.use", "regions.*.age_bands.*.use"),
    of_draft=None,
    of_region=_with_use,
    of_deployment=None,
    of_assistant=None,
    of_config=None,
    check=_check,
)
