"""Compile `deployments`: adapter, model facts, capabilities, concurrency and overrides."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, TypeAlias, TypeVar

from gateway.config.approvals import compile_approvals, compile_consent
from gateway.config.credentials import CredentialReader, Credentials, with_sign_in
from gateway.config.ended_providers import ended_message, hint_for
from gateway.config.endpoints import SIMULATOR, Endpoint, Endpoints
from gateway.config.links import Links, Way
from gateway.config.operator_catalogue import (
    OwnCatalogue,
    OwnModelSection,
    meant_provider,
    provider_hint,
    provider_of_model,
    warn_of_fees,
)
from gateway.config.problems import KeyPath, choice_hint, nearest, nearest_names, quoted
from gateway.config.quotas import check_keep, quotas_of
from gateway.config.schema.routing import DeploymentSection
from gateway.config.territories import listed, read_territories
from gateway.config.validation import Draft, Findings
from gateway.model.approval import Approval, Days, approvals_for
from gateway.model.config_version import Secrets
from gateway.model.deployment import CacheKey, Concurrency, Deployment
from gateway.model.end_stages import EndStage, stages_of
from gateway.model.endings import acting_at, price_endings_of, stage_endings_of
from gateway.model.held_token import TokenSource
from gateway.model.quota import Quota
from gateway.model.served import INPUTS, USES
from providers.adapter import (
    STREAM_OPTIONS,
    Adapter,
    AsksForUsage,
    Capabilities,
    CountsTokens,
    EmulatesFeatures,
    KnowsOffers,
    Target,
    known_models,
)
from providers.catalogue.ended import ended_providers
from providers.catalogue.models import UNKNOWN_MODEL, ModelFacts, model_facts
from providers.catalogue.prices import Offers, Price, Retirement
from providers.chat import ChatRequest, UserMessage
from providers.json_values import as_map, read_map
from providers.matching.capability_matching import parameters_of
from providers.matching.requirements import CACHE_CONTROL, CACHE_KEY, CACHE_SALT, FEATURES, IDENTITY, moves_data
from providers.moderations.guard_models import guard_kind_of
from providers.moderations.values import Threshold, Verdicts, load_sentences
from providers.openai_json.decode_request import CANONICAL_FIELDS
from providers.openai_json.read_answer import INLINE_THOUGHTS
from providers.registry import Registry
from providers.sites import Residency, Site
from providers.territories import ANYWHERE, Places, parent
from providers.value import Value, replace

_WORD = re.compile("[A-Za-z]{3,}")
_NUMBER, _DATE = re.compile("[0-9]+"), re.compile("[0-9]{4,}(-[0-9]{2}){0,2}")
_AS_WRITTEN = (
    "provider model unsupported structured_output enabled fold first_token_s identity cache cache_isolation "
    "concurrency guard counts_hidden accept_ended voices audio_bytes".split()
)
"""The keys whose value is that of the deployment."""
_USUAL_WORDS = frozenset({"latest", "preview", "instruct", "chat"})
_TYPO = 0.75
_T = TypeVar("_T", bound=Hashable)
DeploymentPart: TypeAlias = Callable[[Draft, DeploymentSection, Deployment], Deployment]
"""Returns a compiled deployment with the values that a feature has from its section."""


class Vendor:
    """Cached model facts and prices of one adapter, and the names of models that a hint may propose."""

    def __init__(self, adapter: Adapter) -> None:
        models = known_models(adapter)
        offers = adapter.offers if isinstance(adapter, KnowsOffers) else Offers()
        self.knows_models = bool(models)
        offered = (*(row.models for row in offers.prices), *(row.models for row in offers.retirements))
        patterns = {*models}.union(*offered)
        self._patterns = patterns
        stems = [stem for pattern in patterns if (stem := pattern.rstrip("*-.")) and "*" not in stem]
        self._words = frozenset(word for stem in stems for word in _WORD.findall(stem))
        self._numbers = frozenset(number for stem in stems for number in _NUMBER.findall(stem))
        self.facts: Callable[[str], ModelFacts] = cache(lambda model: model_facts(models, model))
        # A pattern such as `gpt-4-*` does not match its own stem.
        self.names = frozenset(stem for stem in stems if model_facts(models, stem) is not UNKNOWN_MODEL)
        self.price: Callable[[str, str], Price | None] = cache(offers.price)
        self.retirements: Callable[[str, str, str], tuple[Retirement, ...]] = cache(offers.retirements_at)

    def is_misspelt(self, model: str) -> bool:
        """Return whether the name has a word that is nearly, but not exactly, a word of this vendor's names.

        The pattern of a family (`gpt-6*`) also matches misspelt names. A name with other digits is another version.
        """
        unknown = [word for word in _WORD.findall(model) if word not in self._words]
        return any(nearest_names(word, self._words, most=1, cutoff=_TYPO) for word in unknown)

    def knows(self, model: str) -> bool:
        """Return whether an entry is about this model, or all parts of its name are known.

        The pattern of a whole family, such as `claude-*`, does not count. A date is not a part of the name.
        """
        matching = [pattern for pattern in self._patterns if fnmatchcase(model, pattern)]
        if any("*" not in pattern or _NUMBER.search(pattern) for pattern in matching):
            return True
        words = all(word in self._words or word in _USUAL_WORDS for word in _WORD.findall(model))
        return words and (not self._numbers or self._numbers.issuperset(_NUMBER.findall(_DATE.sub("", model))))


def _check_concurrency(findings: Findings, path: KeyPath, rule: Concurrency | None) -> None:
    if rule is None:
        return
    if not rule.limit:
        findings.error((*path, "concurrency"), "sets no limit", "give it a `limit`")
    check_keep(findings, (*path, "concurrency"), rule.keep)


class _Interned:
    """Replace equal values by one object.

    A thousand deployments have few different capabilities and territories. A config version with fewer objects is
    pickled and garbage-collected faster.
    """

    def __init__(self) -> None:
        self._seen: dict[Hashable, Any] = {}

    def __call__(self, value: _T) -> _T:
        first: _T = self._seen.setdefault(value, value)
        return first


class _Parts(Value, frozen=True):
    """A section with the resolved parts of its deployment. `own` is the entry of the operator's catalogue."""

    name: str
    section: DeploymentSection
    adapter: Adapter
    vendor: Vendor
    endpoint: Endpoint
    own: OwnModelSection
    facts: ModelFacts
    capabilities: Capabilities


