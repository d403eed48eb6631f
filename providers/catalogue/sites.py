"""Read and check the sites of a facts file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from providers.catalogue import CatalogueError, FactsFile
from providers.catalogue.citations import CITATION_KEYS, Sources
from providers.catalogue.toml_schema import TABLE, TABLES, TEXT, TEXTS, Shape, check_table, check_tables
from providers.sites import (
    HOST_PATTERN,
    PROJECT,
    Availability,
    OriginError,
    Residency,
    Scope,
    Site,
    parse_origin,
    split_url,
)
from providers.territories import ANYWHERE, Places, TerritoryError, parse_places

_AVAILABILITY = FactsFile("providers.catalogue", "availability")
_DOMAINS = FactsFile("providers.catalogue", "vendor_domains")
_REGIONS = FactsFile("providers.catalogue", "regions")
_LISTED = Shape(
    "a list of texts, or the name of a published list", lambda value: isinstance(value, str) or TEXTS.fits(value)
)
_SHAPES: Mapping[str, Shape] = {
    **{"origin": TEXT, "base_path": TEXT, "hosts": TEXTS, "stores": TEXTS, "processes": TEXTS, "scopes": TABLES},
    **{"available": _LISTED, "never": TEXTS, "except": TEXTS, "requires": TEXTS, "allows": TEXTS, "pins": TABLE},
    **{"api_key_env": TEXT, "counts": Shape("true", lambda value: value is True), "counts_source": TEXT},
    **CITATION_KEYS,
}
_SCOPE: Mapping[str, Shape] = {"models": TEXTS, "stores": TEXTS, "processes": TEXTS, **CITATION_KEYS}


@cache
def cloud_regions() -> Mapping[str, Mapping[str, str]]:
    """Return the country of each region, by `aws` or `google`."""
    return _REGIONS.read_as(dict[str, dict[str, str]])


@cache
def load_sites(facts: FactsFile) -> Mapping[str, Site]:
    """Return the sites of a provider's facts file, by name."""
    forms: Any = _DOMAINS.read()
    return sites_of(facts.read(), required=facts.is_own, forms=forms["hosts"].get(facts.name, ()))


def sites_of(data: Any, *, required: bool = False, forms: Iterable[str] = ()) -> Mapping[str, Site]:
    """Return the sites of a parsed catalogue file (`[sites.NAME]`). Raises CatalogueError.

    With `required`, a site without a complete citation is an error. Each site has further hosts of these `forms`.
    """
    sources = Sources.of(data, required=required)
    return {
        name: _site(f"sites.{name}", name, table, sources, [form.format(site=name) for form in forms])
        for name, table in check_tables("sites", data.get("sites", {}), TABLE).items()
    }


@cache
def _vendor_domains(origins: tuple[str, ...]) -> list[str]:
    """Return the domains of vendors, longer ones first: the last two labels of each origin, and those of the file."""
    data: Any = _DOMAINS.read()
    domains = {".".join((split_url(origin).hostname or "").split(".")[-2:]) for origin in origins}
    return sorted({*domains, *data["customers"], *data["services"]}, key=len, reverse=True)


def vendor_domain(host: str, provider: str, origins: tuple[str, ...]) -> str:
    """Return the vendor's domain that a host is below.

    Return "" if there is none, or if customers of the provider have hosts of their own below it. The last two labels of
    each of the `origins` of known sites are a vendor's domain.
    """
    data: Any = _DOMAINS.read()
    customers: Mapping[str, str] = data["customers"]
    for domain in _vendor_domains(origins):
        words = data["services"].get(domain, [""])
        if (host == domain or host.endswith(f".{domain}")) and any(word in host for word in words):
            return "" if customers.get(domain) == provider else domain
    return ""


