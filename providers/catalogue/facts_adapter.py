"""The base of an adapter whose sites, models, prices, headers and other names come from a facts file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from providers.catalogue import FactsFile
from providers.catalogue.headers import FixedHeader, load_headers
from providers.catalogue.models import ModelFacts, load_models
from providers.catalogue.names import load_names
from providers.catalogue.prices import Offers, load_offers
from providers.catalogue.sites import load_sites
from providers.sites import Site


class FactsAdapter:
    """A base class for adapters: reads the facts of `name`.toml in the package `facts_package`."""

    __slots__ = ()
    facts_package: ClassVar[str]
    name: str

    @property
    def facts(self) -> FactsFile:
        """The file with this provider's facts."""
        return FactsFile(self.facts_package, self.name)

    @property
    def sites(self) -> Mapping[str, Site]:
        """See `providers.adapter.Adapter`."""
        return load_sites(self.facts)

    @property
    def models(self) -> Mapping[str, ModelFacts]:
        """See `providers.adapter.KnowsModels`."""
        return load_models(self.facts)

    @property
    def offers(self) -> Offers:
        """See `providers.adapter.KnowsOffers`."""
        return load_offers(self.facts)

    @property
    def headers(self) -> Mapping[str, FixedHeader]:
        """See `providers.adapter.TakesHeaders`."""
        return load_headers(self.facts)

    @property
    def known_as(self) -> tuple[str, ...]:
        """See `providers.adapter.KnownElsewhere`."""
        return load_names(self.facts)
