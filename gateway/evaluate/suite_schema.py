"""Shape of suite, item and bank files, and how they are read with their problems."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from gateway.config.field_types import FormatVersion, Name, Words
from gateway.config.loading import read_config
from gateway.config.problems import ConfigRejected, Problem, choice_hint, quoted
from gateway.config.validation import Findings
from gateway.config.yaml_document import parse_yaml
from gateway.files import open_file
from gateway.model.section import FileForm, UnitError
from gateway.model.units import DURATION_SCHEMA, Line, parse_seconds


def _rising(ends: list[int]) -> list[int]:
    if ends != sorted(ends):
        raise ValueError("must be from the smallest number to the largest")
    return ends


def _duration(value: object) -> str:
    """The text of a duration: a report shows it as the suite has it."""
    parse_seconds(value)
    return str(value)


Percent = Annotated[str, Field(pattern=r"^(100(\.0+)?|[0-9]{1,2}(\.[0-9]+)?)%$", examples=["95%"])]


Duration = Annotated[str, FileForm(_duration, DURATION_SCHEMA)]


Weight = Annotated[int, Field(ge=0, le=100)]


Drawn = Annotated[list[int], Field(min_length=1, max_length=2), AfterValidator(_rising)]


LanguageCode = Literal["zh", "en", "de", "ja", "ko"]


Format = Literal["items", "c-eval", "cmmlu", "safetybench", "xstest", "ifeval", "mgsm", "bank"]


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class SetSection(_Section):
    """One set of items for the performance axis."""

    name: Line = Field(description="Its row in the tables.")
    file: str = Field(description="Where it is; from the suite's directory on. `*` stands for several files.")
    format: Format = Field("items", description="How it is written; `items` is our own form.")
    language: LanguageCode | None = Field(None, description="Of a public set in one language.")
    sample: int | None = Field(None, ge=1, description="Only so many of its items, drawn by the seed.")


class PerformanceSection(_Section):
    """How well it answers."""

    sets: Annotated[list[SetSection], Field(min_length=1)] = Field(description="What is asked.")


class ComplianceSection(_Section):
    """Whether it keeps to what the acceptance standard asks for."""

    bank: str = Field(description="The bank: templates by risk class, from which items are made by the seed.")
    sets: list[SetSection] = Field([], description="Banks of your own besides, or public ones (`bank`, `xstest`).")
    accept: int = Field(1000, ge=0, le=20_000, description="How many answers are generated and judged acceptable.")
    refuse: int = Field(300, ge=0, le=20_000, description="How many items must be refused.")
    answer: int = Field(300, ge=0, le=20_000, description="How many items must not be refused.")
    consistency: int = Field(50, ge=0, le=5_000, description="How many items are asked as a stream and whole.")


class ObjectivesSection(_Section):
    """What a request must meet to count."""

    first_token: Duration = Field("2s", description="The first token no later than that.")
    total: Duration = Field("30s", description="The whole answer no later than that.")


class ScalabilitySection(_Section):
    """How it bears load."""

    rates: Annotated[list[Annotated[float, Field(gt=0, le=10_000)]], Field(min_length=1)] = Field(
        description="Requests per second of each step, rising; arrivals are random and wait for nobody."
    )
    step: Duration = Field("20s", description="How long each step lasts.")
    recovery: Duration = Field("10s", description="How long the first rate is offered again after the last step.")
    prompt: str = Field(description="What is asked.")
    max_tokens: int = Field(128, ge=1, le=8192, description="How long an answer may be.")
    objectives: ObjectivesSection = Field(ObjectivesSection(), description="What a request must meet to count.")
    outstanding: int = Field(2000, ge=1, le=20_000, description="So many unanswered requests end a step early.")


class JudgeSection(_Section):
    """A model that judges what no rule can tell; it lies inside the boundary as well."""

    deployment: Name = Field(description="The deployment that judges; none of the candidates.")
    pairs: int = Field(0, ge=0, le=5_000, description="So many items are compared pair by pair, in both orders.")
    compliance: bool = Field(True, description="Whether it judges what is acceptable, besides the rules.")


class RequirementsSection(_Section):
    """What a candidate must reach, whatever else it can do. What is left out isn't required."""

    approval: bool = Field(False, description="An approval for the region that is valid today.")
    performance: Percent | None = Field(None, description="Right answers, at least.")
    acceptable: Percent | None = Field(None, description="Acceptable answers, at least (the standard: 90%).")
    refused: Percent | None = Field(None, description="Refused of what must be refused, at least (95%).")
    over_refused: Percent | None = Field(None, description="Refused of what must not be, at most (5%).")
    consistent: Percent | None = Field(None, description="Streamed as unstreamed, at least.")
    labels: bool = Field(
        False, description="Every answer bears the region's labels, and can be read back without them."
    )
    goodput_rps: float | None = Field(None, gt=0, description="Requests per second within the objectives, at least.")
    errors: Percent | None = Field(None, description="Failed requests below the breaking step, at most.")


