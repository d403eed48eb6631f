"""Find what is new in each piece of one text, whether the provider sends additions or the whole text so far.

DashScope repeats the whole text in every event unless `incremental_output` is on, and some models have been seen to
repeat it although it is. A piece that merely begins like the text so far proves nothing ("ha", "haha" may be
laughter), so that a doubtful piece is held back until the next one decides.
"""

from __future__ import annotations

from typing import Literal

__all__ = ["Increments"]

_MOST_HELD = 8


class Increments:
    """One text in the making.

    `proof`: how many pieces in a row must each extend the one before until the text is taken to be repeated. Two for
    prose; one for JSON, where no piece can begin with the whole text so far.
    """

    __slots__ = ("_mode", "_proof", "_seen")

    def __init__(self, proof: int) -> None:
        self._proof = proof
        self._mode: Literal["open", "adding", "repeating"] = "open"
        self._seen: list[str] = []

    def new(self, piece: str, *, last: bool) -> list[str]:
        """The additions that are certain after this piece; `last`: no more text comes, so nothing is held back."""
        match self._mode:
            case "adding":
                return [piece] if piece else []
            case "repeating":
                return self._additions([piece]) if piece else []
            case "open":
                return self._decide(piece, last)

    def _decide(self, piece: str, last: bool) -> list[str]:
        seen = self._seen
        if not seen:
            if piece:
                seen.append(piece)
            return [piece] if piece else []
        if piece.startswith(seen[-1]):
            seen.append(piece)
            grown = len(set(seen)) - 1
            if grown >= self._proof or last:
                self._mode = "repeating"
                held = seen[1:]
                del seen[1:]
                return self._additions(held)
            if len(seen) <= _MOST_HELD:
                return []
        elif piece:
            seen.append(piece)
        elif not last:
            return []
        self._mode = "adding"
        held = seen[1:]
        seen.clear()
        return held

    def _additions(self, pieces: list[str]) -> list[str]:
        """What each piece adds to the text so far (all that `_seen` holds now); one that doesn't extend it is new."""
        additions: list[str] = []
        for piece in pieces:
            so_far = self._seen[0]
            extends = piece.startswith(so_far)
            addition = piece[len(so_far) :] if extends else piece
            self._seen[0] = piece if extends else so_far + piece
            if addition:
                additions.append(addition)
        return additions
