"""The fair queue compared with a plain model: no entry is lost or passed over, and no client fills the queue."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from gateway.execution.concurrency_limiter import FairQueue

CALLERS = st.sampled_from(["greedy", "polite", "third", ""])


class FairQueueMachine(RuleBasedStateMachine):
    """The model is a list of (caller, number) in the order of coming, and the order of the turns."""

    entries = Bundle("entries")

    @initialize(most=st.integers(0, 6))
    def begin(self, most: int) -> None:
        self.queue: FairQueue[int] = FairQueue(most)
        self.inside: list[tuple[str, int]] = []
        self.turns: list[str] = []
        self.passed: dict[int, list[str]] = {}
        self.number = 0

    def count(self, caller: str) -> int:
        return sum(held == caller for held, _ in self.inside)

    def gone(self, number: int) -> str:
        caller = next(held for held, each in self.inside if each == number)
        self.inside.remove((caller, number))
        if not self.count(caller):
            self.turns.remove(caller)
        return caller

    @rule(target=entries, caller=CALLERS)
    def enter(self, caller: str) -> tuple[str, int]:
        self.number += 1
        ahead = self.queue.ahead_of(caller)
        went = self.queue.enter(caller, self.number)
        if went == self.number:
            assert len(self.inside) == self.queue.most, "only a full queue sends away"
            longest = max([self.count(held) for held, _ in self.inside], default=0)
            assert longest <= max(self.count(caller) + 1, 1), "who has less gets room from who has most"
            return (caller, self.number)
        if went is not None:
            assert len(self.inside) == self.queue.most
            loser = self.gone(went)
            assert self.count(loser) >= self.count(caller) + 1
            assert not any(held == loser and each > went for held, each in self.inside), "the newest goes"
        if not self.count(caller):
            self.turns.append(caller)
        self.inside.append((caller, self.number))
        self.passed[self.number] = []
        assert ahead <= len(self.inside)
        return (caller, self.number)

    @rule(entry=entries)
    def leave(self, entry: tuple[str, int]) -> None:
        caller, number = entry
        self.queue.leave(caller, number)
        if entry in self.inside:
            self.gone(number)

    @rule()
    def serve(self) -> None:
        number = self.queue.next()
        if not self.inside:
            assert number is None
            return
        assert number is not None
        turn = self.turns[0]
        assert number == next(each for held, each in self.inside if held == turn), (
            "first come, first served, within one"
        )
        self.gone(number)
        if self.count(turn):
            self.turns.remove(turn)
            self.turns.append(turn)
        for _, waiting in self.inside:
            self.passed[waiting].append(turn)

    @rule(caller=CALLERS)
    def foresee(self, caller: str) -> None:
        """`ahead_of` counts the entries that are served before a new one, if no other entry is added or removed."""
        if len(self.inside) >= self.queue.most:
            return
        ahead, number = self.queue.ahead_of(caller), 10**6
        self.queue.enter(caller, number)
        served = []
        while (next_one := self.queue.next()) is not None:
            served.append(next_one)
        assert served.index(number) == ahead
        # Everybody back, in turns again.
        self.turns, self.inside, before = [], [], self.inside
        for held, each in before:
            self.queue.enter(held, each)
            if not self.count(held):
                self.turns.append(held)
            self.inside.append((held, each))
            self.passed[each] = []

    @invariant()
    def nobody_is_lost(self) -> None:
        assert len(self.queue) == len(self.inside) <= self.queue.most

    @invariant()
    def nobody_starves(self) -> None:
        """While an entry waits, no other client is served more often than the client has earlier entries, plus one."""
        for caller, number in self.inside:
            before = sum(held == caller and each < number for held, each in self.inside)
            own = self.passed[number].count(caller)
            for other in set(self.passed[number]) - {caller}:
                assert self.passed[number].count(other) <= own + before + 1


TestFairQueueMachine = FairQueueMachine.TestCase
TestFairQueueMachine.settings = settings(deadline=None)
