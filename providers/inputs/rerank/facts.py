"""Facts of the providers' rerank models, from `rerank.toml`."""

from __future__ import annotations

from functools import cache
from typing import Any

from providers.adapter import Capabilities
from providers.catalogue import FactsFile
from providers.catalogue.models import ByModel, facts_by_model
from providers.value import Value

_FILE = FactsFile("providers.inputs.rerank", "rerank")


class RerankFacts(Value, frozen=True, forbid_unknown_fields=True):
    """The limits and abilities of one model at its provider.

    Attributes:
        most_documents: The most documents of one call. A longer request is split.
        most_tokens: The most tokens of one call, where the query counts with each document, or None for any number.
        cuts_documents: Whether the request may name the tokens after which a document is cut.
    """

    most_documents: int = 100
    most_tokens: int | None = None
    cuts_documents: bool = False

    @property
    def capabilities(self) -> Capabilities:
        """The same in the form in which routing compares it with a request."""
        return Capabilities(frozenset(), frozenset({"max_tokens_per_doc"} if self.cuts_documents else ()))


class RerankModel(RerankFacts, frozen=True):
    """How one model is asked: in the form `flat`, as Cohere and Jina write it, `native`, as DashScope does, or `tei`.

    The path replaces the end `above` of the base path, or is below the whole base path if that is empty.
    """

    path: str = "/rerank"
    above: str = ""
    form: str = "flat"


@cache
def load_rerank_facts(provider: str) -> ByModel[RerankModel] | None:
    """Return the rerank models of a provider, or None if it has none."""
    data: Any = _FILE.read()
    return facts_by_model(f"rerank.toml, {provider}", data.get(provider), RerankModel)
