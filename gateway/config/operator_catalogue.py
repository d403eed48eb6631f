"""Compile the operator's own catalogue files (model facts and prices), and suggest names for misspelt providers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gateway.config.field_types import CurrencyCode, FormatVersion, Section, TimeZone, Visible
from gateway.config.problems import KeyPath, choice_hint, nearest, quoted
from gateway.config.schema.file import schema_of
from gateway.config.shape import misplaced, read_shape, remove, valid_part
from gateway.config.validation import Draft, Findings
from gateway.model.section import UnitError
from gateway.model.units import Day, Line
from providers.adapter import STREAM_OPTIONS, Adapter, AsksForUsage, HasModelsElsewhere, KnownElsewhere, known_models
from providers.catalogue.models import ModelFacts, best_match, plain_name
from providers.catalogue.prices import (
    NO_CURRENCY,
    SEARCH,
    AudioPrice,
    Price,
    Rates,
    Retirement,
    free_price,
    micros_of,
    price_series,
)
from providers.json_values import read_map
from providers.matching.requirements import FEATURES, IMPLIED, PARAMETERS, moves_data
from providers.registry import Registry
from providers.value import Value, replace

_MAX_TOKENS = 1_000_000_000
_OWN = "your own catalogue"
_Number = Annotated[float, Field(ge=0, le=1_000_000)]
_Tokens = Annotated[int, Field(ge=1, le=_MAX_TOKENS)]


def _amount(value: object, per: str = "a million tokens") -> int:
    micros = micros_of(value)
    if micros is not None:
        return micros
    hint = "write it without quotes" if isinstance(value, str) else "such as 2.50"
    raise UnitError(f"must be an amount for {per}: 0 or more, at most a million, with at most six decimals", hint)


def _prices(value: object) -> object:
    """Read a single price as a list with one item."""
    return value if value is None else [_price_or_zero(one) for one in (value if isinstance(value, list) else [value])]


def _price_or_zero(value: object) -> object:
    """Read the short form `price: 0` as the price of a model that costs nothing."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value == 0:
            return _FREE
        hint = "write {input: …, output: …, currency: …, as_of: …}; only the price 0 needs no currency"
        raise UnitError("must be a price with its currency, or 0", hint)
    return value


def _ascending(above: list[AboveSection]) -> list[AboveSection]:
    bounds = [one.prompt_tokens for one in above]
    if bounds == sorted(set(bounds)):
        return above
    raise UnitError("must name each number of tokens once, in ascending order", "sort them")


Amount = Annotated[int, BeforeValidator(_amount, json_schema_input_type=_Number)]
_Fee = Annotated[int, BeforeValidator(lambda value: _amount(value, "one call"), json_schema_input_type=_Number)]


class _RatesSection(Section):
    input: Amount = Field(description="Price of a million prompt tokens.")
    output: Amount = Field(description="Price of a million answer tokens.")
    cached_input: Amount | None = Field(
        None, description="Price of a million prompt tokens read from the provider's cache. Default: `input`."
    )
    cache_write: Amount | None = Field(
        None, description="Price of a million prompt tokens written to the provider's cache. Default: `input`."
    )
    cache_write_1h: Amount | None = Field(
        None, description="Price of a million prompt tokens written to it for an hour. Default: `cache_write`."
    )
    reasoning: Amount | None = Field(
        None, description="Price of a million answer tokens of the model's reasoning. Default: `output`."
    )
    decisions: Amount | None = Field(
        None,
        description="Price of a million input tokens of decisions; their output is free. Default: the other rates.",
    )


class AboveSection(_RatesSection):
    """The rates of a request with a long prompt. They apply to the whole request."""

    prompt_tokens: _Tokens = Field(description="The rates apply to prompts with more tokens than this.")


