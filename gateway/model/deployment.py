"""A deployment: one model of one provider at one site, with its concurrency limit and the end of its model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

from gateway.model.approval import Approval, Days, approvals_for, why_unapproved
from gateway.model.consent import ConsentRule
from gateway.model.end_stages import EndStage, answering, redirect_of
from gateway.model.held_token import TokenSource
from gateway.model.parts import NO_PARTS, Parts
from gateway.model.quota import KEEP_NOTHING, Keep, Quota
from gateway.model.section import PlainSection, key, section
from gateway.model.served import INPUTS
from gateway.model.units import Seconds
from providers.adapter import Adapter, Capabilities, EmulatesFeatures, Target
from providers.auth import Secret
from providers.catalogue.prices import Price, Retirement
from providers.matching.capability_matching import CapabilityMatch, has_effects_there, match_capabilities
from providers.matching.requirements import CACHE_KEY, FEATURES, IDENTITY, IMPLIED, PARAMETERS, Requirements, moves_data
from providers.moderations.contract import ModerationFormat
from providers.moderations.guard_models import GuardKind
from providers.moderations.values import Verdicts
from providers.openai_json.misspelled_fields import FIELDS
from providers.served import SizedNeeds
from providers.sites import Residency
from providers.territories import Places
from providers.value import Value, replace

if TYPE_CHECKING:
    from providers.transport.tls import Link

_NOTHING = Capabilities(frozenset(), frozenset())
_STANDARD_NAMES = (
    FIELDS
    | PARAMETERS
    | FEATURES
    | IDENTITY
    | IMPLIED.keys()
    | {"stream_options.include_obfuscation", "reasoning_state", "cache_control"}
    | {"pattern", "format", "minLength", "maxLength"}
)
CacheKey = Literal["pseudonym", "strip", "pass"]


@section
class Concurrency(PlainSection):
    """How many calls of a deployment may run at the same time, and how many requests may wait for a slot."""

    limit: int = key("Maximum number of concurrent calls of all workers.", default=0, written=None, ge=1, le=1_000_000)
    queue: int = key("Maximum number of requests of all workers that wait for a slot.", default=20, ge=0, le=100_000)
    wait_s: Seconds = key(
        "How long a request may wait before the next step is tried.", default=2.0, name="wait", written="2s"
    )
    keep: Keep = key(
        "The part of the slots that stays free of clients with a lower priority. Default: none.", default=KEEP_NOTHING
    )


@section
class TlsFiles(PlainSection):
    """The authorities that sign the server's certificate, and the certificate that the gateway shows to the server."""

    ca: str | None = key(
        "A PEM file with the authorities to trust instead of the public ones. Not for a site of the catalogue, "
        "unless the proxy `inspects`.",
        default=None,
    )
    client_certificate: str | None = key("A PEM file with the gateway's certificate and its chain.", default=None)
    client_key: str | None = key("The PEM file of its private key, without a passphrase.", default=None)


class Proxy(Value, frozen=True):
    """An HTTP proxy on the way to a deployment. It sees which server is called and when.

    If it `inspects` what is sent, its territory is a place of processing.
    """

    origin: str
    territory: Places
    inspects: bool = False

    def facts(self) -> dict[str, object]:
        """Return it as JSON data."""
        return {"origin": self.origin, "territory": str(self.territory), "inspects": self.inspects}

    def __str__(self) -> str:
        return f"{self.origin} in {self.territory}{', which reads the content' if self.inspects else ''}"


