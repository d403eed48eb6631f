"""The adapter for all compatible vendors. A TOML file describes each vendor's differences from OpenAI's API.

acme = "providers.compatible.adapter:acme"          entry point in this repository: reads providers/compatible/acme.toml
ADAPTER = adapter_of(files("acme").joinpath("acme.toml").read_text())         in another package
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from providers.adapter import Capabilities, StreamParser, Target
from providers.auth import AuthScheme
from providers.catalogue import FactsFile
from providers.catalogue.headers import FixedHeader, headers_of, load_headers
from providers.catalogue.models import ModelFacts, load_models, load_names, models_of, names_of
from providers.catalogue.prices import Offers, load_offers, offers_of
from providers.catalogue.sites import load_sites, sites_of
from providers.catalogue.takes import Takes
from providers.chat import ChatCompletion, ChatRequest
from providers.compatible.dialect import CompatibleDialect, DialectError, read_dialect
from providers.compatible.request import encode_body, path_and_query
from providers.failures import Failure
from providers.json_values import dumps
from providers.matching.requirements import FEATURES, PARAMETERS
from providers.openai_json.read_answer import ChatReader, read_completion
from providers.openai_json.stream_relay import RelayingParser
from providers.reading.errors import classify, error_object, load_rules
from providers.reading.event_stream import EventStreamParser
from providers.sites import Site
from providers.stated_uses import StatedUses
from providers.value import replace
from providers.wire import WireRequest, WireResponse

_SECTIONS = frozenset(
    "name known_as dialect simulator sites models feature_sets headers prices retirements sources".split()
)
_REFERENCES = frozenset({"models_of", "errors_of"})
"""Keys that refer to another file. Only a file of this repository can have them."""
_WHOLE = (("content-type", "application/json"), ("accept", "application/json"))
_STREAM = (("content-type", "application/json"), ("accept", "text/event-stream"))


@dataclass(frozen=True, slots=True)
class CompatibleAdapter(StatedUses):
    """The adapter of one compatible vendor: its sections, its offers (prices and retirements), and its other names."""

    name: str
    dialect: CompatibleDialect
    sites: Mapping[str, Site]
    models: Mapping[str, ModelFacts]
    offers: Offers = field(default_factory=Offers)
    headers: Mapping[str, FixedHeader] = field(default_factory=dict)
    known_as: tuple[str, ...] = ()

    @property
    def capabilities(self) -> Capabilities:
        return self.dialect.capabilities

    @property
    def auth(self) -> AuthScheme:
        return self.dialect.auth

    @property
    def takes(self) -> Takes:
        """The parts of a request that the vendor's API takes. The gateway reads it to name what was changed."""
        return self.dialect.requests.takes

    @property
    def emulated(self) -> frozenset[str]:
        return self.dialect.emulated

    @property
    def server_features(self) -> frozenset[str]:
        """The features that an operator's own server has with every model. Elsewhere, facts of the model decide."""
        return self.dialect.server_features

    @property
    def asks_for_usage(self) -> bool:
        return self.dialect.requests.stream_options

    @property
    def usual_base_path(self) -> str:
        return self.dialect.requests.base_path

    @property
    def chats(self) -> bool:
        return self.dialect.chats

    def build_request(self, request: ChatRequest, target: Target) -> WireRequest:
        """See `providers.adapter.Adapter`. May request a stream although the client wants one JSON body."""
        body, changed = encode_body(request, target, self.dialect)
        path, query = path_and_query(request, target, self.dialect)
        headers = _STREAM if body.get("stream") is True else _WHOLE
        return WireRequest("POST", path, headers, dumps(body), query, changed)

    def count_request(self, request: ChatRequest, target: Target) -> WireRequest | None:
        """See `providers.adapter.CountsTokens`. The servers read the messages and tools of a chat."""
        if target.counts is False or not (path := self.dialect.requests.count_path):
            return None
        body, _ = encode_body(replace(request, stream=False, n=None), target, self.dialect)
        # This path replaces the version in the base path; it is not below it.
        return WireRequest("POST", target.base_path.removesuffix("/v1") + path, _WHOLE, dumps(body))

    @property
    def unconfirmed(self) -> bool:
        return self.dialect.unconfirmed

    def parse_response(self, response: WireResponse, target: Target) -> ChatCompletion:
        rule = self.dialect.answers.of_server(target.facts.flags)
        return read_completion(response, target.model, rule, self.dialect.errors, self.sites)

    def stream_parser(self, target: Target) -> StreamParser:
        """See `providers.adapter.Adapter`. Text chunks are relayed unchanged unless each must be read."""
        rule = self.dialect.answers.of_server(target.facts.flags)
        reader = ChatReader(target.model, rule, self.dialect.errors, self.sites)
        must_read = rule.inline_thoughts or rule.may_repeat
        end = reader.end if self.server_features else None
        return (EventStreamParser if must_read else RelayingParser)(reader.assembler, reader.read_chunk, end=end)

    def classify_error(self, response: WireResponse) -> Failure:
        return classify(error_object(response.body), response, self.dialect.errors, self.sites)


