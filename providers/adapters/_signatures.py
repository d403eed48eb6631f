"""What one turn must give back to the next, on its way through a client, marked with the model that gave it.

A route may answer the next turn with another model than the last. A vendor refuses a signature that isn't that
model's own (400), so each carries a mark of its model, and one with another's mark counts as absent. The mark is a
checksum: the client, who sees it in the id of the tool call, doesn't learn the model's name.
"""

from __future__ import annotations

import zlib

__all__ = ["marked", "own_signature"]

# Base64, in which signatures are written, has no such character.
_SEPARATOR = "."


def marked(signature: str, model: str) -> str:
    """The signature as the canonical chat carries it."""
    return f"{_mark(model)}{_SEPARATOR}{signature}"


def own_signature(carried: str | None, model: str) -> str | None:
    """The signature that `model` itself gave, None where there is none or it is another model's.

    One without a mark came to the client by another way than ours and is taken at its word.
    """
    if not carried:
        return None
    mark, separator, signature = carried.partition(_SEPARATOR)
    if not separator:
        return carried
    return signature if signature and mark == _mark(model) else None


def _mark(model: str) -> str:
    return f"{zlib.crc32(model.encode('utf-8')):08x}"