@dataclass(slots=True)
class DeploymentCompiler:
    """Compiles the deployments of a draft, in which invalid ones are marked."""

    draft: Draft
    endpoints: Endpoints
    links: Links
    days: Days
    secrets: Secrets
    catalogue: OwnCatalogue
    sign_in_of: Callable[[KeyPath, DeploymentSection, Adapter, Endpoint], TokenSource | None]
    quotas: Mapping[str, Quota]
    _vendors: dict[str, Vendor] = field(default_factory=dict)
    _shared: _Interned = field(default_factory=_Interned)
    _without_chats: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        # Listed for another use than chats, and in no route of chats.
        assistants = self.draft.config.assistants.values()
        listed = {name for section in assistants for use in USES[1:] for name in section.deployments_of(use)}
        judges = {name for region in self.draft.config.regions.values() for name in region.judges}
        of_chats = [section.deployments_of("chat") for section in assistants]
        self._without_chats = frozenset((listed | judges).difference(*of_chats))

    def compiled(self, features: Sequence[DeploymentPart] = ()) -> dict[str, Deployment]:
        """Return the valid deployments. `features`: add the values of features to a deployment."""
        compiled: dict[str, Deployment] = {}
        for name, section in self.draft.config.deployments.items():
            path: KeyPath = ("deployments", name)
            section = self._as_meant(name, section)
            parts = self._parts(path, name, section)
            if parts is None:
                compile_approvals(self.draft, name, self.days)  # for its errors
                if (known := self.endpoints.registry.adapters.get(section.provider)) is not None:
                    self._check_without_endpoint(path, section, known)
                self.draft.broken.add(path)
                continue
            compiled[name] = self._deployment(parts)
            for feature in features:
                compiled[name] = feature(self.draft, section, compiled[name])
            self._warn_of_ends(path, compiled[name])
            if section.structured_output == "emulate" and not compiled[name].emulates_schemas(bounded=True):
                message = f"it has no effect: {quoted(section.model)} has JSON schemas at this site"
                self.draft.warn((*path, "structured_output"), message, "remove it")
        return compiled

    def _deployment(self, parts: _Parts) -> Deployment:
        """Return the deployment that consists of these parts."""
        name, section = parts.name, parts.section
        path: KeyPath = ("deployments", name)
        adapter, vendor, endpoint, own = parts.adapter, parts.vendor, parts.endpoint, parts.own
        site_name = endpoint.facts.name if endpoint.facts is not None else ""
        known_price = vendor.price(section.model, site_name)
        if known_price is not None and own.price is None:
            warn_of_fees(self.draft, (*path, "model"), (tool for tool, _ in known_price.tool_calls))
        sign_in = self.sign_in_of(path, section, adapter, endpoint)
        way = self.links.way(path, section, endpoint)
        credentials = self._credentials(path, parts, sign_in, way)
        _check_caches(self.draft, path, section, parts.capabilities)
        _check_concurrency(self.draft, path, section.concurrency)
        site = endpoint.facts
        allowed = site.allows if site is not None else frozenset[str]()
        counts = self._counts(path, section, adapter, endpoint)
        price = own.prices_after(known_price)
        approvals, stages = self._ends(parts, price, sign_in)
        return Deployment(
            **{key: getattr(section, key) for key in _AS_WRITTEN},
            name=name,
            adapter=adapter,
            site=endpoint.site,
            origin=self.endpoints.origin_of(path, section.provider, endpoint),
            target=Target(
                model=section.model,
                base_path=endpoint.base_path,
                facts=parts.facts,
                pins=site.pins if site is not None else {},
                passthrough=self._shared(self._passthrough(path, section, endpoint, allowed)),
                counts=counts,
            ),
            residency=self._shared(way.residency),
            available=self._shared(self._available(path, section, site)),
            capabilities=self._shared(parts.capabilities),
            excepts=self._shared(site.excepts if site is not None else frozenset()),
            unmet=self._unmet(path, section, endpoint),
            allowed_moves=self._shared(allowed),
            credentials=credentials.keys,
            sign_in=sign_in,
            headers=credentials.headers,
            needs_credential=credentials.are_needed,
            missing_credentials=credentials.missing,
            simulates=endpoint.simulates,
            approvals=approvals,
            consent=compile_consent(self.draft, path, section, endpoint),
            quotas=quotas_of(self.draft, path, section, self.quotas),
            cache_key=_cache_key(section),
            cache_key_written=section.cache_key is not None,
            pseudonym_key=next(iter(self.secrets.identity), None) if section.identity == "hash" else None,
            tls=way.tls,
            proxy=way.proxy,
            link=way.link,
            counts=counts,
            price=self._shared(price),
            stages=stages,
            verdicts=self._verdicts(path, parts),
        )

    def _verdicts(self, path: KeyPath, parts: _Parts) -> Verdicts | None:
        """Return the categories and thresholds with which a decision model judges. Report what cannot judge so."""
        written = parts.section.verdicts
        if written is None:
            return None
        section, site, path = parts.section, parts.endpoint.facts, (*path, "verdicts")
        form = INPUTS["decisions"].format_of(parts.adapter, section.model)
        if section.guard is not None or guard_kind_of(section.model) is not None:
            self.draft.error(path, "a guard model has verdicts of its own", "remove `verdicts`")
        elif form is None or (site is not None and "decisions" in site.excepts):
            where = "this site" if form is not None else section.provider
            message = f"decides nothing: {where} has no decisions of {quoted(section.model)}"
            self.draft.error(path, message, "use a deployment that has decisions")
        ours, thresholds = load_sentences(), list[Threshold]()
        for category, one in written.items():
            ask = one.ask or ours.sentences.get(category, "")
            if not ask.strip():
                message = f"{quoted(category)} is not a category of OpenAI, so it needs a statement"
                self.draft.error((*path, category), message, "write {at: …, ask: …}, or correct the name")
            thresholds.append(Threshold(category, one.at, ask))
        return Verdicts(tuple(thresholds), ours.version)

    def _ends(
        self, parts: _Parts, price: Price | None, sign_in: TokenSource | None
    ) -> tuple[tuple[Approval, ...], tuple[EndStage, ...]]:
        """Return the approvals of a deployment, and the stages of the end of its model that it does not accept."""
        site, model = parts.endpoint.facts, parts.section.model
        known = parts.vendor.retirements(model, site.name if site is not None else "", parts.endpoint.base_path)
        places = sign_in.places if sign_in is not None else ()

        def leaves(to: str) -> bool:
            if site is None:
                return False
            before, after = site.residency_of(model), site.residency_of(to)
            return not (after.stores.within(before.stores) and after.processes.within(before.processes))

        hosts = [place.end for place in places if place.end is not None]
        stages = stages_of(known, parts.own.retirement_of(model, known), hosts, leaves)
        approvals = compile_approvals(self.draft, parts.name, self.days, stages)
        if not parts.section.accept_ended:
            return approvals, stages
        if not any((*stages, price is not None and price.ends, *(it.valid_until for it in approvals))):
            message = f"it has no effect: no end of {parts.section.provider}'s {quoted(model)} is known"
            self.draft.warn(("deployments", parts.name, "accept_ended"), message, "remove it")
        # A word for an end or an approval must not let another model in under them.
        return approvals, tuple(it for it in stages if it.stage == "redirects")

    def _credentials(self, path: KeyPath, parts: _Parts, sign_in: TokenSource | None, way: Way) -> Credentials:
        """Return the keys and headers of a deployment. It has no keys while those of its proxy are missing."""
        section = parts.section
        read = CredentialReader(self.draft, path, section, parts.adapter, parts.endpoint).read()
        if section.sign_in is not None and parts.endpoint.simulates is None:
            read = with_sign_in(read, sign_in)
        return replace(read, keys=(), missing=(*read.missing, *way.missing), are_needed=True) if way.missing else read

    def _check_without_endpoint(self, path: KeyPath, section: DeploymentSection, adapter: Adapter) -> None:
        """Report the errors of a deployment that do not depend on its endpoint, which is wrong itself."""
        unknown = Endpoint("https://unknown.invalid", "", Residency(ANYWHERE, ANYWHERE), None)
        CredentialReader(self.draft, path, section, adapter, unknown).read()
        self.links.way(path, section, unknown)
        _check_concurrency(self.draft, path, section.concurrency)
        quotas_of(self.draft, path, section, self.quotas)
        if section.available is not None:
            read_territories(self.draft, (*path, "available"), section.available)
        for key, words in (("stores", section.stores), ("processes", section.processes)):
            if words is not None:
                read_territories(self.draft, (*path, key), words)
        self._passthrough(path, section, unknown, moves_data())

    def _as_meant(self, name: str, section: DeploymentSection) -> DeploymentSection:
        """Return the section with the names that were probably meant, to find its other mistakes; report its names."""
        registry = self.endpoints.registry
        if section.provider not in registry.adapters:
            self.endpoints.guessed.add(("deployments", name))
            find_adapter(self.draft, ("deployments", name), section.provider, registry)
            provider = meant_provider(section.provider, registry) or section.provider
            section = section.model_copy(update={"provider": provider})
        section = self._with_provider_of_model(name, section)
        adapter = registry.adapters.get(section.provider)
        if adapter is None:
            return section
        unknown = {
            key: site
            for key, site in (("endpoint", section.endpoint), ("simulates", section.simulates))
            if site is not None and site not in adapter.sites and site != SIMULATOR and ":" not in site
        }
        meant = {key: near for key, site in unknown.items() if (near := nearest(site, adapter.sites)) is not None}
        if meant:
            self.endpoints.read(name, section, adapter)  # for its errors
        return section.model_copy(update=meant) if meant else section

    def _with_provider_of_model(self, name: str, section: DeploymentSection) -> DeploymentSection:
        """Report a model that its vendor serves in the wire format of another provider; return the section with it."""
        other = provider_of_model(section.provider, section.model, self.endpoints.registry)
        if other == section.provider:
            return section
        message = f"{section.provider} has no model {quoted(section.model)}: it is a model of {other}"
        self.draft.error(("deployments", name, "provider"), message, f"write `provider: {other}`")
        return section.model_copy(update={"provider": other})

    def _parts(self, path: KeyPath, name: str, section: DeploymentSection) -> _Parts | None:
        """Return the parts of a deployment, or None after all their errors have been reported."""
        adapter = find_adapter(self.draft, path, section.provider, self.endpoints.registry)
        if adapter is None:
            return None
        endpoint = self.endpoints.read(name, section, adapter)
        vendor = self._vendors.get(section.provider) or self._vendors.setdefault(section.provider, Vendor(adapter))
        own = self.catalogue.model(section.provider, section.model)
        known = self._facts(path, section, vendor, own, is_chat=name not in self._without_chats)
        facts = self._with_server_options(path, section, adapter, own.facts_of(known))
        capabilities = self._capabilities(path, section, adapter, facts)
        if section.capabilities is not None or not capabilities.features <= facts.features:
            # The encoder of the request must know these capabilities too. Known features that the list omits are kept:
            # a thinking model thinks anyway.
            facts = replace(facts, features=facts.features | capabilities.features)
        if endpoint is None:
            return None
        return _Parts(name, section, adapter, vendor, endpoint, own, facts, capabilities)

    def _facts(
        self, path: KeyPath, section: DeploymentSection, vendor: Vendor, own: OwnModelSection, *, is_chat: bool
    ) -> ModelFacts:
        facts = vendor.facts(section.model)
        if not is_chat:
            # The catalogue's facts are about chats.
            return facts
        if facts is UNKNOWN_MODEL and vendor.knows_models and section.capabilities is None and own.capabilities is None:
            model = f"{section.provider}'s model {quoted(section.model)}"
            message = f"no facts are known about {model}: only text and tools are allowed"
            near = nearest_names(section.model, vendor.names)
            question = f"did you mean {' or '.join(map(quoted, near))}?" if near else "check its name."
            self.draft.warn((*path, "model"), message, f"{question} If the name is right, list its `capabilities`")
        elif facts is not UNKNOWN_MODEL and not own.is_listed:
            is_misspelt = vendor.is_misspelt(section.model)
            if is_misspelt or not vendor.knows(section.model):
                # A new version that the pattern of its family covers is not a mistake of typing.
                names = vendor.names if is_misspelt else ()
                warn_of_unknown_model(self.draft, (*path, "model"), section.provider, section.model, names)
        return facts

    def _with_server_options(
        self, path: KeyPath, section: DeploymentSection, adapter: Adapter, facts: ModelFacts
    ) -> ModelFacts:
        """Return the facts with the options of a server with OpenAI's form: `inline_thoughts` and `stream_options`."""
        if section.inline_thoughts is not None:
            if isinstance(adapter, AsksForUsage):
                facts = replace(facts, flags=facts.flags | {INLINE_THOUGHTS[section.inline_thoughts]})
            else:
                message = f"{section.provider} has reasoning in a field of its own"
                self.draft.warn((*path, "inline_thoughts"), message, "remove it")
        if section.stream_options:
            return facts
        if not isinstance(adapter, AsksForUsage) or not adapter.asks_for_usage:
            self.draft.warn((*path, STREAM_OPTIONS), f"{section.provider} never receives this field", "remove it")
            return facts
        return replace(facts, without=facts.without | {STREAM_OPTIONS})

    def _capabilities(
        self, path: KeyPath, section: DeploymentSection, adapter: Adapter, facts: ModelFacts
    ) -> Capabilities:
        features = facts.features
        if section.capabilities is not None:
            known = FEATURES | adapter.capabilities.features
            for index, word in enumerate(section.capabilities):
                if word not in known:
                    at = (*path, "capabilities", index)
                    self.draft.error(at, f"unknown capability {quoted(word)}", choice_hint(word, known))
                elif word not in adapter.capabilities.features:
                    message = f"{section.provider} cannot express {quoted(word)} with any model"
                    self.draft.warn((*path, "capabilities", index), message, "remove it")
            features = frozenset(section.capabilities)
        features |= getattr(adapter, "server_features", frozenset[str]())
        if isinstance(adapter, EmulatesFeatures):
            # A list of the operator states what the model can do itself.
            features |= adapter.emulated
        return Capabilities(
            features=adapter.capabilities.features & features,
            parameters=parameters_of(adapter.capabilities, facts),
            context_tokens=facts.context_tokens or adapter.capabilities.context_tokens,
            limits_thinking=adapter.capabilities.limits_thinking,
        )

    def _counts(self, path: KeyPath, section: DeploymentSection, adapter: Adapter, endpoint: Endpoint) -> bool | None:
        """Return whether the server counts tokens, as the catalogue or the operator states, or None if neither does."""
        stated, path = section.counts, (*path, "counts")
        if endpoint.facts is not None:
            if stated is not None:
                message = f"whether {endpoint.site} counts tokens is a known fact"
                self.draft.error(path, message, "remove it; the facts of the site are used")
            return True if endpoint.facts.counts is not None else None
        if stated and not can_count(adapter, section.model, endpoint.base_path):
            message = f"{section.provider} has no request that counts tokens"
            self.draft.error(path, message, "remove it; the gateway estimates the tokens of a prompt")
        return stated

    def _available(self, path: KeyPath, section: DeploymentSection, site: Site | None) -> Places:
        """Return the territories whose users it may answer.

        The operator may narrow the list of a vendor that publishes one, and may add to the list of another vendor.
        """
        path = (*path, "available")
        stated = read_territories(self.draft, path, section.available) if section.available is not None else None
        if site is None:
            return stated or ANYWHERE
        known = site.availability
        if known.published:
            if stated is not None and not stated.within(known.places):
                unserved = {code for code in stated.included or () if not known.places.contains(code)}
                unserved |= {code for code in known.places.excluded if stated.contains(code)}
                detail = f"it does not serve {listed(unserved)}" if unserved else "it does not serve every territory"
                message = f"the vendor publishes which territories it serves, and {detail}"
                self.draft.error(path, message, "the list may only be narrowed")
            return stated or known.places
        own = _without(known.places, known.never)
        if stated is None:
            return own
        parts = {code for code in stated.included or () if parent(code) in known.never}
        if forbidden := parts | {code for code in known.never if stated.contains(code)}:
            exclusions = ", ".join(f'"!{code}"' for code in sorted(forbidden))
            message = f"the site {site.name} must not answer users in {listed(forbidden)}"
            self.draft.error(path, message, f"exclude it: {exclusions}")
        return own.union(stated)

    def _unmet(self, path: KeyPath, section: DeploymentSection, endpoint: Endpoint) -> tuple[str, ...]:
        """Return the conditions of the site that the section does not attest."""
        requires = endpoint.facts.requires if endpoint.facts is not None else ()
        known = frozenset[str]().union(*requires)
        for index, word in enumerate(section.attests):
            if word not in known:
                hint = choice_hint(word, known, none="it requires nothing; remove it")
                message = f"{endpoint.site} does not require {quoted(word)}"
                report = self.draft.error if known else self.draft.warn
                report((*path, "attests", index), message, hint)
        unmet: list[str] = []
        for alternatives in requires:
            if not alternatives & set(section.attests):
                words = sorted(alternatives)
                unmet.append(" or ".join(words))
                message = (
                    f"the site {endpoint.site} requires {unmet[-1]}, which is not attested: the deployment is skipped"
                )
                self.draft.warn(path, message, f"if your contract has it, write attests: [{words[-1]}]")
        return tuple(unmet)

    def _passthrough(
        self, path: KeyPath, section: DeploymentSection, endpoint: Endpoint, allowed: frozenset[str]
    ) -> frozenset[str]:
        """Return the fields that are passed on. Those of `allowed` may move data."""
        for index, name in enumerate(section.passthrough):
            if name in moves_data() - allowed:
                message = f"`{name}` moves or keeps data, which the known facts of {endpoint.site} do not allow"
                self.draft.error((*path, "passthrough", index), message, "remove it")
            # A field that identifies the user is removed or hashed unless it is listed here.
            elif name in CANONICAL_FIELDS - IDENTITY:
                message = f"`{name}` has no effect: it is a standard field, and `passthrough` is for unknown ones"
                hint = "remove it; `capabilities` states which standard fields and features the model supports"
                self.draft.error((*path, "passthrough", index), message, hint)
        return frozenset(section.passthrough)

    def _warn_of_ends(self, path: KeyPath, deployment: Deployment) -> None:
        for ending in price_endings_of(deployment, self.days):
            hint = "set the price in your own catalogue, or write `accept_ended: true`"
            self.draft.warn_of_end((*path, "model"), ending, hint)
        for stage in stage_endings_of(deployment, self.days):
            row, message = stage.stage.row, f"{stage}{self._of_approvals(deployment, stage.stage)}"
            key = "sign_in" if row.host else "endpoint" if row.paths else "model"
            fix = f"such as {stage.instead}" if stage.instead else "or set another day in your own catalogue"
            is_kept = stage.is_over and not stage.stage.leaves
            kept = "; if the vendor still serves you, write `accept_ended: true`" if is_kept else ""
            hint = f"use another {'one' if row.what else 'model'}, {fix}{kept}"
            self.draft.warn_of_end((*path, key), stage, hint, message)

    def _of_approvals(self, deployment: Deployment, stage: EndStage) -> str:
        """Return what a redirect means for the approvals of a deployment, or an empty text if it means nothing."""
        named = {it.region for it in deployment.approvals}
        named -= {it.region for it in approvals_for(deployment.approvals, deployment.model, (stage.to,))}
        sections = self.draft.config.regions.items()
        regions = [name for name, section in sections if name in named and section.approvals == "required"]
        if not stage.to or stage.leaves or not regions:
            return ""
        if not stage.firm:
            return "; if so, its approvals are for another model"
        return f"; its approvals in {', '.join(regions)} do not count from {acting_at(stage)}"


