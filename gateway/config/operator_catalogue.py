"""Model facts and prices of the operator, and hints for misspelt provider names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from gateway.config.field_types import CurrencyCode, FormatVersion, Section, Visible
from gateway.config.problems import KeyPath, choice_hint, quoted
from gateway.config.schema.file import schema_of
from gateway.config.validation import Findings, misplaced, read_error
from gateway.config.yaml_document import Source
from gateway.model.units import Day, Line
from providers.adapter import STREAM_OPTIONS, Adapter, AsksForUsage, KnownElsewhere, known_models
from providers.catalogue.models import ModelFacts
from providers.catalogue.names import plain_name
from providers.catalogue.prices import Price, Rates, Retirement, micros_of
from providers.matching.requirements import FEATURES, IMPLIED, PARAMETERS
from providers.registry import Registry

_MOST_TOKENS = 1_000_000_000


def _amount(value: object) -> int:
    micros = micros_of(value)
    if micros is not None:
        return micros
    hint = "write it without quotes" if isinstance(value, str) else "such as 2.50"
    message = "must be an amount for a million tokens: 0 or more, at most a million, with at most six decimals"
    raise PydanticCustomError("config", "{message}", {"message": message, "hint": hint})


def _ascending(above: list[AboveSection]) -> list[AboveSection]:
    bounds = [one.prompt_tokens for one in above]
    if bounds == sorted(set(bounds)):
        return above
    words = {"message": "must name each number of tokens once, in rising order", "hint": "sort them"}
    raise PydanticCustomError("config", "{message}", words)


Amount = Annotated[int, BeforeValidator(_amount, json_schema_input_type=Annotated[float, Field(ge=0, le=1_000_000)])]


_Tokens = Annotated[int, Field(ge=1, le=_MOST_TOKENS)]


class AboveSection(Section):
    """What a request costs whose prompt is long: all of it."""

    prompt_tokens: _Tokens = Field(description="It holds for prompts of more tokens than this.")
    input: Amount = Field(description="A million tokens of the prompt.")
    output: Amount = Field(description="A million tokens of the answer, reasoning among them.")
    cached_input: Amount | None = Field(None, description="A million tokens that the provider had in its cache.")
    cache_write: Amount | None = Field(None, description="A million tokens that the provider wrote to its cache.")


class PriceSection(Section):
    """What the model costs, by your contract. It takes the place of the whole price that is known."""

    input: Amount = Field(description="A million tokens of the prompt.")
    output: Amount = Field(description="A million tokens of the answer, reasoning among them.")
    cached_input: Amount | None = Field(
        None,
        description="A million tokens of the prompt that the provider had in its cache; as other input if left out.",
    )
    cache_write: Amount | None = Field(
        None,
        description="A million tokens of the prompt that the provider wrote to its cache; as other input if left out.",
    )
    currency: CurrencyCode = Field(description="Its ISO 4217 code, such as EUR.")
    as_of: Day = Field(description="The day on which you know it.")
    source: Line = Field("your own catalogue", description="Where it stands, such as the number of a contract.")
    above: Annotated[list[AboveSection], AfterValidator(_ascending)] = Field(
        [], description="Dearer rates of long prompts, in rising order."
    )


class OwnModelSection(Section):
    """Facts of a model, or of all that a pattern means. What is left out stays as it is known."""

    capabilities: list[str] | None = Field(
        None, description="All that it can do, in the words of a deployment's `capabilities`."
    )
    without: list[str] | None = Field(None, description="All parameters that it refuses, such as temperature.")
    context_tokens: _Tokens | None = Field(None, description="The longest prompt.")
    output_tokens: _Tokens | None = Field(None, description="The longest answer.")
    efforts: list[Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]] | None = Field(
        None, description="All reasoning efforts that it knows, the weakest first."
    )
    api: str | None = Field(None, description="Which of the provider's paths it lives on, where there are several.")
    thinking: str | None = Field(None, description="Which of the provider's ways to switch thinking is its own.")
    flags: list[str] | None = Field(None, description="All quirks of it, by the names that its adapter knows.")
    price: PriceSection | None = Field(None, description="What it costs.")
    retires_on: Day | None = Field(None, description="From this day on the vendor doesn't answer for it any more.")


class CatalogueFileSection(Section):
    """A catalogue file of yours."""

    version: FormatVersion = Field(description="The version of this format: 1.")
    models: dict[str, dict[Visible, OwnModelSection]] = Field(
        description="By provider: models by name, or by a pattern such as gpt-6*; the closest one counts."
    )


def catalogue_schema_json() -> str:
    """The JSON Schema (draft 2020-12) of a catalogue file, for editors."""
    return schema_of(CatalogueFileSection, "catalogue.yaml")


def provider_hint(word: str, registry: Registry) -> str:
    """What to write for a provider that isn't: the one that is called so elsewhere, else the nearest, else all."""
    names = {*registry.adapters, *registry.broken}
    known = {
        plain_name(other): name
        for name, adapter in sorted(registry.adapters.items(), reverse=True)
        if isinstance(adapter, KnownElsewhere)
        for other in adapter.known_as
    }
    known |= {plain_name(name): name for name in names}
    # Not what is near such a name: that may well be another vendor's.
    meant = known.get(plain_name(word))
    return choice_hint(word, names) if meant is None else f"did you mean {quoted(meant)}?"


