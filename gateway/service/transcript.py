"""A request's messages as text, for the two places that keep it where an operator says so: shadows and the log."""

from __future__ import annotations

from providers.chat import ChatRequest, Message, text_of

MOST_CHARACTERS = 64 * 1024


def transcript(request: ChatRequest) -> str:
    """A line `user: …` for each message, the end of them all where they are long. Images and calls are left out."""
    return "\n".join(map(_line, request.messages))[-MOST_CHARACTERS:]


def _line(message: Message) -> str:
    who = type(message).__name__.removesuffix("Message").lower()
    return f"{who}: {text_of(message.content)}"
