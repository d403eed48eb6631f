"""The counts of an answer in OpenAI's dialect: the usual ones, and those that few answers have."""

from __future__ import annotations

from collections.abc import Mapping

from providers.chat import Usage
from providers.json_values import as_map, read_count
from providers.values import maker

__all__ = ["read_usage"]

_make_usage = maker(Usage)


def read_usage(source: Mapping[str, object]) -> Usage:
    """The counts; a missing one is 0."""
    prompt, completion = source.get("prompt_tokens"), source.get("completion_tokens")
    of_prompt, of_completion = source.get("prompt_tokens_details"), source.get("completion_tokens_details")
    cached = written = sound = reasoning = accepted = rejected = 0
    if type(of_prompt) is dict:
        take = of_prompt.get
        cached, written, sound = take("cached_tokens", 0), take("cache_write_tokens", 0), take("audio_tokens", 0)
    if type(of_completion) is dict:
        take = of_completion.get
        reasoning = take("reasoning_tokens", 0)
        accepted, rejected = take("accepted_prediction_tokens", 0), take("rejected_prediction_tokens", 0)
    if (
        type(prompt) is type(completion) is type(cached) is type(written) is type(sound) is int
        and type(reasoning) is type(accepted) is type(rejected) is int
        # Nothing is left of numbers below 2**53 that aren't negative.
        and not (prompt | completion | cached | reasoning | written | sound | accepted | rejected) >> 53
    ):
        return _make_usage(prompt, completion, cached, reasoning, written, sound, accepted, rejected)
    of_prompt, of_completion = as_map(of_prompt), as_map(of_completion)
    return Usage(
        read_count(source, "prompt_tokens"),
        read_count(source, "completion_tokens"),
        read_count(of_prompt, "cached_tokens"),
        read_count(of_completion, "reasoning_tokens"),
        read_count(of_prompt, "cache_write_tokens"),
        read_count(of_prompt, "audio_tokens"),
        read_count(of_completion, "accepted_prediction_tokens"),
        read_count(of_completion, "rejected_prediction_tokens"),
    )
