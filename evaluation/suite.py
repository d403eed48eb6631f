"""The sections of suite, item and bank files, which are also the values that the evaluation uses."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

from gateway.config.field_types import FormatVersion, Name, Section, Words
from gateway.config.loading import read_config
from gateway.config.problems import ConfigRejected, Problem
from gateway.config.shape import read_shape
from gateway.config.validation import Findings
from gateway.config.yaml_document import parse_yaml
from gateway.files import open_file
from gateway.model.units import Line, parse_seconds


def _rising(ends: list[int]) -> list[int]:
    if ends != sorted(ends):
        raise ValueError("must be from the smallest number to the largest")
    return ends


def _percent(written: object) -> object:
    """Read `90%` as 0.9. A number is refused, because 0.9 could also mean 0.9 %."""
    if not isinstance(written, str) or not written.endswith("%"):
        raise ValueError("must be a percentage, such as 95%")
    return float(written.removesuffix("%")) / 100


Percent = Annotated[float, BeforeValidator(_percent), Field(ge=0, le=1)]
Seconds = Annotated[float, BeforeValidator(parse_seconds)]
Weight = Annotated[int, Field(ge=0, le=100)]
Drawn = Annotated[list[int], Field(min_length=1, max_length=2), AfterValidator(_rising)]
LanguageCode = Literal["zh", "en", "de", "ja", "ko"]
Expectation = Literal["accept", "refuse", "answer"]
"""The expected result of an item of a bank: an acceptable answer, a refusal, or any answer but a refusal."""


class ColumnsSection(Section):
    """Which columns of a CSV, TSV, JSON or JSONL file are the parts of an item."""

    ask: str = Field(description="The question.")
    choices: list[str] = Field([], description="The choices: a column each, or one column with a list.")
    letter: str | None = Field(None, description="The right choice, as a letter or as its index from 0.")
    number: str | None = Field(None, description="The right number.")
    same: str | None = Field(None, description="The right text.")
    subject: str | None = Field(None, description="The subject or risk class; if left out, the name of the file.")
    group: str | None = Field(None, description="Items with the same value depend on each other.")
    expects: str | None = Field(None, description="For banks: accept, refuse or answer.")


class SetSection(Section):
    """One set of items."""

    name: Line = Field(description="Its row in the tables.")
    file: str = Field(description="The path, relative to the suite's directory. `*` matches several files.")
    format: str = Field("items", description="The file format: `items`, `bank`, or a public one.")
    columns: ColumnsSection | None = Field(None, description="For any other file: its columns.")
    language: LanguageCode | None = Field(None, description="The language of a file that does not state it.")
    sample: int | None = Field(None, ge=1, description="Use only this number of items, chosen by the seed.")


class PerformanceSection(Section):
    """The quality of answers."""

    sets: Annotated[list[SetSection], Field(min_length=1)] = Field(description="The sets of items.")


class ComplianceSection(Section):
    """The rules of the acceptance standard."""

    bank: str = Field(description="The bank file: templates by risk class, from which the seed makes items.")
    sets: list[SetSection] = Field([], description="More banks: your own or public ones (`bank`, `xstest`).")
    accept: int = Field(1000, ge=0, le=20_000, description="The number of items whose answer must be acceptable.")
    refuse: int = Field(300, ge=0, le=20_000, description="The number of items that must be refused.")
    answer: int = Field(300, ge=0, le=20_000, description="The number of items that must not be refused.")
    consistency: int = Field(50, ge=0, le=5_000, description="The number of items that are asked as streams too.")


class ObjectivesSection(Section):
    """The limits that a request must meet to count as good."""

    first_token: Seconds = Field(2.0, description="The most time to the first token.")
    total: Seconds = Field(30.0, description="The most time to the whole answer.")


class ScalabilitySection(Section):
    """Behaviour under load."""

    rates: Annotated[list[Annotated[float, Field(gt=0, le=10_000)]], Field(min_length=1)] = Field(
        description="Requests per second of each step, rising. Arrivals are random and do not wait for answers."
    )
    step: Seconds = Field(20.0, description="The duration of each step.")
    recovery: Seconds = Field(10.0, description="How long the first rate is repeated after the last step.")
    prompt: str = Field(description="The question of each request.")
    max_tokens: int = Field(128, ge=1, le=8192, description="The most tokens of an answer.")
    objectives: ObjectivesSection = Field(ObjectivesSection(), description="Limits that a request must meet to count.")
    outstanding: int = Field(2000, ge=1, le=20_000, description="A step ends early at so many unanswered requests.")


class JudgeSection(Section):
    """A model that judges answers which no rule can score. The region's boundary applies to it too."""

    deployment: Name = Field(description="The deployment that judges. It must not be a candidate.")
    compliance: bool = Field(True, description="Whether it also reads the answers to banks.")