@dataclass(frozen=True, slots=True)
class Deployment:
    """One model of one provider at one site: the target of an attempt."""

    name: str
    provider: str
    adapter: Adapter
    model: str
    site: str
    """The catalogue's name of the site, or the origin of an operator's own URL."""
    origin: str
    target: Target
    residency: Residency
    available: Places
    """The territories whose users it may answer. Everywhere for a URL that is not in the catalogue."""
    capabilities: Capabilities
    """The abilities that the wire format, the model and the operator's config all support."""
    excepts: frozenset[str] = frozenset()
    """Features and parameters that the site's promise of residency excludes."""
    unmet: tuple[str, ...] = ()
    """Requirements of the site that the operator has not attested, in words."""
    allowed_moves: frozenset[str] = frozenset()
    credentials: tuple[Secret, ...] = ()
    """The keys, which conversations share. `needs_credential` states whether it works without one."""
    headers: tuple[tuple[str, Secret], ...] = ()
    """Further headers of each call. They are as secret as the credential."""
    needs_credential: bool = True
    missing_credentials: tuple[str, ...] = ()
    """The sources of credentials that are not set (`DASHSCOPE_API_KEY`)."""
    unsupported: Literal["drop", "refuse"] = "drop"
    enabled: bool = True
    simulates: str | None = None
    approvals: tuple[Approval, ...] = ()
    fold: bool | None = None
    """Whether a request for one JSON answer is sent as a stream. None if the next step of the route decides."""
    first_token_s: float | None = None
    """The time limit to the first event. None uses the general limit and the one of the model."""
    consent: ConsentRule | None = None
    """The consent that it requires of the user, if any."""
    identity: Literal["strip", "hash", "pass"] = "strip"
    """The treatment of fields that identify the user, except the key of the prompt cache."""
    cache_key: CacheKey = "pseudonym"
    """The treatment of that key (`prompt_cache_key`). `cache_key_in` applies the rule of protected regions."""
    cache_key_written: bool = False
    """Whether the file names this treatment."""
    cache: Literal["client", "auto"] = "client"
    """`auto`: the gateway marks the end of a prompt for the cache if the client set no mark."""
    cache_isolation: Literal["client", "user"] | None = None
    """The callers that share no part of the server's prefix cache with others: clients or users."""
    pseudonym_key: Secret | None = None
    """The key for pseudonyms, if these fields are hashed."""
    price: Price | None = None
    """The prices of the model's tokens at the site, the latest first, or None if none is known. `price_at` returns the
    one that holds at a moment."""
    stages: tuple[EndStage, ...] = ()
    """The known stages of the end of the model, its site or its API, without those that the operator accepts."""
    concurrency: Concurrency | None = None
    """The limit of its concurrent calls, or None without one."""
    quotas: tuple[Quota, ...] = ()
    """The limits of its account at the vendor, in the order in which they are asked."""
    guard: GuardKind | None = None
    """How a guard model answers, if its name does not show it."""
    verdicts: Verdicts | None = None
    """The categories and thresholds with which a decision model judges, or None if it does not."""
    structured_output: Literal["native", "emulate"] = "native"
    """`emulate`: where it has no JSON schemas, the gateway asks in words and checks the answer."""
    tls: TlsFiles | None = None
    """The files of its own authorities and of the client's certificate, if it has any."""
    proxy: Proxy | None = None
    """The proxy through which it is called, if there is one."""
    sign_in: TokenSource | None = field(default=None, repr=False)
    """How its tokens are got, if it has no key of its own."""
    link: Link | None = field(default=None, repr=False)
    """How connections are made, with the content of these files and the credentials of the proxy. None: directly, with
    the public authorities; or secrets are not resolved."""
    voices: Mapping[str, str] = field(default_factory=dict, hash=False)
    """The vendor's voices by the product's names, `*` for every other name. Empty: names go as they are."""
    audio_bytes: int | None = None
    """The largest file that a server of one's own takes, or None for the fact of the provider."""
    counts: bool | None = None
    """See `Target.counts`."""
    counts_hidden: bool = False
    """The provider's count of an input is believed, however high it is."""
    accept_ended: bool = False
    parts: Parts = field(default=NO_PARTS, repr=False, hash=False)
    """The parts of features on it, such as the wrapper of all that it is sent."""
    ends_s: float | None = field(init=False)
    """The moment (Unix time) from which on routes pass it over, because the vendor has ended it, or answers with a
    model elsewhere; None if neither is known."""
    redirect: EndStage | None = field(init=False, repr=False)
    """The stage from which on the vendor answers with another model, whose answers are used; or None."""
    leaving: EndStage | None = field(init=False, repr=False)
    """The stage from which on another model would answer that stores or computes elsewhere; or None."""
    places: tuple[str, str] = field(init=False, repr=False)
    """Where it stores and where it processes data, in words."""
    asked_at: tuple[str, str, str] = field(init=False, repr=False)
    """Its name, origin and model. Health and latencies belong to these three, over any number of config versions."""
    proxy_origin: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", (str(self.residency.stores), str(self.residency.processes)))
        object.__setattr__(self, "asked_at", (self.name, self.origin, self.model))
        object.__setattr__(self, "leaving", next((it for it in self.stages if it.leaves), None))
        object.__setattr__(self, "redirect", redirect_of(self.stages))
        ends = [it.acts_s for it in self.stages if it.passes_over and it.acts_s is not None]
        object.__setattr__(self, "ends_s", min(ends, default=None))
        has_proxy = self.proxy is not None and self.simulates is None
        object.__setattr__(self, "proxy_origin", self.proxy.origin if self.proxy is not None and has_proxy else "")

    @property
    def knows_cache_key(self) -> bool:
        """Whether its provider has the field `prompt_cache_key`, or the operator passes it on."""
        return CACHE_KEY in self.capabilities.parameters or CACHE_KEY in self.target.passthrough

    def cache_key_in(self, *, protected: bool) -> CacheKey:
        """Return the treatment of an agent's session as the key of the prompt cache, for requests of a region.

        A vendor of a protected region gets new data only with a signature, so neither the default nor `identity: pass`
        applies there.
        """
        return "strip" if protected and not self.cache_key_written else self.cache_key

    def treatment_of(self, name: str, use: str, *, protected: bool) -> CacheKey:
        """Return what becomes of a field of `IDENTITY` in requests of a region. `passthrough` keeps it as it is."""
        if name == CACHE_KEY and use != "chat":
            return "strip"
        if name == CACHE_KEY and (self.cache_key_written or name not in self.target.passthrough):
            return self.cache_key_in(protected=protected)
        if name in self.target.passthrough:
            return "pass"
        if self.identity == "hash":
            return "strip" if name == "metadata" else "pseudonym"
        return self.identity

    def within(self, places: Places) -> bool:
        """Return whether content stays inside the places, and its proxy and its issuer of tokens are there too."""
        is_inside = self.residency.within(places) and (self.proxy is None or self.proxy.territory.within(places))
        return is_inside and (self.sign_in is None or self.sign_in.outside(places) is None)

    def price_at(self, time_s: float) -> Price | None:
        """Return the price that holds at a moment (Unix time), or None if it is unknown."""
        return self.price.at(time_s) if self.price is not None else None

    def coming_prices(self, time_s: float) -> list[Price]:
        """Return the prices that hold from a later day on than a moment (Unix time), the next one first."""
        return self.price.coming(time_s) if self.price is not None else []

    @property
    def retirement(self) -> Retirement | None:
        """The statement by which the vendor ends the model, its site or its API for certain, or None without one."""
        return next((it.row for it in self.stages if it.is_retirement), None)

    @property
    def retires_on(self) -> date | None:
        """The day from which on the vendor need not serve the model, or None if it is unknown."""
        return self.retirement.on if self.retirement is not None else None

    def redirected_to(self, now_s: float) -> str | None:
        """Return the model that may answer under this one's name at a moment (Unix time), or None if none does."""
        redirect = self.redirect
        begins_s = redirect.acts_s if redirect is not None else None
        return redirect.to if redirect is not None and begins_s is not None and now_s >= begins_s else None

    def approvals_on(self, days: Days, region: str = "") -> list[Approval]:
        """Return the approvals for the models that may answer on these dates, for a region or for all."""
        return approvals_for(self.approvals, self.model, answering(self.model, self.redirect, days), region)

    def why_unapproved(self, region: str, days: Days, *, reveal_model: bool = True) -> str | None:
        """Return None if each model that may answer on the dates has an approval for the region, else why, in words.

        Without `reveal_model` the words name no model.
        """
        for model in answering(self.model, self.redirect, days):
            own = approvals_for(self.approvals, self.model, (model,), region)
            others = dict.fromkeys(it.model or self.model for it in self.approvals if it.region == region)
            if others and not own:
                names, name = (", ".join(others), model) if reveal_model else ("another model", "the model")
                since = f" since {self.redirect.on}" if self.redirect is not None and model != self.model else ""
                return f"its approval for region {region!r} is for {names}; {name} may answer{since}"
            if (why := why_unapproved(own, region, days)) is not None:
                return why
        return None

    def emulates_schemas(self, *, bounded: bool) -> bool:
        """Return whether answers by a JSON Schema are emulated. `bounded`: the promise of the site counts."""
        is_native = "json_schema" in self.capabilities.features and not (bounded and "json_schema" in self.excepts)
        return self.structured_output == "emulate" and not is_native

    @property
    def emulated(self) -> frozenset[str]:
        """The features that its adapter or the gateway emulates, where the promise of its site does not count."""
        by_adapter = self.adapter.emulated if isinstance(self.adapter, EmulatesFeatures) else frozenset[str]()
        return by_adapter | ({"json_schema"} if self.emulates_schemas(bounded=False) else frozenset())

    @property
    def judges_as(self) -> GuardKind | Verdicts | None:
        """How it is asked as a judge, if the operator has stated it."""
        return self.verdicts if self.verdicts is not None else self.guard

    def price_use(self, use: str) -> str:
        """Return the use whose price a call has: a judge with thresholds is asked for decisions."""
        return "decisions" if use == "moderations" and self.verdicts is not None else use

    @property
    def has_credential(self) -> bool:
        """Whether it can be called at all: it has a credential or needs none."""
        return bool(self.credentials) or not self.needs_credential


