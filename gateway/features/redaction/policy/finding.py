"""Find the values of a redaction's rules in a text. Pure: a finding depends on the rules and this text only.

Two libraries share the work. RE2 scans a whole text in linear time for places where something may begin. `re` then
looks at one place, with patterns that cannot backtrack far. A search at every number, and not only after the last
finding, is what keeps one number from hiding the next.

Texts are read as what they mean: a digit in full width is a digit, an escape such as `%2B` is its character, and
characters without width are left out. Findings are places of the text as it is written, so an escape is replaced whole.

Two rules hold for all kinds. In what is sent, nothing is found but placeholders: what a placeholder makes with its
neighbours, as in `a@b.co@c.de`, belongs to the value. And no search runs long without a look at the clock.
"""

from __future__ import annotations

import ipaddress
import math
import re
import secrets
import string
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from hashlib import blake2b
from operator import itemgetter
from typing import Any, TypeAlias, TypeVar
from unicodedata import normalize

from gateway.features.redaction.model import TERM, TEXT, RedactionRules
from gateway.features.redaction.policy.forms import (
    CARDS,
    SEPARATOR,
    Form,
    any_of,
    forms,
    iban_lengths,
    is_secret,
    mod_97,
    telephone_words,
)
from gateway.features.redaction.policy.forms import secrets as secret_forms
from gateway.model.wrapper import TooMuchToSearch
from providers.value import replace

T = TypeVar("T")
Span: TypeAlias = tuple[int, int, str]
"""Where a value begins and ends in a text, and its kind in upper case."""

MOST_WORK_S = 2.0
"""The time that one request may take."""
_CONTEXT = 32
"""How many characters before a number are searched for a word."""
_LOOKS = 512
"""How many places are looked at between two looks at the clock."""
_MOST_OVERLAP = 400
"""How many characters after a term are searched for the end of another one that overlaps it."""
_MOST_STEPS = 10_000
"""The most steps of the program that RE2 makes of an own pattern."""
_MOST_AT_ONCE, _STEPS_AT_ONCE = 32 * 1024, 100_000
"""How many characters are searched in a few milliseconds, and how many steps of own patterns."""
_STEPS_OF_A_SEARCH, _LEAST_WINDOW = 10_000_000, 8192
"""How many steps one search of an own pattern or of terms may take, which limits its bytes; and the least of them."""
_REMEMBERED, _SHORT, _LARGE = 20_000, 64, 65_536
"""Texts that are remembered; from how many characters on; and from how many on a text is large.

A large text is read in slices of that size, because no other thread runs during one call of `re` or `str`.
"""