class WeightsSection(_Section):
    """What each axis counts for."""

    performance: Weight = Field(50, description="Its weight.")
    compliance: Weight = Field(25, description="Its weight.")
    scalability: Weight = Field(25, description="Its weight.")


class RunLimitsSection(_Section):
    """How hard each deployment is asked on the axes of performance and compliance."""

    concurrent: int = Field(8, ge=1, le=512, description="Requests at once.")
    rpm: int | None = Field(None, ge=1, le=1_000_000, description="Requests a minute; no limit if left out.")


class SpendSection(_Section):
    """Where an evaluation stops."""

    tokens: int | None = Field(None, ge=1, description="So many tokens, of all candidates together.")
    cost: float | None = Field(None, gt=0, description="So much money, in the currency of `prices`.")


class CandidatePriceSection(_Section):
    """What the tokens of a deployment cost, for a million of them."""

    input: float = Field(ge=0, description="Of prompts.")
    output: float = Field(ge=0, description="Of answers.")


class PricesSection(_Section):
    """What the deployments cost, in one currency, so that they can be held side by side."""

    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = Field(description="An ISO 4217 code such as CNY.")
    deployments: dict[Name, CandidatePriceSection] = Field(description="The prices by deployment.")


class CapacitySection(_Section):
    """How much a simulated candidate bears."""

    concurrent: int | None = Field(None, ge=1, description="Requests at once.")
    rps: float | None = Field(None, gt=0, description="Requests per second.")
    beyond: Literal["slow", "429", "503"] = Field("slow", description="More wait, or are turned away.")


class SimulatedSection(_Section):
    """What a simulated candidate is really like, so that the figures can be held against it."""

    quality: Percent = Field("100%", description="Of the items, or of a judge's verdicts, so many are right.")
    acceptable: Percent = Field("100%", description="Of the generated answers, so many are acceptable.")
    refused: Percent = Field("100%", description="Of what must be refused, so many are.")
    over_refused: Percent = Field("0%", description="Of what must not be refused, so many are all the same.")
    risks: dict[str, Percent] = Field({}, description="Another rate of refusals for a risk class.")
    first_token_ms: float = Field(0, ge=0, description="To the first token, half of the time.")
    first_token_p95_ms: float | None = Field(
        None, gt=0, description="To the first token, nineteen of twenty times; if left out, always the same."
    )
    between_tokens_ms: float = Field(0, ge=0, description="From token to token.")
    capacity: CapacitySection | None = Field(None, description="How much it bears; anything if left out.")
    seed: int = Field(0, description="Another seed answers other items rightly.")


class CallSection(_Section):
    """A call of a tool."""

    name: str | None = Field(None, description="The tool; left out, no tool may be called.")
    arguments: dict[str, object] = Field({}, description="Its arguments, all of them; of a list, any one is right.")


class CheckSection(_Section):
    """One way to tell that an answer is right."""

    choices: list[str] = Field([], description="What may be chosen, for `letter`.")
    letter: Annotated[str, Field(pattern="^[A-J]$")] | None = Field(None, description="The right choice.")
    exact: Words | None = Field(None, description="The text, exactly.")
    same: Words | None = Field(None, description="The same words, whatever their case, width and punctuation.")
    number: float | int | str | None = Field(None, description="The number, or a sum of the names in `draw`.")
    tolerance: float | int = Field(0, ge=0, description="How far off the number may be.")
    pattern: str | None = Field(None, description="A regular expression that must be found.")
    schema_: dict[str, object] | None = Field(None, alias="schema", description="A JSON Schema that it must fit.")
    rules: list[dict[str, object]] | None = Field(None, description="Instructions that it must follow.")
    call: CallSection | None = Field(None, description="The call of a tool that it must make.")
    rubric: str | None = Field(None, description="What a judge is to look for.")


class ShadowCheckSection(CheckSection):
    """What the recorded answers to some prompts must be like."""

    name: Name = Field(description="Its row in the tables.")
    when: str | None = Field(None, description="A regular expression found in the prompt; left out, every one.")


class ShadowScoringSection(_Section):
    """What answers that a shadow recorded are held against; items with the same question are besides."""

    checks: list[ShadowCheckSection] = Field([], description="Each with exactly one check, as an item has.")


class SuiteFile(_Section):
    """An evaluation: what is asked, what must be reached, and what counts for how much."""

    version: FormatVersion = Field(description="1.")
    name: Name = Field(description="The name of the evaluation.")
    seed: int = Field(1, description="What is drawn follows from it.")
    limits: RunLimitsSection = Field(RunLimitsSection(), description="How hard each deployment is asked.")
    spend: SpendSection = Field(SpendSection(), description="Where it stops.")
    prices: PricesSection | None = Field(None, description="What the deployments cost.")
    performance: PerformanceSection | None = Field(None, description="How well it answers; left out, not measured.")
    compliance: ComplianceSection | None = Field(None, description="Whether it keeps to the rules.")
    scalability: ScalabilitySection | None = Field(None, description="How it bears load.")
    shadow: ShadowScoringSection | None = Field(None, description="What recorded answers are held against.")
    judge: JudgeSection | None = Field(None, description="Who judges what no rule can tell.")
    requirements: RequirementsSection = Field(RequirementsSection(), description="What must be reached.")
    weights: WeightsSection = Field(WeightsSection(), description="What counts for how much.")
    simulated: dict[Name, SimulatedSection] = Field({}, description="Of a demo's deployments: what they are like.")


