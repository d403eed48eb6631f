"""Compile `redactions`, and the key `redact` of regions, deployments and barriers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from gateway.config.extras import check_extra
from gateway.config.feature_compiler import FeatureCompiler
from gateway.config.field_types import Name, Section
from gateway.config.problems import KeyPath, choice_hint, quoted
from gateway.config.schema.file import FeatureKey
from gateway.config.schema.location import RegionSection
from gateway.config.schema.routing import DeploymentSection
from gateway.config.secret_references import file_of
from gateway.config.validation import Draft, Findings, check_reference
from gateway.features.redaction import model
from gateway.features.redaction.policy.finding import PatternRefused, compiled_own
from gateway.features.redaction.policy.forms import countries as known_countries
from gateway.features.redaction.wrapper import Redaction
from gateway.model.config_version import ConfigVersion, Region
from gateway.model.deployment import Deployment
from gateway.model.hand_off import BarrierRule
from gateway.model.section import Sensitive, UnitError
from gateway.model.wrapper import InClear, Wrapper
from providers.value import replace


def _redact(value: object) -> object:
    """Return the name of a redaction, or False."""
    if value is False or isinstance(value, str):
        return value
    raise UnitError("must be the name of a redaction, or false", "write the name of an entry of `redactions`")


Redact = Annotated[Name | Literal[False] | None, BeforeValidator(_redact, json_schema_input_type=Name | Literal[False])]


def _countries(value: object) -> object:
    """Return a list of countries. `"*"` alone is one, too."""
    return [value] if value == "*" else value


Countries = Annotated[list[str], BeforeValidator(_countries, json_schema_input_type=list[str] | Literal["*"])]


class RedactionSection(Section):
    """A named set of rules: what a deployment gets placeholders for in place of the values."""

    kinds: list[str] = Field(
        list(model.DEFAULT_KINDS), description=f"The kinds of values that are found: {', '.join(model.BUILT_IN)}."
    )
    countries: Countries = Field(
        [],
        description="The countries whose identity, tax and insurance numbers (`id`) and whose own ways to write a "
        'phone number are found: ISO codes, or "*" for all that are known.',
    )
    terms: Annotated[list[str], Sensitive("`terms`", is_secret=False)] = Field(
        [], description="Words of the company, in any case, or ${file:/path} of a file with one a line.", repr=False
    )
    patterns: dict[str, str] = Field(
        {},
        description="Own patterns in RE2 syntax by the kind of their placeholders: 2 to 12 capital letters without Q "
        "and Z. A group is then the value.",
    )
    media: model.Media = Field(
        "refuse",
        description="Images, audio, files and URLs of them: `refuse` skips the step, `pass` sends them as they are.",
    )
    arguments: model.Arguments = Field(
        "restore",
        description="Arguments of tool calls in answers: `restore` puts the values back, `keep` leaves placeholders "
        "for tools that look values up themselves.",
    )


REDACTION_KEYS = (
    FeatureKey(
        "",
        "redactions",
        dict[Name, RedactionSection],
        Field({}, description="The rules by which deployments get placeholders in place of values, by name."),
    ),
    FeatureKey(
        "regions",
        "redact",
        Redact,
        Field(
            None,
            description="The redaction of all that its requests send to any deployment, but those with "
            "`redact: false`.",
        ),
    ),
    FeatureKey(
        "deployments",
        "redact",
        Redact,
        Field(
            None,
            description="The redaction of all that it is sent. `false`: it gets the values, also where the region "
            "has one.",
        ),
    ),
)


_MOST_TERMS, _MOST_PATTERNS, _MOST_CHARACTERS = 10_000, 50, 1000
_TERM_LENGTH = range(3, 201)
_PATTERN_NAME = re.compile("[A-PR-Y]{2,12}")
_RESERVED = frozenset({*(kind.upper() for kind in model.BUILT_IN), model.TERM, model.TEXT})


def _compile_redactions(draft: Draft) -> None:
    """Compile the section `redactions` into the draft, for all parts that name one."""
    sections: dict[str, RedactionSection] = draft.config.written("redactions")
    if sections and not check_extra(draft, ("redactions",), "a redaction"):
        return
    document = draft.document
    if document.has_other_terms and document.reads_secrets:
        message = "the words of the files of this version are not kept: those that the files have now are used"
        draft.warn(("redactions",), message, "write the former words into the files, and roll back again")
    owners: dict[str, tuple[str, str]] = {}
    draft.wrappers = {name: Redaction(_redaction(draft, name, section, owners)) for name, section in sections.items()}


def _redaction(
    draft: Draft, name: str, section: RedactionSection, owners: dict[str, tuple[str, str]]
) -> model.RedactionRules:
    path: KeyPath = ("redactions", name)
    for index, kind in enumerate(section.kinds):
        if kind not in model.BUILT_IN:
            draft.error((*path, "kinds", index), f"unknown kind {quoted(kind)}", choice_hint(kind, model.BUILT_IN))
    known = known_countries()
    for index, code in enumerate(section.countries):
        if code != "*" and code not in known:
            message = f"no forms of numbers are known for the country {quoted(code)}"
            draft.error((*path, "countries", index), message, choice_hint(code, known))
    if "id" in section.kinds and not section.countries:
        hint = 'add `countries`: ISO codes, or "*"'
        draft.error((*path, "kinds"), "`id` needs `countries`, whose numbers it finds", hint)
    if section.media == "pass":
        message = "images, audio and files are sent as they are, with all that is in them"
        draft.warn((*path, "media"), message, "leave it out to skip these steps")
    places = known if "*" in section.countries else frozenset(section.countries) & known
    terms = tuple(_terms(draft, path, section))
    if len({*terms}) > _MOST_TERMS:
        draft.error((*path, "terms"), f"has more than {_MOST_TERMS:,} terms", "keep those that matter most")
    patterns = tuple(_patterns(draft, (*path, "patterns"), name, section.patterns, owners))
    kinds = frozenset(section.kinds) & {*model.BUILT_IN}
    return model.rules_of([name], kinds, places, terms[:_MOST_TERMS], patterns, section.media, section.arguments)


def _terms(draft: Draft, path: KeyPath, section: RedactionSection) -> Iterator[str]:
    """Yield the valid terms, also those of files."""
    for index, text in enumerate(section.terms):
        at = (*path, "terms", index)
        if "${" not in text:
            yield from _valid_term(draft, at, text, "the term")
            continue
        name = file_of(text)
        if name is None:
            hint = "write ${file:/path} with the absolute path of a file that has one term a line"
            draft.error(at, "is not a reference to a file", hint)
            continue
        content = draft.document.term_files.get(text)
        if content is None or content.problem:
            # Without secrets, as in a check elsewhere, the file need not be there.
            if draft.document.reads_secrets:
                reason = content.problem if content is not None else f"the file {name} can't be read"
                draft.error(at, reason, "write the file, or remove it here")
            continue
        for number, line in enumerate(content.text.splitlines(), 1):
            if line.strip():
                yield from _valid_term(draft, at, line.strip(), f"line {number} of the file")


def _valid_term(findings: Findings, path: KeyPath, text: str, where: str) -> Iterator[str]:
    term = " ".join(text.split())
    if len(term) in _TERM_LENGTH:
        yield term
    else:
        findings.error(path, f"{where} has {len(term)} characters", "a term has 3 to 200 characters")


def _patterns(
    findings: Findings, path: KeyPath, name: str, written: Mapping[str, str], owners: dict[str, tuple[str, str]]
) -> Iterator[tuple[str, str]]:
    """Yield the valid patterns by their kind. `owners`: the pattern and the redaction of each kind so far."""
    if len(written) > _MOST_PATTERNS:
        findings.error(path, f"has {len(written)} patterns", f"keep at most {_MOST_PATTERNS}")
    for kind, text in written.items():
        if (problem := _problem_of_name(kind)) is not None:
            findings.error((*path, kind), *problem, key=True)
        elif (problem := _problem_of_pattern(text)) is not None:
            findings.error((*path, kind), *problem)
        elif (owner := owners.setdefault(kind, (text, name)))[0] != text:
            message = f"the redaction {quoted(owner[1])} has another pattern of this name"
            findings.error((*path, kind), message, "give one of them another name", key=True)
        else:
            yield kind, text


def _problem_of_name(kind: str) -> tuple[str, str] | None:
    """Return why a name can't be the kind of a placeholder, with a hint, or None if it can."""
    if kind in _RESERVED:
        return f"{quoted(kind)} is a built-in kind", "use another name"
    if not _PATTERN_NAME.fullmatch(kind):
        return (
            f"{quoted(kind)} can't be the kind of a placeholder",
            "use 2 to 12 letters A to Y without Q, such as TICKET",
        )
    return None