def _site(path: str, name: str, table: Any, sources: Sources, hosts: Iterable[str]) -> Site:
    """Return a site, with the patterns in `hosts` in addition to the patterns of its table."""
    check_table(path, table, _SHAPES, ("origin", "base_path", "stores", "processes"))
    residency, base_path = _residency(path, table), table["base_path"]
    if base_path and (not base_path.startswith("/") or base_path.endswith("/")):
        raise CatalogueError(f"{path}.base_path: must begin with / and not end with it, such as /v1")
    # A site with other facts of the vendor may lack the evidence that it counts tokens.
    if ("counts" in table) != ("counts_source" in table):
        raise CatalogueError(f"{path}: `counts` and `counts_source`, the page that states it, belong together")
    counts = sources.cite(f"{path}.counts", {"source": table["counts_source"]}) if "counts" in table else None
    return Site(
        name=name,
        origin=_origin(path, table["origin"]),
        base_path=base_path,
        residency=residency,
        availability=_availability(path, table, residency),
        hosts=tuple(_pattern(path, host) for host in (*table.get("hosts", ()), *hosts)),
        scopes=tuple(_scope(f"{path}.scopes", scope, sources) for scope in table.get("scopes", ())),
        excepts=frozenset(table.get("except", ())),
        requires=tuple(frozenset(one.split("|")) for one in table.get("requires", ())),
        allows=frozenset(table.get("allows", ())),
        pins=table.get("pins", {}),
        api_key_env=table.get("api_key_env", ""),
        citation=sources.cite(path, table),
        counts=counts,
    )


def _origin(path: str, text: str) -> str:
    usual = text.replace(f"//{PROJECT}.", "//project.")
    try:
        spelt = parse_origin(usual) == (usual, None)
    except OriginError as error:
        raise CatalogueError(f"{path}.origin: {error}") from None
    if not spelt or not usual.startswith("https://"):
        raise CatalogueError(f"{path}.origin: must be https:// and a host in lower case, without a path")
    return text


def _pattern(path: str, text: str) -> str:
    """Check a host pattern. A pattern with upper-case letters would match no host."""
    name = text.removeprefix("*.")
    if not HOST_PATTERN.fullmatch(name) or "." not in name:
        raise CatalogueError(f"{path}.hosts: {text!r} is not a host in lower case, such as *.example.com")
    return text


def _scope(path: str, table: Any, sources: Sources) -> Scope:
    check_table(path, table, _SCOPE, ("models", "stores", "processes"))
    citation = sources.cite(path, table) if "source" in table else None
    return Scope(tuple(table["models"]), _residency(path, table), citation)


def _residency(path: str, table: Any) -> Residency:
    return Residency(_named(f"{path}.stores", table["stores"]), _named(f"{path}.processes", table["processes"]))


def _named(path: str, words: list[str]) -> Places:
    """Parse a set that must not be empty, because an empty set would be inside every boundary."""
    places = _places(path, words)
    if places.included is not None and not places.included:
        raise CatalogueError(f"{path}: names no territory; write any if unknown")
    return places


def _places(path: str, words: list[str]) -> Places:
    try:
        return parse_places(words)
    except TerritoryError as error:
        raise CatalogueError(f"{path}: {error}") from None


def _availability(path: str, table: Any, residency: Residency) -> Availability:
    never = _named(f"{path}.never", table["never"]).included if "never" in table else frozenset[str]()
    if never is None:
        raise CatalogueError(f"{path}.never: must name territories")
    listed: Any = table.get("available")
    if listed is not None:
        names: Any = _AVAILABILITY.read()
        if isinstance(listed, str) and listed not in names:
            raise CatalogueError(
                f"{path}.available: {listed!r} is not a published list; expected one of {', '.join(sorted(names))}"
            )
        if not isinstance(listed, str):
            return Availability(_places(f"{path}.available", listed), published=True, never=never)
        places = _places(f"{path}.available", names[listed]["territories"])
        stated = {key: value for key, value in names[listed].items() if key not in ("note", "territories")}
        citation = Sources.of({"sources": {listed: stated}}, required=True).by_name[listed]
        return Availability(places, published=True, never=never, listed_as=listed, citation=citation)
    own = residency.stores if residency.stores.included is not None else ANYWHERE
    return Availability(own, never=never)
