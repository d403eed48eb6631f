"""Pages and tables of providers and models for `--markdown`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from gateway.model.deployment import Deployment
from providers.adapter import Adapter, KnowsOffers, TakesHeaders, known_models
from providers.catalogue.prices import Offers, Price, Rates, shown_amount
from providers.matching.requirements import FEATURES, PARAMETERS
from providers.sites import Availability, Site

_PROVIDERS_HEAD = """\
# Every provider

Made from the adapters' own declarations by `gateway providers list --markdown`; a test holds it to them.
[deployments.md](../operate/deployments.md#deployments) says how a deployment names a provider and a site.
"""


_FEATURES_HEAD = """\
## What each can do

The most that its wire format can say and we speak; text is a matter of course. A model may do less. A request that
needs what a deployment lacks goes to another one, and `gateway explain` says why.
[contract.md](../extend/contract.md#the-words-for-what-can-be-asked) says what each word means.
"""


_PARAMETERS_HEAD = """\
## What can be tuned

A parameter that a provider doesn't know is left out and named in `x-gateway-dropped`, or refused, as the deployment
says. What stands under *its own* are fields that only this vendor has.
"""


_SITES_HEAD = """\
## Where each stores and processes

*Requires* is what the contract must have for the promise to hold; the deployment says so by `attests`. *Serves* is
whose people the vendor serves: a number stands for a published list, which `available` may only narrow. Models with a
residency of their own, and what a promise leaves out, are in the last column.
"""


_HEADERS_HEAD = """\
## Headers

What `headers` of a deployment may hold. A header can do what a field of the body can: keep a prompt, pass it on, choose
where it is computed. So there are only those whose effect is known.
"""


_NO_SITES = (
    "These have no site of their own: `endpoint` is a URL, and the deployment says what it `stores` and `processes`."
)


_MANY_PLACES = 8


def providers_page(adapters: Mapping[str, Adapter]) -> str:
    """Markdown: three tables with a row for each provider, or each site of one, in the order of names."""
    known = [adapters[name] for name in sorted(adapters)]
    without = ", ".join(f"`{one.name}`" for one in known if not one.sites)
    sites = _table(
        ("provider", "`endpoint`", "stores", "processes", "requires", "serves", "usual key", "beside that"),
        (_site_row(one.name, site) for one in known for site in one.sites.values()),
    )
    others = f"\n{_NO_SITES}\n{without}.\n" if without else ""
    headers = _table(
        ("provider", "header", "what it does", "its form"),
        (
            (f"`{one.name}`", f"`{name}`", header.about, f"`{header.value}`".replace("|", "\\|"))
            for one in known
            if isinstance(one, TakesHeaders)
            for name, header in sorted(one.headers.items())
        ),
    )
    tables = (_FEATURES_HEAD, _features(known), _PARAMETERS_HEAD, _parameters(known), _SITES_HEAD, sites + others)
    return "\n".join((_PROVIDERS_HEAD, *tables, _HEADERS_HEAD, headers))


def _features(adapters: Iterable[Adapter]) -> str:
    words = sorted(FEATURES)
    rows = (
        (f"`{one.name}`", *_marks(words, one.capabilities.features), *_places_of(list(one.sites.values())))
        for one in adapters
    )
    return _table(("provider", *(f"`{word}`" for word in words), "sites", "processes"), rows)


def _parameters(adapters: Iterable[Adapter]) -> str:
    words = sorted(PARAMETERS)
    rows = (
        (
            f"`{one.name}`",
            *_marks(words, one.capabilities.parameters),
            _codes(one.capabilities.parameters - PARAMETERS),
        )
        for one in adapters
    )
    return _table(("provider", *(f"`{word}`" for word in words), "its own"), rows)


def _marks(words: Iterable[str], claimed: frozenset[str]) -> Iterable[str]:
    return ("yes" if word in claimed else "" for word in words)


def _places_of(sites: list[Site]) -> tuple[str, str]:
    """How many sites, and where they process, each place once."""
    if not sites:
        return "a URL", "as you state"
    places = dict.fromkeys(str(site.residency.processes) for site in sites)
    return str(len(sites)), "; ".join(sorted(places))


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
        _served(site.availability),
        f"`{site.api_key_env}`" if site.api_key_env else "",
        "; ".join((*scopes, *excepts)),
    )


def _served(availability: Availability) -> str:
    included = availability.places.included
    if included is not None and len(included) > _MANY_PLACES:
        return f"{len(included)} territories"
    never = f"; never {', '.join(sorted(availability.never))}" if availability.never else ""
    return f"{availability.places}{never}"


def _codes(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in sorted(words))


def _table(head: tuple[str, ...], rows: Iterable[Iterable[str]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |".replace("  |", " |") for cells in lines) + "\n"


_Row = tuple[str, ...]


_HEAD = """\
# Models

Made from the adapters' own declarations by `gateway providers models --markdown`; a test holds it to them. What isn't
here isn't known: [models-and-prices.md](../operate/models-and-prices.md) says how you add it, or say it otherwise.
"""


_MODELS = ("provider", "model", "prompt", "answer", "efforts", "can", "refuses")


_MODELS_HEAD = """\
## What each takes and can

By name or pattern; the closest row counts. Prompt and answer are the most tokens; empty where nobody says. A model that
has no row has text and tools.
"""


_AMOUNTS = ("input", "cached", "written", "output")


_PRICES = ("provider", "model", "sites", *_AMOUNTS, "longer prompts", "as of", "source")


_PRICES_HEAD = """\
## What each costs

For a million tokens. *Cached* and *written* are tokens of the prompt that the vendor had in its cache, or wrote to it.
*Longer prompts*: from how many tokens on all of a request costs more (input, cached, written, output).
"""


_RETIREMENTS = ("provider", "model", "retires on", "instead", "as of", "source")


_RETIREMENTS_HEAD = """\
## When each is retired

From its day on the vendor may stop serving it. *Instead* is what the vendor recommends.
"""


_DEPLOYMENTS = ("deployment", "provider", "model", "prompt", *_AMOUNTS, "retires on", "can")


def models_page(adapters: Mapping[str, Adapter]) -> str:
    """Markdown: three tables, in the order of names."""
    parts = [_HEAD]
    for head, titles, rows in (
        (_MODELS_HEAD, _MODELS, _model_rows(adapters)),
        (_PRICES_HEAD, _PRICES, _price_rows(adapters)),
        (_RETIREMENTS_HEAD, _RETIREMENTS, _retirement_rows(adapters)),
    ):
        lines = [titles, ("---",) * len(titles), *(_in_code(row) for row in rows)]
        table = "\n".join(f"| {' | '.join(cells)} |".replace("  |", " |") for cells in lines)
        parts.append(f"{head}\n{table}\n")
    return "\n".join(parts)


def models_text(adapters: Mapping[str, Adapter]) -> str:
    """The same, for a terminal."""
    tables = (
        (_MODELS, _model_rows(adapters)),
        (_PRICES, _price_rows(adapters)),
        (_RETIREMENTS, _retirement_rows(adapters)),
    )
    return "\n\n".join(_aligned(titles, list(rows)) for titles, rows in tables) + "\n"


def deployments_text(deployments: Iterable[Deployment]) -> str:
    """The deployments of a config, with what each costs and when its model ends."""
    rows = [
        (
            one.name,
            one.provider,
            one.model,
            _tokens(one.capabilities.context_tokens),
            *_amounts(one.price),
            str(one.retires_on or ""),
            ", ".join(sorted(one.capabilities.features)),
        )
        for one in deployments
    ]
    return _aligned(_DEPLOYMENTS, rows)


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
            yield (
                name,
                ", ".join(row.models),
                ", ".join([*sorted(row.sites), *dearer]),
                *_amounts(row.price),
                "; ".join(longer),
                str(row.price.as_of),
                row.price.source,
            )


def _retirement_rows(adapters: Mapping[str, Adapter]) -> Iterator[_Row]:
    for name, offers in _offers_of(adapters):
        for row in sorted(offers.retirements, key=lambda row: row.on):
            yield name, ", ".join(row.models), str(row.on), row.instead, str(row.as_of or ""), row.source


def _offers_of(adapters: Mapping[str, Adapter]) -> Iterator[tuple[str, Offers]]:
    for name in sorted(adapters):
        adapter = adapters[name]
        if isinstance(adapter, KnowsOffers):
            yield name, adapter.offers


def _amounts(price: Price | None) -> _Row:
    if price is None:
        return ("", "", "", "")
    into, *rest = _rates(price.rates)
    return (f"{price.currency} {into}", *rest)


def _rates(rates: Rates) -> list[str]:
    return [shown_amount(each) for each in (rates.input, rates.per_cached, rates.per_written, rates.output)]


def _tokens(number: int | None) -> str:
    return "" if number is None else str(number)


def _in_code(row: _Row) -> _Row:
    """The names of the first two columns as code: a pattern has a character that would be markup."""
    models = ", ".join(f"`{model}`" for model in row[1].split(", "))
    return (f"`{row[0]}`", models, *row[2:])


def _aligned(titles: _Row, rows: list[_Row]) -> str:
    """Columns; the last one isn't padded."""
    lines = [titles, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)
