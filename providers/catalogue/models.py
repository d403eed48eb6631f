"""What is known of a provider's models: what each can do, and what each needs that another doesn't."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from providers.catalogue import FactsFile
from providers.catalogue.toml_schema import NUMBER, TABLE, TEXT, TEXTS, WHOLE, Shape, check_table, check_tables

__all__ = ["UNKNOWN_MODEL", "ModelFacts", "load_models", "model_facts", "models_of"]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One model, or a family by glob pattern.

    features: what it can do, in the words of `matching.requirements`.
    without: parameters that it refuses, though its wire format has them.
    context_tokens, output_tokens: the most it takes and gives; None where unknown.
    efforts: the reasoning efforts that it knows, weakest first; empty where it has no such knob.
    api: which of a provider's paths it lives on, where there are several.
    flags: quirks that its adapter knows by name.
    thinking: which of a provider's ways to switch thinking is its own, where they differ by model.
    first_token_factor: how many times longer than others it may take to its first word while it thinks, where it
        shows nothing of its thoughts.
    known: whether what it can do is known at all; what an operator says of other things makes no model known.
    """

    features: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()
    context_tokens: int | None = None
    output_tokens: int | None = None
    efforts: tuple[str, ...] = ()
    api: str = ""
    flags: frozenset[str] = frozenset()
    thinking: str = ""
    first_token_factor: float = 1
    known: bool = True


UNKNOWN_MODEL = ModelFacts(features=frozenset({"tools"}), known=False)
"""A model that the catalogue doesn't know has text and tools only."""


@cache
def load_models(facts: FactsFile) -> Mapping[str, ModelFacts]:
    """Return the models of a provider's facts file, by name or glob pattern.

    A file may refer to the models of another one: `models_of = "gemini"`, or `"package:name"` in another package.
    """
    data: Any = facts.read()
    return load_models(facts.other(data["models_of"])) if "models_of" in data else models_of(data)


def models_of(data: Any) -> Mapping[str, ModelFacts]:
    """The models of a parsed catalogue file (`[models."PATTERN"]`), ours or a stranger's.

    Raises CatalogueError.
    """
    shared = check_tables("feature_sets", data.get("feature_sets", {}), TEXTS)
    models = check_tables("models", data.get("models", {}), TABLE)
    return {name: _facts(name, row, shared) for name, row in models.items()}


def model_facts(models: Mapping[str, ModelFacts], model: str) -> ModelFacts:
    """The facts of a model: of its exact name, else of the longest pattern that matches, else UNKNOWN_MODEL."""
    if model in models:
        return models[model]
    patterns = [pattern for pattern in models if fnmatchcase(model, pattern)]
    return models[max(patterns, key=len)] if patterns else UNKNOWN_MODEL


_SHAPES: Mapping[str, Shape] = {
    **{"features": TEXTS, "without": TEXTS, "efforts": TEXTS, "flags": TEXTS},
    **{"context_tokens": WHOLE, "output_tokens": WHOLE, "first_token_factor": NUMBER},
    **{"api": TEXT, "thinking": TEXT},
}


def _facts(name: str, row: Any, shared: Any) -> ModelFacts:
    check_table(f"models.{name!r}", row, _SHAPES)
    features: set[str] = set()
    for word in row.get("features", ()):
        features.update(shared.get(word, (word,)))
    return ModelFacts(
        features=frozenset(features),
        without=frozenset(row.get("without", ())),
        context_tokens=row.get("context_tokens"),
        output_tokens=row.get("output_tokens"),
        efforts=tuple(row.get("efforts", ())),
        api=row.get("api", ""),
        flags=frozenset(row.get("flags", ())),
        thinking=row.get("thinking", ""),
        first_token_factor=row.get("first_token_factor", 1),
    )
