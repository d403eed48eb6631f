"""Checks that several strict simulators share: known fields and the order of roles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from providers.failures import InvalidRequest
from providers.openai_json.fields import mapping


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


def known(source: object, place: str, names: Sequence[str]) -> Mapping[str, object]:
    """The value as an object that has no other members than these."""
    found = mapping(source, place)
    if unknown := next((name for name in found if name not in names), None):
        raise InvalidRequest(f"{place}.{unknown[:60]}: Extra inputs are not permitted", place)
    return found
