"""Facts of the providers' embedding models, from `embeddings.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from providers.catalogue import FactsFile
from providers.catalogue.models import best_match
from providers.catalogue.toml_schema import TABLE, TEXT, check_table, shapes_of
from providers.embeddings.contract import TASK_FIELDS, EmbeddingFacts
from providers.value import replace

_OF_MODEL = shapes_of(EmbeddingFacts)
_OF_FORMAT = {**dict.fromkeys(("path", "dimensions_field", "task_field"), TEXT), "tasks": TABLE}
_OF_VENDOR = {**_OF_MODEL, **_OF_FORMAT, "source": TEXT, "models": TABLE}
_FILE = FactsFile("providers.embeddings", "embeddings")


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
    """

    path: str = "/embeddings"
    dimensions_field: str = "dimensions"
    task_field: str = ""
    tasks: Mapping[str, str] = field(default_factory=dict)
    usual: EmbeddingFacts = field(default_factory=EmbeddingFacts)
    models: Mapping[str, EmbeddingFacts] = field(default_factory=dict)

    def fields(self, extra: Mapping[str, object]) -> Mapping[str, object]:
        """Return the fields with the purpose of the vectors in the provider's field and word.

        Args:
            extra: The request's further fields, without the dropped fields.

        Returns:
            The fields to send.
        """
        named = [str(extra[name]) for name in sorted(TASK_FIELDS & extra.keys())]
        if not named or not self.task_field:
            return extra
        others = {name: value for name, value in extra.items() if name not in TASK_FIELDS}
        return {**others, self.task_field: self.tasks.get(named[0].lower(), named[0])}

    def knows(self, model: str) -> bool:
        """Return whether a model is listed, by name or pattern.

        Args:
            model: The provider's name of the model.

        Returns:
            Whether there are facts about this model, and not only the usual ones.
        """
        return best_match(self.models, model) is not None

    def facts(self, model: str) -> EmbeddingFacts:
        """Return the facts under a model's exact name or the longest pattern that matches, or else the usual facts.

        Args:
            model: The provider's name of the model.

        Returns:
            The facts.
        """
        found = best_match(self.models, model)
        return self.models[found] if found is not None else self.usual


@cache
def load_embedding_facts(provider: str) -> VendorEmbeddings | None:
    """Return the embeddings of a provider, or None if it has none."""
    data: Any = _FILE.read().get(provider)
    if data is None:
        return None
    check_table(provider, data, _OF_VENDOR)
    usual = replace(EmbeddingFacts(), **{name: value for name, value in data.items() if name in _OF_MODEL})
    models: dict[str, EmbeddingFacts] = {}
    for name, table in data.get("models", {}).items():
        check_table(f"{provider}.models.{name!r}", table, _OF_MODEL)
        models[name] = replace(usual, **table)
    stated = {name: value for name, value in data.items() if name in _OF_FORMAT}
    return VendorEmbeddings(**stated, usual=usual, models=models)
