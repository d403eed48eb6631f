"""The rules of a redaction as data. Everything that searches texts is made from them on first use."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal

from providers.value import Value, replace

BUILT_IN = ("email", "phone", "iban", "card", "id", "secret", "ip")
"""The kinds that `redactions.X.kinds` may name."""
DEFAULT_KINDS = ("email", "phone", "iban", "card", "secret")
TERM, TEXT = "TERM", "TEXT"
"""The kinds of the terms of a company, and of words that have the form of a placeholder."""
Media = Literal["refuse", "pass"]
Arguments = Literal["restore", "keep"]


class RedactionRules(Value, frozen=True):
    """The rules of one redaction, or of several that apply together."""

    names: tuple[str, ...]
    kinds: frozenset[str]
    """Members of `BUILT_IN`."""
    countries: frozenset[str] = frozenset()
    """ISO codes, whose numbers are found."""
    terms: tuple[str, ...] = ()
    """Words of the company."""
    patterns: tuple[tuple[str, str], ...] = ()
    """Own patterns in RE2 syntax, by the kind of their placeholders, sorted."""
    media: Media = "refuse"
    """`refuse`: nothing that has media is sent."""
    arguments: Arguments = "restore"
    """`keep`: the arguments of tool calls keep their placeholders."""
    kept: frozenset[str] = frozenset()
    """The digits of phone numbers that are not values: the helplines of a region."""
    digest: bytes = b""
    """Identifies everything that decides what is found."""

    def __repr__(self) -> str:
        """Do not show the terms, which may be names of customers."""
        return f"RedactionRules({', '.join(self.names)})"

    def __str__(self) -> str:
        places = f"; {', '.join(sorted(self.countries))}" if self.countries else ""
        kept = "; arguments: keep" if self.arguments == "keep" else ""
        return f"{' and '.join(self.names)} ({', '.join(self.shown_kinds)}{places}; media: {self.media}{kept})"

    def covers(self, other: RedactionRules) -> bool:
        """Return whether it finds all that the other rules find, and lets no media pass that they refuse."""
        return (
            self.kinds >= other.kinds
            and self.countries >= other.countries
            and {*self.terms} >= {*other.terms}
            and {*self.patterns} >= {*other.patterns}
            and self.kept <= other.kept
            and (self.media == "refuse" or other.media == "pass")
        )

    @property
    def shown_kinds(self) -> tuple[str, ...]:
        """The kinds that it looks for in lower case, in the order in which they are shown."""
        own = [name.lower() for name, _ in self.patterns]
        return (*(kind for kind in BUILT_IN if kind in self.kinds), *(["term"] if self.terms else []), *own)

    @property
    def placeholder_kinds(self) -> tuple[str, ...]:
        """The kinds that placeholders may have."""
        return (*(kind.upper() for kind in self.shown_kinds), TEXT)


def rules_of(
    names: Iterable[str],
    kinds: Iterable[str],
    countries: Iterable[str] = (),
    terms: Iterable[str] = (),
    patterns: Iterable[tuple[str, str]] = (),
    media: Media = "refuse",
    arguments: Arguments = "restore",
) -> RedactionRules:
    """Return rules with their digest."""
    kept_kinds, kept_countries = frozenset(kinds), frozenset(countries)
    kept_terms, kept_patterns = tuple(sorted({*terms})), tuple(sorted({*patterns}))
    parts = (*sorted(kept_kinds), "", *sorted(kept_countries), "", *kept_terms, "", *sum(kept_patterns, ()))
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()
    found = kept_kinds, kept_countries, kept_terms, kept_patterns
    return RedactionRules(tuple(sorted({*names})), *found, media, arguments, digest=digest)


def sparing(rules: RedactionRules, kept: Iterable[str]) -> RedactionRules:
    """Return rules that spare no number yet with the digits of those that they spare."""
    spared = frozenset(kept)
    digest = hashlib.sha256(b"\0".join((rules.digest, *map(str.encode, sorted(spared))))).digest()
    return replace(rules, kept=spared, digest=digest) if spared else rules


def union(first: RedactionRules, second: RedactionRules) -> RedactionRules:
    """Return the rules that find what either finds. `refuse` and `keep` come first."""
    found = rules_of(
        (*first.names, *second.names),
        first.kinds | second.kinds,
        first.countries | second.countries,
        (*first.terms, *second.terms),
        (*first.patterns, *second.patterns),
        "refuse" if "refuse" in (first.media, second.media) else "pass",
        "keep" if "keep" in (first.arguments, second.arguments) else "restore",
    )
    return sparing(found, first.kept | second.kept)