def _check_caches(findings: Findings, path: KeyPath, section: DeploymentSection, capabilities: Capabilities) -> None:
    if section.cache == "auto" and not ("claude" in section.model.lower() and CACHE_CONTROL in capabilities.parameters):
        message = f"`auto` is for models of Claude at a provider with marks, not for {quoted(section.model)}"
        findings.error((*path, "cache"), message, "remove it: other providers cache by themselves, or not at all")
    if section.cache_key in ("pseudonym", "pass") and CACHE_KEY not in {*capabilities.parameters, *section.passthrough}:
        message = f"it has no effect: {section.provider} has no field `prompt_cache_key`"
        findings.warn((*path, "cache_key"), message, "remove it")
    if section.cache_isolation is not None and CACHE_SALT not in capabilities.parameters:
        message = f"{section.provider} has no field that keeps clients apart in a cache"
        hint = "remove it, and use separate accounts: a deployment with its own `api_key` for each group of clients"
        findings.error((*path, "cache_isolation"), message, hint)


def _cache_key(section: DeploymentSection) -> CacheKey:
    """Return the treatment of the key of the prompt cache: the one of the file, or the one that `identity` implies."""
    if section.cache_key is not None:
        return section.cache_key
    if section.identity == "strip":
        return "strip" if "identity" in section.model_fields_set else "pseudonym"
    return "pass" if section.identity == "pass" else "pseudonym"