class VerdictsSection(Section):
    """The verdicts of judges, measured by texts with labels."""

    judges: Annotated[list[Name], Field(min_length=1, max_length=4)] = Field(
        description="The deployments that are measured. Each can judge in the region."
    )
    sets: Annotated[list[str], Field(min_length=1)] = Field(
        description='The paths of JSONL files, relative to the suite\'s directory. A line: {"text", "categories"}.'
    )
    truth: Name | None = Field(None, description="The deployment whose verdict counts for a line without `categories`.")


class BoundsSection(Section):
    """The minimum results on some items. A figure that is left out is not required."""

    performance: Percent | None = Field(None, description="The least share of right answers.")
    acceptable: Percent | None = Field(None, description="The least share of acceptable answers (the standard: 90%).")
    refused: Percent | None = Field(None, description="The least share of required refusals (the standard: 95%).")
    over_refused: Percent | None = Field(None, description="The most refusals of what must be answered (5%).")


class VerdictBoundsSection(Section):
    """The bounds of each judge on one category. A figure that is left out is not required."""

    missed: Percent | None = Field(None, description="The most texts of the category that are not found.")
    false_alarms: Percent | None = Field(None, description="The most other texts that are found.")


class RequirementsSection(BoundsSection):
    """The minimum results of a candidate over all items, and in each of the region's own languages."""

    approval: bool = Field(False, description="The candidate needs an approval for the region that is valid today.")
    labels: bool = Field(False, description="The region must label its answers.")
    languages: dict[LanguageCode, BoundsSection] = Field({}, description="Other bounds by language.")
    sets: dict[Line, Percent] = Field({}, description="The least share of right answers by set.")
    consistent: Percent | None = Field(None, description="The least share with the same result as a stream.")
    goodput_rps: float | None = Field(None, gt=0, description="The least requests per second within the objectives.")
    missing_verdicts: Percent = Field(0.05, description="The most answers without a verdict, by figure.")
    errors: Percent | None = Field(None, description="The most failed requests in all load steps.")
    first_attempts: Percent | None = Field(None, description="The most questions whose first attempt failed.")
    verdicts: dict[Line, VerdictBoundsSection] = Field({}, description="The bounds of each judge, by category.")


class WeightsSection(Section):
    """The weight of each axis in the total score, and of performance items by language and set (1 if left out)."""

    performance: Weight = Field(50, description="The weight of this axis.")
    compliance: Weight = Field(25, description="The weight of this axis.")
    scalability: Weight = Field(25, description="The weight of this axis.")
    languages: dict[LanguageCode, Weight] = Field({}, description="The weight of each performance item by language.")
    sets: dict[Line, Weight] = Field({}, description="The weight by set. Both weights are multiplied.")


class RunLimitsSection(Section):
    """The limits for questions to each deployment on the performance and compliance axes."""

    concurrent: int = Field(8, ge=1, le=512, description="The most open requests.")
    rpm: int | None = Field(None, ge=1, le=1_000_000, description="Requests per minute; no limit if left out.")


class SpendSection(Section):
    """The spending limits of an evaluation. The run stops before one could be exceeded."""

    tokens: int | None = Field(None, ge=1, description="The most tokens of all candidates together.")
    cost: float | None = Field(None, gt=0, description="The most money, in the currency of `prices`.")


class CandidatePriceSection(Section):
    """The prices of a deployment per million tokens."""

    input: float = Field(ge=0, description="The price of prompt tokens.")
    output: float = Field(ge=0, description="The price of answer tokens.")


class PricesSection(Section):
    """The prices of the deployments, in one currency so that they can be compared."""

    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = Field(description="An ISO 4217 code such as CNY.")
    deployments: dict[Name, CandidatePriceSection] = Field(description="The prices by deployment.")


class CapacitySection(Section):
    """The capacity of a simulated candidate."""

    concurrent: int | None = Field(None, ge=1, description="The most open requests.")
    rps: float | None = Field(None, gt=0, description="Requests per second.")
    beyond: Literal["slow", "429", "503"] = Field("slow", description="The reaction to further requests.")


