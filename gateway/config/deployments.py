"""Compile `deployments`: adapter, model facts, capabilities, concurrency and overrides."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar

from gateway.config.approvals import compile_approvals, compile_consent
from gateway.config.credentials import compile_credentials
from gateway.config.endpoints import Endpoint, Endpoints
from gateway.config.operator_catalogue import OwnCatalogue, OwnModel, provider_hint
from gateway.config.problems import KeyPath, choice_hint, quoted
from gateway.config.schema.routing import ConcurrencySection, DeploymentSection
from gateway.config.secret_references import Resolution
from gateway.config.territories import listed, read_territories
from gateway.config.validation import Draft, Findings
from gateway.model.approval import Days
from gateway.model.config_version import Secrets
from gateway.model.deployment import Concurrency, Deployment, retirement_notices_of
from providers.adapter import STREAM_OPTIONS, Adapter, AsksForUsage, Capabilities, KnowsOffers, Target, known_models
from providers.catalogue.models import UNKNOWN_MODEL, ModelFacts, model_facts
from providers.catalogue.prices import Offers, Price, Retirement
from providers.matching.capability_matching import parameters_of
from providers.matching.requirements import FEATURES, moves_data
from providers.registry import Registry
from providers.sites import Site
from providers.territories import ANYWHERE, Places, parent


class Vendor:
    """Of one adapter. knows_models: whether it tells one model from another at all."""

    def __init__(self, adapter: Adapter) -> None:
        models = known_models(adapter)
        offers = adapter.offers if isinstance(adapter, KnowsOffers) else Offers()
        self.knows_models = bool(models)
        self._facts = cache(lambda model: model_facts(models, model))
        self._price = cache(offers.price)
        self._retirement = cache(offers.retirement)

    def facts(self, model: str) -> ModelFacts:
        """Of the model; UNKNOWN_MODEL where there are none."""
        return self._facts(model)

    def price(self, model: str, site: str) -> Price | None:
        """What it costs at the site; None where nobody told us."""
        return self._price(model, site)

    def retirement(self, model: str) -> Retirement | None:
        """When it is retired; None where no day is known."""
        return self._retirement(model)


class Vendors:
    """By provider, for the time of one compile."""

    def __init__(self) -> None:
        self._known: dict[str, Vendor] = {}

    def of(self, provider: str, adapter: Adapter) -> Vendor:
        """What the provider's adapter knows."""
        if provider not in self._known:
            self._known[provider] = Vendor(adapter)
        return self._known[provider]


def as_spoken(
    findings: Findings, path: KeyPath, section: DeploymentSection, adapter: Adapter, facts: ModelFacts
) -> ModelFacts:
    """The facts of the model as this server gives it."""
    if section.stream_options:
        return facts
    if not isinstance(adapter, AsksForUsage) or not adapter.asks_for_usage:
        findings.warn((*path, STREAM_OPTIONS), f"{section.provider} is never sent this field", "remove it")
        return facts
    return replace(facts, without=facts.without | {STREAM_OPTIONS})


def compile_concurrency(findings: Findings, path: KeyPath, section: ConcurrencySection | None) -> Concurrency | None:
    """The bound of one deployment; None is none."""
    if section is None:
        return None
    if section.limit is None:
        findings.error(path, "bounds nothing", "give it a `limit`")
    return Concurrency(section.limit or 1, section.queue, section.wait_s)


_T = TypeVar("_T", bound=Hashable)


class _Shared:
    """Equal values as one: a thousand deployments have few capabilities and places among them, and a table with fewer
    objects is sooner handed over, and sooner walked by the collector."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, Any] = {}

    def __call__(self, value: _T) -> _T:
        one: _T = self._seen.setdefault(value, value)
        return one


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a deployment is put together from. own: what the operator's catalogue says of the model."""

    adapter: Adapter
    vendor: Vendor
    endpoint: Endpoint
    own: OwnModel
    facts: ModelFacts
    capabilities: Capabilities


