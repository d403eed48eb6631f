"""What is known of models, from the adapters' own declarations: for a terminal, and as the page `docs/models.md`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from gateway.model.deployment import Deployment
from providers.adapter import Adapter, KnowsOffers, known_models
from providers.catalogue.offers import Offers
from providers.pricing import Price, Rates, shown_amount

__all__ = ["deployments_text", "models_page", "models_text"]

_Row = tuple[str, ...]

_HEAD = """\
# Models

Made from the adapters' own declarations by `gateway providers models --markdown`; a test holds it to them. What isn't
here isn't known: [catalogue.md](catalogue.md) says how you add it, or say it otherwise.
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

From its day on the vendor need not answer any more. *Instead* is what the vendor recommends.
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