def _problem_of_pattern(text: str) -> tuple[str, str] | None:
    """Return why a pattern can't be used, with a hint, or None if it can."""
    if len(text) > _MOST_CHARACTERS:
        return f"has {len(text)} characters", f"write at most {_MOST_CHARACTERS}"
    try:
        pattern = compiled_own(text)
    except PatternRefused as error:
        hint = "RE2 has no look-around, no back-references and few large repetitions"
        return f"RE2 refuses the pattern: {error}", hint
    if pattern.groups > 1:
        return f"has {pattern.groups} groups, and the value is one", "write (?:…) for a group that is not the value"
    # `x*` and `\b` match there, too.
    if any(match.start() == match.end() for text in ("", "a 0-b", "\n") for match in pattern.finditer(text)):
        return "matches the empty text", "require at least one character"
    return None


def _rules_at(draft: Draft, path: KeyPath, name: str | bool | None) -> Wrapper | None:
    """Return the rules that a key `redact` names, or None if it names none or an unknown one."""
    if not isinstance(name, str):
        return None
    check_reference(draft, path, "redactions", name)
    return draft.wrappers.get(name)


def _of_region(draft: Draft, section: RegionSection, region: Region) -> Region:
    redact = section.written("redact")
    if redact is None:
        return region
    rules = _rules_at(draft, ("regions", region.name, "redact"), redact)
    numbers = (section.profile.helplines if section.profile is not None else None) or {}
    if isinstance(rules, Redaction) and numbers:
        rules = Redaction(model.sparing(rules.rules, (re.sub("[^0-9]", "", number) for number in numbers.values())))
    return replace(region, parts=region.parts.having(rules))


