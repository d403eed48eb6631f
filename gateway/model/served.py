"""Every request that the gateway sends to a deployment: a chat, or a request of another use.

This module is the door to `providers/inputs`: no other one of the core knows the uses that are not chats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from providers.chat import ChatRequest, UserMessage
from providers.inputs.uses import INPUTS as INPUTS
from providers.served import InputRequest

USES = ("chat", *INPUTS)
if TYPE_CHECKING:
    Use: TypeAlias = str
else:
    Use = Literal[USES]
"""A kind of requests to an assistant. Each has routes of its own."""
ServedRequest: TypeAlias = ChatRequest | InputRequest


class OtherInput(Exception):
    """A request that is not a chat is refused with this code and message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class MeasuredInput(ChatRequest, frozen=True):
    """A request of another use as a chat whose cost bounds its own, with the most search units of a rerank.

    `audio` is the request itself if its cost has amounts next to tokens. `again` is what some servers read once
    more for each of the `questions` after the first.
    """

    use: Use = "chat"
    audio: InputRequest | None = None
    search_units: int = 0
    questions: int = 0
    again: tuple[UserMessage, ...] = ()

    def __repr__(self) -> str:
        """Leave out the texts."""
        return f"MeasuredInput({self.use!r})"


def measured_as_chat(request: ServedRequest) -> ChatRequest:
    """Return a chat whose cost bounds that of the request."""
    if isinstance(request, ChatRequest):
        return request
    bound = request.bound()
    return MeasuredInput(
        request.model or "",
        tuple(map(UserMessage, bound.texts)),
        max_tokens=bound.output,
        reasoning_effort="none",
        use=request.use,
        audio=request if request.is_audio else None,
        search_units=bound.search_units,
        questions=bound.questions,
        again=tuple(map(UserMessage, bound.again)),
    )
