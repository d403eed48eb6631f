"""Merge the reports of usage of one answer, and decide which counts of a vendor already include others."""

from __future__ import annotations

from collections.abc import Mapping

_LEAST_CACHED = 512
"""The shortest prompt that Claude caches. Source: platform.claude.com, prompt caching (2026-11-20)."""


def merged(known: Mapping[str, object], report: Mapping[str, object]) -> Mapping[str, object]:
    """Return a usage with what a later report of the same answer adds. It never takes a count or a detail away.

    | a member of the later report | result |
    |---|---|
    | a count | it replaces the previous one |
    | an object of details | merged by this table |
    | missing, null, 0, `""`, `[]`, or an object of nothing else | the previous one stays |
    | a value that is not a count | it replaces the previous one, and makes the usage implausible |

    Counts of one vendor are merged in the vendor's own form and read once, at the end, because a report may have only
    some members of a sum. Reports in choices are reports like others.

    Examples:
        >>> merged({"prompt_tokens": 9, "details": {"cached": 8}}, {"prompt_tokens": 9, "completion_tokens": 2})
        {'prompt_tokens': 9, 'details': {'cached': 8}, 'completion_tokens': 2}
    """
    if not known:
        return report
    found = dict(known)
    for name, value in report.items():
        before = found.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            found[name] = merged(before, value)
        elif not before or not _is_empty(value):
            found[name] = value
    return found


def _is_empty(value: object) -> bool:
    return all(map(_is_empty, value.values())) if isinstance(value, dict) else not value


def count_prompt(prompt: int, completion: int, cached: int, total: object) -> int:
    """Return the number of prompt tokens, including those that were read from or written to a cache.

    Most vendors count them in the prompt, as OpenAI does. Claude counts them apart from it, and so do relays of Claude.
    The vendor's own total, if it is a number, shows which one it is. Claude caches no prompt below 512 tokens, so fewer
    that exceed the prompt do not count: the result is 0, which no prompt has.

    Examples:
        >>> count_prompt(20, 50, 1100, total=None), count_prompt(1200, 50, 1100, total=1250)
        (1120, 1200)
        >>> count_prompt(56, 50, 57, total=106)
        0
    """
    if cached > prompt and cached < _LEAST_CACHED:
        return 0
    if cached > prompt:
        return prompt + cached  # whatever the total is: relays of Claude leave the cached tokens out of it, too
    return prompt + cached if cached and total == prompt + completion + cached else prompt


def count_completion(prompt: int, completion: int, reasoning: int, total: object, separate: bool = False) -> int:
    """Return the number of generated tokens, including reasoning.

    Most vendors count reasoning in the completion, as OpenAI does. xAI counts it separately. The vendor's own total
    shows which one it is. If the total is missing or fits neither, a reasoning count above the completion's cannot be a
    part of it, and is not one if the vendor is known to count it `separate`.

    Examples:
        >>> count_completion(10120, 1499, 2809, total=14428)
        4308
        >>> count_completion(22, 17, 9, total=39)
        17
    """
    if not reasoning or total == prompt + completion:
        return completion
    if separate or reasoning > completion or total == prompt + completion + reasoning:
        return completion + reasoning
    return completion
