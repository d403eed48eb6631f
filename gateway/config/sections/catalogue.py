"""Facts of the operator's own: the shape of `catalogue`."""

from __future__ import annotations

from pydantic import Field

from gateway.config.scalars import OneOrMore
from gateway.config.sections.base import Section

__all__ = ["CatalogueSection"]


class CatalogueSection(Section):
    """Facts of your own, which win over those that the gateway comes with."""

    models: OneOrMore = Field(
        description="A file of models, or a list of them: YAML, in the form that catalogue.md describes. Paths are "
        "relative to this file."
    )
