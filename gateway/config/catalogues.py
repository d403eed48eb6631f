"""The operator's own catalogue files -> what they say of models, which wins over what we know, field by field.

They say nothing of sites: where a site stores and processes is its vendor's promise, and no operator's to make.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from fnmatch import fnmatchcase

from pydantic import ValidationError

from gateway.config.catalogue_schema import AboveSection, CatalogueFileSection, OwnModelSection, PriceSection
from gateway.config.findings import Findings
from gateway.config.problems import Path, choice_hint, quoted
from gateway.config.provider_hints import provider_hint
from gateway.config.shape_errors import read_error
from gateway.config.validate import misplaced
from gateway.config.yaml_tree import Source
from providers.adapter import STREAM_OPTIONS, Adapter, AsksForUsage, known_models
from providers.catalogue.models import ModelFacts
from providers.catalogue.offers import Retirement
from providers.fitting import FEATURES, IMPLIED, PARAMETERS
from providers.pricing import Price, Rates
from providers.registry import Registry

__all__ = ["OwnCatalogue", "OwnModel", "compile_catalogues"]

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
        on = date.fromisoformat(self.section.retires_on)
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
            path: Path = ("models", provider, name)
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


def _check_words(findings: Findings, path: Path, section: OwnModelSection, adapter: Adapter) -> None:
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
        date.fromisoformat(section.as_of),
        section.source,
        tuple((dearer.prompt_tokens, _rates(dearer)) for dearer in section.above),
    )


def _rates(section: PriceSection | AboveSection) -> Rates:
    return Rates(section.input, section.output, section.cached_input, section.cache_write)
