"""Which provider is meant by a name in a config that is none."""

from __future__ import annotations

from gateway.config.problems import choice_hint, quoted
from providers.adapter import KnownElsewhere
from providers.catalogue.names import plain_name
from providers.registry import Registry

__all__ = ["provider_hint"]


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