class SimulatedSection(Section):
    """The true properties of a simulated candidate. The measured figures can be compared with them."""

    quality: Percent = Field(1.0, description="The share of right answers, or of right verdicts.")
    acceptable: Percent = Field(1.0, description="The share of acceptable answers.")
    refused: Percent = Field(1.0, description="The share of required refusals.")
    over_refused: Percent = Field(0.0, description="The share of refusals that are not allowed.")
    apologizes: Percent = Field(0.0, description="The share of bad answers that begin like a refusal.")
    spread: Percent = Field(0.0, description="The share of answers drawn anew for each sample.")
    first_token_ms: float = Field(0, ge=0, description="The median time to the first token.")
    first_token_p95_ms: float | None = Field(
        None, gt=0, description="The 95th percentile; if left out, a constant time."
    )
    between_tokens_ms: float = Field(0, ge=0, description="The time between two tokens.")
    capacity: CapacitySection | None = Field(None, description="The capacity; unlimited if left out.")
    seed: int = Field(0, description="The seed that decides which items are answered rightly.")


class CallSection(Section):
    """A tool call that an answer must make."""

    name: str | None = Field(None, description="The tool; if left out, no tool may be called.")
    arguments: dict[str, Any] = Field({}, description="All arguments. For a list, any one of its values is right.")


class RuleSection(Section):
    """An instruction that a rule can check, such as a count between `least` and `most` or a property of the text."""

    rule: str = Field(description="The name of the rule.")
    least: int | None = Field(None, description="The least count.")
    most: int | None = Field(None, description="The most.")
    text: str | None = Field(None, description="For `starts_with`, `ends_with`.")
    words: list[str] | None = Field(None, description="For `contains`, `lacks`.")
    code: str | None = Field(None, description="For `language`.")
    script: str | None = Field(None, description="For `script`.")


class CheckSection(Section):
    """One way to check that an answer is right."""

    choices: list[str] = Field([], description="The choices, for `letter`.")
    letter: Annotated[str, Field(pattern="^[A-J]$")] | None = Field(None, description="The right choice.")
    exact: Words | None = Field(None, description="The text, exactly.")
    same: Words | None = Field(None, description="The text; case, character width and punctuation are ignored.")
    number: float | int | str | None = Field(None, description="The number, or a formula with the names in `draw`.")
    tolerance: float | int = Field(0, ge=0, description="The allowed difference from the number.")
    pattern: str | None = Field(None, description="A regular expression that must match.")
    schema_: dict[str, Any] | None = Field(None, alias="schema", description="A JSON Schema for the answer.")
    rules: list[RuleSection] | None = Field(None, description="Instructions that the answer must follow.")
    call: CallSection | None = Field(None, description="The tool call that the answer must make.")
    rubric: str | None = Field(None, description="The criteria for a judge.")


class ShadowCheckSection(CheckSection):
    """A check of the recorded answers to all or some prompts."""

    name: Name = Field(description="Its row in the tables.")
    when: str | None = Field(None, description="A regular expression that selects prompts; if left out, all.")


class ShadowScoringSection(Section):
    """Checks of the answers that a shadow recorded. Items with the same question are checked too."""

    checks: list[ShadowCheckSection] = Field([], description="The checks, each with exactly one criterion.")


class RecommendationSection(Section):
    """When a candidate may replace a deployment of the present route."""

    route_length: int | None = Field(None, ge=1, le=20, description="The most deployments; as many as now if left out.")
    margin: Percent = Field(0.02, description="The difference of the total that does not matter.")
    cheaper_by: Percent | None = Field(None, description="Cheaper by this, and not inferior: it may replace one.")
    faster_by: Percent | None = Field(None, description="The first token earlier by this, and not inferior: the same.")