_WIDE = "０１２３４５６７８９＠﹫＋－（）．　\u2007\u2009‐‑–−٠١٢٣٤٥٦٧٨٩۰۱۲۳۴۵۶۷۸۹"
_AS_ASCII = dict(zip(_WIDE, "0123456789@@+-().   ----01234567890123456789", strict=True))
_INVISIBLE = (
    "\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufe00-\ufe0f\ufeff"
    "\U000e0000-\U000e007f"
)
_MARKS = "\u0300-\u034e\u0350-\u036f"
"""Marks that combine with the letter before: files of macOS have `ü` as `u` and a mark."""
_NOTHING = "\x00"
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "/": "/"}
_IN_URLS = frozenset("+ ()-./@")
_BETWEEN = f"\\)?{SEPARATOR}?\\(?"
_ESCAPE = re.compile(
    # It begins with a set of characters, by which `re` skips all others quickly.
    rf"[\\%{_INVISIBLE}{_MARKS}](?:(?<=\\)(?:\\*+(?:[nrtbf\"/]|u[0-9A-Fa-f]{{4}})|\\+)"
    rf"|(?<=%)(?:[cC]2%[aA]0|[0-9A-Fa-f]{{2}})|(?<=[{_INVISIBLE}])[{_INVISIBLE}]*|(?<=[^\W_][{_MARKS}])([{_MARKS}]*))"
)
_LONGEST_ESCAPE = 12
"""How many characters an escape has, but for repeated ones."""
_PLAIN = re.compile(r"[A-Za-z ,.;_/-]{0,12}")
"""Texts in which no built-in kind has a value. Most words of a schema are such, and need no search."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_GROUP, _WORDS = re.compile("[0-9]+"), re.compile("[A-Za-z0-9]+")
_BEGIN = re.compile(r"(?<![A-Za-z0-9])[0-9]+")
_INTERNATIONAL = re.compile(f"[0-9](?:{_BETWEEN}[0-9]){{7,14}}(?![A-Za-z0-9])")
_LOCAL = re.compile(f"[0-9](?:{_BETWEEN}[0-9]){{6,13}}(?![A-Za-z0-9])")
_DATE = re.compile(
    r"(?:19|20)[0-9]{2}[-./][0-9]{2}[-./][0-9]{2}|[0-9]{2}[-./][0-9]{2}[-./](?:19|20)[0-9]{2}|[0-9]{1,3}(?:\.[0-9]{1,3}){3}$"
)
_CHECKED = frozenset({"CARD", "IBAN", "ID"})
"""The kinds of which most numbers have a check digit."""
_RANK = {kind: rank for rank, kind in enumerate((TEXT, "ID", "CARD", "PHONE"))}
"""Which kind a finding has if two of the same length are one value."""
_PRIVATE_KEYS = (
    # Two hyphens end the inside of a key, so that the search for its end does not pass the next key.
    r"(-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----(?:-?[A-Za-z0-9+/=\s\x00\\:,])+-----END [A-Z ]{0,30}PRIVATE KEY-----"
    r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[\s\x00\\]*[A-Za-z0-9+/=][A-Za-z0-9+/=\s\x00\\]*)"
    r"|aws_secret_access_key[\"'\s:=\x00]{1,8}([A-Za-z0-9/+]{40})"
)
_IN_URL = r"://([^\s/@:?#\"'<>\x00]{0,64}:[^\s/@\"'<>\x00]{1,256}(?:@[^\s/@?#\"'<>\x00]{1,64}){0,2})@"
_TEMPLATE = re.compile(
    r".*:(?:\{[^}]*\}|\$\{[^}]*\}|\$[A-Z_]+|%[sd]|%\([^)]*\)s|\[[^\]]*\]|\*+|\.+|\\[A-Za-z][*+]?)", re.ASCII | re.DOTALL
)
"""The name and the password of a URL in source code, where what they stand for is known later."""
_BEGIN_OF_KEY, _END_OF_KEY = "-----BEGIN ", "-----END "
_EMAIL = (
    r"[A-Za-z0-9\x{c0}-\x{24f}_.+&'-]{1,64}@(?:[A-Za-z0-9\x{c0}-\x{24f}-]{1,63}\.){1,8}"
    r"(?:xn--[A-Za-z0-9-]{2,59}|[A-Za-z]{2,24})"
)
_RUN = r"[0-9](?:\)?[ .\-/\x{a0}\x{202f}]?\(?[0-9]){6,}"
_LETTERED = r"\b[A-Za-z]{1,2}(?:[ \x{a0}\x{2009}\x{202f}-]?[0-9]){6}"
_WORD = string.digits + string.ascii_letters
_STARTS = "(" + _WORD
_IBAN_START = r"\b[A-Z]{2}[0-9]{2}[ A-Z0-9\x{a0}-]"
_V4 = r"\b(?:(?:25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})\.){3}(?:25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})\b"
_V6 = r"[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?:\.[0-9]{1,3}){0,3}"
_SPACES = r"[\t\n\v\f\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]+"
_MAX_MEMORY, _MAX_MEMORY_OF_OWN = 256 << 20, 8 << 20


class PatternRefused(ValueError):
    """RE2 refuses a pattern. The message is RE2's."""


class Clock:
    """The time that the work on one request may take."""

    def __init__(self, limit_s: float = MOST_WORK_S, now: Callable[[], float] = time.thread_time) -> None:
        self._now = now
        self._until = now() + limit_s

    def check(self) -> None:
        """Raise TooMuchToSearch if the time is over."""
        if self._now() > self._until:
            raise TooMuchToSearch

    def watch(self, items: Iterable[T], looks: int = _LOOKS) -> Iterator[T]:
        """Yield the items with a look at the clock after each few of them. Raises TooMuchToSearch."""
        for number, item in enumerate(items, 1):
            if not number % looks:
                self.check()
            yield item


UNLIMITED = Clock(math.inf)


