"""Find the standard field that an unknown field of a request was probably meant to be.

A misspelled field would be left out like any unknown field, and the model would answer without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set

from providers.failures import InvalidRequest
from providers.matching.requirements import moves_data

FIELDS = frozenset(
    "model messages stream stream_options max_tokens max_completion_tokens tools tool_choice temperature top_p "
    "presence_penalty frequency_penalty seed stop n logprobs top_logprobs logit_bias parallel_tool_calls "
    "response_format reasoning_effort user store modalities verbosity service_tier prompt_cache_key "
    "prompt_cache_retention safety_identifier metadata prediction audio moderation prompt_cache_options "
    "web_search_options functions function_call".split()
)
"""The fields of OpenAI's chat completions. Source: the official Python SDK 3.51 (`CompletionCreateParams`)."""
# Fields of other dialects that differ from a standard field by one letter: OpenRouter's `top_a`
# (openrouter.ai/docs/api/reference/parameters), Cohere's `k` and `p` (docs.cohere.com/reference/chat), read 2026-11-23.
_OF_OTHER_DIALECTS = frozenset({"top_a", "top_k", "k", "p"})
_LONGEST = max(map(len, FIELDS)) + 1
# A shorter name is one letter away from too many others.
_SHORTEST = 3


def _shorter(name: str) -> Iterator[tuple[int, str]]:
    """Yield each letter's position, and the name without this letter."""
    return ((position, name[:position] + name[position + 1 :]) for position in range(len(name)))


_LETTER_MISSING = {shorter: name for name in sorted(FIELDS) for _, shorter in _shorter(name)}
_LETTER_CHANGED = {pair: name for name in sorted(FIELDS) for pair in _shorter(name)}


def meant_field(name: str) -> str | None:
    """Return the standard field of which this name has one letter more, less or changed; None for any other name."""
    if not _SHORTEST <= len(name) <= _LONGEST or name in FIELDS or name in _OF_OTHER_DIALECTS:
        return None
    if (meant := _LETTER_MISSING.get(name)) is not None:
        return meant
    for position, shorter in _shorter(name):
        if shorter in FIELDS:
            return shorter
        if (meant := _LETTER_CHANGED.get((position, shorter))) is not None:
            return meant
    return None


def refuse_misspelled(names: Iterable[str], known: Set[str] = frozenset()) -> None:
    """Raise InvalidRequest for the first name that is a misspelled standard field.

    Names in `known` are accepted, because a provider knows the field or the operator permits it.
    """
    for name in names:
        meant = meant_field(name)
        if meant is not None and name not in known and name not in moves_data():
            raise InvalidRequest(
                f"`{name}` is not a field of the API: did you mean `{meant}`? Correct the name, or leave the field out",
                name,
                log_message=f"a field of the request is a misspelled `{meant}`",
            )
