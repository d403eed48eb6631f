"""The short way to read a whole answer in OpenAI's dialect: one that is exactly as the API documents it.

Anything that is not (tool calls, reasoning text, a vendor's own shape) is None here, and goes through the `Assembler`,
which knows every quirk. A property test holds that both ways mean the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from providers.assembly import MAX_CHOICES
from providers.chat import AssistantMessage, ChatCompletion, Choice, FinishReason, Usage
from providers.values import maker

__all__ = ["PLAIN_FINISH", "plain_completion"]

PLAIN_FINISH: dict[object, FinishReason] = {"stop": "stop", "length": "length", "content_filter": "content_filter"}
# Fields of a message in which something may stand that is no part of the answer; any other must be empty.
_BESIDE = frozenset({"role", "content", "annotations", "audio"})
_SURROGATE = re.compile("[\ud800-\udfff]")
_make_message, _make_choice, _make_completion = maker(AssistantMessage), maker(Choice), maker(ChatCompletion)


def plain_completion(body: Mapping[str, object], usage: Usage | None) -> ChatCompletion | None:
    """The answer of a body in the plain form, None for any other."""
    take = body.get
    id, model, created, entries = take("id"), take("model"), take("created"), take("choices")
    if not (type(id) is str and id and type(model) is str and model and type(created) is int):
        return None
    if not (id.isascii() and model.isascii()) and _SURROGATE.search(id + model):
        return None
    # Of a number below 0 or beyond 63 bits something is left.
    if created >> 63 or type(entries) is not list or not 0 < len(entries) <= MAX_CHOICES:
        return None
    choices: list[Choice] = []
    for entry in entries:
        choice = _plain_choice(entry, len(choices)) if type(entry) is dict else None
        if choice is None:
            return None
        choices.append(choice)
    return _make_completion(id, model, created, tuple(choices), usage)


def _plain_choice(entry: dict[str, object], position: int) -> Choice | None:
    take = entry.get
    message, finish, index = take("message"), take("finish_reason"), take("index")
    if index != position or index is True or type(message) is not dict or type(finish) is not str:
        return None
    for name in message:
        if name not in _BESIDE and message[name]:
            return None
    content = message.get("content")
    if type(content) is not str or finish not in PLAIN_FINISH or take("logprobs") or take("delta"):
        return None
    if not content.isascii() and _SURROGATE.search(content):
        return None
    return _make_choice(_make_message(content), PLAIN_FINISH[finish], position)
