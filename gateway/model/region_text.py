"""Texts of a region: labels, profiles and refusals, compiled for each locale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gateway.model.parts import LabelProof
from providers.value import Value

SEPARATOR = "\n\n"
"""The separator between a label's text and the answer."""


class Sentence(Value, frozen=True):
    """A sentence for an end user, and the tag of its language."""

    language: str
    text: str


class Sentences(Value, frozen=True):
    """One sentence by language tag, the first one for readers of other languages.

    `tags` has the language for a tag in lower case that a caller may send. Empty if none fits.
    """

    texts: Mapping[str, str]
    tags: Mapping[str, str]


Show = Literal["always", "first_turn", "never"]
"""The answers on which a label's text is placed before the answer. Its mark in header and body is on all of them."""


class Label(Value, frozen=True):
    """One label in one locale."""

    name: str
    text: str
    show: Show = "always"
    producer: str | None = None
    """The name of the service provider in the `AIGC` object. None for a label without such an object."""
    repeat_s: float | None = None
    """After how long it is shown again in a session, or None if it is not."""
    repeat_text: str = ""
    """Its text where it is shown again."""
    proof: LabelProof | None = None
    """The part of a feature by which its data prove each text, or None."""
    audio: Literal["file", "required", "none"] = "none"
    """Whether its data stand in a file of speech: `file` where there is a place, `required`, or `none`."""

    def __str__(self) -> str:
        return self.name if self.proof is None else f"{self.name} ({self.proof.word})"

    def is_due(self, *, first_turn: bool) -> bool:
        """Return whether the user has to see the text with this answer, in the answer itself or elsewhere."""
        return first_turn or self.show != "first_turn"

    def prefix(self, *, first_turn: bool) -> str:
        """Return the text that the label puts before an answer, or an empty one."""
        return self.text + SEPARATOR if self.show != "never" and self.is_due(first_turn=first_turn) else ""

    def noticed(self, *, is_repetition: bool) -> str:
        """Return the text before a later answer in which the label that repeats is due."""
        if self.repeat_s is None:
            return self.prefix(first_turn=False)
        return (self.repeat_text if is_repetition else self.text) + SEPARATOR


class Preferences(Value, frozen=True):
    """A user's preferences from a verified claim. They select lines from lists and are never shown to a model."""

    language: str | None = None
    units: str | None = None
    time_zone: str | None = None
    form: str | None = None


NO_PREFERENCES = Preferences()


class Profile(Value, frozen=True):
    """The system message of a region in one locale."""

    locale: str
    lines: tuple[tuple[str, str], ...]
    """The lines in order, each with its topic."""
    helplines: Mapping[str, str] = {}
    """The line with emergency numbers, by territory."""
    common: str = ""
    """The line with emergency numbers if the territory is unknown."""
    choices: Mapping[str, Mapping[str, str]] = {}
    """The line for each value that a user may prefer, by topic."""


@dataclass(frozen=True, slots=True)
class Locale:
    """The texts of a region in one locale."""

    locale: str
    labels: tuple[Label, ...] = ()
    profile: Profile | None = None
    refusals: Mapping[str, str] = field(default_factory=dict)
    """The message for the client, by error code."""
    sentences: Mapping[str, Sentence] = field(default_factory=dict)
    """The operator's own sentences for the end user, by error code."""
    first: str = field(init=False)
    """The text before the first answer of a conversation. Empty if there is none."""
    later: str = field(init=False)
    """The text before every other answer. Empty if there is none."""
    noticed: str = field(init=False)
    """That text with the one of the label that repeats, whose notice is due in the answer."""
    repeated: str = field(init=False)
    """The same with its text for repetitions."""
    proof: LabelProof | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "proof", next(filter(None, (label.proof for label in self.labels)), None))
        object.__setattr__(self, "first", "".join(label.prefix(first_turn=True) for label in self.labels))
        object.__setattr__(self, "later", "".join(label.prefix(first_turn=False) for label in self.labels))
        object.__setattr__(self, "noticed", "".join(label.noticed(is_repetition=False) for label in self.labels))
        object.__setattr__(self, "repeated", "".join(label.noticed(is_repetition=True) for label in self.labels))


@dataclass(frozen=True, slots=True)
class RegionText:
    """All texts of a region."""

    default_locale: Locale
    """The texts if the user prefers no other locale."""
    locales: Mapping[str, Locale]
    tags: Mapping[str, str] = field(default_factory=dict)
    """The name of the locale for a language tag in lower case. Empty if none fits."""
    known: tuple[str, ...] = ()
    """All texts that a label of any region puts before an answer, or did formerly, the longest first."""
    first: tuple[str, ...] = field(init=False)
    """The region's own texts before the first answer of a conversation."""
    later: tuple[str, ...] = field(init=False)
    """The region's own texts before any other answer, the longest first."""

    def __post_init__(self) -> None:
        locales = self.locales.values()
        object.__setattr__(self, "first", tuple(dict.fromkeys(one.first for one in locales if one.first)))
        later = {text for one in locales for text in (one.later, one.noticed, one.repeated) if text}
        object.__setattr__(self, "later", tuple(sorted(later, key=lambda text: (-len(text), text))))