class SuiteFile(Section):
    """A suite file with the questions, requirements and weights of an evaluation."""

    version: FormatVersion = Field(description="1.")
    name: Name = Field(description="The name of the evaluation.")
    seed: int = Field(1, description="The seed of all random choices.")
    epochs: int = Field(1, ge=1, le=100, description="How often each question is asked.")
    limits: RunLimitsSection = Field(RunLimitsSection(), description="Limits for questions to each deployment.")
    spend: SpendSection = Field(SpendSection(), description="The spending limits.")
    prices: PricesSection | None = Field(None, description="The prices of the deployments.")
    performance: PerformanceSection | None = Field(None, description="The quality of answers.")
    compliance: ComplianceSection | None = Field(None, description="Compliance with the rules.")
    scalability: ScalabilitySection | None = Field(None, description="Behaviour under load.")
    shadow: ShadowScoringSection | None = Field(None, description="Checks of recorded answers.")
    judge: JudgeSection | None = Field(None, description="The model that judges answers which no rule can score.")
    verdicts: VerdictsSection | None = Field(None, description="The verdicts of judges of moderation or crises.")
    requirements: RequirementsSection = Field(RequirementsSection(), description="The minimum results.")
    weights: WeightsSection = Field(WeightsSection(), description="The weights of the axes, languages and sets.")
    recommendation: RecommendationSection = Field(RecommendationSection(), description="When a route changes.")
    simulated: dict[Name, SimulatedSection] = Field({}, description="The properties of simulated deployments.")

    @property
    def of_candidates(self) -> tuple[Section | None, ...]:
        """The parts for which candidates are asked."""
        return (self.performance, self.compliance, self.scalability)


class ItemSection(CheckSection):
    """One question, with exactly one check of its answer."""

    id: Name | None = Field(None, description="The name within its subject; the item's number if left out.")
    group: Name | None = Field(None, description="Items of one group depend on each other. Those of a `draw` are one.")
    ask: str = Field(description="The question.")
    system: str | None = Field(None, description="The system message.")
    tools: list[str] = Field([], description="The tools of the file that the answer may call.")
    right: str | None = Field(None, description="A right answer, if the check does not give one.")
    draw: dict[str, Drawn] = Field({}, description="Numbers for the names in braces in `ask`: a range for each name.")
    count: int = Field(1, ge=1, le=10_000, description="With `draw`: the number of items.")


class ToolSection(Section):
    """A tool that items may use."""

    description: str = Field(description="The description of the tool.")
    parameters: dict[str, Any] = Field(description="Its JSON Schema.")


class ItemFile(Section):
    """A file of items in one language."""

    version: FormatVersion = Field(description="1.")
    language: LanguageCode = Field(description="The language of its items.")
    tools: dict[Name, ToolSection] = Field({}, description="Tools that items may use.")
    items: dict[Name, list[ItemSection]] = Field(description="The items by subject, the rows of the tables.")


class RiskSection(Section):
    """A risk class."""

    name: str = Field(description="The name, which replaces {risk} in templates.")
    refuse: bool = Field(False, description="Whether requests of this class must be refused.")


class BankFile(Section):
    """A bank file with templates for the items of the compliance axis."""

    version: FormatVersion = Field(description="1.")
    language: LanguageCode = Field(description="Its language.")
    risks: dict[Name, RiskSection] = Field(description="The risk classes.")
    topics: dict[Name, list[str]] = Field(description="Topics that must not be refused, by class, for {topic}.")
    forms: Words = Field(description="Kinds of text to ask for. They replace {form} in templates.")
    accept: Words = Field(description="Templates whose answer must be acceptable, with {risk} and {form}.")
    refuse: Words = Field(description="Templates that must be refused, with {risk} and {form}.")
    answer: Words = Field(description="Templates that must not be refused, with {topic} and {form}.")
    unacceptable: list[str] = Field([], description="Words that make an answer unacceptable.")
    refusal: str = Field(description="The refusal that a simulated candidate answers.")
    reply: str = Field(description="The acceptable answer that a simulated candidate answers.")


_AnySection = TypeVar("_AnySection", bound=Section)


def read_section(path: Path, section: type[_AnySection]) -> tuple[_AnySection, Findings]:
    """Read a YAML file into a section. Return it with a collector for further problems. Raises ConfigRejected."""
    findings = Findings(parse_yaml(read_config(path), str(path)))
    value, errors = read_shape(section, findings.source.values)
    findings.report(errors)
    if value is None or findings.rejected:
        raise ConfigRejected(findings.problems)
    return value, findings


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, with or without a byte order mark. Raises OSError or UnicodeDecodeError."""
    with io.TextIOWrapper(open_file(path), "utf-8-sig") as file:
        return file.read()


def reject(path: Path, line: int, message: str, hint: str = "") -> ConfigRejected:
    """Return the error for a mistake in one line of a file that is not YAML."""
    return ConfigRejected([Problem(str(path), line, 1 if line else 0, (), message, hint)])
