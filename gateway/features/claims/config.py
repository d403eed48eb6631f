"""Compile what the assistants of a region must not claim: `regions.X.claims`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from gateway.config.feature_compiler import FeatureCompiler
from gateway.config.field_types import Section
from gateway.config.problems import KeyPath, quoted
from gateway.config.schema.file import FeatureKey
from gateway.config.schema.location import RegionSection
from gateway.config.validation import Draft
from gateway.model.config_version import ConfigVersion, Region
from gateway.model.deployment import moderations_of
from gateway.model.location import Location
from gateway.model.parts import RegionPart
from gateway.model.region_text import Locale
from providers.moderations.contract import known_categories
from providers.value import Value, replace

Claim = Literal["health-licence"]
_LINES: Mapping[Claim, str] = {
    "health-licence": "Never state or imply that you, or a person who gives these answers, hold a licence or "
    "certificate of a health profession. Never use its titles or letters for yourself, such as doctor, nurse, "
    "therapist or M.D."
}
"""The instruction of the profile, by claim."""


class ForbiddenClaims(RegionPart, Value, frozen=True):
    """The rule of a region: its profile instructs the model, and a verdict with such a category flags an answer.

    The claims are names of categories of verdicts too. Without a profile, nothing is instructed.
    """

    names: tuple[str, ...]
    is_instructed: bool

    plan_name: ClassVar[str] = "claims"

    def report(self, region: Region) -> Iterator[tuple[str, str]]:
        yield "claims", str(self)

    def explained(self, location: Location) -> Iterator[tuple[str, object, str]]:
        yield "claims", {"forbidden": list(self.names)}, str(self)

    def forbidden_claims(self) -> frozenset[str]:
        return frozenset(self.names)

    def __str__(self) -> str:
        return f"forbidden: {', '.join(self.names)}{'; in the profile' if self.is_instructed else ''}"


class ClaimsSection(Section):
    """The claims about themselves that its assistants must not make."""

    forbidden: Annotated[list[Claim], Field(min_length=1)] = Field(
        description="The claims: `health-licence`, that a person with a licence of a health profession answers."
    )


CLAIMS_KEY = FeatureKey(
    "regions",
    "claims",
    ClaimsSection | None,
    Field(None, description="The claims that its assistants must not make. Default: no rule."),
)


def _with_claims(draft: Draft, section: RegionSection, region: Region) -> Region:
    claims = section.of(ClaimsSection)
    if claims is None:
        return region
    for index, name in enumerate(claims.forbidden):
        if name in claims.forbidden[:index]:
            path = ("regions", region.name, "claims", "forbidden", index)
            draft.error(path, f"{quoted(name)} is listed twice", "remove one of them")
    texts = region.texts
    if texts is not None:
        locales = {name: _instructed(locale, claims.forbidden) for name, locale in texts.locales.items()}
        texts = replace(texts, locales=locales, default_locale=next(iter(locales.values())))
    part = ForbiddenClaims(tuple(claims.forbidden), section.profile is not None)
    return replace(region, texts=texts, parts=region.parts.having(part))


def _instructed(locale: Locale, names: list[Claim]) -> Locale:
    """Return a locale whose profile, if it has one, instructs the model not to make these claims."""
    if locale.profile is None:
        return locale
    lines = (*locale.profile.lines, *(("claims", _LINES[name]) for name in names))
    return replace(locale, profile=replace(locale.profile, lines=lines))


def _check(draft: Draft, config: ConfigVersion) -> None:
    """Report a rule without effect, and judges of answers that cannot find the claims."""
    for region in config.regions.values():
        claims, rules = region.parts.of(ForbiddenClaims), config.moderation.get(region.name)
        if claims is None:
            continue
        path: KeyPath = ("regions", region.name, "claims")
        judges = rules.output if rules is not None else ()
        known = {it.name: known_categories(one) for it in judges if (one := moderations_of(it)) is not None}
        own = frozenset(claims.names)
        unable = [name for name, categories in known.items() if categories is not None and not own <= categories]
        if not claims.is_instructed and len(unable) == len(judges):
            message = "has no effect: the region has no profile, and no judge of answers that finds it"
            draft.error(path, message, "add `profile`, or a webhook of your own as judge in `moderation.output`")
        elif unable:
            message = f"{', '.join(map(quoted, unable))} judges answers, and has no category for these claims"
            draft.warn(path, message, "name first a webhook of your own whose verdicts have the category")


CLAIMS_COMPILER = FeatureCompiler(
    name="claims",
    keys=(CLAIMS_KEY,),
    of_draft=None,
    of_region=_with_claims,
    of_deployment=None,
    of_assistant=None,
    of_config=None,
    check=_check,
)
