"""Guard models, which are asked for a verdict as a chat.

The server applies the model's own chat template, which contains the policy and its categories. So the prompt is one
user message with the text alone. The answers:

- Llama Guard 3 and 4: `safe`, or `unsafe` and a line with the hazards, such as `S1,S10`.
- Qwen3Guard-Gen: `Safety: Safe`, `Safety: Unsafe` or `Safety: Controversial`, and a line `Categories: Violent`. For
  an answer, a line `Refusal: Yes` or `Refusal: No` follows. Controversial content counts as harmful.

An answer of a model is judged with the user's text that it answers, as a pair: a user message and one of the assistant.
Where an API does not take that, the answer is judged by itself.

Any other answer is an error and never counts as harmless.

Source: the model cards of Llama-Guard-3-8B and Qwen3Guard-Gen-4B, read 2026-11-23.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Literal, TypeAlias, assert_never, get_args

from providers.adapter import Adapter, Capabilities, Target
from providers.chat import AssistantMessage, ChatRequest, UserMessage, prompt_text, text_of
from providers.failures import UnsupportedFeature
from providers.moderations.values import ModerationAnswer, ModerationRequest, ModerationResult, verdict_of
from providers.reading.errors import malformed
from providers.reading.response_reader import read_answer
from providers.value import Value, replace
from providers.wire import WireRequest, WireResponse

GuardKind: TypeAlias = Literal["llama-guard", "qwen3guard"]
GUARD_KINDS: tuple[GuardKind, ...] = get_args(GuardKind)
_MOST_TOKENS = 256
_FILE = files("providers.moderations").joinpath("guard_models.json")
_CATEGORIES: Mapping[GuardKind, Mapping[str, Sequence[str]]] = json.loads(_FILE.read_bytes())
"""By kind, the categories of OpenAI's moderations for each of the model's own."""
_HAZARD = re.compile(r"S\d{1,2}")
_LLAMA = re.compile(r"llama[-_]?guard", re.IGNORECASE)
_QWEN = re.compile(r"qwen3guard(?!.*stream)", re.IGNORECASE)
_QWEN_ANSWER = re.compile(r"Safety: (Safe|Unsafe|Controversial)(?: Categories: (.+?))?(?: Refusal: (?:Yes|No))?")


def guard_kind_of(model: str) -> GuardKind | None:
    """Return how a model with this name answers, or None if it is not known to be a guard model."""
    if _LLAMA.search(model):
        return "llama-guard"
    return "qwen3guard" if _QWEN.search(model) else None


class GuardModel(Value, frozen=True):
    """A guard model of a chat provider. See `ModerationFormat`."""

    adapter: Adapter
    kind: GuardKind

    @property
    def most_inputs(self) -> int:
        """See `ModerationFormat`. Each text is a chat of its own."""
        return 1

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(frozenset(), frozenset())

    @property
    def categories(self) -> frozenset[str]:
        """The categories that its verdicts can have."""
        return frozenset(name for names in _CATEGORIES[self.kind].values() for name in names)

    def accepts(self, model: str) -> bool:
        return bool(model)

    def build_request(self, request: ModerationRequest, target: Target) -> WireRequest:
        content = request.inputs[0]
        text = content if isinstance(content, str) else prompt_text(content)
        known = self.adapter.capabilities.parameters - target.facts.without
        chat = ChatRequest(
            target.model,
            (UserMessage(text),),
            max_tokens=_MOST_TOKENS if "max_tokens" in known else None,
            temperature=0.0 if "temperature" in known else None,
        )
        if request.prompt is None:
            return self.adapter.build_request(chat, target)
        pair = (UserMessage(request.prompt), AssistantMessage(text))
        try:
            return self.adapter.build_request(replace(chat, messages=pair), target)
        except UnsupportedFeature:  # its API takes no answer as the last message
            return self.adapter.build_request(chat, target)

    def parse_response(self, response: WireResponse, target: Target) -> ModerationAnswer:
        completion = read_answer(self.adapter, response, target)
        if len(completion.choices) != 1 or completion.choices[0].finish_reason != "stop":
            raise malformed("the guard model did not finish its verdict")
        text = text_of(completion.choices[0].message.content).strip()
        match self.kind:
            case "llama-guard":
                verdict = _read_llama_guard(text)
            case "qwen3guard":
                verdict = _read_qwen3guard(text)
            case _:
                assert_never(self.kind)
        return ModerationAnswer((verdict,), completion.usage)


def _read_llama_guard(text: str) -> ModerationResult:
    verdict, *rest = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    if verdict == "safe" and not rest:
        return verdict_of(frozenset(), flagged=False)
    hazards = [code.strip() for line in rest for code in line.split(",")]
    if verdict != "unsafe" or not (len(rest) < 2 or all(map(_HAZARD.fullmatch, hazards))):
        raise malformed("the guard model gave no clear verdict")
    return verdict_of(
        frozenset(name for code in hazards for name in _CATEGORIES["llama-guard"].get(code, ())), flagged=True
    )


def _read_qwen3guard(text: str) -> ModerationResult:
    answer = _QWEN_ANSWER.fullmatch(" ".join(text.split()))
    if answer is None:
        raise malformed("the guard model gave no clear verdict")
    names = [name.strip().lower() for name in (answer[2] or "none").split(",")]
    found = frozenset(mapped for name in names for mapped in _CATEGORIES["qwen3guard"].get(name, ("other",)))
    if answer[1] == "Safe":
        if found:
            raise malformed("the guard model names categories of content that it calls safe")
        return verdict_of(found, flagged=False)
    return verdict_of(found, flagged=True, controversial=answer[1] == "Controversial")
