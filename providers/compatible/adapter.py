"""One adapter for every vendor that speaks OpenAI's dialect with differences. Each vendor is a TOML file.

acme = "providers.compatible.adapter:acme"          in this repository: reads providers/compatible/acme.toml
ADAPTER = adapter_of(files("acme").joinpath("acme.toml").read_text())         anywhere else
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
from providers.catalogue.models import ModelFacts, load_models, models_of
from providers.catalogue.names import load_names, names_of
from providers.catalogue.prices import Offers, load_offers, offers_of
from providers.catalogue.sites import load_sites, sites_of
from providers.chat import ChatCompletion, ChatRequest
from providers.compatible.answer import compatible_parser, read_compatible_completion
from providers.compatible.dialect import CompatibleDialect, DialectError, read_dialect
from providers.compatible.errors import classify
from providers.compatible.request import encode_body, place_of
from providers.failures import Failure
from providers.json_values import dumps
from providers.matching.requirements import FEATURES, PARAMETERS
from providers.reading.error_classification import error_object
from providers.sites import Site
from providers.wire import WireRequest, WireResponse

__all__ = ["CompatibleAdapter", "DialectError", "adapter_named", "adapter_of"]

_PARTS = frozenset(
    {"name", "known_as", "dialect", "simulator", "sites", "models", "feature_sets", "headers", "prices", "retirements"}
)
_WHOLE = (("content-type", "application/json"), ("accept", "application/json"))
_STREAM = (("content-type", "application/json"), ("accept", "text/event-stream"))


@dataclass(frozen=True, slots=True)
class CompatibleAdapter:
    """One vendor's dialect of chat completions, as its row has it."""

    name: str
    row: CompatibleDialect
    sites: Mapping[str, Site]
    models: Mapping[str, ModelFacts]
    offers: Offers = field(default_factory=Offers)
    headers: Mapping[str, FixedHeader] = field(default_factory=dict)
    known_as: tuple[str, ...] = ()

    @property
    def capabilities(self) -> Capabilities:
        """See `providers.adapter.Adapter`."""
        return self.row.capabilities

    @property
    def auth(self) -> AuthScheme:
        """See `providers.adapter.Adapter`."""
        return self.row.auth

    @property
    def ends_behind_stop(self) -> bool:
        """See `providers.adapter.EndsBehindStop`."""
        return self.row.answers.stop_left_in

    @property
    def asks_for_usage(self) -> bool:
        """See `providers.adapter.AsksForUsage`."""
        return self.row.requests.stream_options

    @property
    def usual_base_path(self) -> str:
        """See `providers.adapter.KnowsBasePath`."""
        return self.row.requests.base_path

    def build_request(self, request: ChatRequest, target: Target) -> WireRequest:
        """See `providers.adapter.Adapter`; may ask for a stream where the client wants one JSON."""
        body = encode_body(request, target, self.row)
        path, query = place_of(request, target, self.row)
        return WireRequest("POST", path, _STREAM if body.get("stream") is True else _WHOLE, dumps(body), query)

    def parse_response(self, response: WireResponse, target: Target) -> ChatCompletion:
        """See `providers.adapter.Adapter`."""
        return read_compatible_completion(response, self.row, target.model, self.sites)

    def stream_parser(self, target: Target) -> StreamParser:
        """See `providers.adapter.Adapter`."""
        return compatible_parser(self.row, target.model, self.sites)

    def classify_error(self, response: WireResponse) -> Failure:
        """See `providers.adapter.Adapter`."""
        return classify(error_object(response.body), response, self.row.errors, self.sites)


def adapter_of(toml: str) -> CompatibleAdapter:
    """The adapter of a row as text: `name`, `[dialect]`, `[sites]`, `[models]`, `[headers]`, and what it offers.

    Raises RowError, CatalogueError, TOMLDecodeError.
    """
    data: Mapping[str, Any] = tomllib.loads(toml)
    name = data.get("name")
    if not isinstance(name, str) or not name:
        raise DialectError("name: is missing: the provider's name in config")
    for word in data:
        if word not in _PARTS:
            raise DialectError(f"{word}: is not known; expected one of {', '.join(sorted(_PARTS))}")
    row = read_dialect(_dialect_of(data))
    adapter = CompatibleAdapter(
        name, row, sites_of(data), models_of(data), offers_of(data), headers_of(data), names_of(data)
    )
    _check_names(adapter)
    return adapter


def _check_names(adapter: CompatibleAdapter) -> None:
    """What one table calls by a name is in another one, or among the words that requests are judged by."""
    row = adapter.row
    for name, facts in adapter.models.items():
        if facts.thinking and facts.thinking not in row.thinking:
            raise DialectError(f"models.{name!r}.thinking: {facts.thinking!r} is no form of dialect.thinking")
        if unknown := facts.features - FEATURES:
            raise DialectError(f"models.{name!r}.features: {min(unknown)!r} is not known")
    for name, site in adapter.sites.items():
        if unknown := site.excepts - FEATURES - PARAMETERS - row.capabilities.parameters:
            raise DialectError(f"sites.{name}.except: {min(unknown)!r} is not known")


@cache
def adapter_named(name: str) -> CompatibleAdapter:
    """The adapter of our catalogue's file `name`.toml; raises FileNotFoundError."""
    facts = facts_of(name)
    row = read_dialect(_dialect_of(facts.read()))
    return CompatibleAdapter(
        name, row, load_sites(facts), load_models(facts), load_offers(facts), load_headers(facts), load_names(facts)
    )


def facts_of(name: str) -> FactsFile:
    """The facts file of a vendor of ours, which contains its dialect too."""
    return FactsFile("providers.compatible", name)


def _dialect_of(data: Mapping[str, Any]) -> Mapping[str, Any]:
    dialect: object = data.get("dialect")
    if not isinstance(dialect, dict):
        raise DialectError("dialect: is missing: how the vendor differs from OpenAI")
    return dialect


def __getattr__(name: str) -> CompatibleAdapter:
    """`rows:dashscope_compatible` is the adapter of dashscope-compatible.toml: what an entry point names."""
    try:
        return adapter_named(name.replace("_", "-"))
    except FileNotFoundError:
        raise AttributeError(f"there is no row {name!r} in the catalogue") from None
