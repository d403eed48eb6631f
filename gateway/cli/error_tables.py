"""Tables of the meaning of errors, for `gateway providers show NAME --errors` and for the page of all tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from gateway.cli.terminal import aligned
from providers.adapter import Adapter
from providers.catalogue import FactsFile
from providers.compatible.adapter import CompatibleAdapter
from providers.failures import ABOUT
from providers.reading.error_words import WORDS, phrases
from providers.reading.errors import CERTAIN, ErrorRules, by_status, is_certain, load_rules, shared_rules

ANY = "any"
"""The name of the rules that count at every provider."""
_OF_HTTP = "RFC 9110; the habits of vendors (2026-11-20)"
_STATUSES = (302, 400, 401, 402, 403, 404, 405, 408, 409, 410, 413, 415, 422, 424, 425, 429, 451, 500, 503)


class Row(NamedTuple):
    """An entry of a table.

    `what` is `member`, `status`, `code`, `type`, `sentence` or `words`. `about` names the subject of the failure: the
    request, the key or the deployment.
    """

    what: str
    word: str
    kind: str
    about: str
    stated: str
    source: str


def rules_of(name: str, adapter: Adapter) -> ErrorRules:
    """Return the rules of an adapter; those without entries of its own if it has none."""
    if isinstance(adapter, CompatibleAdapter):
        return adapter.dialect.errors
    package = type(adapter).__module__.rpartition(".")[0]
    try:
        return load_rules(FactsFile(package, package.rpartition(".")[2]))
    except (FileNotFoundError, ModuleNotFoundError, ValueError):
        return ErrorRules(vendor=name)


def rows_of(rules: ErrorRules) -> Iterator[Row]:
    """Yield a row for each entry, in the order in which they count."""
    tables = (
        *(("member", rules.marks), ("status", rules.statuses), ("code", rules.codes), ("type", rules.types)),
        ("sentence", rules.messages.kinds),
    )
    for what, kinds in tables:
        for word, kind in kinds.items():
            is_stated = is_certain(kind, word)
            keys = [key for key in rules.sources if key == word or fnmatchcase(word, key.replace("[", "[[]"))]
            source = rules.sources[max(keys, key=len)] if keys else ""
            yield Row(what, word, kind, rules.about.get(word, ABOUT[kind]), "yes" if is_stated else "no", source)


def rows_of_any() -> Iterator[Row]:
    """Yield the rows of the rules that count at every provider."""
    yield from rows_of(shared_rules())
    for words, kind in phrases():
        yield Row("words", words, kind, ABOUT[kind], "yes", str(WORDS.read()["source"]))
    for status in _STATUSES:
        kind = by_status(status)
        stated = "with a time" if status in (429, 503) else "yes" if status in CERTAIN else "no"
        yield Row("status", f"{status} alone", kind, ABOUT[kind], stated, _OF_HTTP)


def errors_text(adapters: Mapping[str, Adapter]) -> str:
    """Return the tables of these providers, and that of the rules for all, as aligned text."""
    tables = {name: list(rows_of(rules_of(name, adapter))) for name, adapter in sorted(adapters.items())}
    texts = (
        f"{name}\n{aligned([Row._fields, *rows])}" if rows else f"{name}: no words of its own"
        for name, rows in {**tables, ANY: list(rows_of_any())}.items()
    )
    return "\n\n".join(texts) + "\n"
