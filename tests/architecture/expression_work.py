"""How the work of a regular expression grows with its text, by its structure and without a clock.

Python's engine tries one way after the other. It takes more than linear time only if a text of any length can be read
in many ways: two runs share it (`\\s*\\s*x`: the square), or one run has several ways through it (`(a+)+x`: every power).
An expression that is searched for begins anew at each character, which is a run before it (`a+x`). This is the theory
of infinite ambiguity (Weber and Seidl 1991), on the automaton whose states are the characters of the expression.

A repetition of more than `_MOST_TIMES` counts as one without a bound. Groups that are referred to count as empty.
"""

from __future__ import annotations

import re
import re._compiler as compiler
import re._constants as sre
import re._parser as parser
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

_MOST_TIMES = 128
_SAMPLES = "éßİΩж中あ한\u0301\u0e31\u2028\u00a0\u3000９。、“”：（😀\U00020000\ud800"
_CHARACTERS = {sre.LITERAL, sre.NOT_LITERAL, sre.IN, sre.ANY}
_REPEATS = {sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT}

Letters = frozenset[str | int]
Guard = tuple[Literal["not after", "after", "edge"], Letters]
"""What the letter before a place must be, or must not be; or that one of both letters at an edge is of a class."""


@dataclass
class _Piece:
    """A part of an expression: the states that it may begin and end with, and whether it may be empty.

    `sure`: the states after which nothing of it can fail any more.
    """

    first: dict[int, frozenset[Guard]] = field(default_factory=dict)
    last: frozenset[int] = frozenset()
    sure: frozenset[int] = frozenset()
    is_empty: bool = True
    can_fail: bool = False
    guard: Guard | None = None


