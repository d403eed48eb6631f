"""The canonical rerank request and its scores; long requests are split into calls, and their scores joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from providers.chat import Usage, summed
from providers.formats.batches import parts_of, tokens_in
from providers.value import Value, replace

MOST_DOCUMENTS = 1_000
"""The most documents of a client's request, as at Cohere."""

_DOCUMENTS_PER_SEARCH = 100
_TOKENS_PER_DOCUMENT = 500
"""A search unit is one query with at most 100 documents. A longer document counts as several, with the query in each.
Source: cohere.com/pricing, "single search unit"; read 2026-11-27."""


class RerankRequest(Value, frozen=True):
    """A request for a score of each document, which states how well the document answers the query.

    Attributes:
        model: The model that the client asked for. The provider's model is in the `Target`.
        query: The question.
        documents: The texts of the documents.
        before: The documents of the calls before this one, if it is a part of a longer request. They are not sent.
        max_tokens_per_doc: The tokens after which a document is cut, or None for the provider's own.
        extra: Unknown top-level fields as parsed JSON.
        unread: Names of fields that are not sent.
        stream: Always false: the answer is one JSON body.
        folded: Always false.
    """

    stream: ClassVar[bool] = False
    folded: ClassVar[bool] = False

    model: str
    query: str
    documents: tuple[str, ...]
    before: tuple[str, ...] = ()
    max_tokens_per_doc: int | None = None
    extra: Mapping[str, object] = {}
    unread: frozenset[str] = frozenset()

    @property
    def most_search_units(self) -> int:
        """The most search units that a vendor counts: no tokenizer makes more tokens than a text has bytes in UTF-8."""
        query = len(self.query.encode("utf-8", "replace"))
        sizes = [query + len(text.encode("utf-8", "replace")) for text in self.documents]
        return -(-sum(-(-size // _TOKENS_PER_DOCUMENT) for size in sizes) // _DOCUMENTS_PER_SEARCH)


class RerankAnswer(Value, frozen=True):
    """The scores of one request, in the order of its documents.

    Attributes:
        scores: One number for each document. Scores of two models cannot be compared.
        usage: Token counts, or None if the provider reported none.
        search_units: The searches that the provider charges, or None if it counts tokens.
    """

    scores: tuple[float, ...]
    usage: Usage | None = None
    search_units: int | None = None

    def ranked(self, top_n: int | None) -> list[int]:
        """Return the indexes of the best documents, the best first. Equal scores keep the order of the documents.

        Args:
            top_n: The most indexes, or None for all.

        Returns:
            The indexes.
        """
        order = sorted(range(len(self.scores)), key=lambda index: -self.scores[index])
        return order[:top_n]


def rerank_batches(
    request: RerankRequest, most_documents: int, most_tokens: int | None = None
) -> tuple[RerankRequest, ...]:
    """Return the calls for a request, in the order of its documents.

    The tokens of a call are an estimate, in which the query counts with each document.
    """
    documents, query = request.documents, request.query
    parts = list(parts_of(documents, lambda text: tokens_in(query, text), most_documents, most_tokens))
    if len(parts) == 1:
        return (request,)
    return tuple(replace(request, documents=documents[part], before=documents[: part.start]) for part in parts)


def rerank_joined(answers: Sequence[RerankAnswer]) -> RerankAnswer:
    """Return one answer with all scores in order. A count is the sum, or None if one answer lacks it."""
    if len(answers) == 1:
        return answers[0]
    units = [answer.search_units for answer in answers if answer.search_units is not None]
    usage = summed([answer.usage for answer in answers])
    searches = sum(units) if len(units) == len(answers) else None
    return RerankAnswer(tuple(score for answer in answers for score in answer.scores), usage, searches)
