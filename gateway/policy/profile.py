"""How an assistant speaks in a region, as a system message of ours: the profile's lines, those for the caller's
territory, and what the caller prefers. Every line is compiled; nothing that a caller sends gets into one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from gateway.model.speech import Preferences, Profile
from providers.chat import ChatRequest, SystemMessage, change_request
from providers.territories import parent

__all__ = ["Block", "compose", "with_block"]

_VERSION_DIGITS = 6
_OPENING = "You speak with somebody in a certain place. Keep to this unless the user asks for something else:"


@dataclass(frozen=True, slots=True)
class Block:
    """The message, and the name of this version of it: the locale, a piece of its hash, and what the caller refined."""

    name: str
    message: SystemMessage


def compose(profile: Profile, territory: str | None, preferences: Preferences) -> Block:
    """The block for a caller in that territory."""
    chosen = {
        about: line
        for about, value in (
            ("time_zone", preferences.time_zone),
            ("units", preferences.units),
            ("form", preferences.form),
        )
        if (line := profile.choices.get(about, {}).get(value or "")) is not None
    }
    lines = [chosen.get(about, line) for about, line in profile.lines]
    lines += [line for about, line in chosen.items() if all(about != written for written, _ in profile.lines)]
    lines.append(_helpline(profile, territory))
    text = "\n".join([_OPENING, *(f"- {line}" for line in lines if line)])
    version = hashlib.sha256(text.encode()).hexdigest()[:_VERSION_DIGITS]
    return Block("+".join([f"{profile.locale}@{version}", *chosen]), SystemMessage(text))


def _helpline(profile: Profile, territory: str | None) -> str:
    """An unknown number is not stated: those of another territory would cost time."""
    if territory is None:
        return profile.common
    return profile.helplines.get(territory) or profile.helplines.get(parent(territory) or "", "")


def with_block(request: ChatRequest, block: Block) -> ChatRequest:
    """The request with the block before everything else: a message of its own, apart from what anybody has written."""
    return change_request(request, messages=(block.message, *request.messages))
