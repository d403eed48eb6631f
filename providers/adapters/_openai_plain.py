"""The short way to read a whole answer in OpenAI's dialect: one that is exactly as the API documents it.

Anything that is not (tool calls, reasoning text, a vendor's own shape) is None here, and goes through the `Assembler`,
which knows every quirk. A property test holds that both ways mean the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from providers.chat import AssistantMessage, ChatCompletion, Choice, FinishReason, Usage

__all__ = ["plain_completion"]

_PLAIN_FINISH: dict[object, FinishReason] = {"stop": "stop", "length": "length", "content_filter": "content_filter"}
_MESSAGE_FIELDS = frozenset({"role", "content", "refusal", "annotations", "tool_calls", "function_call", "audio"})
_SURROGATE = re.compile("[\ud800-\udfff]")


def plain_completion(body: Mapping[str, object], usage: Usage | None) -> ChatCompletion | None:
    """The answer of a body in the plain form, None for any other."""
    take = body.get
    id, model, created, entries = take("id"), take("model"), take("created"), take("choices")
    if not (type(id) is str and id and type(model) is str and model and type(created) is int):
        return None
    if type(entries) is not list or not entries:
        return None
    choices: list[Choice] = []
    for position, entry in enumerate(entries):
        choice = _plain_choice(entry, position) if type(entry) is dict else None
        if choice is None:
            return None
        choices.append(choice)
    return ChatCompletion(id, model, created, tuple(choices), usage)


def _plain_choice(entry: Mapping[str, object], position: int) -> Choice | None:
    take = entry.get
    message = take("message")
    if type(message) is not dict or not message.keys() <= _MESSAGE_FIELDS:
        return None
    content = message.get("content")
    finish = take("finish_reason")
    plain = (
        take("index") == position
        and type(content) is str
        and type(finish) is str
        and finish in _PLAIN_FINISH
        and not take("logprobs")
        and not take("delta")
        and not message.get("refusal")
        and not message.get("tool_calls")
    )
    if not plain or type(content) is not str or (not content.isascii() and _SURROGATE.search(content)):
        return None
    return Choice(AssistantMessage(content), _PLAIN_FINISH[finish], position)
