"""What the design names and this version doesn't do yet: refused by name, never ignored. The one list of it."""

from __future__ import annotations

__all__ = ["KEYS"]

KEYS = frozenset(
    {
        "evaluations",
        "moderation",
    }
)
"""Keys, wherever they stand."""
