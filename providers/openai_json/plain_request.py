"""The fast path for chat requests with text messages and plain settings, exactly as OpenAI documents them.

Nine of ten requests have this form. For any other request (parts, tools, other types, errors) the functions return
None, and `decode_request` reads it, which knows every rule and reports every error. A property test holds that both
give the same result. The fast path takes a third of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from providers.chat import AssistantMessage, ChatRequest, Message, SystemMessage, Texts, UserMessage

_FIELDS = frozenset(
    "model messages stream stream_options max_tokens max_completion_tokens temperature top_p presence_penalty "
    "frequency_penalty seed user".split()
)
_MAKE: dict[object, Callable[[str], Message]] = {
    "system": SystemMessage,
    "user": UserMessage,
    "assistant": AssistantMessage,
}
_RareSettings = tuple[float | None, float | None, float | None, int | None, str | None]
_NO_RARE_SETTINGS: _RareSettings = (None, None, None, None, None)
_NUMBER = (float, int)
_WITH_USAGE = {"include_usage": True}
_MOST_TOKENS = 2**31 - 1
_MOST_SEED = 2**63 - 1


def plain_request(body: object, most_messages: int) -> ChatRequest | None:
    """Return the request of a body in the plain form, or None for any other. Absent and null are equal."""
    if type(body) is not dict:
        return None
    take = body.get
    model, messages = take("model"), plain_messages(take("messages"), most_messages)
    if type(model) is not str or not model or messages is None:
        return None
    stream, options, temperature = take("stream"), take("stream_options"), take("temperature")
    max_tokens, other_name = take("max_completion_tokens"), take("max_tokens")
    # The number of known fields so far. If the body has no more, no other field must be looked up.
    seen = 2
    if stream is not None:
        if type(stream) is not bool:
            return None
        seen += 1
    if options is not None:
        if not stream or options != _WITH_USAGE or options["include_usage"] is not True:
            return None
        seen += 1
    if temperature is not None:
        if type(temperature) not in _NUMBER or not 0 <= temperature <= 2:
            return None
        seen += 1
    if max_tokens is None:
        max_tokens = other_name
    elif other_name is not None:
        return None
    if max_tokens is not None:
        if type(max_tokens) is not int or not 1 <= max_tokens <= _MOST_TOKENS:
            return None
        seen += 1
    rare = _NO_RARE_SETTINGS if seen == len(body) else _rare_settings(body)
    if rare is None:
        return None
    top_p, presence, frequency, seed, user = rare
    return ChatRequest(
        model,
        messages,
        stream is True,
        options is not None,
        max_tokens,
        temperature,
        top_p,
        presence,
        frequency,
        seed,
        user=user,
    )


def _rare_settings(body: dict[str, Any]) -> _RareSettings | None:
    """Return the settings that few requests have, or None if the body has any other field."""
    if not body.keys() <= _FIELDS:
        return None
    take = body.get
    top_p, seed, user = take("top_p"), take("seed"), take("user")
    presence, frequency = take("presence_penalty"), take("frequency_penalty")
    plain = (
        (top_p is None or (type(top_p) in _NUMBER and 0 <= top_p <= 1))
        and (presence is None or (type(presence) in _NUMBER and -2 <= presence <= 2))
        and (frequency is None or (type(frequency) in _NUMBER and -2 <= frequency <= 2))
        and (seed is None or (type(seed) is int and -_MOST_SEED - 1 <= seed <= _MOST_SEED))
        and (user is None or type(user) is str)
    )
    return (top_p, presence, frequency, seed, user) if plain else None


def plain_messages(entries: object, most: int) -> Texts | None:
    """Return messages with a role and a text each, or None for other messages, no messages and more than `most`.

    An empty message of the assistant at the end is another one.
    """
    if type(entries) is not list or not 0 < len(entries) <= most:
        return None
    messages: list[Message] = []
    try:
        for entry in entries:
            if type(entry) is not dict or len(entry) != 2 or type(content := entry["content"]) is not str:
                return None
            messages.append(_MAKE[entry["role"]](content))
    except (KeyError, TypeError):  # a missing member, an unknown role, or a role that is not a text
        return None
    if type(last := messages[-1]) is AssistantMessage and not last.content and len(messages) > 1:
        return None
    texts = Texts(messages)
    texts.entries = entries
    return texts


def plain_message(entry: object) -> Message | None:
    """Return a message with a role and a text, or None for any other."""
    texts = plain_messages([entry], 1)
    return texts[0] if texts is not None else None
