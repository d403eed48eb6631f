"""What every adapter of ours looks up by its name in the catalogue: sites, models, offers, headers, other names."""

from __future__ import annotations

from collections.abc import Mapping

from providers.catalogue.headers import FixedHeader, load_headers
from providers.catalogue.models import ModelFacts, load_models
from providers.catalogue.names import load_names
from providers.catalogue.prices import Offers, load_offers
from providers.catalogue.sites import load_sites
from providers.sites import Site


class Catalogued:
    """A base for an adapter with a `name`."""

    __slots__ = ()
    name: str

    @property
    def sites(self) -> Mapping[str, Site]:
        """See `providers.adapter.Adapter`."""
        return load_sites(self.name)

    @property
    def models(self) -> Mapping[str, ModelFacts]:
        """See `providers.adapter.KnowsModels`."""
        return load_models(self.name)

    @property
    def offers(self) -> Offers:
        """See `providers.adapter.KnowsOffers`."""
        return load_offers(self.name)

    @property
    def headers(self) -> Mapping[str, FixedHeader]:
        """See `providers.adapter.TakesHeaders`."""
        return load_headers(self.name)

    @property
    def known_as(self) -> tuple[str, ...]:
        """See `providers.adapter.KnownElsewhere`."""
        return load_names(self.name)
