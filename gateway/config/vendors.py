"""What an adapter knows of its vendor's models, and of what they cost: each asked once, however many deployments name
the model; and which provider is meant by a name that is none.

(To tell whether an adapter knows something at all is to compare it with a protocol, member by member.)
"""

from __future__ import annotations

from functools import cache

from gateway.config.problems import choice_hint, quoted
from providers.adapter import Adapter, KnownElsewhere, KnowsOffers, known_models
from providers.catalogue.models import ModelFacts, model_facts
from providers.catalogue.names import plain_name
from providers.catalogue.offers import Offers, Retirement
from providers.pricing import Price
from providers.registry import Registry

__all__ = ["Vendor", "Vendors", "provider_hint"]


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


def provider_hint(word: str, registry: Registry) -> str:
    """What to write for a provider that isn't: the one that is called so elsewhere, else the nearest, else all."""
    names = {*registry.adapters, *registry.broken}
    known = {
        plain_name(other): name
        for name, adapter in sorted(registry.adapters.items(), reverse=True)
        if isinstance(adapter, KnownElsewhere)
        for other in adapter.known_as
    }
    known |= {plain_name(name): name for name in names}
    # Not what is near such a name: that may well be another vendor's.
    meant = known.get(plain_name(word))
    return choice_hint(word, names) if meant is None else f"did you mean {quoted(meant)}?"