class Automaton:
    """The automaton of one expression, whose states are the places of its characters."""

    def __init__(self, pattern: str | bytes, flags: int = 0) -> None:
        tree = parser.parse(pattern, flags)
        self._flags, self._is_bytes = tree.state.flags, isinstance(pattern, bytes)
        self._state = tree.state
        self.alphabet = self._letters_of(pattern)
        self.letters: list[Letters] = []
        # The edges between two states, each with the letters that it takes. Two edges are two ways.
        self.edges: dict[int, dict[int, list[Letters]]] = defaultdict(lambda: defaultdict(list))
        self._exits: dict[int, Letters] = {}
        self.inner: list[Automaton] = []
        self.whole = self._sequence(tree.data, self._flags)
        self._use_one_of_each_kind()

    def _use_one_of_each_kind(self) -> None:
        """Keep one letter of those that all classes treat alike."""
        guards = [of for all_of in self.whole.first.values() for _, of in all_of]
        classes = {
            *self.letters,
            *guards,
            *(it for ways in self.edges.values() for to in ways.values() for it in chain(to)),
        }
        kinds = {tuple(letter in one for one in classes): letter for letter in self.alphabet}
        kept = frozenset(kinds.values())
        self.letters = [one & kept for one in self.letters]
        for ways in self.edges.values():
            for to in ways:
                ways[to] = [one & kept for one in ways[to]]

    def _letters_of(self, pattern: str | bytes) -> Letters:
        if isinstance(pattern, bytes):
            return frozenset(range(256))
        own = {chr(min(max(0, ord(one) + more), sys.maxunicode)) for one in pattern for more in (-1, 0, 1)}
        return frozenset({*map(chr, range(128)), *_SAMPLES, *own})

    def _class(self, node: Any, flags: int) -> Letters:
        one = compiler.compile(parser.SubPattern(self._state, [node]), flags & ~re.DEBUG)
        return frozenset(
            it
            for it in self.alphabet
            if one.fullmatch(bytes([it]) if self._is_bytes else it)  # type: ignore[list-item,arg-type]
        )

    def _sequence(self, nodes: Iterable[Any], flags: int) -> _Piece:
        whole, guards = _Piece(), frozenset[Guard]()
        for node in nodes:
            piece = self._piece(node, flags)
            self._join(whole.last, piece.first)
            if whole.is_empty:
                whole.first |= {state: guards | own for state, own in piece.first.items()}
            if piece.guard is not None:
                guards |= {piece.guard}
            whole.last = piece.last | whole.last if piece.is_empty else piece.last
            kept = whole.sure if piece.is_empty and not piece.can_fail else frozenset[int]()
            whole.sure = piece.sure | kept
            whole.can_fail = whole.can_fail or piece.can_fail
            whole.is_empty = whole.is_empty and piece.is_empty
        return whole

    def _join(self, before: Iterable[int], after: Iterable[int]) -> None:
        for one in before:
            left = self._exits.get(one, frozenset())
            for other in after:
                if taken := self.letters[other] - left:
                    self.edges[one][other].append(taken)

    def _piece(self, node: Any, flags: int) -> _Piece:
        kind, value = node
        if kind in _CHARACTERS:
            state = len(self.letters)
            self.letters.append(self._class(node, flags))
            own = frozenset({state})
            return _Piece({state: frozenset()}, own, own, is_empty=False)
        if kind in _REPEATS:
            least, most, inner = value
            return self._repeat(kind, least, most, inner, flags)
        if kind is sre.SUBPATTERN:
            _, added, removed, inner = value
            return self._sequence(inner, (flags | added) & ~removed)
        if kind is sre.ATOMIC_GROUP:
            return self._atomic(self._sequence(value, flags))
        if kind is sre.BRANCH:
            return self._branch([self._sequence(one, flags) for one in value[1]])
        if kind in (sre.ASSERT, sre.ASSERT_NOT):
            direction, inner = value
            return self._looked(kind, direction, inner, flags)
        if kind is sre.AT:
            return _Piece(can_fail=True, guard=self._guard_of(value))
        if kind is sre.GROUPREF:
            return _Piece(can_fail=True)
        raise AssertionError(f"the analysis does not know {kind}")

    def _branch(self, branches: Sequence[_Piece]) -> _Piece:
        first: dict[int, frozenset[Guard]] = {}
        for one in branches:
            first |= one.first
        return _Piece(
            first,
            frozenset(chain.from_iterable(one.last for one in branches)),
            frozenset(chain.from_iterable(one.sure for one in branches)),
            any(one.is_empty for one in branches),
            all(one.can_fail for one in branches),
        )

    def _repeat(self, kind: Any, least: int, most: Any, inner: Any, flags: int) -> _Piece:
        piece = self._sequence(inner, flags)
        if most is sre.MAXREPEAT or most > _MOST_TIMES:
            self._join(piece.last, piece.first)
        if least == 0:
            piece.is_empty, piece.can_fail = True, False
        return self._atomic(piece) if kind is sre.POSSESSIVE_REPEAT else piece

    def _atomic(self, piece: _Piece) -> _Piece:
        """Leave what is not given back only with letters that it cannot go on with."""
        for state in piece.last:
            taken = chain.from_iterable(chain.from_iterable(self.edges[state].values()))
            self._exits[state] = self._exits.get(state, frozenset()) | frozenset(taken)
        return piece

    def _looked(self, kind: Any, direction: int, inner: Any, flags: int) -> _Piece:
        part = Automaton.__new__(Automaton)
        part._flags, part._is_bytes, part._state, part.alphabet = (
            self._flags,
            self._is_bytes,
            self._state,
            self.alphabet,
        )
        part.letters, part.edges, part._exits, part.inner = [], defaultdict(lambda: defaultdict(list)), {}, []
        part.whole = part._sequence(inner, flags)
        self.inner.append(part)
        if direction > 0 or part.whole.is_empty or (kind is sre.ASSERT_NOT and len(part.letters) > 1):
            return _Piece(can_fail=True)
        before = frozenset(chain.from_iterable(part.letters[one] for one in part.whole.last))
        return _Piece(can_fail=True, guard=("after" if kind is sre.ASSERT else "not after", before))

    def _guard_of(self, place: Any) -> Guard | None:
        if place is sre.AT_BOUNDARY:
            return "edge", self._class((sre.IN, [(sre.CATEGORY, sre.CATEGORY_WORD)]), self._flags)
        if place is sre.AT_BEGINNING and self._flags & re.MULTILINE:
            return "after", frozenset(("\n", 10))
        return ("after", frozenset()) if place in (sre.AT_BEGINNING, sre.AT_BEGINNING_STRING) else None

    # --- the check -------------------------------------------------------------------------------

    def problem(self, *, searches: bool, whole: bool = False) -> str | None:
        """Return why the work may grow faster than the text; None if it does not.

        `searches`: a match may begin anywhere. `whole`: it must end with the text.
        """
        for part in self.inner:
            if (found := part.problem(searches=False)) is not None:
                return found
        loops = {state: self._component(state) for state in range(len(self.letters))}
        loops = {state: around for state, around in loops.items() if around}
        for one, around in loops.items():
            for other in around:
                if any(a & b for at, a in enumerate(self.edges[one][other]) for b in self.edges[one][other][:at]):
                    return f"a run has several ways through it ({self._shown(one)})"
        # A run that may end the match gives back what is after its last end, and nothing before it.
        sure = frozenset[int]() if whole else self.whole.sure
        failing = {state: around for state, around in loops.items() if sure.isdisjoint(around)}
        for one in loops:
            for other in failing:
                if one != other and self._is_shared(one, other, loops):
                    return f"two runs share a text ({self._shown(one)} and {self._shown(other)})"
        if searches:
            for other, around in failing.items():
                if self._is_begun_within(other, around):
                    return f"a search begins anew inside a run ({self._shown(other)})"
        return None

    def _shown(self, state: int) -> str:
        return f"state {state}, {''.join(sorted(map(str, self.letters[state])))[:12]!r}"

    def _component(self, state: int) -> frozenset[int]:
        """Return the states from which this one is reached again, empty for none."""
        ahead = self._reached(state)
        return frozenset(one for one in ahead if state in self._reached(one)) if state in ahead else frozenset()

    def _reached(self, state: int) -> set[int]:
        seen: set[int] = set()
        waiting = [state]
        while waiting:
            for one in self.edges[waiting.pop()]:
                if one not in seen:
                    seen.add(one)
                    waiting.append(one)
        return seen

    def _steps(self, state: int, within: frozenset[int] | None = None) -> Iterator[tuple[int, Letters]]:
        for other, ways in self.edges[state].items():
            if within is None or other in within:
                for letters in ways:
                    yield other, letters

    def _is_shared(self, one: int, other: int, loops: dict[int, frozenset[int]]) -> bool:
        """Return whether some text leads from each of two runs back to itself, and from the first to the second."""
        start, end = (one, one, other), (one, other, other)
        seen, waiting = {start}, [start]
        while waiting:
            a, b, c = waiting.pop()
            for a2, la in self._steps(a, loops[one]):
                for b2, lb in self._steps(b):
                    if not (both := la & lb):
                        continue
                    for c2, lc in self._steps(c, loops[other]):
                        if both & lc:
                            step = a2, b2, c2
                            if step == end:
                                return True
                            if step not in seen:
                                seen.add(step)
                                waiting.append(step)
        return False

    def _is_begun_within(self, run: int, around: frozenset[int]) -> bool:
        """Return whether a text that keeps this run going also leads from the beginning into it."""
        # A step of the beginning, which stays at each letter, is (letter before, run).
        begins = [(it, run) for it in self.letters[run]]
        seen: set[tuple[int | None, Any, int]] = {(None, before, c) for before, c in begins}
        waiting = [*seen]
        while waiting:
            a, before, c = waiting.pop()
            for c2, lc in self._steps(c, around):
                steps: list[tuple[int | None, Any]] = []
                if a is not None:
                    steps = [(a2, None) for a2, la in self._steps(a) if la & lc]
                else:
                    steps = [(None, letter) for letter in lc]
                    for a2, guards in self.whole.first.items():
                        if any(_may_begin(guards, before, letter) for letter in self.letters[a2] & lc):
                            steps.append((a2, None))
                for a2, after in steps:
                    if a2 == run and c2 == run:
                        return True
                    if (step := (a2, after, c2)) not in seen:
                        seen.add(step)
                        waiting.append(step)
        return False


def _may_begin(guards: frozenset[Guard], before: str | int, letter: str | int) -> bool:
    return all(
        ((before in of) != (letter in of)) if kind == "edge" else ((before in of) == (kind == "after"))
        for kind, of in guards
    )
