"""The optional protocol of an adapter whose provider has embeddings, and the use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from providers.adapter import InputFormat
from providers.chat import summed
from providers.inputs.embeddings.facts import EmbeddingFacts, load_embedding_facts
from providers.inputs.embeddings.values import EmbeddingAnswer, EmbeddingRequest, Tokens
from providers.served import InputUse, ServingDeployment, parts_of, tokens_in
from providers.value import replace


class EmbeddingFormat(InputFormat[EmbeddingRequest, EmbeddingAnswer], Protocol):
    """A provider's wire format for embeddings. The caller checks the length of the vectors."""

    def facts(self, model: str) -> EmbeddingFacts:
        """Return the facts of a model, or those of a usual model of the provider if it is unknown."""


@runtime_checkable
class Embeds(Protocol):
    """An optional member of an adapter, with the provider's embeddings. The adapter itself classifies errors."""

    @property
    def embeddings(self) -> EmbeddingFormat | None:
        """The wire format, or None if the provider has no embeddings."""


class Embeddings(InputUse, frozen=True):
    """Vectors for texts."""

    def listed(self, provider: str) -> Mapping[str, object]:
        found = load_embedding_facts(provider)
        return found.models if found is not None else {}

    def calls_of(self, request: EmbeddingRequest, route: Sequence[ServingDeployment]) -> tuple[EmbeddingRequest, ...]:
        inputs: Sequence[str | Tokens] = request.inputs
        parts = list(parts_of(inputs, _tokens_of, *self.limits(route, "most_inputs")))
        return (request,) if len(parts) == 1 else tuple(replace(request, inputs=request.inputs[part]) for part in parts)

    def joined(self, answers: Sequence[EmbeddingAnswer]) -> EmbeddingAnswer:
        """Return one answer with all vectors in order. The usage is the sum, or None if one answer has no usage."""
        usage = summed([answer.usage for answer in answers])
        return EmbeddingAnswer(tuple(vector for answer in answers for vector in answer.vectors), usage)


def _tokens_of(item: str | Tokens) -> int:
    return tokens_in(item) if isinstance(item, str) else len(item)
