"""The optional protocol of an adapter whose provider scores documents."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from providers.adapter import Adapter, Capabilities, InputFormat
from providers.rerank.values import RerankAnswer, RerankRequest
from providers.value import Value


class RerankFacts(Value, frozen=True):
    """The limits and abilities of one model at its provider.

    Attributes:
        most_documents: The most documents of one call. A longer request is split.
        most_tokens: The most tokens of one call, where the query counts with each document, or None for any number.
        cuts_documents: Whether the request may name the tokens after which a document is cut.
    """

    most_documents: int = 100
    most_tokens: int | None = None
    cuts_documents: bool = False


class RerankFormat(InputFormat[RerankRequest, RerankAnswer], Protocol):
    """A provider's wire format for scores of documents. A request asks for the score of every document."""

    def facts(self, model: str) -> RerankFacts:
        """Return the limits and abilities of a model.

        Args:
            model: The provider's name of the model.

        Returns:
            The facts of the model, or the facts of a usual model of the provider if it is unknown.
        """


@runtime_checkable
class Reranks(Protocol):
    """An optional member of an adapter, with the provider's scores. The adapter itself classifies errors."""

    @property
    def rerank(self) -> RerankFormat | None:
        """The wire format, or None if the provider scores no documents."""


def rerank_of(adapter: Adapter) -> RerankFormat | None:
    """Return the wire format of an adapter's scores, or None if its provider has none."""
    return adapter.rerank if isinstance(adapter, Reranks) else None


def rerank_capabilities(facts: RerankFacts) -> Capabilities:
    """Return the facts in the form in which routing compares them with a request."""
    return Capabilities(frozenset(), frozenset({"max_tokens_per_doc"} if facts.cuts_documents else ()))
