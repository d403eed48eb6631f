"""Facts of the providers' embedding models, from `embeddings.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from providers.adapter import Capabilities
from providers.catalogue import FactsFile
from providers.catalogue.models import best_match, facts_by_model
from providers.value import Value

_FILE = FactsFile("providers.inputs.embeddings", "embeddings")
_OF_FORMAT = ("path", "dimensions_field", "task_field", "tasks", "form")
TASK_FIELDS = frozenset({"input_type", "task_type", "taskType"})
"""The names under which clients send the purpose of the vectors: Cohere's and Voyage's, LiteLLM's, Google's."""


class EmbeddingFacts(Value, frozen=True, forbid_unknown_fields=True):
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

    @property
    def capabilities(self) -> Capabilities:
        """The same in the form in which routing compares it with a request."""
        features = {"token_input": self.takes_tokens, "dimensions": self.shortens}
        parameters = {"user": self.takes_user, **dict.fromkeys(TASK_FIELDS, self.takes_task)}
        return Capabilities(
            features=frozenset(name for name, has in features.items() if has),
            parameters=frozenset(name for name, has in parameters.items() if has),
        )


@dataclass(frozen=True, slots=True)
class VendorEmbeddings:
    """The embeddings of one provider.

    Attributes:
        path: The path below the base path, for a provider that speaks OpenAI's format.
        dimensions_field: The field for the length of the vectors.
        task_field: The field for the purpose of the vectors. Empty if the provider has none.
        tasks: The provider's word for each purpose. Other words leave as the client wrote them.
        usual: The facts of a model that is not listed.
        models: Facts by name or glob pattern.
        form: The wire format: `usual` for OpenAI's, `by_deployment` for the same at Azure's paths, `batch` for Google's
            requests with one text each, or `native` for DashScope's.
    """

    path: str = "/embeddings"
    dimensions_field: str = "dimensions"
    task_field: str = ""
    tasks: Mapping[str, str] = field(default_factory=dict)
    usual: EmbeddingFacts = field(default_factory=EmbeddingFacts)
    models: Mapping[str, EmbeddingFacts] = field(default_factory=dict)
    form: str = "usual"

    def fields(self, extra: Mapping[str, object]) -> Mapping[str, object]:
        """Return the fields to send, with the purpose of the vectors in the provider's field and word.

        `extra` has the request's further fields, without the dropped ones.
        """
        named = [str(extra[name]) for name in sorted(TASK_FIELDS & extra.keys())]
        if not named or not self.task_field:
            return extra
        others = {name: value for name, value in extra.items() if name not in TASK_FIELDS}
        return {**others, self.task_field: self.tasks.get(named[0].lower(), named[0])}

    def knows(self, model: str) -> bool:
        """Return whether a model is listed, by name or pattern, and has not only the usual facts."""
        return best_match(self.models, model) is not None

    def facts(self, model: str) -> EmbeddingFacts:
        """Return the facts under a model's exact name or the longest pattern that matches, or else the usual facts."""
        found = best_match(self.models, model)
        return self.models[found] if found is not None else self.usual


@cache
def load_embedding_facts(provider: str) -> VendorEmbeddings | None:
    """Return the embeddings of a provider, or None if it has none."""
    data: Any = _FILE.read()
    if (table := data.get(provider)) is None:
        return None
    stated = {name: table[name] for name in _OF_FORMAT if name in table}
    rest = {name: value for name, value in table.items() if name not in stated}
    found = facts_by_model(f"embeddings.toml, {provider}", rest, EmbeddingFacts)
    return VendorEmbeddings(**stated, usual=found.usual, models=found.models) if found is not None else None
