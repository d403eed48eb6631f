"""What an adapter knows of its vendor's models, and of what they cost: each asked once, however many deployments name
the model. (To tell whether an adapter knows something at all is to compare it with a protocol, member by member.)
"""

from __future__ import annotations

from functools import cache

from providers.adapter import Adapter, KnowsOffers, known_models
from providers.catalogue.models import ModelFacts, model_facts
from providers.catalogue.offers import Offers, Retirement
from providers.pricing import Price

__all__ = ["Vendor", "Vendors"]


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