def compiled(pattern: str, max_memory: int = _MAX_MEMORY) -> Any:
    """Return a pattern that RE2 has compiled. Raises PatternRefused, and writes nothing to standard error."""
    import re2  # type: ignore[import-untyped, unused-ignore]

    options = re2.Options()
    options.log_errors = False
    options.max_mem = max_memory
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        detail = error.args[0] if error.args else ""
        raise PatternRefused(detail.decode("utf-8", "replace") if isinstance(detail, bytes) else str(detail)) from None


def compiled_own(text: str) -> Any:
    """Return an own pattern of a company that RE2 has compiled. Raises PatternRefused, also if it is too large."""
    pattern = compiled(text, _MAX_MEMORY_OF_OWN)
    if pattern.programsize > _MOST_STEPS:
        raise PatternRefused(f"its program has {pattern.programsize:,} steps, and {_MOST_STEPS:,} are the most")
    return pattern


def _is_word(text: str, index: int) -> bool:
    """Return whether an ASCII letter or digit stands at the index."""
    return 0 <= index < len(text) and text[index].isascii() and text[index].isalnum()


def _encoded(text: str) -> bytes:
    if len(text) <= _LARGE:
        return text.encode()
    return b"".join([text[at : at + _LARGE].encode() for at in range(0, len(text), _LARGE)])


