"""The canonical rerank request and its scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from typing import ClassVar, Self

from providers.chat import Usage
from providers.matching.requirements import Requirements, moving_fields
from providers.reading.errors import malformed
from providers.served import CostBound, InputAnswer, InputRequest
from providers.value import replace

MOST_DOCUMENTS = 1_000
"""The most documents of a client's request, as at Cohere."""

_DOCUMENTS_PER_SEARCH = 100
_TOKENS_PER_DOCUMENT = 500
"""A search unit is one query with at most 100 documents. A longer document counts as several, with the query in each.
Source: cohere.com/pricing, "single search unit"; read 2026-11-27."""


class RerankRequest(InputRequest, frozen=True):
    """A request for a score of each document, which states how well the document answers the query.

    Attributes:
        model: The model that the client asked for. The provider's model is in the `Target`.
        query: The question.
        documents: The texts of the documents.
        before: The documents of the calls before this one, if it is a part of a longer request. They are not sent.
        max_tokens_per_doc: The tokens after which a document is cut, or None for the provider's own.
        extra: Unknown top-level fields as parsed JSON.
        unread: Names of fields that are not sent.
    """

    use: ClassVar[str] = "rerank"
    is_whole: ClassVar[bool] = True
    is_judged: ClassVar[bool] = True

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

    def texts(self) -> Iterator[str]:
        yield self.query
        yield from self.documents

    def needs(self) -> Requirements:
        parameters = {*self.extra, *(["max_tokens_per_doc"] if self.max_tokens_per_doc is not None else [])}
        moving = moving_fields(self.extra)
        return Requirements(frozenset(), frozenset(parameters), moving, use=self.use, unread=self.unread)

    def bound(self) -> CostBound:
        """See `InputRequest`. Some vendors count the query once for each document."""
        texts = [*self.texts(), *[self.query] * (len(self.documents) - 1)]
        return CostBound(texts, search_units=self.most_search_units)

    def fitted(self, dropped: Set[str], voices: Mapping[str, str], boundary: str) -> Self:
        request = super().fitted(dropped, voices, boundary)
        return replace(request, max_tokens_per_doc=None) if "max_tokens_per_doc" in dropped else request

    def checked(self, answer: RerankAnswer, facts: object) -> RerankAnswer:
        if len(answer.scores) != len(self.documents):
            raise malformed(f"{len(answer.scores)} scores for {len(self.documents)} documents")
        return answer


class RerankAnswer(InputAnswer, frozen=True):
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
        """Return the indexes of the best documents, the best first, at most `top_n`.

        Equal scores keep the order of the documents.
        """
        order = sorted(range(len(self.scores)), key=lambda index: -self.scores[index])
        return order[:top_n]
