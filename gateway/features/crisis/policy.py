"""Decide whether a user is in a crisis, and the help for this user. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.features.crisis.model import Crisis, CrisisRules, Helpline
from gateway.model.location import Location
from gateway.model.region_text import Sentence
from providers.chat import AssistantMessage, Message, UserMessage, text_of
from providers.territories import parent


def last_answered(messages: Sequence[Message]) -> int:
    """Return the place of the last answer that has text, or -1. One at the end is not an answer yet.

    The client has begun it for the model, so what the user wrote before it has not been judged.
    """
    end = len(messages)
    while end and isinstance(messages[end - 1], AssistantMessage):
        end -= 1
    places = range(end - 1, -1, -1)
    return next((at for at in places if isinstance(it := messages[at], AssistantMessage) and text_of(it.content)), -1)


def texts_to_judge(messages: Sequence[Message], rules: CrisisRules) -> tuple[list[str], list[str], list[str]]:
    """Return the texts of the user since the last answer with text, those before it, and the answers before it.

    Media are not judged. Answers are without the crisis texts, which are the gateway's.
    """
    new = last_answered(messages) + 1
    users, answers = list[str](), list[str]()
    for message in rules.without_own_texts(tuple(messages[:new])):
        if isinstance(message, UserMessage | AssistantMessage):
            (users if isinstance(message, UserMessage) else answers).append(text_of(message.content or ""))
    latest = [text_of(message.content) for message in messages[new:] if isinstance(message, UserMessage)]
    return _texts(latest), _texts(users), _texts(answers)


def _texts(texts: list[str]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if text.strip()]


def crisis_of(rules: CrisisRules, location: Location, sentence: Sentence, found: frozenset[str]) -> Crisis:
    """Return the help for a user. `sentence`: the region's text in the user's language."""
    helpline = helpline_at(rules, location.territory)
    text = Sentence(sentence.language, rules.with_number(sentence.text, helpline))
    categories = tuple(name for name in rules.categories if name in found)
    return Crisis(rules.then, categories, helpline, text, rules.instructions if rules.then == "answer" else "")


def helpline_at(rules: CrisisRules, territory: str | None) -> Helpline | None:
    """Return the number of a territory, or that of the whole region if the territory is not known."""
    if territory is None:
        return rules.common
    return rules.helplines.get(territory) or rules.helplines.get(parent(territory) or "")