def compile_deployments(
    draft: Draft,
    findings: Findings,
    endpoints: Endpoints,
    references: Mapping[str, Resolution],
    days: Days,
    secrets: Secrets,
    catalogue: OwnCatalogue,
) -> dict[str, Deployment]:
    """The sound deployments of a draft; unsound ones are marked in it."""
    compiled: dict[str, Deployment] = {}
    shared, vendors = _Shared(), Vendors()
    for name, section in draft.config.deployments.items():
        path: KeyPath = ("deployments", name)
        parts = _parts(findings, path, name, section, endpoints, vendors, catalogue)
        if parts is None:
            draft.broken.add(path)
            continue
        adapter, vendor, endpoint, own = parts.adapter, parts.vendor, parts.endpoint, parts.own
        credentials = compile_credentials(findings, path, section, adapter, endpoint, references)
        site = endpoint.facts
        compiled[name] = Deployment(
            name=name,
            provider=section.provider,
            adapter=adapter,
            model=section.model,
            site=endpoint.site,
            origin=endpoint.origin,
            target=Target(
                model=section.model,
                base_path=endpoint.base_path,
                facts=parts.facts,
                pins=site.pins if site is not None else {},
                passthrough=shared(_passthrough(findings, path, section, endpoint)),
            ),
            residency=shared(endpoint.residency),
            available=shared(_available(findings, path, section, site)),
            capabilities=shared(parts.capabilities),
            excepts=shared(site.excepts if site is not None else frozenset()),
            unmet=_unmet(findings, path, section, endpoint),
            allowed_moves=shared(site.allows if site is not None else frozenset()),
            credentials=credentials.keys,
            headers=credentials.headers,
            needs_credential=credentials.are_needed,
            missing_credentials=credentials.missing,
            unsupported=section.unsupported,
            enabled=section.enabled,
            simulates=endpoint.simulates,
            approvals=compile_approvals(draft, findings, name, days),
            fold=section.fold,
            first_token_s=section.first_token_s,
            consent=compile_consent(findings, path, section, endpoint),
            identity=section.identity,
            pseudonym_key=secrets.identity if section.identity == "hash" else None,
            concurrency=compile_concurrency(findings, (*path, "concurrency"), section.concurrency),
            price=shared(own.price(vendor.price(section.model, site.name if site is not None else ""))),
            retirement=own.retirement(vendor.retirement(section.model), section.model),
        )
        _warn_of_retirement(findings, path, compiled[name], days)
    return compiled


def _parts(
    findings: Findings,
    path: KeyPath,
    name: str,
    section: DeploymentSection,
    endpoints: Endpoints,
    vendors: Vendors,
    catalogue: OwnCatalogue,
) -> _Parts | None:
    """The parts of a deployment; None if it is unsound, and then everything that is wrong with them has been told."""
    adapter = find_adapter(findings, path, section.provider, endpoints.registry)
    if adapter is None:
        return None
    endpoint = endpoints.read(name, section, adapter)
    vendor = vendors.of(section.provider, adapter)
    own = catalogue.model(section.provider, section.model)
    facts = as_spoken(findings, path, section, adapter, own.facts(_facts(findings, path, section, vendor, own)))
    capabilities = _capabilities(findings, path, section, adapter, facts)
    if section.capabilities is not None:
        # Whoever writes the request has to know of it too. What is left out of the list is never asked for; a model
        # that thinks does so all the same.
        facts = replace(facts, features=facts.features | capabilities.features)
    return _Parts(adapter, vendor, endpoint, own, facts, capabilities) if endpoint is not None else None


def _warn_of_retirement(findings: Findings, path: KeyPath, deployment: Deployment, days: Days) -> None:
    for farewell in retirement_notices_of([deployment], days):
        if farewell.warned_days is not None:
            other = (
                f"such as {farewell.instead}" if farewell.instead else "or give the day that you know in a catalogue"
            )
            findings.warn((*path, "model"), str(farewell), f"name another model, {other}")


def find_adapter(findings: Findings, path: KeyPath, provider: str, registry: Registry) -> Adapter | None:
    """The provider's, None after reporting why there is none."""
    if provider in registry.broken:
        message = f"the provider {quoted(provider)} is installed, but doesn't load: {registry.broken[provider]}"
        findings.error((*path, "provider"), message, "mend or update its package")
    elif provider not in registry.adapters:
        hint = provider_hint(provider, registry)
        findings.error((*path, "provider"), f"unknown provider {quoted(provider)}", hint)
    return registry.adapters.get(provider)