class PriceSection(_RatesSection):
    """A price of the model in your contract. It replaces the whole known price, from `valid_from` on."""

    currency: CurrencyCode = Field(description="The ISO 4217 code, such as EUR.")
    as_of: Day = Field(description="The day on which this price was known.")
    source: Line = Field(_OWN, description="The source, such as the number of a contract.")
    above: Annotated[list[AboveSection], AfterValidator(_ascending)] = Field(
        [], description="Higher rates of long prompts, in ascending order of tokens."
    )
    tool_calls: dict[Visible, _Fee] = Field(
        {},
        description="Price of one call of each tool that the provider runs, by the request field that switches it on, "
        "such as {web_search: 0.01}.",
    )
    search: _Fee | None = Field(
        None,
        description="Price of one search unit of a rerank, as Cohere charges: a query with at most 100 documents, of "
        "which one above 500 tokens counts for each piece.",
    )
    minute: Amount | None = Field(None, description="Price of a minute of audio that is written down.")
    least_seconds: Annotated[int, Field(ge=0, le=3600)] = Field(
        0, description="The least length of audio that a call is charged for, in seconds."
    )
    round: Literal["second"] | None = Field(
        None, description="second: the length is rounded up to whole seconds. Default: it is exact."
    )
    characters: Amount | None = Field(None, description="Price of a million characters that are spoken.")
    counts: Literal["characters", "bytes", "wide"] = Field(
        "characters",
        description="How these are counted: `bytes` of UTF-8, or `wide`, where Chinese, Japanese and Korean ones count "
        "2.",
    )
    audio_input: Amount | None = Field(None, description="Price of a million tokens of audio in. Default: `input`.")
    audio_output: Amount | None = Field(None, description="Price of a million tokens of audio out. Default: `output`.")
    valid_from: Day | None = Field(
        None,
        description="The first day on which it applies, from 00:00 in `timezone`. Until then, an earlier price of this "
        "list or the known price applies. Default: it always applies.",
    )
    ends: Day | None = Field(
        None,
        description="The first day on which it no longer applies. `gateway check` reports it, and it is used until a "
        "later one is known. Default: no day is known.",
    )
    timezone: TimeZone = Field(
        "UTC", description="The time zone (IANA) of that day. With `usage.timezone`, it changes when budgets do."
    )

    @model_validator(mode="before")
    @classmethod
    def _without_tokens(cls, value: object) -> object:
        """Read a price of minutes, characters or decisions that names no other tokens: these cost nothing."""
        if isinstance(value, dict) and not value.keys().isdisjoint(("minute", "characters", "decisions")):
            return {"input": 0, "output": 0, **value}
        return value

    @property
    def audio(self) -> AudioPrice | None:
        """The price of its audio, or None."""
        amounts = self.minute, self.characters, self.audio_input, self.audio_output
        if all(amount is None for amount in amounts):
            return None
        least_ms, is_rounded = self.least_seconds * 1000, self.round is not None
        return AudioPrice(amounts[0], least_ms, is_rounded, amounts[1], self.counts, *amounts[2:])


_FREE = PriceSection.model_construct(input=0, output=0, currency=NO_CURRENCY, as_of=date.min)
"""The value of `price: 0`. Its day is not used."""
_OnePrice = PriceSection | Literal[0]


class OwnModelSection(Section):
    """Facts about a model, or about all models of a pattern. Omitted facts keep their known values."""

    capabilities: list[str] | None = Field(
        None, description="All its capabilities, with the names of a deployment's `capabilities`."
    )
    without: list[str] | None = Field(None, description="All parameters that it rejects, such as temperature.")
    context_tokens: _Tokens | None = Field(None, description="Maximum tokens of the prompt.")
    output_tokens: _Tokens | None = Field(None, description="Maximum tokens of the answer.")
    efforts: list[Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]] | None = Field(
        None, description="All its reasoning efforts, the weakest first."
    )
    api: str | None = Field(None, description="The API of the provider that serves it, if there are several.")
    thinking: str | None = Field(None, description="The provider's method to switch thinking that it uses.")
    flags: list[str] | None = Field(None, description="All its flags, with the names that its adapter defines.")
    price: Annotated[
        Annotated[list[PriceSection], Field(min_length=1)] | None,
        BeforeValidator(_prices, json_schema_input_type=_OnePrice | list[_OnePrice] | None),
    ] = Field(
        None,
        description="Its price, or a list of prices with different `valid_from`. 0: it costs nothing, in any currency.",
    )
    announced_on: Day | None = Field(None, description="The day on which the vendor announced its end.")
    dearer_on: Day | None = Field(None, description="The day from which on it costs more.")
    redirects_on: Day | None = Field(None, description="The day from which on another model answers under its name.")
    redirects_to: Visible | None = Field(None, description="The model that answers then.")
    retires_on: Day | None = Field(None, description="The first day on which the vendor no longer serves it.")

    @property
    def is_listed(self) -> bool:
        """Whether the operator has an entry for the model."""
        return self is not _NO_ENTRY

    def facts_of(self, known: ModelFacts) -> ModelFacts:
        """Return the facts of a model: the known ones with the operator's changes."""
        if not self.is_listed:
            return known
        return replace(
            known,
            features=known.features if self.capabilities is None else frozenset(self.capabilities),
            without=known.without if self.without is None else frozenset(self.without),
            context_tokens=self.context_tokens or known.context_tokens,
            output_tokens=self.output_tokens or known.output_tokens,
            efforts=known.efforts if self.efforts is None else tuple(self.efforts),
            api=known.api if self.api is None else self.api,
            flags=known.flags if self.flags is None else frozenset(self.flags),
            thinking=known.thinking if self.thinking is None else self.thinking,
            known=known.known or self.capabilities is not None,
        )

    def prices_after(self, known: Price | None) -> Price | None:
        """Return the operator's prices, and the known one until the first of them."""
        return price_series(map(_price, self.price or ()), known)

    def retirement_of(self, model: str, known: Iterable[Retirement]) -> Retirement:
        """Return the stages of its end that the operator states, with the replacement that the vendor names."""
        instead = next((row.instead for row in known if row.instead), "")
        return Retirement(
            (model,), self.retires_on, None, _OWN, instead, announced=self.announced_on, dearer=self.dearer_on,
            redirects=self.redirects_on, to=self.redirects_to or "",
        )  # fmt: skip


