"""Split a request into calls that the provider accepts, and join their answers."""

from __future__ import annotations

from collections.abc import Sequence

from providers.chat import summed
from providers.embeddings.contract import EmbeddingFacts
from providers.embeddings.values import EmbeddingAnswer, EmbeddingRequest, Tokens
from providers.formats.batches import parts_of, tokens_in
from providers.value import replace

__all__ = ["batches_of", "joined"]


def batches_of(request: EmbeddingRequest, facts: EmbeddingFacts) -> tuple[EmbeddingRequest, ...]:
    """Return the calls for a request, in the order of its inputs."""
    inputs: Sequence[str | Tokens] = request.inputs
    parts = list(parts_of(inputs, _tokens_of, facts.most_inputs, facts.most_tokens))
    return (request,) if len(parts) == 1 else tuple(replace(request, inputs=request.inputs[part]) for part in parts)


def _tokens_of(item: str | Tokens) -> int:
    return tokens_in(item) if isinstance(item, str) else len(item)


def joined(answers: Sequence[EmbeddingAnswer]) -> EmbeddingAnswer:
    """Return one answer with all vectors in order. The usage is the sum, or None if one answer has no usage."""
    if len(answers) == 1:
        return answers[0]
    usage = summed([answer.usage for answer in answers])
    return EmbeddingAnswer(tuple(vector for answer in answers for vector in answer.vectors), usage)
