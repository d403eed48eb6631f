"""Cut the inputs of a request into calls that a provider accepts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

_Input = TypeVar("_Input")
_BYTES_PER_TOKEN = 2
"""Texts have more bytes than this for each token, in any script, so that an estimate is too high and not too low."""


def tokens_in(*texts: str) -> int:
    """Return an estimate of the tokens of all texts together."""
    return sum(len(text.encode("utf-8", "replace")) for text in texts) // _BYTES_PER_TOKEN


def parts_of(
    inputs: Sequence[_Input], size_of: Callable[[_Input], int], most_inputs: int, most_tokens: int | None
) -> Iterator[slice]:
    """Yield the part of the inputs that each call has, in order.

    An input that is too long by itself is a call of its own, which the provider refuses. Without `most_tokens`, inputs
    have no size.
    """
    start = tokens = 0
    for place, one in enumerate(inputs):
        size = 0 if most_tokens is None else size_of(one)
        is_over = most_tokens is not None and tokens + size > most_tokens
        if place > start and (place - start >= most_inputs or is_over):
            yield slice(start, place)
            start, tokens = place, 0
        tokens += size
    yield slice(start, len(inputs))
