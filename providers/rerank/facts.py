"""Facts of the providers' rerank models, from `rerank.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from providers.catalogue import FactsFile
from providers.catalogue.models import ByModel
from providers.catalogue.toml_schema import TABLE, TEXT, check_table, shapes_of
from providers.rerank.contract import RerankFacts
from providers.value import replace

_FACTS = shapes_of(RerankFacts)
_HOW = dict.fromkeys(("path", "above", "form"), TEXT)
_OF_MODEL = {**_FACTS, **_HOW}
_OF_VENDOR = {**_OF_MODEL, "models": TABLE}
_FILE = FactsFile("providers.rerank", "rerank")


@dataclass(frozen=True, slots=True)
class RerankModel:
    """How one model is asked: in the form `flat`, as Cohere and Jina write it, `native`, as DashScope does, or `tei`.

    The path replaces the end `above` of the base path, or is below the whole base path if that is empty.
    """

    facts: RerankFacts = field(default_factory=RerankFacts)
    path: str = "/rerank"
    above: str = ""
    form: str = "flat"


class VendorRerank(ByModel[RerankModel], frozen=True):
    """How the rerank models of one provider are asked."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths at which its models are asked."""
        return tuple({one.path for one in (self.usual, *self.models.values())})


def _model(before: RerankModel, table: Mapping[str, Any]) -> RerankModel:
    facts = replace(before.facts, **{name: table[name] for name in _FACTS.keys() & table})
    return replace(before, facts=facts, **{name: table[name] for name in _HOW.keys() & table})


@cache
def load_rerank_facts(provider: str) -> VendorRerank | None:
    """Return the rerank models of a provider, or None if it has none."""
    data: Any = _FILE.read().get(provider)
    if data is None:
        return None
    check_table(provider, data, _OF_VENDOR)
    usual = _model(RerankModel(), data)
    models: dict[str, RerankModel] = {}
    for name, table in data.get("models", {}).items():
        check_table(f"{provider}.models.{name!r}", table, _OF_MODEL)
        models[name] = _model(usual, table)
    return VendorRerank(usual, models)
