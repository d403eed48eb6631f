"""Help for the user of a chat: a text of the gateway that stands before the answer, or in its place."""

from __future__ import annotations

from typing import Any

from gateway.model.region_text import Sentence


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
    def duty(self) -> str:
        """The kind of `DUTIES` that counts when a client gets the text."""
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
