"""Texts of a region: labels, profiles and refusals, compiled for each locale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Show = Literal["always", "first_turn", "never"]
"""On which answers a label's words stand before the text. The mark in the header and the body is on all of them."""
SEPARATOR = "\n\n"
"""What stands between a label's words and what follows them."""


@dataclass(frozen=True, slots=True)
class Label:
    """One label in the words of one locale.

    producer: what names the provider of the service in the `AIGC` object; None for a label without such an object.
    """

    name: str
    text: str
    show: Show = "always"
    producer: str | None = None

    def is_due(self, *, first_turn: bool) -> bool:
        """Whether the user has to see the words now, in the text or elsewhere."""
        return first_turn or self.show != "first_turn"

    def prefix(self, *, first_turn: bool) -> str:
        """What it puts before a text."""
        return self.text + SEPARATOR if self.show != "never" and self.is_due(first_turn=first_turn) else ""


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a caller wishes, as a verified claim has it: words that are looked up in lists, never shown to a model."""

    language: str | None = None
    units: str | None = None
    time_zone: str | None = None
    form: str | None = None


NO_PREFERENCES = Preferences()


@dataclass(frozen=True, slots=True)
class Profile:
    """How an assistant speaks in one locale: lines of a system message by what they are about, in order.

    helplines: the line with the numbers to call, by territory; common: the one where the territory isn't known.
    choices: the line for each value that a caller may prefer, by what it is about.
    """

    locale: str
    lines: tuple[tuple[str, str], ...]
    helplines: Mapping[str, str] = field(default_factory=dict)
    common: str = ""
    choices: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Locale:
    """A region's speech in one locale.

    first, later: what stands before the text of a conversation's first answer, and before that of any other; empty if
    nothing does. refusals: what a client is told, by error code.
    """

    locale: str
    labels: tuple[Label, ...] = ()
    profile: Profile | None = None
    refusals: Mapping[str, str] = field(default_factory=dict)
    first: str = field(init=False)
    later: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "first", "".join(label.prefix(first_turn=True) for label in self.labels))
        object.__setattr__(self, "later", "".join(label.prefix(first_turn=False) for label in self.labels))


@dataclass(frozen=True, slots=True)
class RegionText:
    """Everything that a region says by itself.

    voice: what is spoken where nobody asks for another. voices: by locale. tags: the locale for a language tag, in
    lower case, empty where none fits. known: what any label of the table puts before a text, now or formerly, the
    longest first.
    first, later: what this region's own do, before a conversation's first answer and before any other.
    """

    voice: Locale
    voices: Mapping[str, Locale]
    tags: Mapping[str, str] = field(default_factory=dict)
    known: tuple[str, ...] = ()
    first: tuple[str, ...] = field(init=False)
    later: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        voices = self.voices.values()
        object.__setattr__(self, "first", tuple(dict.fromkeys(one.first for one in voices if one.first)))
        object.__setattr__(self, "later", tuple(dict.fromkeys(one.later for one in voices if one.later)))
