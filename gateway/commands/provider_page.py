"""The page of every provider, from the adapters' own declarations: `docs/providers.md`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from providers.adapter import Adapter, TakesHeaders
from providers.fitting import FEATURES, PARAMETERS
from providers.sites import Availability, Site

__all__ = ["providers_page"]

_HEAD = """\
# Every provider

Made from the adapters' own declarations by `gateway providers list --markdown`; a test holds it to them.
[deployments.md](deployments.md#deployments) says how a deployment names a provider and a site.
"""
_FEATURES_HEAD = """\
## What each can do

The most that its wire format can say and we speak; text is a matter of course. A model may do less. A request that
needs what a deployment lacks goes to another one, and `gateway explain` says why.
[contract.md](contract.md#the-words-for-what-can-be-asked) says what each word means.
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
    return "\n".join((_HEAD, *tables, _HEADERS_HEAD, headers))


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
