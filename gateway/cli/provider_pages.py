"""Tables of providers, models and deployments, as Markdown pages or as text, for `gateway providers`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from gateway.cli.terminal import aligned
from gateway.model.deployment import Deployment
from providers.adapter import Adapter, EmulatesFeatures, KnowsOffers, StatesConfirmation, TakesHeaders, known_models
from providers.catalogue.prices import NO_CURRENCY, Offers, Price, Rates, Retirement, shown_amount
from providers.evidence import Citation
from providers.matching.requirements import FEATURES, PARAMETERS
from providers.sites import Availability, Site

_Row = tuple[str, ...]
_MODELS = ("provider", "model", "prompt", "answer", "efforts", "features", "rejects")
_AMOUNTS = ("input", "cached", "written", "output")
_EVIDENCE = ("as of", "source", "quotation", "unconfirmed")
_PRICES = ("provider", "model", "sites", *_AMOUNTS, "longer prompts", *_EVIDENCE)
_RETIREMENTS = ("provider", "model", "retires on", "replacement", *_EVIDENCE)
_DEPLOYMENTS = ("deployment", "provider", "model", "prompt", *_AMOUNTS, "retires on", "features")
_TEMPLATES = Path(__file__).with_name("templates")
_NO_SITES = (
    "These providers have no sites: `endpoint` is a URL, and the deployment states what it `stores` and `processes`."
)
_MAX_LISTED_TERRITORIES = 8


def providers_page(adapters: Mapping[str, Adapter]) -> str:
    """Return the Markdown page of providers: tables of features, parameters, sites and headers, sorted by name."""
    listed = [adapters[name] for name in sorted(adapters)]
    without_sites = ", ".join(f"`{adapter.name}`" for adapter in listed if not adapter.sites)
    sites = _table(
        ("provider", "`endpoint`", "stores", "processes", "requires", "serves", "key variable", "exceptions"),
        (_site_row(adapter.name, site) for adapter in listed for site in adapter.sites.values()),
    )
    headers = (
        (f"`{adapter.name}`", f"`{name}`", header.about, f"`{header.value}`".replace("|", "\\|"))
        for adapter in listed
        if isinstance(adapter, TakesHeaders)
        for name, header in sorted(adapter.headers.items())
    )
    unconfirmed = ((f"`{adapter.name}`", "`unconfirmed`") for adapter in listed if is_unconfirmed(adapter))
    return (
        (_TEMPLATES / "providers.md.txt")
        .read_text("utf-8")
        .format(
            features=_features(listed),
            unconfirmed=_table(("provider", "state"), unconfirmed),
            parameters=_parameters(listed),
            sites=f"{sites}\n\n{_NO_SITES}\n{without_sites}." if without_sites else sites,
            headers=_table(("provider", "header", "effect", "format"), headers),
            sources=_table(("provider", "facts", *_EVIDENCE), (row for one in listed for row in _source_rows(one))),
        )
    )


def _source_rows(adapter: Adapter) -> Iterator[tuple[str, ...]]:
    """Yield a row for the sites, scopes with evidence of their own, and lists of territories that have one source."""
    lists: dict[str, Citation] = {}
    facts: dict[tuple[str, ...], list[str]] = {}
    for site in adapter.sites.values():
        facts.setdefault(_cited(site.citation), []).append(f"site `{site.name}`")
        for scope in site.scopes:
            if scope.citation is not None:
                facts.setdefault(_cited(scope.citation), []).append(f"{_codes(scope.models)} at `{site.name}`")
        if site.counts is not None:
            facts.setdefault(_cited(site.counts), []).append(f"tokens are counted at `{site.name}`")
        if site.availability.citation is not None:
            lists[site.availability.listed_as] = site.availability.citation
    for name, citation in lists.items():
        facts.setdefault(_cited(citation), []).append(f"list of territories `{name}`")
    for cited, named in facts.items():
        yield (f"`{adapter.name}`", ", ".join(named), *cited)


def _cited(citation: Citation) -> tuple[str, ...]:
    link = f"<{citation.source}>" if citation.source.startswith("https://") else citation.source
    cells = (str(citation.as_of or ""), link, citation.quote, citation.unconfirmed)
    return tuple(cell.replace("|", "\\|") for cell in cells)


def is_unconfirmed(adapter: Adapter) -> bool:
    """Return whether no two answers of the vendor are recorded, so that its facts come from reading alone."""
    return isinstance(adapter, StatesConfirmation) and adapter.unconfirmed


def _features(adapters: Iterable[Adapter]) -> str:
    words = sorted(FEATURES)
    rows = (
        (f"`{one.name}`", *_feature_marks(words, one), *_site_summary(list(one.sites.values()))) for one in adapters
    )
    return _table(("provider", *(f"`{word}`" for word in words), "sites", "processes"), rows)


def _parameters(adapters: Iterable[Adapter]) -> str:
    words = sorted(PARAMETERS)
    rows = (
        (f"`{one.name}`", *_marks(words, one.capabilities.parameters), _codes(one.capabilities.parameters - PARAMETERS))
        for one in adapters
    )
    return _table(("provider", *(f"`{word}`" for word in words), "vendor fields"), rows)


def _feature_marks(words: Iterable[str], adapter: Adapter) -> Iterable[str]:
    emulated = adapter.emulated if isinstance(adapter, EmulatesFeatures) else frozenset[str]()
    marks = _marks(words, adapter.capabilities.features)
    return ("emulated" if word in emulated else mark for word, mark in zip(words, marks, strict=True))


def _marks(words: Iterable[str], claimed: frozenset[str]) -> Iterable[str]:
    return ("yes" if word in claimed else "" for word in words)


def _site_summary(sites: list[Site]) -> tuple[str, str]:
    """Return the number of sites, and the territories where they process data, without repetition."""
    if not sites:
        return "a URL", "as configured"
    territories = dict.fromkeys(str(site.residency.processes) for site in sites)
    return str(len(sites)), "; ".join(sorted(territories))


def _site_row(provider: str, site: Site) -> tuple[str, ...]:
    requires = "; ".join(" or ".join(sorted(one, reverse=True)) for one in site.requires)
    scopes = [
        f"{_codes(scope.models)}: stores {scope.residency.stores}, processes {scope.residency.processes}"
        for scope in site.scopes
    ]
    excepts = [f"not for {_codes(site.excepts)}"] if site.excepts else []
    return (
        f"`{provider}`",
        f"`{site.name}`",
        str(site.residency.stores),
        str(site.residency.processes),
        requires,
        _served_territories(site.availability),
        f"`{site.api_key_env}`" if site.api_key_env else "",
        "; ".join((*scopes, *excepts)),
    )


def _served_territories(availability: Availability) -> str:
    included = availability.places.included
    if included is not None and len(included) > _MAX_LISTED_TERRITORIES:
        return f"{len(included)} territories"
    never = f"; never {', '.join(sorted(availability.never))}" if availability.never else ""
    return f"{availability.places}{never}"


def _codes(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in sorted(words))


def _table(head: tuple[str, ...], rows: Iterable[Iterable[str]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |".replace("  |", " |") for cells in lines)


def models_page(adapters: Mapping[str, Adapter]) -> str:
    """Return the Markdown page of models: tables of limits, prices and retirements, sorted by name."""
    return (
        (_TEMPLATES / "models.md.txt")
        .read_text("utf-8")
        .format(
            models=_table(_MODELS, map(_in_code, _model_rows(adapters))),
            prices=_table(_PRICES, map(_in_code, _price_rows(adapters))),
            retirements=_table(_RETIREMENTS, map(_in_code, _retirement_rows(adapters))),
        )
    )


def models_text(adapters: Mapping[str, Adapter]) -> str:
    """Return the tables of models as aligned text, for a terminal."""
    tables = (
        (_MODELS, _model_rows(adapters)),
        (_PRICES, _price_rows(adapters)),
        (_RETIREMENTS, _retirement_rows(adapters)),
    )
    return "\n\n".join(aligned([titles, *rows]) for titles, rows in tables) + "\n"


def deployments_text(deployments: Iterable[Deployment], now_s: float) -> str:
    """Return a table of a config's deployments with prices and retirement dates, as aligned text.

    A price that holds only from a later day on than `now_s` (Unix time) has a row below that of the present one.
    """
    rows: list[_Row] = [_DEPLOYMENTS]
    for one in deployments:
        features = ", ".join(sorted(one.capabilities.features))
        names, context = (one.name, one.provider, one.model), _tokens(one.capabilities.context_tokens)
        rows.append((*names, context, *_amounts(one.price_at(now_s)), _ends(one), features))
        for price in one.coming_prices(now_s):
            rows.append((f"  from {price.valid_from}", "", "", "", *_amounts(price), "", ""))
    return aligned(rows)


def _ends(one: Deployment) -> str:
    """Return the last day of a deployment's model, and the other stages of its end in words."""
    others = [f"{it.stage} {it}" for it in one.stages if not it.is_retirement]
    return "; ".join([*([str(one.retires_on)] if one.retires_on is not None else []), *others])


