"""Facts of the providers' decision models, from `decisions.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

from providers.adapter import Capabilities
from providers.catalogue import FactsFile
from providers.catalogue.models import ByModel, facts_by_model
from providers.value import Value

SAFETY = "safety_identifier"
_FILE = FactsFile("providers.inputs.decisions", "decisions")


class DecisionFacts(Value, frozen=True, forbid_unknown_fields=True):
    """The form, the limits and the abilities of one model at its provider.

    Attributes:
        form: How it is asked: by lists as at OpenAI, by maps as at Gemini, or by the protocol System One.
        takes_messages: A conversation is sent as messages. Otherwise it is one text.
        most_questions: The most questions of one call. A longer request is split.
        most_choices: The most options of a choice.
        most_levels: The most levels of a score.
        features: `vision` if it takes images, and `image_url` if it fetches them.
        context_tokens: The longest input with its questions in tokens, or None if unknown.
        doubts: By origin, what no source confirms there, and what to do.
    """

    form: Literal["listed", "mapped", "systemone"]
    takes_messages: bool = False
    most_questions: int = 200
    most_choices: int = 255
    most_levels: int = 10
    features: frozenset[str] = frozenset()
    context_tokens: int | None = None
    doubts: Mapping[str, tuple[str, str]] = {}

    @property
    def capabilities(self) -> Capabilities:
        """The same in the form in which routing compares it with a request."""
        parameters = frozenset({SAFETY} if self.form == "listed" else ())
        return Capabilities(self.features, parameters, self.context_tokens)

    @property
    def rereads(self) -> bool:
        """Whether the input counts once a question (vLLM, SGLang), and each answer as a token (Ollama)."""
        return self.form == "systemone"

    def fits(self, feature: str, size: int) -> bool:
        """Return whether it can express what a request needs, see `SizedNeeds.limits`."""
        word = feature.rpartition(".")[2]
        if word == "types":
            return self.form == "listed"
        if word == "characters":
            return self.form != "mapped"
        return size <= (self.most_levels if word == "levels" else self.most_choices)


@cache
def load_decision_facts(provider: str) -> ByModel[DecisionFacts] | None:
    """Return the decision models of a provider, or None if it has none. One that names models has only these."""
    data: Any = _FILE.read()
    return facts_by_model(f"decisions.toml, {provider}", data.get(provider), DecisionFacts)
