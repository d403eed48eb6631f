"""Compile the rules of a region for a crisis: `regions.X.crisis`."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from functools import cache
from importlib import resources
from typing import Annotated, Literal

from pydantic import Field

from gateway.config.feature_compiler import FeatureCompiler
from gateway.config.field_types import LanguageTag, Section
from gateway.config.known_texts import helplines
from gateway.config.moderation import check_judge
from gateway.config.problems import KeyPath, choice_hint, quoted
from gateway.config.schema.file import FeatureKey
from gateway.config.schema.location import ProfileSection, RegionSection
from gateway.config.sentences import sentence_tags, sentences_of
from gateway.config.validation import Draft, Findings
from gateway.features.crisis.model import CrisisRules, Helpline
from gateway.model.config_version import ConfigVersion, Region
from gateway.model.deployment import Deployment, moderations_of
from gateway.model.region_text import Sentences
from gateway.model.units import Line, first_names
from providers.moderations.contract import known_categories
from providers.territories import Places, parent, territory_data, territory_name
from providers.value import replace

Text = Annotated[str, Field(min_length=1, max_length=2000)]


class CrisisSection(Section):
    """How a chat is answered whose user may be in a crisis."""

    judges: Annotated[list[str], Field(min_length=1)] = Field(
        description="The deployments that judge what a user writes, asked in order if one fails."
    )
    categories: Annotated[list[Line], Field(min_length=1)] = Field(
        description="The categories of verdicts that are a crisis, such as self-harm."
    )
    then: Literal["stop", "answer"] = Field(
        description="`stop`: the crisis text is the answer. `answer`: it stands before the model's answer."
    )
    on_failure: Literal["open", "closed"] = Field(
        description="Without a verdict: `open` lets the request go on, `closed` gives an error."
    )
    text: Annotated[dict[LanguageTag, Text], Field(min_length=1)] | None = Field(
        None, description="The crisis text by language. Default: two sentences with the number of the territory."
    )
    instructions: Annotated[str, Field(min_length=1, max_length=4000)] | None = Field(
        None, description="With `then: answer`: instructions for the model, in a system message."
    )


CRISIS_KEY = FeatureKey(
    "regions",
    "crisis",
    CrisisSection | None,
    Field(None, description="The help for a user who may be in a crisis. Default: no text is judged for it."),
)


_KINDS = ("crisis", "emergency")
"""The kinds of numbers, the better one first. Only one is named."""
_MOST_NAMED = 10


@cache
def built_in_texts() -> dict[str, str]:
    """Return our crisis text by language, with `NUMBER` in the place of the number."""
    file = resources.files("gateway.features.crisis").joinpath("texts.toml")
    texts: dict[str, str] = tomllib.loads(file.read_text("utf-8"))["texts"]
    return texts


def _with_crisis(draft: Draft, section: RegionSection, region: Region) -> Region:
    crisis = section.of(CrisisSection)
    if crisis is None:
        return region
    rules = _rules(draft, region, crisis, section.profile)
    return replace(region, parts=region.parts.having(rules))


def _rules(findings: Findings, region: Region, section: CrisisSection, profile: ProfileSection | None) -> CrisisRules:
    path: KeyPath = ("regions", region.name, "crisis")
    for key, names in (("judges", section.judges), ("categories", section.categories)):
        for index, name in enumerate(names):
            if name in names[:index]:
                findings.error((*path, key, index), f"{quoted(name)} is listed twice", "remove one of them")
    for language, text in (section.text or {}).items():
        if not text.strip():
            findings.error((*path, "text", language), "is blank", "write the text, or remove it")
    if section.instructions is not None and not section.instructions.strip():
        findings.error((*path, "instructions"), "is blank", "write the instructions, or remove it")
    elif section.instructions is not None and section.then == "stop":
        findings.warn((*path, "instructions"), "has no effect: no model answers", "write `then: answer`, or remove it")
    own = (profile.helplines if profile is not None else None) or {}
    numbers = own if any(kind in own for kind in _KINDS) else None
    known, common = _helplines(region.territories, numbers)
    if section.text is None:
        _check_numbers(findings, path, region.territories, known, common)
    return CrisisRules(
        tuple(section.judges),
        tuple(section.categories),
        section.then,
        section.on_failure == "open",
        Sentences(built_in_texts(), sentence_tags()) if section.text is None else sentences_of(section.text),
        section.text is None,
        known,
        common,
        (section.instructions or "").strip(),
    )


def _helplines(territories: Places, own: Mapping[str, str] | None) -> tuple[dict[str, Helpline], Helpline | None]:
    """Return the number of each territory, and the one that is valid in the whole region.

    The operator's own numbers are those of the whole region. Without them, the built-in ones hold.
    """
    built_in = helplines()
    if own is not None:
        best = _best(own)
        places = built_in if territories.included is None else territories.included
        return (dict.fromkeys(places, best) if best is not None else {}), best
    if territories.included is None:
        return {code: best for code, numbers in built_in.items() if (best := _best(numbers)) is not None}, None
    numbers = {code: built_in.get(code) or built_in.get(parent(code) or "") or {} for code in territories.included}
    shared = set.intersection(*(set(some.items()) for some in numbers.values())) if numbers else set()
    return {code: best for code, some in numbers.items() if (best := _best(some)) is not None}, _best(dict(shared))


def _best(numbers: Mapping[str, str]) -> Helpline | None:
    return next((Helpline(kind, numbers[kind]) for kind in _KINDS if kind in numbers), None)


def _check_numbers(
    findings: Findings, path: KeyPath, territories: Places, known: Collection[str], common: Helpline | None
) -> None:
    """Report territories whose users would get a text without a number."""
    codes = territory_data().names if territories.included is None else territories.included
    without = sorted(code for code in codes if code not in known)
    hint = "write `crisis.text`, or the number in `profile.helplines`: {crisis: …}"
    if without and not (common is not None and territories.included is None):
        names = first_names([f"{territory_name(code)} ({code})" for code in without], _MOST_NAMED)
        findings.error(path, f"no number for a crisis or an emergency is known in {names}", hint)
    elif common is None:
        message = "no number is valid in the whole region, for a user of whom only the region is known"
        findings.error(path, message, hint)


def _check(draft: Draft, config: ConfigVersion) -> None:
    """Check the judges, and whether they have the categories."""
    for name, section in draft.config.regions.items():
        region = config.regions.get(name)
        crisis = section.of(CrisisSection)
        if crisis is None:
            continue
        path: KeyPath = ("regions", name, "crisis")
        judges: list[Deployment] = []
        for index, name_of_judge in enumerate(crisis.judges):
            at = (*path, "judges", index)
            valid = check_judge(draft, at, name_of_judge, region, config.deployments)
            judges += [valid] if valid is not None else []
        for index, category in enumerate(crisis.categories):
            for judge in judges:
                moderations = moderations_of(judge)
                names = known_categories(moderations) if moderations is not None else None
                if names is not None and category not in names:
                    message = f"the judge {quoted(judge.name)} has no category {quoted(category)}"
                    covering = category.partition("/")[0]
                    hint = f"did you mean {quoted(covering)}?" if covering in names else choice_hint(category, names)
                    draft.error((*path, "categories", index), message, hint)
                    break


CRISIS_COMPILER = FeatureCompiler(
    name="crisis",
    keys=(CRISIS_KEY,),
    of_draft=None,
    of_deployment=None,
    of_region=_with_crisis,
    of_assistant=None,
    of_config=None,
    check=_check,
)