class CatalogueFileSection(Section):
    """The operator's own catalogue file."""

    version: FormatVersion = Field(description="The version of this format: 1.")
    models: dict[str, dict[Visible, OwnModelSection]] = Field(
        description="By provider: models by name or pattern, such as gpt-6*. The most specific entry applies."
    )


def catalogue_schema_json() -> str:
    """Return the JSON Schema (draft 2020-12) of a catalogue file, for editors."""
    return schema_of(CatalogueFileSection, "catalogue.yaml")


def provider_hint(word: str, registry: Registry) -> str:
    """Return the hint for an unknown provider: the name that was probably meant, else all names."""
    meant = meant_provider(word, registry)
    return (
        choice_hint(word, {*registry.adapters, *registry.broken}) if meant is None else f"did you mean {quoted(meant)}?"
    )


def meant_provider(word: str, registry: Registry) -> str | None:
    """Return the name of the same provider here, else the nearest name, or None if no name is similar."""
    # A name that is only similar to another gateway's name may belong to another vendor, so it is not suggested.
    return _provider_named(word, registry) or nearest(word, {*registry.adapters, *registry.broken})


def is_name_of(word: str, provider: str, registry: Registry) -> bool:
    """Return whether the word is a name of the provider, here or elsewhere."""
    return _provider_named(word, registry) == provider


def provider_of_model(provider: str, model: str, registry: Registry) -> str:
    """Return the provider in whose wire format the vendor serves the model: the same one, for most models."""
    adapter: object = registry.adapters.get(provider)
    patterns = adapter.models_elsewhere.items() if isinstance(adapter, HasModelsElsewhere) else ()
    return next((other for pattern, other in patterns if fnmatchcase(model.lower(), pattern)), provider)


def _provider_named(word: str, registry: Registry) -> str | None:
    """Return the provider with this name, its own or one that others use."""
    if word in registry.adapters:  # most words are; the names of all providers take long to collect
        return word
    known = {
        plain_name(other): name
        for name, adapter in sorted(registry.adapters.items(), reverse=True)
        if isinstance(adapter, KnownElsewhere)
        for other in adapter.known_as
    }
    own = {plain_name(name): name for name in (*registry.adapters, *registry.broken)}
    return (known | own).get(plain_name(word))


_NO_ENTRY = OwnModelSection()


class OwnCatalogue(Value, frozen=True):
    """The operator's entries by provider, then by name or pattern."""

    models: Mapping[str, Mapping[str, OwnModelSection]] = {}

    def model(self, provider: str, model: str) -> OwnModelSection:
        """Return the entry of the model: by its name, else by the longest matching pattern, else an empty one."""
        entries = self.models.get(provider, {})
        found = best_match(entries, model)
        return entries[found] if found is not None else _NO_ENTRY


def compile_catalogues(draft: Draft, registry: Registry) -> OwnCatalogue:
    """Return the entries of the files. Their errors are added to the draft, with the positions in the files."""
    files = draft.document.catalogues
    for key, reason in files.unread:
        draft.error(key, reason)
    draft.problems.extend(files.texts)
    models: dict[str, dict[str, OwnModelSection]] = {}
    first: dict[tuple[str, str], str] = {}
    for source in files.sources:
        here = Findings(source)
        for provider in read_map(source.values, "models"):
            if provider not in registry.adapters and provider not in registry.broken:
                hint = provider_hint(provider, registry)
                here.error(("models", provider), f"unknown provider {quoted(provider)}", hint, key=True)
        for provider, name, section in _valid_entries(here):
            path: KeyPath = ("models", provider, name)
            position = f"{source.file}:{here.line(path)}"
            adapter = registry.adapters.get(provider)
            if (earlier := first.setdefault((provider, name), position)) != position:
                here.error(path, f"is already defined in {earlier}", "remove one", key=True)
            if adapter is not None:
                _check_words(here, path, section, adapter)
            _check_days(here, path, section.price or ())
            _check_stages(here, path, section)
            for index, price in enumerate(section.price or ()):
                for tool in price.tool_calls:
                    warn_of_fees(here, (*path, "price", index, "tool_calls", tool), [tool])
            models.setdefault(provider, {})[name] = section
        draft.problems.extend(here.problems)
    return OwnCatalogue(models)


