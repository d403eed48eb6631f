"""What the design names and this version doesn't do yet: refused by name, never ignored. The one list of it."""

from __future__ import annotations

__all__ = ["KEYS"]

KEYS = frozenset(
    {
        "evaluations",
        "log_prompts",
        "moderation",
    }
)
"""Keys, wherever they stand."""