class ItemSection(CheckSection):
    """One question, and exactly one way to tell that its answer is right."""

    id: Name | None = Field(None, description="Its name within its group; its number if left out.")
    ask: str = Field(description="The question.")
    system: str | None = Field(None, description="Instructions before it.")
    tools: list[str] = Field([], description="The tools that it may call, of those of the file.")
    right: str | None = Field(None, description="A right answer, where none follows from the above.")
    draw: dict[str, Drawn] = Field({}, description="Names in braces in `ask`, drawn from so much to so much.")
    count: int = Field(1, ge=1, le=10_000, description="With `draw`: so many items.")


class ToolSection(_Section):
    """A tool that items may offer."""

    description: str = Field(description="What it does.")
    parameters: dict[str, object] = Field(description="Its JSON Schema.")


class ItemFile(_Section):
    """A file of items in one language."""

    version: FormatVersion = Field(description="1.")
    language: LanguageCode = Field(description="The language of its items.")
    tools: dict[Name, ToolSection] = Field({}, description="Tools that items may offer.")
    items: dict[Name, list[ItemSection]] = Field(description="The items by their group.")


class RiskSection(_Section):
    """A risk class."""

    name: str = Field(description="Its name, which stands in templates as {risk}.")
    refuse: bool = Field(False, description="Whether what it names must be refused.")


class BankFile(_Section):
    """Templates from which the items of the compliance axis are made."""

    version: FormatVersion = Field(description="1.")
    language: LanguageCode = Field(description="Its language.")
    risks: dict[Name, RiskSection] = Field(description="The risk classes.")
    topics: dict[Name, list[str]] = Field(description="What must not be refused, by class: {topic} in templates.")
    forms: Words = Field(description="What is asked for: {form} in templates.")
    accept: Words = Field(description="Templates of what is generated, with {risk} and {form}.")
    refuse: Words = Field(description="Templates of what must be refused, with {risk} and {form}.")
    answer: Words = Field(description="Templates of what must not be refused, with {topic} and {form}.")
    unacceptable: list[str] = Field([], description="Words that make an answer unacceptable.")
    refusal: str = Field(description="A refusal, as a simulated candidate says it.")
    reply: str = Field(description="An acceptable answer, as a simulated candidate gives it.")


_AnySection = TypeVar("_AnySection", bound=BaseModel)


FileFindings = Findings


def read_section(path: Path, section: type[_AnySection]) -> tuple[_AnySection, Findings]:
    """The section in a YAML file, and where to note what else is wrong with it; raises ConfigRejected."""
    findings = Findings(parse_yaml(read_config(path), str(path)))
    try:
        value = section.model_validate(findings.source.values)
    except ValidationError as rejection:
        for error in rejection.errors(include_url=False, include_input=False):
            place = tuple(part for part in error["loc"] if part != "[key]")
            if error["type"] == "extra_forbidden":
                known = _keys_at(section, place[:-1])
                findings.error(
                    place, f"unknown key {quoted(str(place[-1]))}", choice_hint(str(place[-1]), known), key=True
                )
            else:
                cause = error.get("ctx", {}).get("error")
                findings.error(place, cause.message if isinstance(cause, UnitError) else _words(error["msg"]))
        raise ConfigRejected(findings.problems) from None
    if findings.rejected:
        raise ConfigRejected(findings.problems)
    return value, findings


def read_text(path: Path) -> str:
    """What stands in a file in UTF-8, with or without a mark in front; raises OSError, UnicodeDecodeError."""
    with io.TextIOWrapper(open_file(path), "utf-8-sig") as file:
        return file.read()


def reject(path: Path, line: int, message: str, hint: str = "") -> ConfigRejected:
    """What to raise for a file that isn't YAML: a mistake in one of its lines."""
    return ConfigRejected([Problem(str(path), line, 1 if line else 0, (), message, hint)])


def _words(message: str) -> str:
    return message[:1].lower() + message[1:]


def _keys_at(section: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    """The keys that a place of the file may have; none where it isn't a plain section."""
    current: type[BaseModel] = section
    for part in path:
        field = current.model_fields.get(part) if isinstance(part, str) else None
        inner = [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
        models = [one for one in inner if isinstance(one, type) and issubclass(one, BaseModel)]
        if not models:
            models = _element_models(inner)
        if not models and field is not None:
            return []
        current = models[0] if models else current
    return [field.alias or name for name, field in current.model_fields.items()]


def _element_models(inner: list[object]) -> list[type[BaseModel]]:
    """The section inside `dict[str, list[Section]]` and its kin."""
    found: list[type[BaseModel]] = []
    for one in inner:
        found += [arg for arg in getattr(one, "__args__", ()) if isinstance(arg, type) and issubclass(arg, BaseModel)]
    return found
