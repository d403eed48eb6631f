"""Where one model's text breaks off and another's goes on: the repeated beginning is trimmed. Pure.

A model that is handed its answer's beginning goes on behind it, or says it again first. A model that is asked to go on
mostly repeats a few words, as it was asked to, or begins from the start. Which of these it does shows in its first
words; until then they are held back, and no more of them than could still be a repetition.
"""

from __future__ import annotations

from collections.abc import Sequence

WINDOW = 400
"""The longest repeated end that is looked for, in characters. A repetition of everything may be longer."""
_CERTAIN = 8
_CERTAIN_AT_A_WORD = 3
_OTHER_WORDS = 64


class Seam:
    """One seam: `sent` is on one side, what is fed on the other; what `feed` and `close` give goes behind `sent`.

    asked: whether the model was asked to go on, so that it may repeat the end; else it was handed the beginning without
    its blank end.
    settled: what comes now is given as it is. stopped: one of the stop sequences lies across the seam, so that the
    answer ends here. lost: the model began again from the start, in other words: nothing joins that.
    """

    def __init__(self, sent: str, stops: Sequence[str] = (), *, asked: bool) -> None:
        self.settled = False
        self.stopped = False
        self.lost = False
        self._sent = sent
        self._asked = asked
        self._stops = [stop for stop in stops if len(stop) > 1]
        self._most_behind = max(map(len, self._stops), default=1) - 1
        # So many of the new text's characters are the first of `sent` once more; None once it has gone another way.
        self._again: int | None = 0 if asked or _certain(sent) else None
        self._held = ""
        self._is_joined = False
        self._behind = ""

    def feed(self, text: str) -> str:
        """More of the new text: what of it, and of what was held back, can be given out."""
        if self.settled:
            return "" if self.stopped else text
        if not self._is_joined:
            new = self._new_of(text)
            if new is None:
                return ""
            text = new
        return self._before_stop(text)

    def close(self) -> str:
        """The rest, at the end of the new text."""
        if self.settled:
            return ""
        rest = ""
        if not self._is_joined:
            again = self._again or 0
            if again == 0 or not _certain(self._sent[:again]):
                rest = self._before_stop(self._joined(self._sent[:again] + self._held, 0))
            # Else it was nothing but the beginning once more, all of which is there.
        behind, self._behind, self.settled = self._behind, "", True
        return rest + behind

    def _new_of(self, text: str) -> str | None:
        """What is new of the text so far; None while that can't be told."""
        along = 0
        if self._again is not None:
            rest = len(self._sent) - self._again
            if self._sent.startswith(text[:rest], self._again):
                if len(text) < rest:
                    self._again += len(text)
                    return None
                self._is_joined = True
                return text[rest:]
            along, self._again = self._again, None
            text = self._sent[:along] + text
        text, self._held = self._held + text, ""
        if self._may_grow(text):
            self._held = text
            return None
        return self._joined(text, along)

    def _may_grow(self, text: str) -> bool:
        """Whether the text so far lies within the end of the sent one, so that the repetition may become longer."""
        if not self._asked:
            return len(text) < len(_blank_end(self._sent)) and not text.strip()
        start = max(len(self._sent) - WINDOW, 0)
        return self._sent.find(text, start, len(self._sent) - 1) >= 0

    def _joined(self, text: str, along: int) -> str:
        """The text without what is repeated in it. along: so much of it was said as at first."""
        self._is_joined = True
        if not self._asked:
            return _without_common_blank(self._sent, text)
        repeated = self._repeated(text)
        self.lost = not repeated and along >= _OTHER_WORDS
        return text[repeated:]

    def _repeated(self, text: str) -> int:
        """How many of its first characters are the last of the sent text, where that is no chance."""
        sent = self._sent
        for length in range(min(len(text), len(sent), WINDOW), 0, -1):
            if sent.endswith(text[:length]) and _is_no_chance(sent, length):
                return length
        return 0

    def _before_stop(self, text: str) -> str:
        """Hold back the first few characters until it is known whether a stop sequence lies across the seam."""
        self._behind += text
        for stop in self._stops:
            if stop in self._sent[-(len(stop) - 1) :] + self._behind[: len(stop) - 1]:
                self.stopped = self.settled = True
                self._behind = ""
        if not self.stopped and len(self._behind) >= self._most_behind:
            text, self._behind, self.settled = self._behind, "", True
            return text
        return ""


def _is_no_chance(sent: str, length: int) -> bool:
    """Whether so long an end isn't met by chance: a word of three letters, or eight letters wherever they begin.

    Digits count where they are not all the same: a table of numbers is repeated as a story is, and a third has one.
    """
    start = len(sent) - length
    end = sent[start:]
    letters = _letters(end)
    at_a_word = start == 0 or not (sent[start - 1].isalnum() and sent[start].isalnum())
    return _certain(end) or (at_a_word and letters >= _CERTAIN_AT_A_WORD)


def _certain(text: str) -> bool:
    """Whether there is so much in it that nobody says it twice by chance."""
    digits = [letter for letter in text if letter.isdecimal()]
    return _letters(text) + (len(digits) if len({*digits}) > 1 else 0) >= _CERTAIN


def _letters(text: str) -> int:
    """The letters in it; one beyond ASCII counts as two, since a Chinese word is two characters."""
    return sum(1 if letter.isascii() else 2 for letter in text if letter.isalpha())


def _without_common_blank(sent: str, text: str) -> str:
    """The text less the blank that ends the sent one: it was handed over without it, and may be written again."""
    blank = _blank_end(sent)
    for length in range(min(len(blank), len(text)), 0, -1):
        if blank.startswith(text[:length]) and text[:length].isspace():
            return text[length:]
    return text


def _blank_end(text: str) -> str:
    return text[len(text.rstrip()) :]
