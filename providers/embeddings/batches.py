"""Split a request into calls that the provider accepts, and join their answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from providers.chat import summed
from providers.embeddings.contract import EmbeddingFacts
from providers.embeddings.values import EmbeddingAnswer, EmbeddingRequest, Tokens
from providers.value import replace

__all__ = ["batches_of", "joined"]

_BYTES_PER_TOKEN = 2
"""Texts have more bytes than this for each token, in any script, so that an estimate is too high and not too low."""


def batches_of(request: EmbeddingRequest, facts: EmbeddingFacts) -> tuple[EmbeddingRequest, ...]:
    """Return the calls for a request, in the order of its inputs.

    A call has at most `most_inputs` inputs. If the provider limits the tokens of a call, the tokens of texts are
    estimated. An input that is too long by itself is a call of its own, which the provider refuses.
    """
    pieces: tuple[Any, ...] = tuple(_pieces(request.inputs, facts))
    return (request,) if len(pieces) == 1 else tuple(replace(request, inputs=tuple(piece)) for piece in pieces)


def _pieces(inputs: Sequence[str | Tokens], facts: EmbeddingFacts) -> Iterator[Sequence[str | Tokens]]:
    start = tokens = 0
    for position, item in enumerate(inputs):
        size = 0 if facts.most_tokens is None else _tokens_in(item)
        is_over = facts.most_tokens is not None and tokens + size > facts.most_tokens
        if position > start and (position - start >= facts.most_inputs or is_over):
            yield inputs[start:position]
            start, tokens = position, 0
        tokens += size
    yield inputs[start:]


def _tokens_in(item: str | Tokens) -> int:
    return len(item.encode("utf-8", "replace")) // _BYTES_PER_TOKEN if isinstance(item, str) else len(item)


def joined(answers: Sequence[EmbeddingAnswer]) -> EmbeddingAnswer:
    """Return one answer with all vectors in order. The usage is the sum, or None if one answer has no usage."""
    if len(answers) == 1:
        return answers[0]
    usage = summed([answer.usage for answer in answers])
    return EmbeddingAnswer(tuple(vector for answer in answers for vector in answer.vectors), usage)
