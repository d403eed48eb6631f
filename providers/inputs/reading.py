"""Parts of reading the answers of all uses: results in the order of the inputs, and counts of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from providers.chat import Usage
from providers.json_values import as_list, as_map, read_count
from providers.reading.errors import malformed

JSON_HEADERS = (("content-type", "application/json"), ("accept", "application/json"))


def expect_some(results: Sequence[object], nouns: str) -> Sequence[object]:
    """Return the results of an answer. Raises ProviderFailed if there are none."""
    if not results:
        raise malformed(f"the answer has no {nouns}")
    return results


def in_order(value: object, nouns: str, noun: str, index: str = "index") -> list[Mapping[str, object]]:
    """Return the results of an answer in the order of their indexes. Raises ProviderFailed if one is missing."""
    results = expect_some(as_list(value), nouns)
    found: dict[int, Mapping[str, object]] = {}
    for entry in map(as_map, results):
        place = entry.get(index)
        if type(place) is not int or place in found or not 0 <= place < len(results):
            raise malformed(f"{noun} has no index, or one that is wrong")
        found[place] = entry
    return [found[place] for place in range(len(results))]


def counted(counts: Mapping[str, object], *names: str) -> Usage | None:
    """Return the first of these counts of tokens as the usage, or None if a provider states none of them."""
    tokens = next((count for name in names if (count := read_count(counts, name))), 0)
    return Usage(prompt_tokens=tokens) if tokens else None