_NOTHING = OwnModelSection()


@dataclass(frozen=True, slots=True)
class OwnModel:
    """What the operator says of a model."""

    section: OwnModelSection = _NOTHING

    @property
    def tells_capabilities(self) -> bool:
        """Whether it says what the model can do."""
        return self.section.capabilities is not None

    def facts(self, known: ModelFacts) -> ModelFacts:
        """The facts of a model, of which this much is known without the operator."""
        own = self.section
        if own is _NOTHING:
            return known
        return replace(
            known,
            features=known.features if own.capabilities is None else frozenset(own.capabilities),
            without=known.without if own.without is None else frozenset(own.without),
            context_tokens=own.context_tokens or known.context_tokens,
            output_tokens=own.output_tokens or known.output_tokens,
            efforts=known.efforts if own.efforts is None else tuple(own.efforts),
            api=known.api if own.api is None else own.api,
            flags=known.flags if own.flags is None else frozenset(own.flags),
            thinking=known.thinking if own.thinking is None else own.thinking,
            known=known.known or own.capabilities is not None,
        )

    def price(self, known: Price | None) -> Price | None:
        """What it costs: the operator's price, else the one that is known."""
        return known if self.section.price is None else _price(self.section.price)

    def retirement(self, known: Retirement | None, model: str) -> Retirement | None:
        """When it is retired: on the operator's day, else on the one that is known."""
        if self.section.retires_on is None:
            return known
        on = self.section.retires_on
        return Retirement((model,), on, None, "your own catalogue", known.instead if known is not None else "")


_UNTOLD = OwnModel()


@dataclass(frozen=True, slots=True)
class OwnCatalogue:
    """By provider, then by name or pattern."""

    models: Mapping[str, Mapping[str, OwnModel]] = field(default_factory=dict)

    def model(self, provider: str, model: str) -> OwnModel:
        """What is said of a model: by its name, else by the longest pattern that means it, else nothing."""
        told = self.models.get(provider, {})
        if model in told:
            return told[model]
        patterns = [pattern for pattern in told if fnmatchcase(model, pattern)]
        return told[max(patterns, key=len)] if patterns else _UNTOLD


