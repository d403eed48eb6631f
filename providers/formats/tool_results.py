"""Write tool results with images, files or a failure for formats whose tool results are plain text."""

from __future__ import annotations

from collections.abc import Sequence

from providers.chat import CacheTime, ImagePart, Message, Part, TextPart, Texts, ToolMessage, UserMessage, prompt_text

FAILED_PREFIX = "The call failed: "
"""The beginning of a failed result in a format that has no field for it."""
ATTACHED = "[in the next message: {} {} of the tool results]"
"""The note in a result for an image or a file that follows in a user message."""
ATTACHMENT = "[{} {} of the tool results]"
"""The note before that image or file."""


def result_text(message: ToolMessage) -> str:
    """Return the text of a result, without images and files. If the call failed, the text states so."""
    text = prompt_text(message.content)
    return f"{FAILED_PREFIX}{text}" if message.is_error else text


def has_attachments(message: ToolMessage) -> bool:
    """Return whether a result has parts other than text."""
    return not isinstance(message.content, str) and any(not isinstance(part, TextPart) for part in message.content)


def is_attachment(message: Message) -> bool:
    """Return whether a message has what `results_as_text` moved out of tool results."""
    if not isinstance(message, UserMessage) or isinstance(message.content, str) or not message.content:
        return False
    first = message.content[0]
    return isinstance(first, TextPart) and first.text in (ATTACHMENT.format("image", 1), ATTACHMENT.format("file", 1))


def results_as_text(messages: Sequence[Message]) -> Sequence[Message]:
    """Return the messages with plain text in each tool result, for formats that take nothing else there.

    Images and files of the results follow in a user message after the last result of the turn, with a note in place of
    each. The text of a failed result states that the call failed.
    """
    if type(messages) is Texts or not any(
        isinstance(it, ToolMessage) and (it.is_error or has_attachments(it)) for it in messages
    ):
        return messages
    written: list[Message] = []
    attached: list[Part] = []
    for message in messages:
        if not isinstance(message, ToolMessage):
            _attach(written, attached)
            written.append(message)
        elif has_attachments(message):
            written.append(ToolMessage(message.tool_call_id, _detach(message, attached), cache=_mark_of(message)))
        else:
            text = result_text(message) if message.is_error else ""
            written.append(ToolMessage(message.tool_call_id, text, cache=_mark_of(message)) if text else message)
    _attach(written, attached)
    return written


def _detach(message: ToolMessage, attached: list[Part]) -> str:
    """Return the text of a result with a note for each image or file, which is added to `attached`."""
    lines: list[str] = []
    for part in message.content if not isinstance(message.content, str) else ():
        if isinstance(part, TextPart):
            lines.append(part.text)
            continue
        number = sum(not isinstance(one, TextPart) for one in attached) + 1
        kind = "image" if isinstance(part, ImagePart) else "file"
        lines.append(ATTACHED.format(kind, number))
        attached += [TextPart(ATTACHMENT.format(kind, number)), part]
    text = "\n".join(lines)
    return f"{FAILED_PREFIX}{text}" if message.is_error else text


def _mark_of(message: ToolMessage) -> CacheTime | None:
    """Return the mark of the result that is written as one text: its own, or that of its last text with one."""
    parts = message.content if not isinstance(message.content, str) else ()
    marks = [part.cache for part in parts if isinstance(part, TextPart) and part.cache]
    return message.cache or (marks[-1] if marks else None)


def _attach(written: list[Message], attached: list[Part]) -> None:
    if attached:
        written.append(UserMessage(tuple(attached)))
        attached.clear()
