"""A base class for adapters whose sites, models, prices, headers and other names come from a facts file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from providers.catalogue import FactsFile
from providers.catalogue.headers import FixedHeader, load_headers
from providers.catalogue.models import ModelFacts, load_elsewhere, load_models, load_names
from providers.catalogue.prices import Offers, load_offers
from providers.catalogue.sites import load_sites
from providers.catalogue.takes import Takes, load_takes
from providers.sites import Site


class FactsAdapter:
    """A base class for adapters that reads the facts of a provider from the file `name`.toml.

    Examples:
        `class ParrotAdapter(FactsAdapter): facts_package = "parrot"; name = "parrot"`
    """

    __slots__ = ()
    facts_package: ClassVar[str]
    """The package that contains the file. A subclass sets it."""
    name: str
    """The provider's name. A subclass sets it."""

    @property
    def facts(self) -> FactsFile:
        """The file with this provider's facts."""
        return FactsFile(self.facts_package, self.name)

    @property
    def sites(self) -> Mapping[str, Site]:
        """The sites of the facts file. See `Adapter`."""
        return load_sites(self.facts)

    @property
    def models(self) -> Mapping[str, ModelFacts]:
        """The models of the facts file. See `KnowsModels`."""
        return load_models(self.facts)

    @property
    def offers(self) -> Offers:
        """The prices and retirement dates of the facts file. See `KnowsOffers`."""
        return load_offers(self.facts)

    @property
    def headers(self) -> Mapping[str, FixedHeader]:
        """The headers of the facts file. See `TakesHeaders`."""
        return load_headers(self.facts)

    @property
    def takes(self) -> Takes:
        """The limits of what the API takes, by the facts file. The gateway reads it to name what was changed."""
        return load_takes(FactsFile(self.facts_package, self.name))

    @property
    def known_as(self) -> tuple[str, ...]:
        """The other names of the provider in the facts file. See `KnownElsewhere`."""
        return load_names(self.facts)

    @property
    def models_elsewhere(self) -> Mapping[str, str]:
        """The providers of models in another wire format, in the facts file. See `HasModelsElsewhere`."""
        return load_elsewhere(self.facts)