class _Subject:
    """A text with its bytes, which RE2 searches. Its package would encode a text for each search, and decode places.

    Each search raises TooMuchToSearch if the time of the clock is over.
    """

    def __init__(self, text: str, clock: Clock) -> None:
        try:
            self.bytes = _encoded(text)
        except UnicodeEncodeError:
            # JSON may have lone surrogates, which RE2 does not read.
            text = _SURROGATE.sub("\ufffd", text)
            self.bytes = _encoded(text)
        self.text = text
        self.clock = clock
        self._is_ascii = len(self.bytes) == len(text)

    def without_underscores(self) -> _Subject:
        """Return the text in which an underscore is a boundary."""
        return _Subject(self.text.replace("_", _NOTHING), self.clock) if "_" in self.text else self

    def finds(self, pattern: Any) -> bool:
        """Return whether the pattern matches anywhere."""
        return pattern.search(self.bytes) is not None

    def found(self, pattern: Any, kind: str) -> Iterator[Span]:
        """Yield the values of a kind that a pattern matches: its group that is part of the match, if it has groups."""
        return ((start, end, kind) for start, end in self.spans(pattern))

    def found_own(self, pattern: Any, kind: str) -> Iterator[Span]:
        """Yield what `found` does, for a pattern whose search may be slow."""
        return ((start, end, kind) for start, end in self._spans(self._in_windows(pattern), pattern.groups))

    def spans(self, pattern: Any) -> Iterator[tuple[int, int]]:
        """Yield where `found` finds a value."""
        return self._spans(pattern.finditer(self.bytes), pattern.groups)

    def _in_windows(self, pattern: Any) -> Iterator[Any]:
        """Yield the matches of a pattern. RE2 cannot be stopped, so one search looks at some bytes only.

        Windows overlap by a half: a match of up to that many bytes is found wherever it is. The size depends on the
        pattern only, as the findings do.
        """
        window = max(_LEAST_WINDOW, _STEPS_OF_A_SEARCH // pattern.programsize)
        at, size = 0, len(self.bytes)
        while at < size:
            end = min(at + window, size)
            match = pattern.search(self.bytes, at, end)
            if size > window:
                self.clock.check()
            if end < size and (match is None or match.start() >= end - window // 2):
                at = end - window // 2
            elif match is None:
                return
            elif match.end() == end < size and match.start() > at:
                at = match.start()  # it may go on
            else:
                yield match
                at = max(match.end(), at + 1)

    def _spans(self, matches: Iterable[Any], groups: int) -> Iterator[tuple[int, int]]:
        at = characters = 0
        # In a large text, one match may take long.
        for match in self.clock.watch(matches, _LOOKS if len(self.bytes) < _LARGE else 1):
            start, end = match.span(match.lastindex or 0 if groups else 0)
            if start == end or (groups and match.lastindex is None):
                continue
            if self._is_ascii:
                yield start, end
                continue
            characters += self._length(at, start)
            at = start
            yield characters, characters + self._length(start, end)

    def with_overlaps(self, pattern: Any, kind: str) -> Iterator[Span]:
        """Yield what `found_own` does, also within and across the end of another match."""
        for start, end, _ in self.found_own(pattern, kind):
            yield start, end, kind
            value = self.text[start:end]
            if value.isascii() and value.isalnum():
                continue  # nothing begins within a word
            # The character before stays in view, because a match may need a boundary there.
            base = max(0, start - 1)
            around, at, last = self.text[base : end + _MOST_OVERLAP], start + 1 - base, end - base
            while (inner := pattern.search(around, at)) is not None and inner.start() < last:
                yield base + inner.start(), base + inner.end(), kind
                at = inner.start() + 1

    def _length(self, start: int, end: int) -> int:
        """Return how many characters a part of the bytes has."""
        return len(self.bytes[start:end].decode("utf-8", "ignore"))


class _Replaced:
    """A text in which parts are replaced, and where its characters were before."""

    def __init__(self, text: str, parts: Iterable[tuple[int, int, str]]) -> None:
        # From a place of `text` on: the place before, and for a part that was replaced its end before. 0: it was kept.
        self._places = [(0, 0, 0)]
        pieces: list[str] = []
        done = at = 0
        for start, end, new in parts:
            pieces += (text[done:start], new)
            at += start - done
            if new:
                self._places.append((at, start, end))
                at += len(new)
            self._places.append((at, end, 0))
            done = end
        self.text = "".join((*pieces, text[done:]))

    def before(self, found: Iterable[Span]) -> Iterator[Span]:
        """Yield findings as ones of the text before. They have all of a part that was replaced."""
        for start, end, kind in found:
            (first, begin, is_whole), (last, from_, until) = map(self._place, (start, end - 1))
            yield begin if is_whole else begin + start - first, until or from_ + end - last, kind

    def _place(self, at: int) -> tuple[int, int, int]:
        return self._places[bisect_right(self._places, at, key=itemgetter(0)) - 1]


def _escapes(text: str, clock: Clock) -> Iterator[tuple[int, int, str]]:
    """Yield each escape with what it means."""
    at = done = 0
    while at < len(text):
        end = at + _LARGE
        matches = _ESCAPE.finditer(text, at, end)
        at = settled = end - _LONGEST_ESCAPE
        for match in clock.watch(matches):
            if match.end() > settled:
                match = _ESCAPE.match(text, match.start()) or match  # it may go on
                at = match.end()
            start = match.start() - (match.lastindex or 0)  # marks have the letter before them
            if start >= done:
                done = match.end()
                yield start, done, _meant(text[start:done])


def _meant(escape: str) -> str:
    """Return the character that an escape means: none for those without width, and a boundary for an unknown one."""
    if escape[0] == "%":
        meant = chr(int(escape[1:3], 16)) if len(escape) == 3 else "\u00a0"
        return meant if meant in _IN_URLS or meant == "\u00a0" else _NOTHING
    if escape[0] != "\\":
        return normalize("NFC", escape)[0] if escape[0].isalnum() else ""
    if escape[-5:-4] != "u":
        return _ESCAPED.get(escape[-1], _NOTHING)
    meant = chr(int(escape[-4:], 16))
    return _NOTHING if "\ud800" <= meant <= "\udfff" else _AS_ASCII.get(meant, meant)


@lru_cache(maxsize=64)
def _scan(pattern: str) -> Any:
    return compiled(pattern)


class _Index:
    """Forms of numbers by the character with which they begin."""

    def __init__(self, wanted: Sequence[Form]) -> None:
        self.forms = {start: [form for form in wanted if start in form.begins] for start in _STARTS}
        # One match of all forms together is most often the only one.
        self.any = {start: any_of([form.text for form in known]) for start, known in self.forms.items()}

    def at(self, text: str, start: int) -> Iterator[Span]:
        """Yield each number of a form that begins at a place."""
        for form in self.forms[text[start]]:
            match = form.pattern.match(text, start)
            if match is None or (text[start] == "(" and ")" not in match[0]):
                continue  # a bracket around the whole number is not part of it
            if form.check is not None and not form.check("".join(_WORDS.findall(match[0])).upper()):
                continue
            if form.context is None or form.context.search(text, max(0, start - _CONTEXT), start) is not None:
                yield start, match.end(), form.kind


class Finder:
    """Finds the values of some rules. It remembers where they were in texts that it has seen, and never a text.

    With more characters than `most_at_once`, other requests would wait too long while a request is searched.
    """

    def __init__(self, rules: RedactionRules, *, is_checked: bool = False) -> None:
        """`is_checked`: of numbers with a form, only those with a check digit are found."""
        self._rules = rules
        self.kinds = frozenset(kind.upper() for kind in rules.kinds)
        wanted = [form for form in forms() if form.country in rules.countries and form.kind in self.kinds]
        wanted = [form for form in wanted if form.check is not None or not is_checked]
        if "CARD" in self.kinds:
            wanted += CARDS
        by_words = [form.context.pattern for form in wanted if form.context is not None]
        self._words = compiled(f"(?i)(?:{'|'.join(by_words)})") if by_words else None
        before = [*by_words, *([telephone_words()] if "PHONE" in self.kinds else [])]
        self._before_numbers = compiled(f"(?i)(?:{'|'.join(before)})") if before else None
        # Most texts have no word that some forms need, so that these forms need not be tried at each number.
        self._plain, self._with_words = _Index([form for form in wanted if form.context is None]), _Index(wanted)
        self._has_letters = any(start.isalpha() for form in wanted for start in form.begins)
        self._scans_numbers = bool(wanted) or "PHONE" in self.kinds
        starts = [_RUN] * self._scans_numbers + [_LETTERED] * self._has_letters + [_IBAN_START] * ("IBAN" in self.kinds)
        self._numeric = compiled("|".join(starts)) if starts else None
        self._terms = compiled(_terms_pattern(rules.terms)) if rules.terms else None
        self._patterns = [(name, compiled_own(text)) for name, text in rules.patterns]
        self._has_own = bool(rules.terms or rules.patterns)
        self._kept = rules.kept
        self._look_alike = compiled(f"(?i)Q(?:{'|'.join(rules.placeholder_kinds)})[1-9][0-9]{{0,5}}Z")
        steps = sum(pattern.programsize for _, pattern in self._patterns)
        self.most_at_once = min(_MOST_AT_ONCE, _STEPS_AT_ONCE // steps) if steps else _MOST_AT_ONCE
        self._key = secrets.token_bytes(32)
        self._known: dict[bytes, tuple[Span, ...]] = {}

    def find(self, text: str, clock: Clock = UNLIMITED) -> tuple[Span, ...]:
        """Return where the values of a text are, in order. Raises TooMuchToSearch."""
        if not self._has_own and _PLAIN.fullmatch(text) is not None:
            return ()
        subject = _Subject(text, clock)
        if len(text) < _SHORT:
            return self._settled(subject)
        digest = blake2b(subject.bytes, key=self._key, digest_size=16).digest()
        known = self._known.get(digest)
        if known is None:
            known = self._known[digest] = self._settled(subject)
            if len(self._known) > _REMEMBERED:
                # Large requests are searched in threads, so the oldest entry may go meanwhile.
                with suppress(RuntimeError, StopIteration):
                    self._known.pop(next(iter(self._known)), None)
        return known

    def find_parts(self, texts: Sequence[str], clock: Clock = UNLIMITED) -> list[Span]:
        """Return where the values of neighbouring texts are in the joined text, in order.

        The values that one text contains by itself are found first. The joined text is searched only for values that
        none contains, so that no value takes words of the text before it or after it. But a number with a check digit
        is one value, also where a text contains something like a phone number in its part of it.
        """
        joined, at = "".join(texts), 0
        ends: list[int] = []
        own: list[Span] = []
        begun: list[Span] = []
        for text in texts:
            for start, end, kind in self.find(text, clock):
                is_begun = end == len(text) and _END_OF_KEY not in text[start:] and _BEGIN_OF_KEY in text[start:]
                (begun if is_begun else own).append((at + start, at + end, kind))
            at += len(text)
            ends.append(at)
        numbers = self._cut_numbers(joined, ends, own, clock) if own else []
        own = [it for it in own if not any(start <= it[0] and it[1] <= end for start, end, _ in numbers)]
        rest = _Replaced(joined, [(start, end, _NOTHING) for start, end, _ in merged([*own, *numbers])])
        split = [it for it in self.find(rest.text, clock) if _NOTHING not in rest.text[slice(*it[:2])]]
        across = [*rest.before(split), *numbers]
        for key in begun:
            # A private key without its end has all that follows, so it goes on only if its end does follow.
            whole = next((it for it in across if it[0] <= key[0] < it[1]), None)
            if whole is not None and _END_OF_KEY not in joined[slice(*whole[:2])]:
                across[across.index(whole)] = key
        for start, end, _ in tuple(across):
            if bisect_right(ends, start) != (part := bisect_right(ends, end - 1)):
                # The last text is sent without its part of the value, and so begins after it.
                left = self.find(joined[end : ends[part]], clock)
                across += [(end + begin, end + until, kind) for begin, until, kind in left]
        return merged([*own, *across])

    def _cut_numbers(self, joined: str, ends: list[int], own: list[Span], clock: Clock) -> list[Span]:
        """Return the numbers with a check digit that are cut between texts, none of which contains one of this kind."""
        return [
            (start, end, kind)
            for start, end, kind in self._of_checked.find(joined, clock)
            if kind in _CHECKED
            and bisect_right(ends, start) != bisect_right(ends, end - 1)
            and not any(it[0] < end and start < it[1] and it[2] == kind for it in own)
        ]

    @cached_property
    def _of_checked(self) -> Finder:
        kinds = self._rules.kinds & {kind.lower() for kind in _CHECKED}
        return Finder(replace(self._rules, kinds=kinds, terms=(), patterns=()), is_checked=True)

    def _settled(self, subject: _Subject) -> tuple[Span, ...]:
        """Return the findings of a text, with all that is found where placeholders stand in their place."""
        spans = self._search(subject)
        while spans:
            sent = _Replaced(subject.text, ((start, end, f"Q{kind}1Z") for start, end, kind in spans))
            known = {span[:2] for span in spans}
            found = self._search(_Subject(sent.text, subject.clock), is_sent=True)
            more = [span for span in sent.before(found) if span[:2] not in known]
            if not more:
                break
            spans = tuple(merged([*spans, *more]))
        return spans

    def _all_numbers_in(self, number: _Subject, *, is_sent: bool) -> list[Span]:
        """Return the values that consist of digits and letters."""
        # The letters of a placeholder make no number, but in its place a word may be nearer to one.
        may_have_more = not is_sent or (self._before_numbers is not None and number.finds(self._before_numbers))
        if not may_have_more or self._numeric is None or not number.finds(self._numeric):
            return []
        found, kept = [*_ibans_in(number)] if "IBAN" in self.kinds else [], self._kept
        if self._scans_numbers:
            found += self._numbers_in(number)
        if self._has_letters:
            for start, _ in number.spans(_scan(_LETTERED)):
                found += self._with_words.at(number.text, start)
        return [it for it in found if "".join(_GROUP.findall(number.text, *it[:2])) not in kept] if kept else found

    def _search(self, as_written: _Subject, *, is_sent: bool = False) -> tuple[Span, ...]:
        read, text, clock = as_written, as_written.text, as_written.clock
        is_odd = not text.isascii() and read.finds(_scan(f"[{_WIDE}{_INVISIBLE}{_MARKS}]"))
        reading: _Replaced | None = None
        if is_odd or "\\" in text or "%" in text:
            plain = text
            if is_odd:
                for wide, narrow in _AS_ASCII.items():  # `str.translate` takes ten times as long
                    plain = plain.replace(wide, narrow)
            reading = _Replaced(plain, _escapes(plain, clock))
            read = _Subject(reading.text, clock)
        plain = read.text
        # In patterns of numbers and terms, an underscore is a boundary.
        number = read.without_underscores()
        found: list[Span] = []
        kinds = self.kinds
        if "EMAIL" in kinds and "@" in plain:
            found += read.found(_scan(_EMAIL), "EMAIL")
        if "SECRET" in kinds:
            found += _secrets_in(read)
        if "IP" in kinds and ("." in plain or ":" in plain):
            found += _addresses_in(read)
        found += self._all_numbers_in(number, is_sent=is_sent)
        found += self._own_in(read, number)
        if reading is not None:
            found = [*reading.before(found)]
            if "SECRET" in kinds:
                found += _secrets_in(as_written)
            found += self._own_in(as_written, as_written.without_underscores())
        if not is_sent and ("q" in text or "Q" in text):
            found += as_written.found(self._look_alike, TEXT)
        clock.check()
        return tuple(merged(found)) if found else ()

    def _own_in(self, read: _Subject, number: _Subject) -> Iterator[Span]:
        """Yield the terms and the values of own patterns."""
        if self._terms is not None:
            yield from number.with_overlaps(self._terms, TERM)
        for name, pattern in self._patterns:
            yield from read.found_own(pattern, name)

    def _numbers_in(self, subject: _Subject) -> Iterator[Span]:
        """Yield phone numbers, cards, and numbers of people that begin with a digit."""
        phones, index, text = "PHONE" in self.kinds, self._plain, subject.text
        if self._words is not None and subject.finds(self._words):
            index = self._with_words
        any_of_start, bracketed = index.any, index.any["("]
        words: list[int] | None = None
        after_word = 0
        for start in _digits_in(subject):
            before = text[start - 1] if start else " "
            if before == "(":
                before = text[start - 2] if start > 1 else " "
                if bracketed is not None and before not in _WORD and bracketed.match(text, start - 1) is not None:
                    yield from index.at(text, start - 1)
            first = text[start]
            if (any_form := any_of_start[first]) is not None and any_form.match(text, start) is not None:
                yield from index.at(text, start)
            if not phones:
                continue
            if words is None:
                words = _telephone_words_in(subject)
            is_led = before == "+" or (first == "0" and text.startswith("00", start))
            if is_led and (span := _international(text, start)) is not None:
                yield span
            if not words or start < after_word or not _is_near(words, start):
                continue
            if (match := _LOCAL.match(text, start)) is not None and _is_local(match[0]):
                after_word = match.end()
                yield _with_bracket(text, start, after_word), after_word, "PHONE"


def _digits_in(subject: _Subject) -> Iterator[int]:
    """Yield where digits begin, in each run that has enough of them for a number."""
    for begin, end in subject.spans(_scan(_RUN)):
        for at in range(begin, end, _LOOKS):
            if at > begin:
                subject.clock.check()
            for group in _BEGIN.finditer(subject.text, at, min(at + _LOOKS, end)):
                yield group.start()


def _telephone_words_in(subject: _Subject) -> list[int]:
    """Return where the words for a telephone end, in order."""
    text = subject.text
    return [
        end
        for start, end in subject.spans(_scan(telephone_words()))
        if not (start and "\u00c0" <= text[start - 1] <= "\u024f" and text[start:end].isascii())
    ]


def _is_near(words: list[int], start: int) -> bool:
    """Return whether one of the words ends in the characters before a place."""
    index = bisect_right(words, start)
    return index > 0 and start - words[index - 1] <= _CONTEXT


def merged(found: Iterable[Span]) -> list[Span]:
    """Return the findings in order, where those that overlap are one value, of the kind of the longest."""
    spans: list[Span] = []
    longest = 0
    for start, end, kind in sorted(found):
        length = end - start
        if not spans or start >= spans[-1][1]:
            spans.append((start, end, kind))
            longest = length
            continue
        first, last, other = spans[-1]
        is_stronger = (length, -_RANK.get(kind, len(_RANK))) > (longest, -_RANK.get(other, len(_RANK)))
        longest = max(length, longest)
        spans[-1] = (first, max(last, end), kind if is_stronger else other)
    return spans


def _international(text: str, start: int) -> Span | None:
    """Return the phone number with `+` or `00` whose first digit is at a place, or None."""
    before = start - 1
    if before > 0 and text[before] == "(" and text[before - 1] == "+":
        before -= 1
    if before >= 0 and text[before] == "+":
        if _is_word(text, before - 1):
            return None
        match = _INTERNATIONAL.match(text, start)
        return _phone(text, before, start, match.end()) if match is not None else None
    if text.startswith("00", start) and not (start > 1 and text[start - 1] == "." and text[start - 2].isdigit()):
        after = start + 2
        while after < len(text) and text[after] in " ()-./\u00a0\u202f" and after < start + 5:
            after += 1
        if after < len(text) and "1" <= text[after] <= "9":
            match = _INTERNATIONAL.match(text, after)
            return _phone(text, start, after, match.end()) if match is not None else None
    return None


def _phone(text: str, start: int, first_digit: int, end: int) -> Span | None:
    """Return a phone number whose brackets are pairs, or the beginning of it with which they are."""
    while True:
        begin = _with_bracket(text, start, end)
        inside = text[begin:end]
        if inside.count("(") == inside.count(")"):
            return begin, end, "PHONE"
        cut = text.rfind("(", first_digit, end)
        while cut > first_digit and not text[cut - 1].isdigit():
            cut -= 1
        if cut <= first_digit or sum(map(str.isdigit, text[first_digit:cut])) < 8:
            return start, end, "PHONE"
        end = cut


def _with_bracket(text: str, start: int, end: int) -> int:
    """Return where a number begins, whose first part may stand in brackets. Those around all are not part of it."""
    inside = text[start:end]
    return start - 1 if start and text[start - 1] == "(" and inside.count(")") > inside.count("(") else start


def _is_local(number: str) -> bool:
    """Return whether the digits after a word for a telephone are a number: no date, and no row of single digits."""
    digits = sum(map(str.isdigit, number))
    return digits > 2 * len(_GROUP.findall(number)) - 3 and not _DATE.match(number)


def _ibans_in(subject: _Subject) -> Iterator[Span]:
    lengths, text = iban_lengths(), subject.text
    for start, _ in subject.spans(_scan(_IBAN_START)):
        length = lengths.get(text[start : start + 2], 0)
        whole, grouped = start + length, start + length + (length - 1) // 4
        if not length:
            continue
        end = whole if text[start + 4 : start + 5].isalnum() else grouped
        number = text[start:end]
        if end == grouped:
            if len(between := {*number[4::5].replace("\u00a0", " ")}) > 1 or not between <= {" ", "-"}:
                continue
            number = number[:4] + "".join([number[at + 1 : at + 5] for at in range(4, len(number), 5)])
        is_whole = len(number) == length and number.isascii() and number.isalnum() and number.isupper()
        if is_whole and not _is_word(text, end) and mod_97(number):
            yield start, end, "IBAN"


def _secrets_in(subject: _Subject) -> Iterator[Span]:
    """Yield private keys, keys of vendors, and the name and password in a URL."""
    text = subject.text
    if "-----BEGIN " in text or "aws_secret_access_key" in text:
        yield from subject.found(_scan(_PRIVATE_KEYS), "SECRET")
    for start, end in subject.spans(_scan(f"(?:^|[^A-Za-z0-9])({secret_forms()})")):
        if is_secret(text[start:end]):
            yield start, end, "SECRET"
    if "://" in text and "@" in text:
        for start, end in subject.spans(_scan(_IN_URL)):
            if _TEMPLATE.fullmatch(text, start, end) is None:
                yield start, end, "SECRET"


def _addresses_in(subject: _Subject) -> Iterator[Span]:
    """Yield addresses. A colon next to one of v4 is not part of it: it ends a name, or a port follows it."""
    text = subject.text
    for start, end in subject.spans(_scan(_V4)):
        if text[start - 1 : start] != "." and not (text[end : end + 1] == "." and _is_word(text, end + 1)):
            yield start, end, "IP"
    for start, end in subject.spans(_scan(_V6)):
        if _is_word(text, start - 1) or (text[start] == ":" and text[start + 1] != ":"):
            start = text.index(":", start) + 1  # a word that ends with a colon stands before it
        if text[end - 1] == ":" and text[end - 2] != ":":
            end -= 1
        is_longer = text[start - 1 : start] == "." or (text[end : end + 1] in (".", ":") and _is_word(text, end + 1))
        if not is_longer and not _is_word(text, end) and _is_v6(text[start:end]):
            yield start, end, "IP"


def _is_v6(text: str) -> bool:
    try:
        return any(map(str.isalnum, text)) and bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False


def _terms_pattern(terms: Iterable[str]) -> str:
    """Return a pattern for terms in any case, with any white space, and not inside a longer word."""
    import re2

    def one(term: str) -> str:
        words = _SPACES.join(re2.escape(normalize("NFC", word).replace("_", _NOTHING)) for word in term.split())
        ends = [
            r"\b" if letter.isascii() and letter.isalnum() else "" for letter in (term.strip()[0], term.strip()[-1])
        ]
        return f"{ends[0]}{words}{ends[1]}"

    return f"(?i)(?:{'|'.join(one(term) for term in sorted(terms, key=len, reverse=True))})"


_FINDERS: dict[bytes, Finder] = {}


def finder_of(rules: RedactionRules) -> Finder:
    """Return the finder of these rules, which is made once."""
    known = _FINDERS.get(rules.digest)
    if known is None:
        if len(_FINDERS) > 32:
            _FINDERS.clear()
        known = _FINDERS[rules.digest] = Finder(rules)
    return known
