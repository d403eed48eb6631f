"""Compile the sentences for end users: those of `messages`, and the built-in ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources

from gateway.config.known_texts import table
from gateway.config.locales import canonical, tags_of
from gateway.config.validation import Draft
from gateway.model.refusal_reason import RefusalReason
from gateway.model.region_text import Sentences


def known_messages() -> dict[RefusalReason, dict[str, str]]:
    """Return the built-in sentences for end users by reason and language."""
    return {RefusalReason(name): texts for name, texts in table("sentences").items() if isinstance(texts, dict)}


@cache
def sentence_tags() -> dict[str, str]:
    """Return the language of the built-in sentences for each language tag, see `Sentences.tags`."""
    # The tags are generated, because most compiles need no other data of Babel, which takes long to load.
    file = resources.files("gateway.config").joinpath("data", "sentence_tags.json")
    tags: dict[str, str] = json.loads(file.read_text("utf-8"))
    return tags


def compile_messages(draft: Draft) -> dict[RefusalReason, Sentences]:
    """Return the sentences for end users by reason: the ones in `messages`, else the built-in ones."""
    known = known_messages()
    tags = sentence_tags()
    compiled = {
        reason: Sentences({"en": texts["en"], **texts}, tags)  # English is for readers of other languages
        for reason, texts in known.items()
    }
    for name, texts in draft.config.messages.items():
        compiled[RefusalReason(name)] = sentences_of(texts)
    return compiled


def built_in_sentences(name: str) -> Sentences:
    """Return a built-in sentence for end users that is not that of a reason: the name of its data file."""
    texts: dict[str, str] = table(name)["text"]
    return Sentences({"en": texts["en"], **texts}, sentence_tags())


def sentences_of(texts: Mapping[str, str]) -> Sentences:
    """Return a text of the operator for every tag of its languages."""
    written = {canonical(tag): text for tag, text in texts.items()}
    return Sentences(written, tags_of(written))
