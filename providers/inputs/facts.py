"""Read the facts of the models of one use from a table of a file of facts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from providers.catalogue import CatalogueError
from providers.catalogue.models import ByModel

_FactsT = TypeVar("_FactsT")


def facts_by_model(name: str, table: Mapping[str, Any] | None, kind: type[_FactsT]) -> ByModel[_FactsT] | None:
    """Return the facts that a provider's table states, and those of `models` in it, which state what differs.

    Return None without a table. Raises CatalogueError, which names the table, for an unknown key or a wrong type.
    """
    if table is None:
        return None
    own = {key: value for key, value in table.items() if key != "models"}
    try:
        models = {key: msgspec.convert({**own, **one}, kind) for key, one in table.get("models", {}).items()}
        return ByModel(msgspec.convert(own, kind), models)
    except msgspec.ValidationError as error:
        raise CatalogueError(f"{name}: {error}") from None
