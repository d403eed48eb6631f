"""The vendor facts that a configuration relies on, with their sources, and warnings about old or unsourced ones.

The fence compares a site's facts with a region's boundary, so an operator must see where each fact comes from and how
old it is. An old fact is a warning, never an error: the vendor's promise may still be valid.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date

from gateway.config.validation import Findings
from gateway.model.approval import days_at
from gateway.model.deployment import Deployment
from providers.adapter import KnowsOffers
from providers.evidence import Citation
from providers.value import Value

_YEAR_DAYS = 365


class ReliedFact(Value, frozen=True):
    """A fact of a vendor on which a deployment relies, of the adapter or of the operator's own catalogue."""

    subject: str
    citation: Citation
    is_vendors: bool = True


def relied_facts(deployment: Deployment, now_s: float) -> Iterator[ReliedFact]:
    """Yield the facts of a deployment's site, of its list of territories, and of its present price and retirement."""
    provider, model = deployment.provider, deployment.model
    site = deployment.adapter.sites.get(deployment.site)
    if site is not None:
        yield ReliedFact(f"the site {provider} {site.name}", site.citation_of(model))
        if site.availability.citation is not None:
            subject = f"the list of territories that {site.availability.listed_as} serves"
            yield ReliedFact(subject, site.availability.citation)
    offers = deployment.adapter.offers if isinstance(deployment.adapter, KnowsOffers) else None
    price = deployment.price_at(now_s)
    if price is not None:
        known = offers.price(model, site.name if site is not None else "") if offers is not None else None
        subject = f"the price of {provider} {model} at {deployment.site}"
        yield ReliedFact(subject, price.citation, known is not None and known.at(now_s) == price)
    for row in dict.fromkeys(stage.row for stage in deployment.stages):
        # An operator's own day has no page that was read.
        subject = f"the retirement of {row.host or f'{provider} {model}'}"
        yield ReliedFact(subject, row.citation, row.as_of is not None)


def oldest_fact(deployments: Iterable[Deployment], now_s: float) -> tuple[ReliedFact, date] | None:
    """Return the fact with the earliest day, and this day. None if no fact has a day."""
    dated = (
        (fact, fact.citation.as_of)
        for deployment in deployments
        for fact in relied_facts(deployment, now_s)
        if fact.citation.as_of is not None
    )
    return min(dated, key=lambda one: one[1], default=None)


def unconfirmed_facts(deployments: Iterable[Deployment], now_s: float) -> dict[str, str]:
    """Return what is not confirmed about the facts, by subject."""
    return {
        fact.subject: fact.citation.unconfirmed
        for deployment in deployments
        for fact in relied_facts(deployment, now_s)
        if fact.citation.unconfirmed
    }


def warn_of_facts(findings: Findings, deployments: Iterable[Deployment], now_s: float) -> None:
    """Warn of each fact that is older than a year or has no source, once, at the first deployment that relies on it."""
    seen: set[str] = set()
    today = days_at(now_s).last
    for deployment in deployments:
        path = ("deployments", deployment.name)
        for fact in relied_facts(deployment, now_s):
            if fact.subject in seen:
                continue
            seen.add(fact.subject)
            as_of = fact.citation.as_of
            if as_of is not None and today - as_of.toordinal() > _YEAR_DAYS:
                findings.warn(path, f"relies on a fact older than a year: {dated(fact, as_of)}", _refresh(fact))
            if fact.is_vendors and fact.citation.missing:
                missing = ", ".join(fact.citation.missing)
                message = f"relies on a fact without a complete source: {fact.subject} has no {missing}"
                findings.warn(path, message, "update the provider's package; from 2.0 on, such a fact is refused")


def dated(fact: ReliedFact, as_of: date) -> str:
    """Return a fact with the day of its source and the source, for a report."""
    source = f" ({fact.citation.source})" if fact.citation.source else ""
    return f"{fact.subject}, as of {as_of}{source}"


def _refresh(fact: ReliedFact) -> str:
    if not fact.is_vendors:
        return "read its source again, and set `as_of` in your own catalogue"
    return "read its source again, or update the gateway; your own catalogue can replace prices and retirements"
