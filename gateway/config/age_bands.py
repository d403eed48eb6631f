"""Compile the age bands of a region: `regions.X.age_bands` and `age_missing`."""

from __future__ import annotations

from dataclasses import fields

from gateway.config.problems import KeyPath, choice_hint, quoted
from gateway.config.schema.location import AgeBandSection, RegionSection
from gateway.config.sentences import built_in_sentences
from gateway.config.validation import Draft, Findings
from gateway.model.age import UNKNOWN_AGE, AgeBand, AgeRules
from gateway.model.config_version import ConfigVersion
from gateway.model.hours import Hours
from gateway.model.refusal_reason import RefusalReason
from gateway.model.region_text import Sentences
from gateway.policy.location.claim import ClaimRules

_ADULT, _REFUSE = "adult", "refuse"
_MINUTE_S = 60.0
_HOUR_S = 3600.0
_LEAST_REPEAT_S = 600.0
_AS_WRITTEN = AgeBandSection.model_fields.keys() & {it.name for it in fields(AgeBand)} - {"instructions", "hours"}
"""The keys that a band has as the file has them."""


def compile_ages(draft: Draft, name: str, section: RegionSection) -> AgeRules | None:
    """Return the rules of a region for minors, or None if it has none."""
    path = ("regions", name)
    if not section.age_bands:
        if not draft.is_whole(*path, "age_bands"):
            return None
        if section.age_missing is not None:
            draft.error((*path, "age_missing"), "has no effect without `age_bands`", "add them, or remove it")
        elif section.age_bands is not None:
            draft.error((*path, "age_bands"), "names no band", "add one, or remove it")
        return None
    # The operator's sentence for the reason comes first.
    later = None if RefusalReason.AGE in draft.config.messages else built_in_sentences("hours")
    bands = tuple(_band(draft, (*path, "age_bands", band), each, later) for band, each in section.age_bands.items())
    if _REFUSE in section.age_bands:
        hint = "it is a value of `age_missing`"
        draft.error((*path, "age_bands", _REFUSE), f"`{_REFUSE}` can't be the name of a band", hint, key=True)
    missing = section.age_missing
    if missing is None:
        message = "needs `age_missing`: the rules for users whose age band no claim names"
        hint = f"write age_missing: {_REFUSE}, {_ADULT}, or the name of a band"
        draft.error((*path, "age_bands"), message, hint, key=True)
    elif missing not in (_ADULT, _REFUSE, *section.age_bands):
        message = f"must be `{_ADULT}`, `{_REFUSE}` or a band, not {quoted(missing)}"
        hint = choice_hint(missing, {_ADULT, _REFUSE, *section.age_bands})
        draft.error((*path, "age_missing"), message, hint)
    rules = AgeRules(bands, None)
    return AgeRules(bands, UNKNOWN_AGE if missing in (None, _REFUSE) else rules.band(missing))


def _band(findings: Findings, path: tuple[str, ...], section: AgeBandSection, later: Sentences | None) -> AgeBand:
    hours = None
    if section.hours is not None and section.timezone is None:
        findings.error((*path, "hours"), "needs `timezone`", "write a name such as Asia/Shanghai")
    elif section.hours is not None and section.timezone is not None:
        hours = Hours(*section.hours, section.timezone)
    elif section.timezone is not None:
        findings.warn((*path, "timezone"), "has no effect without `hours`", "remove it, or add `hours`")
    if section.instructions is not None and not section.instructions.strip():
        findings.error((*path, "instructions"), "is blank", "write the instructions, or remove it")
    instructions = (section.instructions or "").strip()
    if section.repeat is not None and section.repeat < _LEAST_REPEAT_S:
        findings.error((*path, "repeat"), "must be 10m or more", "write 10m")
    if section.use is not None:
        limits = section.use.data()
        if not limits:
            hint = "write session, day, or both, such as {session: 1h, day: 2h}"
            findings.error((*path, "use"), "limits nothing", hint)
        for name, seconds in limits.items():
            check_range(findings, (*path, "use", name), seconds, "1m", "24h")
    as_written = {key: getattr(section, key) for key in _AS_WRITTEN}
    return AgeBand(path[-1], instructions=instructions, hours=hours, repeat_s=section.repeat, later=later, **as_written)


def check_range(findings: Findings, path: KeyPath, seconds: float, least: str, most: str) -> None:
    """Report a time outside a range."""
    bounds = {"1m": _MINUTE_S, "5m": 5 * _MINUTE_S, "12h": 12 * _HOUR_S, "24h": 24 * _HOUR_S}
    if not bounds[least] <= seconds <= bounds[most]:
        near = least if seconds < bounds[least] else most
        findings.error(path, f"must be from {least} to {most}", f"write {near}")


def check_ages(draft: Draft, config: ConfigVersion) -> None:
    """Check the intents of age bands, and whether a claim can name a band."""
    location = config.location.rules
    for region, section in draft.config.regions.items():
        if not section.age_bands:
            continue
        path: KeyPath = ("regions", region, "age_bands")
        claim = location.of(ClaimRules)
        if claim is None or claim.age_band is None or "claim" not in location.signals:
            message = "no claim names a band, so `age_missing` applies to every user"
            draft.warn(path, message, "set `location.claim.age_band`")
        here = {it.name: it for it in config.assistants.values() if region in it.routes}
        known = {intent.name for it in here.values() for intent in it.intents}
        for name, band in section.age_bands.items():
            if band.intent is None or draft.is_broken("assistants"):
                continue
            at = (*path, name, "intent")
            without = sorted(it.name for it in here.values() if all(one.name != band.intent for one in it.intents))
            if band.intent not in known:
                message = f"no assistant of this region has the intent {quoted(band.intent)}"
                draft.error(at, message, choice_hint(band.intent, known) if known else "add it to `intents`")
            elif without:
                message = f"has no effect in {', '.join(without)}: there is no intent {quoted(band.intent)}"
                draft.warn(at, message, "add it to `intents` there: an intent without a route of its own is allowed")