def compile_catalogues(sources: Iterable[Source], findings: Findings, registry: Registry) -> OwnCatalogue:
    """What these files say; the mistakes in them are added to the findings, each at its place in its file."""
    models: dict[str, dict[str, OwnModel]] = {}
    first: dict[tuple[str, str], str] = {}
    for source in sources:
        here = Findings(source)
        _check_providers(here, registry)
        for provider, name, section in _sound_entries(here):
            path: KeyPath = ("models", provider, name)
            place = f"{source.file}:{here.line(path)}"
            adapter = registry.adapters.get(provider)
            if (earlier := first.setdefault((provider, name), place)) != place:
                here.error(path, f"is already said in {earlier}", "remove one", key=True)
            if adapter is not None:
                _check_words(here, path, section, adapter)
            models.setdefault(provider, {})[name] = OwnModel(section)
        findings.problems.extend(here.problems)
    return OwnCatalogue(models)


def _sound_entries(findings: Findings) -> list[tuple[str, str, OwnModelSection]]:
    """The entries of a file without those that are out of shape, which are told."""
    values = findings.source.values
    errors = {error.path: error for error in misplaced((), values)}
    try:
        CatalogueFileSection.model_validate(values)
    except ValidationError as rejection:
        for detail in rejection.errors(include_url=False):
            error = read_error(detail, CatalogueFileSection)
            errors.setdefault(error.path, error)
    for error in errors.values():
        findings.error(error.path, error.message, error.hint, key=error.at_key)
    broken = {path[:length] for path in errors for length in (1, 2, 3) if len(path) == length or length == 3}
    models = values.get("models")
    if not isinstance(models, dict) or ("models",) in broken:
        return []
    return [
        (provider, name, OwnModelSection.model_validate(section))
        for provider, entries in models.items()
        if isinstance(entries, dict) and ("models", provider) not in broken
        for name, section in entries.items()
        if ("models", provider, name) not in broken
    ]


def _check_providers(findings: Findings, registry: Registry) -> None:
    models = findings.source.values.get("models")
    for provider in models if isinstance(models, dict) else ():
        if provider not in registry.adapters and provider not in registry.broken:
            hint = provider_hint(provider, registry)
            findings.error(("models", provider), f"unknown provider {quoted(provider)}", hint, key=True)


def _check_words(findings: Findings, path: KeyPath, section: OwnModelSection, adapter: Adapter) -> None:
    """A quirk exists only where the adapter knows it: the words of all its models are those that there are."""
    known = list(known_models(adapter).values())
    parameters = PARAMETERS | IMPLIED.keys() | adapter.capabilities.parameters
    if isinstance(adapter, AsksForUsage) and adapter.asks_for_usage:
        parameters |= {STREAM_OPTIONS}
    lists: tuple[tuple[str, Iterable[str] | None, Iterable[str]], ...] = (
        ("capabilities", section.capabilities, FEATURES | adapter.capabilities.features),
        ("without", section.without, parameters),
        ("flags", section.flags, frozenset[str]().union(*(facts.flags for facts in known))),
    )
    for key, words, there_are in lists:
        for index, word in enumerate(words or ()):
            if word not in there_are:
                hint = choice_hint(word, there_are, none=f"{adapter.name} knows none; remove it")
                findings.error((*path, key, index), f"unknown word {quoted(word)}", hint)
    for key, word, there_are in (
        ("api", section.api or "", {"", *(facts.api for facts in known)}),
        ("thinking", section.thinking or "", {"", *(facts.thinking for facts in known)}),
    ):
        if word not in there_are:
            hint = choice_hint(word, there_are - {""}, none=f"{adapter.name} knows none; remove it")
            findings.error((*path, key), f"unknown word {quoted(word)}", hint)


def _price(section: PriceSection) -> Price:
    return Price(
        _rates(section),
        section.currency,
        section.as_of,
        section.source,
        tuple((dearer.prompt_tokens, _rates(dearer)) for dearer in section.above),
    )


def _rates(section: PriceSection | AboveSection) -> Rates:
    return Rates(section.input, section.output, section.cached_input, section.cache_write)
