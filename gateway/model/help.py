"""Help for the user of a chat: a text of the gateway that stands before the answer, or in its place."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from gateway.model.region_text import Sentence


class DutyKind(StrEnum):
    """A count of the report of duties of time and crisis. Each kind counts once at most for a request."""

    CRISIS = "crisis"  # the answer or the error gave the crisis text
    CRISIS_UNJUDGED = "crisis_unjudged"  # no judge of a crisis gave a verdict, and the request went on
    USE_SESSION = "use_session"  # refused by the limit of a session
    USE_DAY = "use_day"  # refused by the limit of a day
    USE_UNKNOWN = "use_unknown"  # refused because a limit applies and no user is known
    NOTICE = "notice"  # the answer showed a label with `repeat`


class Help:
    """Base of the help that a feature gives to the user of a chat.

    It has a sentence in the user's language, and may have instructions for the model that answers.
    """

    __slots__ = ()
    sentence: Sentence
    instructions: str

    @property
    def is_answer(self) -> bool:
        """Whether the text is the answer, so that no deployment is asked."""
        raise NotImplementedError

    @property
    def duty(self) -> DutyKind:
        """The kind that counts when a client gets the text."""
        raise NotImplementedError

    def as_answer(self) -> Any:
        """Return the note by which the text is the answer, whatever the rules of the region are."""
        raise NotImplementedError

    def member(self) -> dict[str, object]:
        """Return the member of `x_gateway`, and of an error, by its name."""
        raise NotImplementedError


class HelpUnanswerable(Exception):
    """The text cannot be the answer, because the request requires content for programs.

    `param` is the field that requires it.
    """

    def __init__(self, param: str) -> None:
        super().__init__(param)
        self.param = param
