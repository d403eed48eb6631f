"""What every adapter of ours looks up by its name: the sites, models and offers of the catalogue's file for it."""

from __future__ import annotations

from collections.abc import Mapping

from providers.catalogue.models import ModelFacts, load_models
from providers.catalogue.offers import Offers, load_offers
from providers.sites import Site, load_sites

__all__ = ["Catalogued"]


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
