"""The optional protocol of an adapter whose provider has embeddings, and the calls of which a request consists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from providers.adapter import Adapter, Capabilities, InputFormat
from providers.chat import summed
from providers.embeddings.values import EmbeddingAnswer, EmbeddingRequest, Tokens
from providers.formats.batches import parts_of, tokens_in
from providers.value import Value, replace

TASK_FIELDS = frozenset({"input_type", "task_type", "taskType"})
"""The names under which clients send the purpose of the vectors: Cohere's and Voyage's, LiteLLM's, Google's."""


class EmbeddingFacts(Value, frozen=True):
    """The limits and abilities of one embedding model at its provider.

    Attributes:
        most_inputs: The most inputs of one call. A longer request is split.
        most_tokens: The most tokens of all inputs of one call, or None if only the inputs count.
        takes_tokens: Whether inputs may be tokens.
        shortens: Whether the request may name the length of the vectors.
        takes_user: Whether the request may have a `user`.
        takes_task: Whether the request may name the purpose of the vectors.
        base64: Whether the provider can send vectors as base64.
        dimensions: The length of the model's vectors if the request names none, or None if it is unknown.
    """

    most_inputs: int = 1
    most_tokens: int | None = None
    takes_tokens: bool = False
    shortens: bool = False
    takes_user: bool = False
    takes_task: bool = False
    base64: bool = False
    dimensions: int | None = None


class EmbeddingFormat(InputFormat[EmbeddingRequest, EmbeddingAnswer], Protocol):
    """A provider's wire format for embeddings. The caller checks the length of the vectors."""

    def facts(self, model: str) -> EmbeddingFacts:
        """Return the limits and abilities of a model.

        Args:
            model: The provider's name of the model.

        Returns:
            The facts of the model, or the facts of a usual model of the provider if it is unknown.
        """


@runtime_checkable
class Embeds(Protocol):
    """An optional member of an adapter, with the provider's embeddings. The adapter itself classifies errors."""

    @property
    def embeddings(self) -> EmbeddingFormat | None:
        """The wire format, or None if the provider has no embeddings."""


def embeddings_of(adapter: Adapter) -> EmbeddingFormat | None:
    """Return the wire format of an adapter's embeddings, or None if its provider has none."""
    return adapter.embeddings if isinstance(adapter, Embeds) else None


def capabilities_of(facts: EmbeddingFacts) -> Capabilities:
    """Return the facts in the form in which routing compares them with a request."""
    features = {"token_input": facts.takes_tokens, "dimensions": facts.shortens}
    parameters = {"user": facts.takes_user, **dict.fromkeys(TASK_FIELDS, facts.takes_task)}
    return Capabilities(
        features=frozenset(name for name, has in features.items() if has),
        parameters=frozenset(name for name, has in parameters.items() if has),
    )


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
