"""Which member of a weighted set is a person's: weighted rendezvous hashing, so that a person keeps to one side.

Each member gets a number from (0, 1) that hangs on the person and the member's name alone, and the score -ln(number) /
weight; the lowest wins. The scores are exponentially distributed with the weights as rates, so that each member wins in
proportion to its weight; and a weight that rises lowers its own score only: whoever had that member keeps it. The table
and the time play no part. (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998;
Schindelhauer and Schomaker, "Weighted distributed hash tables", 2005.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from hashlib import blake2b

__all__ = ["choose", "person_key"]

# Constant for ever: another one would move everybody.
_PERSON, _SIDE = b"gateway.person", b"gateway.side"
_BITS = 53


def person_key(*parts: str) -> bytes:
    """The key of whoever is known by these words; they can't be read from it."""
    digest = blake2b(digest_size=32, person=_PERSON)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.digest()


def choose(person: bytes, weights: Mapping[str, float]) -> str | None:
    """The name that is this person's; None where no weight is above 0."""
    scored = [(_draw(person, name) / weight, name) for name, weight in weights.items() if weight > 0]
    return min(scored)[1] if scored else None


def _draw(person: bytes, name: str) -> float:
    """An exponentially distributed number, always the same for this person and name."""
    drawn = int.from_bytes(blake2b(name.encode(), digest_size=8, key=person, person=_SIDE).digest(), "big")
    return -math.log(((drawn >> (64 - _BITS)) + 0.5) / 2.0**_BITS)
