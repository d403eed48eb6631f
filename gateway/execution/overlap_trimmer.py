"""Join a resumed stream to the text already sent, without repeating the overlap. Pure.

A model that gets the beginning of its answer continues it, or repeats it first. A model that is asked in words to go on
usually repeats a few words on request, or begins from the start. Its first words show which. Until then they
are held back, but no more of them than could still be a repetition.
"""

from __future__ import annotations

from collections.abc import Sequence

WINDOW = 400
"""The longest repeated end that is searched for, in characters. A repetition of everything may be longer."""
_CERTAIN = 8
_CERTAIN_AT_A_WORD = 3
_OTHER_WORDS = 64


class OverlapTrimmer:
    """Joins new text to `sent`: what `feed` and `close` return follows `sent` directly.

    Attributes:
        settled: The joint is found; further text is returned unchanged.
        stopped: A stop sequence lies across the joint, so the answer ends here.
        lost: The model began again in other words, so the texts cannot be joined.
    """

    def __init__(self, sent: str, stops: Sequence[str] = (), *, asked: bool) -> None:
        """`asked`: the model was asked in words to go on; else it got `sent`, stripped at the end, as a prefill."""
        self.settled = False
        self.stopped = False
        self.lost = False
        self._sent = sent
        self._asked = asked
        self._stops = [stop for stop in stops if len(stop) > 1]
        self._max_tail = max(map(len, self._stops), default=1) - 1
        # How many characters of the new text repeat the start of `sent`; None once they differ.
        self._repeated_start: int | None = 0 if asked or _certain(sent) else None
        self._held = ""
        self._is_joined = False
        self._tail = ""

    def feed(self, text: str) -> str:
        """Add new text; return what of it, and of the text held back, can be sent."""
        if self.settled:
            return "" if self.stopped else text
        if not self._is_joined:
            new = self._new_of(text)
            if new is None:
                return ""
            text = new
        return self._before_stop(text)

    def close(self) -> str:
        """Return the rest at the end of the new text."""
        if self.settled:
            return ""
        rest = ""
        if not self._is_joined:
            repeated = self._repeated_start or 0
            if repeated == 0 or not _certain(self._sent[:repeated]):
                rest = self._before_stop(self._joined(self._sent[:repeated] + self._held, 0))
            # Else it only repeated the beginning, which was sent.
        tail, self._tail, self.settled = self._tail, "", True
        return rest + tail

    def _new_of(self, text: str) -> str | None:
        """Return what is new in the text so far; None while that is not known."""
        along = 0
        if self._repeated_start is not None:
            rest = len(self._sent) - self._repeated_start
            if self._sent.startswith(text[:rest], self._repeated_start):
                if len(text) < rest:
                    self._repeated_start += len(text)
                    return None
                self._is_joined = True
                return text[rest:]
            along, self._repeated_start = self._repeated_start, None
            text = self._sent[:along] + text
        text, self._held = self._held + text, ""
        if self._may_grow(text):
            self._held = text
            return None
        return self._joined(text, along)

    def _may_grow(self, text: str) -> bool:
        """Return whether the text so far lies within the end of `sent`, so that the repetition may become longer."""
        if not self._asked:
            return len(text) < len(_blank_end(self._sent)) and not text.strip()
        start = max(len(self._sent) - WINDOW, 0)
        return self._sent.find(text, start, len(self._sent) - 1) >= 0

    def _joined(self, text: str, along: int) -> str:
        """Return the text without the repetition. `along`: how many of its characters repeat the start of `sent`."""
        self._is_joined = True
        if not self._asked:
            return _without_common_blank(self._sent, text)
        repeated = self._repeated(text)
        self.lost = not repeated and along >= _OTHER_WORDS
        return text[repeated:]

    def _repeated(self, text: str) -> int:
        """Return how many of its first characters repeat the end of `sent`, not counting chance matches."""
        sent = self._sent
        for length in range(min(len(text), len(sent), WINDOW), 0, -1):
            if sent.endswith(text[:length]) and _is_repetition(sent, length):
                return length
        return 0

    def _before_stop(self, text: str) -> str:
        """Hold back the first few characters until it is known whether a stop sequence lies across the joint."""
        self._tail += text
        for stop in self._stops:
            if stop in self._sent[-(len(stop) - 1) :] + self._tail[: len(stop) - 1]:
                self.stopped = self.settled = True
                self._tail = ""
        if not self.stopped and len(self._tail) >= self._max_tail:
            text, self._tail, self.settled = self._tail, "", True
            return text
        return ""


def _is_repetition(sent: str, length: int) -> bool:
    """Return whether an end of this length is a repetition: a word of three letters, or eight letters anywhere.

    Digits count if they are not all the same: a table of numbers can be repeated too.
    """
    start = len(sent) - length
    end = sent[start:]
    letters = _letters(end)
    at_a_word = start == 0 or not (sent[start - 1].isalnum() and sent[start].isalnum())
    return _certain(end) or (at_a_word and letters >= _CERTAIN_AT_A_WORD)


def _certain(text: str) -> bool:
    """Return whether the text is long enough that it is not repeated by chance."""
    digits = [letter for letter in text if letter.isdecimal()]
    return _letters(text) + (len(digits) if len({*digits}) > 1 else 0) >= _CERTAIN


def _letters(text: str) -> int:
    """Return the number of letters. One beyond ASCII counts as two, because a Chinese word has two characters."""
    return sum(1 if letter.isascii() else 2 for letter in text if letter.isalpha())


def _without_common_blank(sent: str, text: str) -> str:
    """Return the text without the white space that ends `sent`.

    The prefill did not have it, so the model may repeat it.
    """
    blank = _blank_end(sent)
    for length in range(min(len(blank), len(text)), 0, -1):
        if blank.startswith(text[:length]) and text[:length].isspace():
            return text[length:]
    return text


def _blank_end(text: str) -> str:
    return text[len(text.rstrip()) :]