def adapter_of(toml: str) -> CompatibleAdapter:
    """Return the adapter of the vendor that the TOML text of a vendor's file describes.

    Raises DialectError for a wrong `name` or `[dialect]`, CatalogueError for another section, and TOMLDecodeError.
    """
    data: Mapping[str, Any] = tomllib.loads(toml)
    name = data.get("name")
    if not isinstance(name, str) or not name:
        raise DialectError("name: is missing; set it to the provider's name in the configuration")
    dialect = _dialect_in(data, _SECTIONS)
    adapter = CompatibleAdapter(
        name, dialect, sites_of(data), models_of(data), offers_of(data), headers_of(data), names_of(data)
    )
    _check_names(adapter)
    return adapter


def _dialect_in(data: Mapping[str, object], known: frozenset[str]) -> CompatibleDialect:
    """Return the dialect of a file that has only `known` sections."""
    for section in data:
        if section not in known:
            raise DialectError(f"{section}: is not known; expected one of {', '.join(sorted(known))}")
    dialect = data.get("dialect")
    if not isinstance(dialect, dict):
        raise DialectError(
            "dialect: is missing; add the section [dialect], which describes the differences from OpenAI"
        )
    return read_dialect(dialect)


def _check_names(adapter: CompatibleAdapter) -> None:
    """Check that the names that one section uses are defined in another, or are known features and parameters."""
    dialect = adapter.dialect
    for name, facts in adapter.models.items():
        if facts.thinking and facts.thinking not in dialect.thinking:
            raise DialectError(
                f"models.{name!r}.thinking: {facts.thinking!r} is not known; add it to dialect.thinking, which has "
                f"{', '.join(dialect.thinking) or 'no entries'}"
            )
        if unknown := facts.features - FEATURES:
            raise DialectError(
                f"models.{name!r}.features: {min(unknown)!r} is not known; expected {', '.join(sorted(FEATURES))}"
            )
    for name, site in adapter.sites.items():
        if unknown := site.excepts - FEATURES - PARAMETERS - dialect.capabilities.parameters - {"decisions"}:
            raise DialectError(f"sites.{name}.except: {min(unknown)!r} is not a feature or parameter")


@cache
def adapter_named(name: str) -> CompatibleAdapter:
    """Return the adapter of `providers/compatible/NAME.toml`.

    Raises FileNotFoundError, DialectError for an unknown section or a wrong `[dialect]`, and CatalogueError.
    """
    facts = facts_of(name)
    data: Mapping[str, Any] = facts.read()
    dialect = _dialect_in(data, _SECTIONS | _REFERENCES)
    dialect = replace(dialect, errors=replace(dialect.errors, vendor=name))
    if "errors_of" in data:
        dialect = replace(dialect, errors=load_rules(facts.other(data["errors_of"])))
    adapter = CompatibleAdapter(
        name, dialect, load_sites(facts), load_models(facts), load_offers(facts), load_headers(facts), load_names(facts)
    )
    _check_names(adapter)
    return adapter


def facts_of(name: str) -> FactsFile:
    """Return the TOML file of a compatible vendor of this repository. It contains facts and dialect."""
    return FactsFile("providers.compatible", name)


def __getattr__(name: str) -> CompatibleAdapter:
    """Return the adapter of a TOML file for an entry point: `dashscope_compatible` reads dashscope-compatible.toml."""
    try:
        return adapter_named(name.replace("_", "-"))
    except FileNotFoundError:
        raise AttributeError(f"no compatible vendor {name!r}: there is no such TOML file") from None
