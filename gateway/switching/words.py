"""The values of a table in words, for people who read what changes."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

from gateway.model.approval import Approval
from gateway.model.speech import Speech
from providers.sites import Residency
from providers.territories import Places

__all__ = ["shown"]


def shown(value: object) -> str:
    """A value of a table in words; of what has no words of its own, only its parts."""
    match value:
        case None | () | "":
            return "none"
        case bool():
            return "yes" if value else "no"
        case Places() | str() | int() | float():
            return str(value)
        case Residency(stores, processes):
            return f"stores {stores}, processes {processes}"
        case Approval():
            until = f" until {value.valid_until}" if value.valid_until else ""
            return f"{value.region}: {value.authority} {value.kind} {value.number}{until}"
        case Speech():
            labels = ", ".join(label.name for label in value.voice.labels)
            return f"labels {labels or 'none'}, profile {', '.join(value.voices) if value.voice.profile else 'none'}"
        case frozenset() | set():
            return ", ".join(sorted(map(shown, value))) or "none"
        case tuple() | list():
            return ", ".join(map(shown, value))
    if is_dataclass(value):
        return ", ".join(f"{each.name} {shown(getattr(value, each.name))}" for each in fields(value) if each.repr)
    return str(value)
