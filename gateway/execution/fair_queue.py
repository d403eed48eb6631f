"""Who is next: a short queue that serves callers in turn, however many requests each of them has waiting.

Among callers it goes round; the requests of one caller keep their order. A full queue makes room for a caller that has
less in it, by sending away the newest request of the one that has most: nobody fills it for everybody.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

_T = TypeVar("_T", bound=Hashable)


class FairQueue(Generic[_T]):
    """At most `most` entries, each of which is in it once. Every operation takes no longer than there are callers."""

    __slots__ = ("_by_caller", "_length", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self._length = 0
        # The callers in the order of their turns, each with its entries in the order in which they came.
        self._by_caller: dict[str, dict[_T, None]] = {}

    def __len__(self) -> int:
        return self._length

    def enter(self, caller: str, entry: _T) -> _T | None:
        """Put it in. The value is what has to go for it: nothing, another caller's newest entry, or itself."""
        sent_away: _T | None = None
        if self._length >= self.most:
            longest = max(self._by_caller.values(), key=len, default={})
            # One more for this caller must not leave the other with less than it then has itself.
            if len(longest) < 2 or len(longest) <= len(self._by_caller.get(caller, ())) + 1:
                return entry
            sent_away, _ = longest.popitem()
            self._length -= 1
        self._by_caller.setdefault(caller, {})[entry] = None
        self._length += 1
        return sent_away

    def leave(self, caller: str, entry: _T) -> None:
        """Take it out, wherever it stands; nothing happens if it isn't in."""
        entries = self._by_caller.get(caller)
        if entries is None or entry not in entries:
            return
        del entries[entry]
        self._length -= 1
        if not entries:
            del self._by_caller[caller]

    def next(self) -> _T | None:
        """Take out whose turn it is; None if nobody waits."""
        for caller, entries in self._by_caller.items():
            entry = next(iter(entries))
            del self._by_caller[caller], entries[entry]
            self._length -= 1
            if entries:
                self._by_caller[caller] = entries
            return entry
        return None

    def ahead_of(self, caller: str) -> int:
        """How many would be served before one more entry of this caller, as things stand."""
        own = len(self._by_caller.get(caller, ()))
        ahead, turns = own, own + 1
        for other, held in self._by_caller.items():
            if other == caller:
                # Whose turn comes after this caller's has one less before the same entry.
                turns = own
            else:
                ahead += min(len(held), turns)
        return ahead
