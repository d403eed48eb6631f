"""A second attempt beside one that is slow: whichever begins to answer first is the answer, the other is cancelled.

When to make one is told by how long the deployment's answers usually take to begin, or by the config. Only the plan's
next step is asked, or the same deployment with another key: so it stays inside the boundary, by its permit, and passes
every check that a failover passes. It is paid for from the retry budget, and never waits for anything.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway.execution.breaker import BreakerState
from gateway.execution.call import Call
from gateway.execution.deadline import RESOLUTION_S
from gateway.execution.latencies import Latencies
from gateway.execution.race import race
from gateway.execution.retry import RULES
from gateway.model.config_version import ConfigVersion, HedgeRule
from gateway.model.decision import Step
from gateway.model.deployment import Deployment
from providers.auth import Secret
from providers.failures import FailureKind

if TYPE_CHECKING:
    from gateway.execution.walk import Walk


_Place = tuple[str, str, str]


class Hedges:
    """How long the deployments of assistants that hedge take to begin, as this process saw it.

    Streams and whole answers are kept apart."""

    def __init__(self) -> None:
        self._latencies: dict[_Place, tuple[Latencies, Latencies]] = {}

    def after_s(self, rule: HedgeRule, deployment: Deployment, *, whole: bool) -> float | None:
        """When a second attempt is due; None where too little is known to say."""
        return rule.after_s if rule.after_s is not None else self._of(deployment)[whole].share_s(rule.share)

    def note(self, deployment: Deployment, seconds: float, *, whole: bool) -> None:
        """An answer of the deployment began (if `whole`, was there) after so long; or it was given up then."""
        self._of(deployment)[whole].note(seconds)

    def keep(self, table: ConfigVersion) -> None:
        """Forget the deployments that this table doesn't have."""
        here = {(it.name, it.origin, it.model) for it in table.deployments.values()}
        self._latencies = {place: held for place, held in self._latencies.items() if place in here}

    def _of(self, deployment: Deployment) -> tuple[Latencies, Latencies]:
        place = (deployment.name, deployment.origin, deployment.model)
        held = self._latencies.get(place)
        if held is None:
            held = self._latencies[place] = (Latencies(), Latencies())
        return held


def due_s(walk: Walk, call: Call, hedge: HedgeRule) -> float | None:
    """When a second attempt beside this one is due; None where there is to be none."""
    if walk.record.attempts or walk.plan.has_effects:
        return None
    return walk.means.hedges.after_s(hedge, call.step.deployment, whole=not walk.request.stream)


async def hedged(walk: Walk, first: Call, after_s: float) -> Call:
    """The call that decides, after `first` has run by itself for `after_s` and then beside another.

    It is the first to answer; one whose failure ends everything; or, of two that failed, that at which the walk stands,
    and of two of one deployment that which was left in silence: it isn't asked again, whatever the other said.
    """
    calls = [first]

    def second() -> Callable[[], Coroutine[Any, Any, Call]] | None:
        call = _beside(walk, first)
        if call is None:
            return None
        calls.append(call)
        return partial(_apart, walk, call)

    decided: Call | None = None
    under_way: list[bool] = []
    try:
        try:
            decided = await race(partial(_apart, walk, first), after_s, second, _is_end)
        finally:
            # A task that is cancelled before its first step has run nothing that could let go of anything.
            under_way = [call.given_up(walk.deadline.clock()) for call in calls]
            await _close_others(calls, decided)
    except BaseException:
        for call, was_under_way in zip(calls, under_way, strict=True):
            _note_left(walk, call, under_way=was_under_way)
        raise
    if not _is_end(decided):
        decided = next((call for call in calls if call.step is calls[-1].step and _is_silence(call)), calls[-1])
    now = walk.deadline.clock()
    # Last comes the one that decides, as everywhere.
    for call in sorted(calls, key=lambda call: call is decided):
        if call.is_withdrawn:
            # It is among the skipped steps; where the other one has failed, that is why there is no answer.
            walk.failure = calls[0].failure or walk.failure
            continue
        is_lost = call is not decided and call.failure is None
        walk.record.attempts.append(call.remembered(lost=is_lost))
        if is_lost and not call.is_hedge:
            # It took at least so long: were it left out, what counts as slow would come down with each hedge.
            walk.means.hedges.note(call.step.deployment, now - call.started_at, whole=not walk.request.stream)
    return decided


