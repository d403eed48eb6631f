"""The rules of a region for a crisis, and the help for the user of one request."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from gateway.model.config_version import Region
from gateway.model.help import Help
from gateway.model.location import Location
from gateway.model.parts import RegionPart
from gateway.model.record import AttemptRecord, FeatureNote
from gateway.model.region_text import SEPARATOR, Sentence, Sentences
from providers.chat import AssistantMessage, Message, text_of
from providers.value import Value, replace

Then = Literal["stop", "answer"]
CrisisOutcome = Literal["passed", "stop", "answer", "unjudged", "failed"]
"""`unjudged`: no verdict was possible, and the request went on. `failed`: it did not."""
NUMBER = "{number}"
"""The place of the number in a built-in text."""


class Helpline(Value, frozen=True):
    """A number to call. `kind`: `crisis`, or `emergency` where no number for a crisis is known."""

    kind: str
    number: str


@dataclass(frozen=True, slots=True)
class CrisisRules(RegionPart):
    """The rules of a region."""

    judges: tuple[str, ...]
    """The names of the deployments that judge, asked in order if one fails."""
    categories: tuple[str, ...]
    then: Then
    is_open: bool
    """Whether a request goes on without a verdict."""
    text: Sentences = field(hash=False, repr=False)
    has_number: bool
    """It is ours, with `NUMBER` in the place of the number. The operator's is used as it is."""
    helplines: Mapping[str, Helpline] = field(hash=False, repr=False)
    """The number of each territory."""
    common: Helpline | None
    """The number that is valid in the whole region, or None."""
    instructions: str = field(default="", repr=False)
    texts: tuple[str, ...] = field(init=False, repr=False)
    """Each text that a user can get, the longest first."""
    digest: bytes = field(init=False, repr=False, compare=False)
    """Names what is given for which categories: other texts or categories are other rules."""

    def __post_init__(self) -> None:
        known = {*self.helplines.values(), self.common}
        texts = {self.with_number(one, helpline) for one in self.text.texts.values() for helpline in known}
        object.__setattr__(self, "texts", tuple(sorted(texts, key=lambda text: (-len(text), text))))
        named = json.dumps([self.categories, self.texts]).encode()
        object.__setattr__(self, "digest", hashlib.sha256(named).digest())

    plan_name: ClassVar[str] = "crisis"
    helps_first: ClassVar[bool] = True

    def report(self, region: Region) -> Iterator[tuple[str, str]]:
        yield "crisis", str(self)

    def explained(self, location: Location) -> Iterator[tuple[str, object, str]]:
        yield "crisis", {"judges": list(self.judges), "then": self.then}, str(self)

    def kept_by(self) -> str:
        return "crisis"

    def judging(self) -> tuple[str, tuple[str, ...]]:
        return "crisis", self.judges

    def without_own_texts(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        return tuple(self._without(it) if isinstance(it, AssistantMessage) else it for it in messages)

    def _without(self, message: AssistantMessage) -> AssistantMessage:
        said = text_of(message.content)
        text = next((text for text in self.texts if said.startswith(text)), None)
        if text is None:
            return message
        return replace(message, content=said[len(text) :].removeprefix(SEPARATOR))

    def with_number(self, text: str, helpline: Helpline | None) -> str:
        """Return a crisis text as users get it. `helpline`: the number for them, or None if none is known."""
        return text.replace(NUMBER, helpline.number if helpline is not None else "") if self.has_number else text

    def __str__(self) -> str:
        ending = "goes on" if self.is_open else "refused"
        found = "the crisis text is the answer" if self.then == "stop" else "the crisis text and an answer"
        judges = ", then ".join(self.judges)
        return f"{', '.join(self.categories)} by {judges}: {found}; without a verdict: {ending}"


@dataclass(frozen=True, slots=True)
class Crisis(Help):
    """The help for the user of one request who may be in a crisis: the crisis text in the user's language.

    Some of the region's categories were found. The helpline is None if no number is known.
    """

    then: Then
    categories: tuple[str, ...]
    helpline: Helpline | None
    sentence: Sentence = field(repr=False)
    instructions: str = field(default="", repr=False)

    @property
    def is_answer(self) -> bool:
        return self.then == "stop"

    @property
    def duty(self) -> str:
        return "crisis"

    def as_answer(self) -> CrisisNote:
        return CrisisNote("stop", replace(self, then="stop"))

    def member(self) -> dict[str, object]:
        helplines = {self.helpline.kind: self.helpline.number} if self.helpline is not None else {}
        return {"crisis": {"then": self.then, "categories": list(self.categories), "helplines": helplines}}


class CrisisNote(FeatureNote, Value, frozen=True):
    """The outcome for a chat in a region with `crisis`. The log and the receipt get no category and no text."""

    outcome: CrisisOutcome
    help: Crisis | None = None

    def header_lines(self) -> Iterator[bytes]:
        if self.help is not None:
            yield b"x-gateway-crisis: " + self.help.then.encode()
        elif self.outcome == "unjudged":
            yield b"x-gateway-crisis: unjudged"

    def log_fields(self) -> Mapping[str, object]:
        return {"crisis": self.outcome}

    def receipt_members(self, recipient: Callable[[AttemptRecord], Mapping[str, object]]) -> Mapping[str, object]:
        return {"crisis": self.outcome}