def find_adapter(findings: Findings, path: KeyPath, provider: str, registry: Registry) -> Adapter | None:
    """Return the adapter of the provider, or None after the reason has been reported."""
    if provider in registry.broken:
        message = f"the provider {quoted(provider)} is installed, but cannot be loaded: {registry.broken[provider]}"
        findings.error((*path, "provider"), message, "fix or update its package")
    elif (ended := ended_providers().get(provider)) is not None and provider not in registry.adapters:
        section = dict(as_map(read_map(findings.source.values, "deployments").get(str(path[1]))))
        hint = hint_for(section, ended, findings.source.file)
        findings.error((*path, "provider"), ended_message(provider, ended), hint)
    elif provider not in registry.adapters:
        hint = provider_hint(provider, registry)
        findings.error((*path, "provider"), f"unknown provider {quoted(provider)}", hint)
    return registry.adapters.get(provider)


class RouteEntry(Value, frozen=True):
    """A deployment in a route, and its position: a step, or a member of a weighted step, whose name is a key."""

    path: KeyPath
    deployment: Deployment
    at_key: bool


def warn_of_unknown_model(findings: Findings, path: KeyPath, provider: str, model: str, names: Iterable[str]) -> None:
    """Warn of a model that is neither in the catalogue nor in the operator's own."""
    message = f"the catalogue does not know {provider}'s model {quoted(model)}"
    near = nearest_names(model, names)
    question = f"did you mean {' or '.join(map(quoted, near))}?" if near else "check its name."
    findings.warn(path, message, f"{question} If the name is right, add it to your own `catalogue`")


def can_count(adapter: Adapter, model: str, base_path: str) -> bool:
    """Return whether the wire format has a request that counts the tokens of a prompt."""
    target = Target(model, base_path, UNKNOWN_MODEL, counts=True)
    probe = ChatRequest(model, (UserMessage("Hello"),))
    return isinstance(adapter, CountsTokens) and adapter.count_request(probe, target) is not None


def _without(places: Places, never: frozenset[str]) -> Places:
    if places.included is None:
        return Places(None, places.excluded | never)
    return Places(places.included - never, places.excluded)
