"""Number placeholders in one request, and put the values back into texts, whole or in pieces. Pure.

A placeholder is `Q`, a kind, a number from 1, and `Z`. No kind has these two letters, so no placeholder is the
beginning of another, and two of them cannot overlap.
"""

from __future__ import annotations

import json
import re
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from gateway.features.redaction.model import RedactionRules
from gateway.features.redaction.policy.finding import UNLIMITED, Clock, Span, finder_of, merged
from gateway.model.wrapper import TooMuchToSearch, WrapperNote

MOST_VALUES = 10_000
"""The most different values of one request."""
MOST_HELD = 19
"""The most characters of a stream that wait for the end of a placeholder: `Q`, 12 letters and 6 digits."""
_DIGITS = re.compile("[0-9]")
_TOKEN = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"(\s*:)?|-?[0-9][0-9.eE+-]*', re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_LEAST_DIGITS = 7


def may_begin(text: str) -> bool:
    """Return whether a text may be the beginning of a placeholder."""
    return len(text) <= MOST_HELD and text[:1] in ("q", "Q")


@lru_cache(maxsize=64)
def _words(kinds: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return the pattern of placeholders of these kinds, and that of a text that ends within one."""
    either = "|".join(kinds)
    starts = sorted({kind[:length] for kind in kinds for length in range(len(kind))}, key=len, reverse=True)
    whole = f"Q(?:{either})[1-9][0-9]{{0,5}}Z"
    started = rf"Q(?:(?:{either})(?:[1-9][0-9]{{0,5}})?|{'|'.join(starts)})\Z"
    return re.compile(whole, re.IGNORECASE | re.ASCII), re.compile(started, re.IGNORECASE | re.ASCII)


class Placeholders:
    """The placeholders of one request to one recipient. Equal characters have the same one.

    Args:
        rules: They find the values.
        clock: The time that the work on the request may take.

    Attributes:
        kinds: The kinds that a placeholder may have.
        keeps_arguments: Placeholders in arguments of tool calls are not for the gateway to read.
        values: The values by their placeholder in lower case.
        kinds_of_values: The kind of each value, in the order of first occurrence, also of those numbered apart.
    """

    def __init__(self, rules: RedactionRules, clock: Clock = UNLIMITED) -> None:
        self._rules = rules
        self._finder = finder_of(rules)
        self._clock = clock
        self._by_value: dict[str, str] = {}
        self._numbers: Counter[str] = Counter()
        self.kinds = rules.placeholder_kinds
        self.keeps_arguments = rules.arguments == "keep"
        self._in_arguments = False
        self.values: dict[str, str] = {}
        self.kinds_of_values: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self.kinds_of_values)

    def __repr__(self) -> str:
        """Do not show the values."""
        return f"Placeholders({self.counts})"

    @property
    def counts(self) -> Mapping[str, int]:
        """The number of different values by kind in lower case, sorted by kind."""
        counted = Counter(map(str.lower, self.kinds_of_values.values()))
        return {kind: counted[kind] for kind in sorted(counted)}

    def apart(self) -> Placeholders:
        """Return placeholders of the same request with numbers of their own."""
        other = Placeholders(self._rules, self._clock)
        other.kinds_of_values = self.kinds_of_values
        return other

    def __call__(self, text: str) -> str:
        """Return the text with placeholders. Raises TooMuchToSearch."""
        spans = self._finder.find(text, self._clock)
        return _replaced(text, [(*span[:2], self._of(text, span)) for span in spans]) if spans else text

    def finds(self, text: str) -> bool:
        """Return whether a value is in a text, without a placeholder for it. Raises TooMuchToSearch."""
        return bool(self._finder.find(text, self._clock))

    def parts(self, texts: Sequence[str]) -> list[str]:
        """Return neighbouring texts with placeholders, also for values that are cut between two of them."""
        if len(texts) == 1:
            return [self(texts[0])]
        joined, spans = "".join(texts), self._finder.find_parts(texts, self._clock)
        parts: list[str] = []
        at = 0
        for text in texts:
            end = at + len(text)
            # A value stands where it begins. The rest of it is left out of the next parts.
            mine = [
                (max(span[0], at) - at, min(span[1], end) - at, self._of(joined, span) if span[0] >= at else "")
                for span in spans
                if span[0] < end and span[1] > at
            ]
            parts.append(_replaced(text, mine))
            at = end
        return parts

    def within(self, before: str, text: str, after: str) -> str:
        """Return a part of a text with placeholders, also for the part of a value that began before or ends after."""
        joined, begin = f"{before}{text}{after}", len(before)
        own = [(begin + start, begin + end, kind) for start, end, kind in self._finder.find(text, self._clock)]
        mine = [
            (max(span[0] - begin, 0), min(span[1] - begin, len(text)), self._of(joined, span))
            for span in merged([*self._finder.find(joined, self._clock), *own])
            if span[0] - begin < len(text) and span[1] > begin
        ]
        return _replaced(text, mine)

    def arguments(self, text: str) -> str:
        """Return the arguments of a tool call with placeholders in strings and long numbers. All other bytes stay.

        Where a former answer kept placeholders, those of this request stay.
        """
        self._in_arguments = self.keeps_arguments
        try:
            return self._arguments(text)
        finally:
            self._in_arguments = False

    def json_text(self, text: str) -> str:
        """Return JSON with placeholders, also in its keys: nothing of it comes back."""
        return self._arguments(text, with_keys=True)

    def _arguments(self, text: str, *, with_keys: bool = False) -> str:
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return self(text)
        return _TOKEN.sub(partial(self._token, with_keys=with_keys), text)

    def _token(self, match: re.Match[str], *, with_keys: bool = False) -> str:
        token = match[0]
        if token[0] != '"':
            if len(_DIGITS.findall(token)) < _LEAST_DIGITS or (changed := self(token)) == token:
                return token
            return f'"{changed}"'
        raw, colon = match[1], match[2] or ""
        if colon and not with_keys:
            return token
        if "\\" not in raw:
            return f'"{self(raw)}"{colon}'
        text, offsets = _decoded(raw)
        spans = self._finder.find(text, self._clock)
        inside = _replaced(raw, [(offsets[span[0]], offsets[span[1]], self._of(text, span)) for span in spans])
        return f'"{inside}"{colon}'

    def strings(self, value: object) -> Any:
        """Return a value of parsed JSON with placeholders in its strings. Its keys and numbers stay."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, Mapping):
            changed = {key: self.strings(item) for key, item in value.items()}
            return changed if any(changed[key] is not item for key, item in value.items()) else value
        if isinstance(value, list | tuple):
            items = [self.strings(item) for item in value]
            if all(new is old for new, old in zip(items, value, strict=True)):
                return value
            return items if isinstance(value, list) else tuple(items)
        return value

    def _of(self, text: str, span: Span) -> str:
        start, end, kind = span
        value = text[start:end]
        if self._in_arguments and value.lower() in self.values:
            return value
        known = self._by_value.get(value)
        if known is None:
            self._numbers[kind] += 1
            known = self._by_value[value] = f"Q{kind}{self._numbers[kind]}Z"
            self.values[known.lower()] = value
            self.kinds_of_values[value] = kind
            if len(self.kinds_of_values) > MOST_VALUES:
                raise TooMuchToSearch
        return known


def _replaced(text: str, parts: Iterable[tuple[int, int, str]]) -> str:
    pieces: list[str] = []
    at = 0
    for start, end, new in parts:
        pieces += (text[at:start], new)
        at = end
    return "".join((*pieces, text[at:]))


def _is_escaped(value: str) -> bool:
    """Return whether JSON writes a value in another way."""
    return len(json.dumps(value, ensure_ascii=False)) > len(value) + 2


def _decoded(raw: str) -> tuple[str, list[int]]:
    """Return the text of the inside of a JSON string, and for each of its characters where it begins in `raw`."""
    letters: list[str] = []
    offsets: list[int] = []
    at = 0
    for match in _ESCAPE.finditer(raw):
        letters += raw[at : match.start()]
        offsets += range(at, match.start())
        at = match.end()
        letter = chr(int(match[1], 16)) if match[1] is not None else json.loads(f'"{match[0]}"')
        if letters and "\udc00" <= letter <= "\udfff" and "\ud800" <= letters[-1] <= "\udbff":
            letters[-1] = (letters[-1] + letter).encode("utf-16", "surrogatepass").decode("utf-16")
            continue
        letters.append(letter)
        offsets.append(match.start())
    letters += raw[at:]
    return "".join(letters), [*offsets, *range(at, len(raw) + 1)]


_PIECES = re.compile(r'(\\*)"|\\+[nrt]?|\s+|[^"\\\s]+')
"""Quotes with the backslashes before them, white space as JSON writes it, and all between."""


class _JsonDepth:
    """In how many JSON strings, each within the other, the end of a text is that comes in pieces.

    The text of a string is JSON if it begins as an object, an array or a string. A quote with 0, 1, 3 or 7 backslashes
    before it, and an even number of further ones for each level above, begins or ends a string of the level 1 to 4.
    """

    def __init__(self) -> None:
        self._backslashes = ""
        # For each string that is open: whether its text is JSON. None: it has not begun.
        self._are_json: list[bool | None] = []

    def __len__(self) -> int:
        return len(self._are_json)

    def feed(self, text: str) -> None:
        text = self._backslashes + text
        end = len(text.rstrip("\\"))
        self._backslashes = text[end:]  # what they mean depends on what follows
        for match in _PIECES.finditer(text, 0, end):
            if match[1] is not None:
                self._quote(len(match[1]))
            elif self._are_json and self._are_json[-1] is None and not match[0].isspace() and match[0][0] != "\\":
                self._are_json[-1] = match[0][0] in "{["

    def _quote(self, backslashes: int) -> None:
        level = 1
        while backslashes % 2:
            backslashes, level = backslashes // 2, level + 1
        if level <= len(self._are_json):
            del self._are_json[level - 1 :]
        elif level == len(self._are_json) + 1 and (level == 1 or self._are_json[-1] is not False):
            if level > 1:
                self._are_json[-1] = True
            self._are_json.append(None)


class Restorer:
    """Puts values back into one text, which comes in pieces. How it is cut does not matter.

    Args:
        placeholders: Those of the request, which is redacted before.
        in_json: The text is JSON, so a value is escaped as within a string, and once more for each string around it
            whose text is JSON.
        note: Counts the placeholders that were replaced, and those that the request does not have.

    Attributes:
        held: The characters that are kept back.
    """

    def __init__(self, placeholders: Placeholders, *, in_json: bool = False, note: WrapperNote | None = None) -> None:
        self._values = placeholders.values
        self._whole, self._started = _words(placeholders.kinds)
        # Most values are written in JSON as they are.
        self._depth = _JsonDepth() if in_json and any(map(_is_escaped, self._values.values())) else None
        self._shown: dict[tuple[str, int], str] = {}
        self._note = note or WrapperNote((), {})
        self.held = ""
        self._taken = self._shift = 0
        # Where each placeholder ended, and how much longer all values up to it are: offsets come in any order.
        self._ends = array("q")
        self._shifts = array("q")

    def feed(self, piece: str, *, is_end: bool = False) -> str:
        """Return what may be shown of the text so far. At most `MOST_HELD` characters are kept back."""
        text = self.held + piece if self.held else piece
        if "q" not in text and "Q" not in text:
            self.held = ""
            self._taken += len(text)
            if self._depth is not None:
                self._depth.feed(text)
            return text
        pieces: list[str] = []
        at = scanned = 0
        for match in self._whole.finditer(text):
            value = self._values.get(match[0].lower())
            if value is None:
                self._note.unknown += 1
                continue
            self._note.restored += 1
            shown = value
            if self._depth is not None:
                self._depth.feed(text[scanned : match.start()])
                scanned = match.start()
                shown = self._escaped(value, len(self._depth))
            pieces += (text[at : match.start()], shown)
            self._shift += len(shown) - len(match[0])
            self._ends.append(self._taken + match.end())
            self._shifts.append(self._shift)
            at = match.end()
        end = len(text)
        if not is_end and (started := self._started.search(text, max(at, end - MOST_HELD))) is not None:
            end = started.start()
        pieces.append(text[at:end])
        if self._depth is not None:
            self._depth.feed(text[scanned:end])
        self.held = text[end:]
        self._taken += end
        return "".join(pieces)

    def _escaped(self, value: str, depth: int) -> str:
        """Return a value as it is written within so many JSON strings, at least one."""
        shown = self._shown.get((value, depth))
        if shown is None:
            shown = value
            for _ in range(max(depth, 1)):
                shown = json.dumps(shown, ensure_ascii=False)[1:-1]
            self._shown[value, depth] = shown
        return shown

    def shifted(self, offset: int) -> int:
        """Return an offset of the text before it was restored as one of the restored text."""
        place = bisect_right(self._ends, offset)
        return offset + self._shifts[place - 1] if place else offset

    def close(self) -> str:
        """Return the characters that were kept back."""
        return self.feed("", is_end=True) if self.held else ""
