"""Decide whether a vendor's count of generated tokens already includes the tokens of the model's reasoning."""

from __future__ import annotations


def count_completion(prompt: int, completion: int, reasoning: int, total: object, separate: bool = False) -> int:
    """Return the number of generated tokens, including reasoning.

    Most vendors count reasoning in the completion, as OpenAI does. xAI counts it separately. The vendor's own total
    shows which one it is. If the total is missing or fits neither, a reasoning count above the completion's cannot be a
    part of it.

    Args:
        prompt: The prompt tokens.
        completion: The completion tokens, as the vendor states them.
        reasoning: The reasoning tokens.
        total: The vendor's total of all tokens, if it is a number.
        separate: Whether the vendor is known to count reasoning separately. Used if the total does not decide.

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