def _of_deployment(draft: Draft, section: DeploymentSection, deployment: Deployment) -> Deployment:
    redact = section.written("redact")
    if redact is None:
        return deployment
    rules = _rules_at(draft, ("deployments", deployment.name, "redact"), redact)
    parts = deployment.parts.having(rules).having(InClear() if redact is False else None)
    return replace(deployment, parts=parts)


def _check(draft: Draft, config: ConfigVersion) -> None:
    """Report redactions that nothing uses, and keys of barriers that name none."""
    used = {it.written("redact") for it in (*draft.config.regions.values(), *draft.config.deployments.values())}
    for name, section in draft.config.assistants.items():
        for region, by_intent in section.routes.items():
            for intent, steps in by_intent.items():
                for index, step in enumerate(steps):
                    if isinstance(step, BarrierRule) and step.redact is not None:
                        used.add(step.redact)
                        path = ("assistants", name, "routes", region, intent, index)
                        check_reference(draft, path, "redactions", step.redact)
    is_whole = all(draft.is_whole(section) for section in ("assistants", "regions", "deployments"))
    for name in draft.wrappers:
        if name not in used and is_whole:
            message = "nothing uses this redaction"
            draft.warn(("redactions", name), message, "name it with `redact` in a region or a deployment")


REDACTION_COMPILER = FeatureCompiler(
    name="redaction",
    keys=REDACTION_KEYS,
    of_draft=_compile_redactions,
    of_region=_of_region,
    of_deployment=_of_deployment,
    of_assistant=None,
    of_config=None,
    check=_check,
)
