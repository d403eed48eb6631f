"""Estimate the tokens of a request from its text and media, without a tokenizer and without a call to a provider."""

from __future__ import annotations

from providers import chat
from providers.json_values import dumps_text

_PER_MESSAGE = 4
"""Tokens that mark the role and the ends of a message."""
_BEFORE_ANSWER = 3
"""Tokens with which a template begins the answer: its marks and the role (community.openai.com/t/337002, read
2026-11-27)."""
_PER_IMAGE = 765
"""An image of 1024 x 1024 pixels: platform.openai.com/docs/guides/images-vision, read 2026-11-20."""
_FEWEST_OF_A_FILE = 258
"""A page of a document: ai.google.dev/gemini-api/docs/document-processing, read 2026-11-20."""
_BYTES_PER_TOKEN_OF_A_FILE = 200
_BYTES_PER_TOKEN_OF_SOUND = 500


def tokens_of(text: str) -> int:
    """Return about how many tokens a text has.

    A token has about four Latin letters. A Chinese character has three bytes and is about one token; letters of other
    alphabets have two bytes and are in between.
    """
    characters = len(text)
    if text.isascii():
        return -(-characters // 4)
    beyond = len(text.encode("utf-8", "surrogatepass")) - characters
    return -(-(2 * characters + 3 * beyond) // 8)


def count_tokens(request: chat.ChatRequest) -> int:
    """Return about how many tokens the prompt of a request has, with what a template adds."""
    messages, count = request.messages, _BEFORE_ANSWER
    if type(messages) is chat.Texts:
        count += sum([_PER_MESSAGE + tokens_of(entry["content"]) for entry in messages.entries])
    else:
        count += sum(map(_of_message, messages))
    for tool in request.tools:
        count += tokens_of(tool.name) + tokens_of(tool.description or "") + _PER_MESSAGE
        if tool.parameters is not None:
            count += _of_json(tool.parameters)
    if isinstance(request.response_format, chat.JsonSchemaFormat):
        count += _of_json(request.response_format.schema)
    return count


def _of_json(value: object) -> int:
    return tokens_of(dumps_text(value))


def _of_message(message: chat.Message) -> int:
    content = message.content
    count = _PER_MESSAGE
    if isinstance(content, str):
        count += tokens_of(content)
    elif content is not None:
        count += sum(map(_of_part, content))
    if isinstance(message, chat.AssistantMessage):
        count += tokens_of(message.refusal or "") + tokens_of(message.reasoning or "")
        count += sum(tokens_of(call.name) + tokens_of(call.arguments) for call in message.tool_calls)
    return count


def _of_part(part: chat.Part) -> int:
    match part:
        case chat.TextPart(text):
            return tokens_of(text)
        case chat.ImagePart():
            return _PER_IMAGE
        case chat.AudioPart(data):
            return max(1, len(data) * 3 // 4 // _BYTES_PER_TOKEN_OF_SOUND)
        case chat.FilePart(data):
            return max(_FEWEST_OF_A_FILE, len(data) * 3 // 4 // _BYTES_PER_TOKEN_OF_A_FILE)
