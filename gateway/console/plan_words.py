"""The words of plans and of their summaries, made of the codes and values of the admin API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.changes.plan import MARKS
from gateway.console.texts import WORDS, ViewTexts, _
from gateway.model.answer_change import AnswerChangeKind

ANSWER_WORDS: Mapping[AnswerChangeKind, str] = WORDS["answers"]


def answer_words(texts: ViewTexts, kind: AnswerChangeKind) -> str:
    """Return what happens to the users of a territory."""
    return texts.gettext(ANSWER_WORDS[kind])


def first_words(texts: ViewTexts, change: Mapping[str, Any], side: str) -> str:
    """Return who answers first `before` or `after` a change. A plan that 0.2.0 stored has no code of a refusal."""
    refusal = change.get(f"{side}_refusal")
    refused = texts.gettext(_("refused"))
    return texts.with_note(refused, texts.code("error", refusal)) if refusal else str(change[side])


def why_words(texts: ViewTexts, change: Mapping[str, Any]) -> str:
    """Return why no deployment answers any more, or an empty text."""
    skipped = change.get("skipped") or ()
    words = [f"{one['deployment']}: {texts.code('skip', one['reason'], one['detail'])}" for one in skipped]
    return "; ".join(words) or change["why"] or ""


def value_words(texts: ViewTexts, change: Mapping[str, Any], side: str) -> str:
    """Return the value of a key `before` or `after` a change."""
    is_missing = change.get("kind") == {"before": "added", "after": "removed"}[side]
    return texts.gettext(_("not set")) if is_missing else str(change[side])


def summary_words(texts: ViewTexts, activation: Mapping[str, Any]) -> str:
    """Return what an activation has changed: `+region cn, ~assistant/cn and 14 more`."""
    words = ", ".join(_item_words(texts, item) for item in activation["summary_items"])
    more = activation["summary_more"]
    return (words or texts.gettext(_("nothing"))) + (texts.gettext(_(" and {n} more")).format(n=more) if more else "")


def _item_words(texts: ViewTexts, item: Mapping[str, Any]) -> str:
    words = texts.gettext(_("region {name}")).format(name=item["name"]) if item["of"] == "region" else item["name"]
    return f"{MARKS[item['kind']]}{words}" if item["kind"] is not None else str(words)
