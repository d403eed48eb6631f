"""The messages of a chat as one text, for the two features that store prompts: shadow traffic and the prompt log."""

from __future__ import annotations

from providers.chat import ChatRequest, Message, text_of

MAX_CHARACTERS = 64 * 1024
"""The most that is kept of one text."""


def transcript(request: ChatRequest) -> str:
    """Return the messages as text, one `role: …` each, without images and calls. A long text is cut at its start."""
    return "\n".join(map(_line, request.messages))[-MAX_CHARACTERS:]


def _line(message: Message) -> str:
    role = type(message).__name__.removesuffix("Message").lower()
    return f"{role}: {text_of(message.content)}"
