"""The wire format of an adapter whose provider scores documents (`rerank`), and the use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from providers.adapter import InputFormat
from providers.chat import summed
from providers.inputs.rerank.facts import RerankFacts, load_rerank_facts
from providers.inputs.rerank.values import RerankAnswer, RerankRequest
from providers.served import InputUse, ServingDeployment, parts_of, tokens_in
from providers.value import replace


class RerankFormat(InputFormat[RerankRequest, RerankAnswer], Protocol):
    """A provider's wire format for scores of documents. A request asks for the score of every document."""

    def facts(self, model: str) -> RerankFacts:
        """Return the facts of a model, or those of a usual model of the provider if it is unknown."""


class Rerank(InputUse, frozen=True):
    """Scores of documents for a query."""

    def listed(self, provider: str) -> Mapping[str, object]:
        found = load_rerank_facts(provider)
        return found.models if found is not None else {}

    def calls_of(self, request: RerankRequest, route: Sequence[ServingDeployment]) -> tuple[RerankRequest, ...]:
        """See `InputUse`. The tokens of a call are an estimate, in which the query counts with each document."""
        documents, query = request.documents, request.query
        limits = self.limits(route, "most_documents")
        parts = list(parts_of(documents, lambda text: tokens_in(query, text), *limits))
        if len(parts) == 1:
            return (request,)
        return tuple(replace(request, documents=documents[part], before=documents[: part.start]) for part in parts)

    def joined(self, answers: Sequence[RerankAnswer]) -> RerankAnswer:
        """Return one answer with all scores in order. A count is the sum, or None if one answer lacks it."""
        units = [answer.search_units for answer in answers if answer.search_units is not None]
        usage = summed([answer.usage for answer in answers])
        searches = sum(units) if len(units) == len(answers) else None
        return RerankAnswer(tuple(score for answer in answers for score in answer.scores), usage, searches)
