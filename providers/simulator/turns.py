"""Who may speak after whom, at vendors where people (or tools) and the assistant take turns."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["out_of_turn"]


def out_of_turn(roles: Sequence[str]) -> int | None:
    """The place of the first message that is not its side's turn; results of tools may stand in a row."""
    speaker = ""
    for place, role in enumerate(roles):
        if role in ("system", "developer"):
            continue
        side = "assistant" if role == "assistant" else "user"
        if side == speaker and not (role == "tool" and roles[place - 1] == "tool"):
            return place
        speaker = side
    return None
