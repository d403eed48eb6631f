"""What the design names and this version doesn't do yet: refused by name, never ignored. The one list of it."""

from __future__ import annotations

__all__ = ["KEYS", "WEIGHTED_STEP", "WORDS"]

KEYS = frozenset(
    {
        "consent",
        "evaluations",
        "fold",
        "hedge",
        "labels",
        "log_prompts",
        "moderation",
        "profile",
        "protected",
        "resume",
        "reveal_model",
        "schedules",
        "weights",
    }
)
"""Keys, wherever they stand."""

WORDS = {"may_assert": frozenset({"consent"})}
"""Words in the list of a key."""

WEIGHTED_STEP = "a weighted step (a mapping inside a route)"