def _valid_entries(findings: Findings) -> list[tuple[str, str, OwnModelSection]]:
    """Return the entries of a file without their wrong facts, which are reported."""
    values = findings.source.values
    file, errors = read_shape(CatalogueFileSection, values, misplaced((), values))
    if file is None or errors:
        findings.report(errors)
        required = {"version": 1, "models": {}}
        file, _ = valid_part(
            CatalogueFileSection, required, values, errors, lambda values, path: remove(values, path[:4])
        )
    return [(provider, name, section) for provider, own in file.models.items() for name, section in own.items()]


def _check_words(findings: Findings, path: KeyPath, section: OwnModelSection, adapter: Adapter) -> None:
    """Report unknown names. The known flags, APIs and thinking methods are the ones of the adapter's models."""
    known = list(known_models(adapter).values())
    parameters = PARAMETERS | IMPLIED.keys() | adapter.capabilities.parameters
    if isinstance(adapter, AsksForUsage) and adapter.asks_for_usage:
        parameters |= {STREAM_OPTIONS}
    lists: tuple[tuple[str, Iterable[str] | None, Iterable[str]], ...] = (
        ("capabilities", section.capabilities, FEATURES | adapter.capabilities.features),
        ("without", section.without, parameters),
        ("flags", section.flags, frozenset[str]().union(*(facts.flags for facts in known))),
    )
    for key, words, allowed in lists:
        for index, word in enumerate(words or ()):
            if word not in allowed:
                hint = choice_hint(word, allowed, none=f"{adapter.name} has none; remove it")
                findings.error((*path, key, index), f"unknown value {quoted(word)}", hint)
    for key, word, allowed in (
        ("api", section.api or "", {"", *(facts.api for facts in known)}),
        ("thinking", section.thinking or "", {"", *(facts.thinking for facts in known)}),
    ):
        if word not in allowed:
            hint = choice_hint(word, allowed - {""}, none=f"{adapter.name} has none; remove it")
            findings.error((*path, key), f"unknown value {quoted(word)}", hint)


def warn_of_fees(findings: Findings, path: KeyPath, tools: Iterable[str]) -> None:
    """Warn of tools that no known field of a request switches on, because their fee is never charged."""
    for tool in tools:
        if tool not in moves_data() and tool != SEARCH:
            message = f"its fee for {quoted(tool)} is never charged, because no known request field has this name"
            near = nearest(tool, moves_data())
            hint = f"did you mean {quoted(near)}?" if near is not None else "such as web_search_options"
            findings.warn(path, message, hint)


def _check_days(findings: Findings, path: KeyPath, prices: Sequence[PriceSection]) -> None:
    """Report prices that apply from the same day on."""
    days = [price.valid_from for price in prices]
    for index, day in enumerate(days):
        if day in days[:index]:
            start = "has no `valid_from`" if day is None else f"applies from {day} on"
            message = f"{start}, as price {days.index(day) + 1} of this list"
            findings.error((*path, "price", index), message, "give each price another day, or remove one")


def _check_stages(findings: Findings, path: KeyPath, section: OwnModelSection) -> None:
    """Report days of its end in another order than they follow each other, and a redirect without its model."""
    keys = ("announced_on", "dearer_on", "redirects_on", "retires_on")
    for before, after in pairwise([key for key in keys if getattr(section, key) is not None]):
        first, then = getattr(section, before), getattr(section, after)
        if then < first:
            findings.error((*path, after), f"{then} is before `{before}`, {first}", "change one of the days")
    if (section.redirects_on is None) != (section.redirects_to is None):
        key, other = ("redirects_on", "redirects_to")[:: 1 if section.redirects_to is None else -1]
        findings.error((*path, key), f"needs `{other}`", "write both")


def _price(section: PriceSection) -> Price:
    if section is _FREE:
        return free_price(_OWN)
    searches = {} if section.search is None else {SEARCH: section.search}
    return Price(
        _rates(section),
        section.currency,
        section.as_of,
        section.source,
        tuple((dearer.prompt_tokens, _rates(dearer)) for dearer in section.above),
        tool_calls=tuple(sorted({**section.tool_calls, **searches}.items())),
        valid_from=section.valid_from,
        ahead_s=_ahead_s(section),
        audio=section.audio,
        ends=section.ends,
    )


def _ahead_s(section: PriceSection) -> int:
    if section.valid_from is None or section.timezone == "UTC":
        return 0
    offset = datetime.combine(section.valid_from, time.min, ZoneInfo(section.timezone)).utcoffset()
    return int(offset.total_seconds()) if offset is not None else 0


def _rates(section: _RatesSection) -> Rates:
    return Rates(*(getattr(section, name) for name in Rates.__struct_fields__))