def _note_left(walk: Walk, call: Call, *, under_way: bool) -> None:
    """Record a call of a request whose client has left: what it was sent, it has heard, however it ended."""
    if call.failure is not None:
        walk.record.attempts.append(call.remembered())
    elif under_way or call.answer is not None:
        walk.record.abandoned += (call.remembered(),)


async def _close_others(calls: list[Call], decided: Call | None) -> None:
    """Close what began to answer in the same moment as the winner, or as the client left.

    It may leave just now, while a connection is being closed: then nobody takes the winner's answer either.
    """
    async with AsyncExitStack() as wanted, AsyncExitStack() as others:
        for call in calls:
            if call.answer is not None and call.answer.stream is not None:
                (wanted if call is decided else others).push_async_callback(call.answer.stream.close)
        await others.aclose()
        wanted.pop_all()


async def _apart(walk: Walk, call: Call) -> Call:
    """Carry it out in a task of its own, which has a timer of its own."""
    # Between what began it and this turn of the loop, the config may have come to say something else.
    reason = walk.still_allowed(call.step)
    if reason is not None:
        walk.withdraw(call, reason)
        return call
    own = walk.deadline.apart()
    try:
        await walk.carry_out(call, own)
    finally:
        own.close()
    return call


def _is_end(call: Call) -> bool:
    """Whether nobody else's answer is wanted any more."""
    failure = call.failure
    if failure is None:
        return not call.is_withdrawn
    return not (RULES[failure.kind].retry_here or RULES[failure.kind].next_step)


def _is_silence(call: Call) -> bool:
    return call.failure is not None and call.failure.kind is FailureKind.SILENT


def _beside(walk: Walk, first: Call) -> Call | None:
    """The second attempt, begun and paid for; None where none may be made."""
    if len(walk.record.attempts) + 1 >= walk.bounds.attempts_total:
        return None
    found = _next_step(walk) or _other_key(walk, first)
    if found is None:
        return None
    position, secret = found
    step = walk.plan.steps[position]
    left_s = walk.deadline.left_s(committed=not walk.request.stream)
    slot = None
    if left_s <= RESOLUTION_S:
        return None
    if step.deployment.concurrency is not None and (slot := walk.means.load.limiter(step.deployment).take()) is None:
        return None
    if not walk.means.budget.take(walk.bounds.retry_budget, walk.deadline.clock()):
        walk.record.retries_refused += (step.deployment.name,)
        if slot is not None:
            slot.release()
        return None
    if position != walk.position:
        walk.position, walk.used_keys = position, ()
    walk.breaker = walk.means.health.breaker(step.deployment, walk.bounds.breaker)
    call = walk.begin(step, slot, secret, left_s)
    call.is_hedge = True
    return call


def _next_step(walk: Walk) -> tuple[int, Secret | None] | None:
    """The next step of the plan that may be asked now, and its key."""
    for position in range(walk.position + 1, len(walk.plan.steps)):
        step = walk.plan.steps[position]
        if _may_be_asked(walk, step) and (keys := walk.means.health.keys_in_turn(step.deployment)):
            return position, keys[0]
    return None


def _other_key(walk: Walk, first: Call) -> tuple[int, Secret | None] | None:
    """The same deployment once more, with a key that this request has not used."""
    if not _may_be_asked(walk, first.step):
        return None
    keys = [key for key in walk.means.health.keys_in_turn(first.step.deployment) if key not in walk.used_keys]
    return (walk.position, keys[0]) if keys else None


def _may_be_asked(walk: Walk, step: Step) -> bool:
    """Whether the tables allow it, and its deployment is well: a probe is no hedge."""
    if walk.still_allowed(step) is not None:
        return False
    if walk.means.health.unwell(step.deployment, walk.bounds.breaker) is not None:
        return False
    breaker = walk.means.health.breaker(step.deployment, walk.bounds.breaker)
    return breaker is None or breaker.state is BreakerState.CLOSED