def match_of(deployment: Deployment, needs: Requirements) -> CapabilityMatch:
    """Return how well the request fits the deployment: its wire format, its model, and what the operator allows."""
    target = deployment.target
    capabilities = deployment.capabilities if needs.use == "chat" else capabilities_for(deployment, needs.use)
    if isinstance(needs, SizedNeeds):
        fitting = INPUTS[needs.use].fitting(deployment, needs)
        capabilities = replace(capabilities, features=capabilities.features | fitting)
    return match_capabilities(needs, capabilities, target.facts, target.passthrough, deployment.allowed_moves)


def moderations_of(deployment: Deployment) -> ModerationFormat | None:
    """Return how a deployment is asked for moderations, or None if it classifies no content."""
    found: ModerationFormat | None = format_of(deployment, "moderations")
    return found


def format_of(deployment: Deployment, use: str) -> Any:
    """Return how a deployment is asked for a use that is not chat, or None if it does not have it."""
    return INPUTS[use].format_of(deployment.adapter, deployment.model, deployment.judges_as)


def capabilities_for(deployment: Deployment, use: str) -> Capabilities:
    """Return what a deployment can do for requests of this use."""
    if use == "chat":
        return deployment.capabilities
    form = format_of(deployment, use)
    return INPUTS[use].capabilities(form, deployment.model) if form is not None else _NOTHING


def known_names(names: Iterable[str], deployments: Iterable[Deployment]) -> list[str]:
    """Return those of the names of request fields that OpenAI's API or one of the deployments knows, sorted.

    A client makes up any other name, so it may contain personal data. Logs and receipts only count these.
    """
    known = _STANDARD_NAMES | moves_data()
    offered = {name for deployment in deployments for name in deployment.capabilities.parameters}
    return sorted(name for name in names if name in known or name in offered)


def has_effects_at(deployment: Deployment, needs: Requirements) -> bool:
    """Return whether a deployment that the request fits stores or does something in addition to answering."""
    return has_effects_there(needs, deployment.capabilities, deployment.target.passthrough, deployment.allowed_moves)
