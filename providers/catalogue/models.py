"""Facts of a provider's models: features, limits and special behaviour; and its other names (`known_as`).

A vendor's company, models and cloud have different names, and other gateways use any of them. The names are used in
hints only, so that a configuration has exactly one name for a provider.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, Generic, TypeVar

import msgspec

from providers.catalogue import CatalogueError, FactsFile
from providers.catalogue.toml_schema import TABLE, TEXT, TEXTS, check_table, check_tables, shapes_of, value_of
from providers.value import Value, replace


class ModelFacts(Value, frozen=True):
    """Facts of one model, or of a family of models by glob pattern."""

    features: frozenset[str] = frozenset()
    """Members of `FEATURES` that the model supports."""
    without: frozenset[str] = frozenset()
    """Parameters that the model refuses although its wire format has them."""
    context_tokens: int | None = None
    """The longest prompt in tokens, or None if unknown."""
    output_tokens: int | None = None
    """The longest answer in tokens, or None if unknown."""
    efforts: tuple[str, ...] = ()
    """The reasoning efforts that the model accepts, weakest first. Empty if it has no such setting."""
    api: str = ""
    """The API of the provider that the model needs, if the provider has several."""
    flags: frozenset[str] = frozenset()
    """Names of special behaviour that the adapter handles."""
    thinking: str = ""
    """How thinking is switched on for this model, if the provider has several ways."""
    first_token_factor: float = 1
    """How many times longer than usual the first token may take while a model thinks without showing its reasoning."""
    known: bool = True
    """Whether the features are known. Other facts that an operator adds do not change it."""


_SHAPES = shapes_of(ModelFacts, without=("known",))
UNKNOWN_MODEL = ModelFacts(features=frozenset({"tools"}), known=False)
"""The facts of a model that is not in the catalogue: text and tools only."""


@cache
def load_models(facts: FactsFile) -> Mapping[str, ModelFacts]:
    """Return the models of a provider's facts file, by name or glob pattern.

    A file may refer to the models of another one: `models_of = "gemini"`, or `"package:name"` in another package. Then
    `models_lack` lists features that they do not have here, and `version_sign` is what separates a name from a version
    that it may end in here.
    """
    data: Any = facts.read()
    if "models_of" not in data:
        return models_of(data)
    models = load_models(facts.other(data["models_of"]))
    if lacks := frozenset(data.get("models_lack", ())):
        models = {name: replace(known, features=known.features - lacks) for name, known in models.items()}
    if sign := data.get("version_sign"):
        models = {**models, **{f"{name}{sign}*": known for name, known in models.items() if not name.endswith("*")}}
    return models


def models_of(data: Any) -> Mapping[str, ModelFacts]:
    """Return the models of a parsed catalogue file (`[models."PATTERN"]`). Raises CatalogueError."""
    shared = check_tables("feature_sets", data.get("feature_sets", {}), TEXTS)
    models = check_tables("models", data.get("models", {}), TABLE)
    return {name: _facts(name, table, shared) for name, table in models.items()}


def model_facts(models: Mapping[str, ModelFacts], model: str) -> ModelFacts:
    """Return the facts under a model's exact name or the longest pattern that matches, or else UNKNOWN_MODEL."""
    found = best_match(models, model)
    return models[found] if found is not None else UNKNOWN_MODEL


def best_match(patterns: Collection[str], model: str) -> str | None:
    """Return a model's exact name, or the longest pattern that matches the name, or None without either."""
    if model in patterns:
        return model
    return max([pattern for pattern in patterns if fnmatchcase(model, pattern)], key=len, default=None)


_FactsT = TypeVar("_FactsT")


class ByModel(Value, Generic[_FactsT], frozen=True):
    """Facts of a provider's models for one use: the usual ones, and by name or glob pattern those of other models."""

    usual: _FactsT
    models: Mapping[str, _FactsT]

    def of(self, model: str) -> _FactsT:
        """Return the facts of a model, by its exact name or the longest pattern that matches, or the usual ones."""
        found = best_match(self.models, model)
        return self.models[found] if found is not None else self.usual

    def knows(self, model: str) -> bool:
        """Return whether a model is listed."""
        return best_match(self.models, model) is not None


def _facts(name: str, table: Any, shared: Any) -> ModelFacts:
    check_table(f"models.{name!r}", table, _SHAPES)
    features = [feature for word in table.get("features", ()) for feature in shared.get(word, (word,))]
    return value_of(ModelFacts, {**table, "features": features})


def facts_by_model(name: str, table: Mapping[str, Any] | None, kind: type[_FactsT]) -> ByModel[_FactsT] | None:
    """Return the facts that a provider's table states, and those of `models` in it, which state what differs.

    Return None without a table. Raises CatalogueError, which names the table, for an unknown key or a wrong type.
    """
    if table is None:
        return None
    own = {key: value for key, value in table.items() if key != "models"}
    try:
        models = {key: msgspec.convert({**own, **one}, kind) for key, one in table.get("models", {}).items()}
        return ByModel(msgspec.convert(own, kind), models)
    except msgspec.ValidationError as error:
        raise CatalogueError(f"{name}: {error}") from None


@cache
def load_names(facts: FactsFile) -> tuple[str, ...]:
    """Return the other names of a provider, from its facts file."""
    return names_of(facts.read())


def names_of(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the other names in a parsed catalogue file (`known_as`). Raises CatalogueError."""
    names: object = data.get("known_as", [])
    if not TEXTS.fits(names) or not isinstance(names, Iterable) or not all(map(plain_name, names)):
        raise CatalogueError(f"known_as: must be {TEXTS.words}, each with a letter or a digit")
    return tuple(names)


@cache
def load_elsewhere(facts: FactsFile) -> Mapping[str, str]:
    """Return the provider of models that the vendor serves in another wire format, by pattern (`models_elsewhere`)."""
    return check_tables("models_elsewhere", facts.read().get("models_elsewhere", {}), TEXT)


def plain_name(name: str) -> str:
    """Return the form of a name that is compared: `Azure-OpenAI` equals `azure_openai`, and `z.ai` equals `zai`."""
    return "".join(filter(str.isalnum, name.lower()))