def _facts(findings: Findings, path: KeyPath, section: DeploymentSection, vendor: Vendor, own: OwnModel) -> ModelFacts:
    facts = vendor.facts(section.model)
    if facts is UNKNOWN_MODEL and vendor.knows_models and section.capabilities is None and not own.tells_capabilities:
        message = f"nothing is known of {section.provider}'s model {quoted(section.model)}: text and tools only"
        findings.warn((*path, "model"), message, "check its name, or list what it can do in `capabilities`")
    return facts


def _capabilities(
    findings: Findings, path: KeyPath, section: DeploymentSection, adapter: Adapter, facts: ModelFacts
) -> Capabilities:
    features = facts.features
    if section.capabilities is not None:
        known = FEATURES | adapter.capabilities.features
        for index, word in enumerate(section.capabilities):
            if word not in known:
                place = (*path, "capabilities", index)
                findings.error(place, f"unknown capability {quoted(word)}", choice_hint(word, known))
            elif word not in adapter.capabilities.features:
                message = f"{section.provider} can't express {quoted(word)}, whatever the model"
                findings.warn((*path, "capabilities", index), message, "remove it")
        features = frozenset(section.capabilities)
    return Capabilities(
        features=adapter.capabilities.features & features,
        parameters=parameters_of(adapter.capabilities, facts),
        context_tokens=facts.context_tokens or adapter.capabilities.context_tokens,
    )


def _available(findings: Findings, path: KeyPath, section: DeploymentSection, site: Site | None) -> Places:
    """Whose people it may answer: a published list may be narrowed, an unpublished one widened."""
    path = (*path, "available")
    stated = read_territories(findings, path, section.available) if section.available is not None else None
    if site is None:
        return stated or ANYWHERE
    known = site.availability
    if known.published:
        if stated is not None and not stated.within(known.places):
            beyond = {code for code in stated.included or () if not known.places.contains(code)}
            beyond |= {code for code in known.places.excluded if stated.contains(code)}
            which = f"doesn't serve {listed(beyond)}" if beyond else "doesn't serve every place"
            findings.error(path, f"the vendor publishes whom it serves, and {which}", "the list may only be narrowed")
        return stated or known.places
    own = _without(known.places, known.never)
    if stated is None:
        return own
    parts = {code for code in stated.included or () if parent(code) in known.never}
    if into := parts | {code for code in known.never if stated.contains(code)}:
        exclusions = ", ".join(f'"!{code}"' for code in sorted(into))
        message = f"the site {site.name} must not answer people in {listed(into)}"
        findings.error(path, message, f"leave it out: {exclusions}")
    return own.union(stated)


def _without(places: Places, never: frozenset[str]) -> Places:
    if places.included is None:
        return Places(None, places.excluded | never)
    return Places(places.included - never, places.excluded)


def _unmet(findings: Findings, path: KeyPath, section: DeploymentSection, endpoint: Endpoint) -> tuple[str, ...]:
    """What the site requires and nobody attests."""
    requires = endpoint.facts.requires if endpoint.facts is not None else ()
    known = frozenset[str]().union(*requires)
    for index, word in enumerate(section.attests):
        if word not in known:
            hint = choice_hint(word, known, none="it requires nothing; remove it")
            message = f"{endpoint.site} doesn't require {quoted(word)}"
            tell = findings.error if known else findings.warn
            tell((*path, "attests", index), message, hint)
    unmet: list[str] = []
    for one in requires:
        if not one & set(section.attests):
            words = sorted(one)
            unmet.append(" or ".join(words))
            hint = f"if your contract has it, write attests: [{words[-1]}]"
            findings.warn(path, f"the site {endpoint.site} requires {unmet[-1]}, not attested: never asked", hint)
    return tuple(unmet)


def _passthrough(findings: Findings, path: KeyPath, section: DeploymentSection, endpoint: Endpoint) -> frozenset[str]:
    allowed = endpoint.facts.allows if endpoint.facts is not None else frozenset[str]()
    for index, name in enumerate(section.passthrough):
        if name in moves_data() - allowed:
            message = f"`{name}` moves or keeps data, which nothing known of {endpoint.site} allows"
            findings.error((*path, "passthrough", index), message, "remove it")
    return frozenset(section.passthrough)
