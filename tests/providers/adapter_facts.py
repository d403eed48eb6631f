"""Find the facts file of an adapter of this repository."""

from providers.adapter import Adapter
from providers.catalogue import FactsFile
from providers.catalogue.facts_adapter import FactsAdapter
from providers.compatible import adapter as compatible


def facts_of(adapter: Adapter) -> FactsFile:
    """Return the file that the adapter reads: its own, or that of a compatible vendor."""
    return adapter.facts if isinstance(adapter, FactsAdapter) else compatible.facts_of(adapter.name)