def _model_rows(adapters: Mapping[str, Adapter]) -> Iterator[_Row]:
    for name in sorted(adapters):
        adapter = adapters[name]
        for model, facts in known_models(adapter).items():
            yield (
                name,
                model,
                _tokens(facts.context_tokens),
                _tokens(facts.output_tokens),
                ", ".join(facts.efforts),
                ", ".join(sorted(facts.features)),
                ", ".join(sorted(facts.without)),
            )


def _price_rows(adapters: Mapping[str, Adapter]) -> Iterator[_Row]:
    for name, offers in _offers_of(adapters):
        for row in offers.prices:
            dearer = [f"{site} +{percent} %" for site, percent in row.dearer.items()]
            longer = [f"{tokens}: {', '.join(_rates(rates))}" for tokens, rates in row.price.above]
            first, *rest = _amounts(row.price)
            day = "" if row.price.valid_from is None else f"from {row.price.valid_from}: "
            yield (
                name,
                ", ".join(row.models),
                ", ".join([*sorted(row.sites), *dearer]),
                f"{day}{first}",
                *rest,
                "; ".join(longer),
                *_cited(row.price.citation),
            )


def _retirement_rows(adapters: Mapping[str, Adapter]) -> Iterator[_Row]:
    for name, offers in _offers_of(adapters):
        for row in sorted(offers.retirements, key=lambda row: [*row.days.values()][-1]):
            yield (name, ", ".join(row.named), _days(row), row.instead or row.to, *_cited(row.citation))


