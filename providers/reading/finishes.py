"""The words by which providers state how an answer ended, for all of them. A vendor's own words stand above these.

A word that is in no table ends an answer with text or calls as `other`, with the word: nothing shows that the answer is
broken, and the next new word of a vendor must not throw answers away. A new word that names a failure is one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from providers.chat import FinishReason
from providers.failures import Failure, FailureKind
from providers.json_values import repair_surrogates
from providers.reading.errors import MESSAGES

Ending = FinishReason | FailureKind
"""The meaning of a vendor's finish reason: a finish reason of ours, or a failure."""

FINISH: Mapping[str, Ending] = {
    **dict.fromkeys(("stop", "normal", "eos", "eos_token", "stop_sequence", "end", "end_turn"), "stop"),
    **dict.fromkeys(("complete", "completed", "finish", "finished", "done"), "stop"),
    **dict.fromkeys(("stop_token", "stop_word", "stop_string", "end_of_text", "endoftext"), "stop"),
    # Claude paused between two of its own tools, which the gateway does not request.
    "pause_turn": "stop",
    **dict.fromkeys(("length", "max_length", "model_length", "max_tokens", "max_output_tokens"), "length"),
    **dict.fromkeys(("model_context_window_exceeded", "continuation", "max_new_tokens", "truncated"), "length"),
    **dict.fromkeys(("tool_calls", "function_call", "function_calls", "tool_call", "tool_use"), "tool_calls"),
    **dict.fromkeys(
        ("content_filter", "content_filtered", "sensitive", "refusal", "guardrail_intervened"), "content_filter"
    ),
    **dict.fromkeys(("safety", "recitation", "prohibited_content", "blocklist", "spii", "language"), "content_filter"),
    **dict.fromkeys(("model_armor", "escalation", "filtered", "blocked", "moderation", "guardrail"), "content_filter"),
    **dict.fromkeys(("image_safety", "image_prohibited_content", "image_recitation"), "content_filter"),
    "too_many_tool_calls": FailureKind.MALFORMED,
}
"""The meaning of each word, in lower case and with `_` between its parts (`tool-calls`, `toolUse`).

Sources: the API references of OpenAI and Anthropic, Google's `FinishReason`, Bedrock's `StopReason` (2026-11-20). The
others are words of small servers and relays (`tests/field`).
"""
MISSING = "missing"
"""The word for the end of a whole answer in which the provider stated none. As a provider's word it names a failure."""
_NAMES_A_FAILURE: Mapping[FailureKind, re.Pattern[str]] = {
    FailureKind.UNAVAILABLE: re.compile(
        "error|abort|cancel|crash|disconnect|fail|exception|timeout|unavailable|overload|insufficient"
    ),
    FailureKind.MALFORMED: re.compile("malformed|unexpected|invalid|missing"),
}
_BETWEEN_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])|[- ]")
_UNUSABLE = "the provider's model produced no usable output"


def ending_of(word: str, own: Mapping[str, Ending]) -> Ending:
    """Return the meaning of a word. The vendor's `own` words stand above all others."""
    if ending := own.get(word) or FINISH.get(_BETWEEN_WORDS.sub("_", word).lower()):
        return ending
    return next((kind for kind, stem in _NAMES_A_FAILURE.items() if stem.search(word.lower())), "other")


def is_exact(word: str, ending: FinishReason) -> bool:
    """Return whether the finish reason has the whole meaning of the word. Else the client gets the word, too."""
    return ending != "other" and word != "pause_turn"


def failed_by(word: str, kind: FailureKind = FailureKind.MALFORMED) -> Failure:
    """Return the failure of an answer that ended with a word which no answer can be used with."""
    word = repair_surrogates(word[:100])
    detail = f"the finish reason is {word!r}"
    return Failure(kind, _UNUSABLE if kind is FailureKind.MALFORMED else MESSAGES[kind], detail, code=word)