def _days(row: Retirement) -> str:
    """Return the days of a retirement in words: a lone day is the first one without the model."""
    words = {"announced": "announced", "dearer": "costs more from", "redirects": f"{row.to} answers from", "on": "ends"}
    days = [day if key == "on" and len(row.days) == 1 else f"{words[key]} {day}" for key, day in row.days.items()]
    firm = " at the earliest" if row.earliest else "" if row.is_stated else " (not firm)"
    return ", ".join(map(str, days)) + firm


def _offers_of(adapters: Mapping[str, Adapter]) -> Iterator[tuple[str, Offers]]:
    for name in sorted(adapters):
        adapter = adapters[name]
        if isinstance(adapter, KnowsOffers):
            yield name, adapter.offers


def _amounts(price: Price | None) -> _Row:
    if price is None:
        return ("", "", "", "")
    if price.currency == NO_CURRENCY:
        return ("0", "0", "0", "0")
    input_rate, *rest = _rates(price.rates)
    if price.search is not None:
        rest[-1] += f" (search {shown_amount(price.search)})"
    if price.rates.decisions is not None:
        rest[-1] += f" (decisions {shown_amount(price.rates.decisions)})"
    if (audio := price.audio) is not None:
        named = {
            "minute": audio.minute,
            "characters": audio.characters,
            "audio in": audio.input,
            "audio out": audio.output,
        }
        known = [f"{name} {shown_amount(micros)}" for name, micros in named.items() if micros is not None]
        rest[-1] += f" ({', '.join(known)})"
    return (f"{price.currency} {input_rate}", *rest)


def _rates(rates: Rates) -> list[str]:
    """Return the four amounts. The last names the price of reasoning if that differs."""
    amounts = [shown_amount(each) for each in (rates.input, rates.per_cached, rates.per_written, rates.output)]
    if rates.per_reasoning != rates.output:
        amounts[-1] += f" (reasoning {shown_amount(rates.per_reasoning)})"
    return amounts


def _tokens(number: int | None) -> str:
    return "" if number is None else str(number)


def _in_code(row: _Row) -> _Row:
    """Format the first two columns as code, because a pattern contains `*`, which is Markdown markup."""
    models = ", ".join(f"`{model}`" for model in row[1].split(", "))
    return (f"`{row[0]}`", models, *row[2:])
