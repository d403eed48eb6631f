"""Ask the judges of a region for verdicts on texts: in order, within 5 s, recorded and paid as calls of the client."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field

from gateway.execution.deadline import Deadline
from gateway.execution.failure_observations import Asker
from gateway.execution.run import PlanExecutor, PlanExhausted, RunContext
from gateway.execution.upstream_client import Answer
from gateway.model.assistant import Assistant
from gateway.model.config_version import Client, ConfigVersion, Region
from gateway.model.decision import Plan, Step
from gateway.model.deployment import Deployment, moderations_of
from gateway.model.excerpt import excerpt
from gateway.model.moderation import Moderation, ModerationRecord, NoVerdict
from gateway.model.permit import Permit
from gateway.model.quota import Priority
from gateway.model.record import Record
from gateway.policy.fence import evaluation_permit, judge_still_permitted, wrapper_of, wrapping_too
from gateway.policy.routing import config_exclusion
from gateway.policy.verdicts import counting, covering, found_in
from providers.failures import Failure, FailureKind
from providers.json_values import dumps_text
from providers.moderations.values import (
    ModerationAnswer,
    ModerationInput,
    ModerationRequest,
    ModerationResult,
    is_refusal,
)
from providers.value import replace

VERDICT_S = 5.0
"""The time for one verdict, over all deployments together."""
MOST_CHARACTERS = 8000
_OVERLAP = 200
_ESCAPES = re.compile(r"(?:\\u[0-9a-fA-F]{4})+")
_CALLS_AT_ONCE = 8
"""A guard model takes one text a call. A worker that does not know a long chat asks about many texts at once."""
_MOST_REMEMBERED = 100_000
_REMEMBERED_S = 3600.0


def pieces_of(text: str, before: str = "", after: str = "") -> Iterator[str]:
    """Yield a text in pieces of at most 8,000 characters, which overlap by 200, so that no sentence hides between.

    Escapes of JSON, as in arguments of tools, become their characters: few judges read them. The texts before and after
    it are not judged now.
    """
    if "\\u" in text:
        text = _ESCAPES.sub(_unescaped, text)
    whole, begin = f"{before}{text}{after}", len(before)
    end = begin + len(text)
    yield excerpt(whole, begin, min(begin + MOST_CHARACTERS, end))
    step = MOST_CHARACTERS - _OVERLAP
    for start in range(begin + step, max(end - _OVERLAP, 0), step):
        yield excerpt(whole, start, min(start + MOST_CHARACTERS, end))


def _unescaped(escapes: re.Match[str]) -> str:
    units = b"".join(int(unit, 16).to_bytes(2, "big") for unit in escapes[0].split("\\u")[1:])
    return units.decode("utf-16-be", "replace")


class PassedTexts:
    """Remembers texts that passed, by an HMAC, so that a conversation is judged once. Bounded in number and time.

    The HMAC has who asks, because the time and the price of a verdict show whether a text is remembered.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._key = secrets.token_bytes(32)
        self._clock = clock
        self._passed: OrderedDict[bytes, float] = OrderedDict()

    def of(self, asker: Asker) -> PassedTexts:
        """Return the part of this memory that is an asker's own. No other one has a text of it."""
        own = copy(self)
        own._key = hmac.digest(self._key, dumps_text([*asker]).encode(), "sha256")
        return own

    def begin(self, policy: str) -> hmac.HMAC:
        """Return the digest of a text under this policy, which grows with `update` as the text does."""
        return hmac.new(self._key, f"{len(policy)}:{policy}".encode(), "sha256")

    def add(self, digest: hmac.HMAC) -> None:
        """Remember that the text of this digest passed."""
        key = digest.digest()
        self._passed[key] = self._clock()
        self._passed.move_to_end(key)
        while len(self._passed) > _MOST_REMEMBERED:
            self._passed.popitem(last=False)

    def add_text(self, policy: str, text: str) -> None:
        """Remember that a text passed under this policy."""
        self.add(self._digest(policy, text))

    def has(self, policy: str, text: str) -> bool:
        """Return whether the text passed under this policy in the last hour."""
        at = self._passed.get(self._digest(policy, text).digest())
        return at is not None and self._clock() - at < _REMEMBERED_S

    def _digest(self, policy: str, text: str) -> hmac.HMAC:
        digest = self.begin(policy)
        digest.update(bytes_of(text))
        return digest


def bytes_of(text: str) -> bytes:
    """Return a text as bytes, for a digest. JSON may have lone surrogates."""
    return text.encode("utf-8", "surrogatepass")


@dataclass(slots=True)
class Verdict:
    """The verdict on one text or more: the categories of the first that is flagged; None if all passed."""

    flagged: tuple[str, ...] | None


Results = Sequence[tuple[ModerationInput, ModerationResult]]
NOTHING_EXCEPTED: Mapping[ModerationInput, frozenset[str]] = {}
Verdicts = dict[tuple[str, bytes], ModerationResult | None]
"""The answers of deployments about texts of a request. One that gave none is None, and is not asked again."""
_ALL_REFUSED = ModerationResult(False, {}, {}, refused=frozenset("*"))
"""The verdict of a judge that refused to decide about a text at all."""


@dataclass(slots=True)
class Judging:
    """Asks the judges of one request."""

    executor: PlanExecutor
    config: ConfigVersion
    current: Callable[[], ConfigVersion]
    """Returns the active config version: a judge that it disables gets no further text."""
    context: RunContext
    """The deadline, the record and the usage of the request, and who asks."""
    assistant: Assistant
    region: Region
    client: Client | None
    """The client of the request, which pays for the calls. `user`: its end user."""
    user: str | None
    verdicts: Verdicts | None = None
    """The verdicts on what the client sent, which no deployment judges twice, or None if each is asked."""
    by: list[str] = field(default_factory=list)
    """The deployments that gave verdicts."""
    until: float | None = None
    """When all verdicts must be there, in monotonic seconds, or None if each has `VERDICT_S`."""
    takes_contradictions: bool = False
    """A verdict that contradicts its categories is one."""
    categories: frozenset[str] | None = None
    """Those about which a verdict must state something. None: about all, or something is found."""

    async def find(
        self,
        judges: Sequence[Deployment],
        inputs: Sequence[ModerationInput],
        found_in: Callable[[ModerationInput, ModerationResult], frozenset[str] | None],
        prompt: str | None = None,
    ) -> list[frozenset[str]]:
        """Return what is found in these inputs: the categories of each in which something is. No further one is asked.

        Each input is judged by itself, for guard models with the user's text that it answers (`prompt`). `found_in`
        returns what a verdict finds. Raises NoVerdict if none came in time, and CallRefused if a budget does not pay
        for it.
        """
        now_s = self.executor.clock()
        able = [it for it in judges if config_exclusion(it, now_s) is None]
        steps = tuple(Step(it, permit) for it in able if (permit := self._permit(it)) is not None)
        formats = [one for step in steps if (one := moderations_of(step.deployment)) is not None]
        if not formats:
            raise NoVerdict
        most = min(it.most_inputs for it in formats) if all(isinstance(it, str) for it in inputs) else 1
        alike: dict[tuple[str, ...], tuple[tuple[Step, ...], list[ModerationInput]]] = {}
        for content in inputs:
            left = self._unasked(steps, content, prompt)
            alike.setdefault(tuple([step.deployment.name for step in left]), (left, []))[1].append(content)
        asked = ModerationRequest("", (), {}, prompt, self.takes_contradictions, takes_refusals=True)
        calls = [
            (left, replace(asked, inputs=tuple(some[start : start + most])))
            for left, some in alike.values()
            for start in range(0, len(some), most)
        ]
        for start in range(0, len(calls), _CALLS_AT_ONCE):
            asking = [self._results(steps, left, request) for left, request in calls[start : start + _CALLS_AT_ONCE]]
            answers: list[Results | BaseException] = (
                [await asking[0]] if len(calls) == 1 else await asyncio.gather(*asking, return_exceptions=True)
            )
            results = [pair for answer in answers if not isinstance(answer, BaseException) for pair in answer]
            found = [names for content, result in results if (names := found_in(content, result)) is not None]
            if found:
                return found
            for failed in answers:
                if isinstance(failed, BaseException):
                    raise failed
        return []

    # --- what is known already --------------------------------------------------------------------

    def _unasked(self, steps: tuple[Step, ...], content: ModerationInput, prompt: str | None) -> tuple[Step, ...]:
        """Return the judges to ask about a content: those before the one whose verdict is known."""
        if not self.verdicts or prompt is not None or not isinstance(content, str):
            return steps
        left: list[Step] = []
        for step in steps:
            if self._known(step, content) is not None:
                break
            if _key(step.deployment.name, content) not in self.verdicts:
                left.append(step)
        return tuple(left)

    def _known(self, step: Step, content: ModerationInput) -> ModerationResult | None:
        """Return the verdict of a judge that this request has already."""
        known = (self.verdicts or {}).get(_key(step.deployment.name, content)) if isinstance(content, str) else None
        if known is None or (known.contradicts_itself and not self.takes_contradictions):
            return None
        return known if self._suffices(known) else None

    def _suffices(self, result: ModerationResult) -> bool:
        """Return whether a verdict counts although its judge refused to decide about some of its categories."""
        if not result.refused:
            return True
        if self.categories is None or result is _ALL_REFUSED:
            return result.flagged
        return bool(found_in(result, self.categories)) or covering(result.refused).isdisjoint(self.categories)

    async def _results(self, steps: tuple[Step, ...], left: tuple[Step, ...], request: ModerationRequest) -> Results:
        """Return the verdicts of one call, or else those that are known. `left`: the judges to ask."""
        if left:
            try:
                return await self._ask(Plan(self.assistant, self.region, left), request)
            except NoVerdict:
                if self.verdicts is None or request.prompt is not None:
                    raise
        known: list[tuple[ModerationInput, ModerationResult]] = []
        for content in request.inputs:
            results = ((step, self._known(step, content)) for step in steps)
            found = next(((step.deployment.name, it) for step, it in results if it is not None), None)
            if found is None:
                raise NoVerdict(is_refused=all(self._has_refused(step, content) for step in steps))
            self._note(found[0])
            known.append((content, found[1]))
        return known

    def _has_refused(self, step: Step, content: ModerationInput) -> bool:
        """Return whether a judge without a sufficient verdict has refused to decide about a content."""
        known = (self.verdicts or {}).get(_key(step.deployment.name, content)) if isinstance(content, str) else None
        return known is not None and bool(known.refused)

    def _note(self, name: str) -> None:
        if name not in self.by:
            self.by.append(name)

    def _remember(self, own: Record, request: ModerationRequest, results: Results = ()) -> None:
        """Remember the verdicts of a call, and which judges gave none."""
        if self.verdicts is None or request.prompt is not None:
            return
        failed = {
            attempt.deployment: _ALL_REFUSED if is_refusal(attempt.failure) else None
            for attempt in own.attempts
            if attempt.failure is not None
        }
        texts = [content for content in request.inputs if isinstance(content, str)]
        self.verdicts.update({_key(name, text): result for name, result in failed.items() for text in texts})
        name = own.attempts[-1].deployment if own.attempts else ""
        self.verdicts.update({_key(name, content): it for content, it in results if isinstance(content, str)})

    # --- one call ---------------------------------------------------------------------------------

    async def _ask(self, plan: Plan, request: ModerationRequest) -> Results:
        """Return the verdicts of one call. Its attempts are not those of the client's request."""
        time_s = min(VERDICT_S, self._left_s())
        if self.until is not None:
            time_s = min(time_s, self.until - time.monotonic())
            if time_s <= 0:
                raise NoVerdict
        # A judge that hangs leaves time for the next one, and counts for its breaker.
        bounds = replace(self.config.resilience, total_s=time_s, first_token_s=time_s / len(plan.steps))
        record, accounting = self.context.record, self.executor.accounting
        own = Record(record.request_id, time.monotonic(), record.config_version, record.decided, client=record.client)
        deadline = Deadline.start(time_s, time_s)
        context = RunContext(bounds, deadline, own, self._why_not_now, asker=self.context.asker)
        context.client, context.has_one_client = self.client, self.config.has_one_client
        context.priority = Priority.HIGH  # a judge is never kept out for others
        if accounting is not None:
            context.usage = accounting.request(self.config, self.client, self.user, own)
            context.usage.priority = Priority.HIGH
        try:
            answer = await self._answer(plan, request, context)
        except NoVerdict:
            self._remember(own, request)
            raise
        finally:
            deadline.close()
            record.note_judges(own)
            if self.context.usage is not None and context.usage is not None:
                self.context.usage.add(context.usage)
        if not isinstance(answer.result, ModerationAnswer) or len(answer.result.results) != len(request.inputs):
            raise NoVerdict
        self._note(answer.step.deployment.name)
        results = list(zip(request.inputs, answer.result.results, strict=True))
        self._remember(own, request, results)
        return results

    async def _answer(self, plan: Plan, request: ModerationRequest, context: RunContext) -> Answer:
        """Return the answer of the first judge that gives one. Raises NoVerdict.

        A judge that refuses a text, for its content or its length, has failed: another one may accept it.
        """
        record, judges = context.record, {step.deployment.name for step in plan.steps}
        refused, others = set[str](), set[str]()
        while True:
            try:
                answer = await self.executor.run(plan, request, context)
            except PlanExhausted:
                self._left_s()
            else:
                results = answer.result.results if isinstance(answer.result, ModerationAnswer) else ()
                if all(map(self._suffices, results)):
                    return answer
                refused.add(answer.step.deployment.name)
                self._remember(record, request, list(zip(request.inputs, results, strict=True)))
            asked = {attempt.deployment for attempt in record.attempts}
            last = max((at for at, step in enumerate(plan.steps, 1) if step.deployment.name in asked), default=0)
            if last in (0, len(plan.steps)):
                for attempt in record.attempts:
                    if attempt.failure is not None:
                        (refused if is_refusal(attempt.failure) else others).add(attempt.deployment)
                raise NoVerdict(is_refused=judges <= refused - others)
            plan = replace(plan, steps=plan.steps[last:])

    def _left_s(self) -> float:
        """Return the time that the request has left. Raises PlanExhausted.

        Its end is not a missing verdict: a client names the time, and could choose one with which no judge ever
        answers.
        """
        left_s = self.context.deadline.left_s(committed=True)
        if left_s <= 0:
            raise PlanExhausted(Failure(FailureKind.DEADLINE, "the request's time is over"))
        return left_s

    def _permit(self, deployment: Deployment) -> Permit | None:
        """Return the permit to send texts to a judge. It needs no approval, and must be inside the boundary.

        Its rules are also those of the version that has become active meanwhile.
        """
        permit, current = evaluation_permit(self.config, self.region, deployment, self.executor.clock()), self.current()
        if permit is None or current is self.config:
            return permit
        region, judge = current.regions.get(self.region.name), current.deployments.get(deployment.name)
        return wrapping_too(permit, wrapper_of(current, region, judge)) if region and judge else permit

    def _why_not_now(self, step: Step) -> str | None:
        current = self.current()
        if current is self.config:
            return None
        return judge_still_permitted(step.permit, current, self.executor.clock())


def _key(deployment: str, text: str) -> tuple[str, bytes]:
    return deployment, hashlib.sha256(bytes_of(text)).digest()


@dataclass(slots=True)
class Judge(Judging):
    """The judges of one request by the moderation of its region. The result collects what was decided."""

    moderation: Moderation = field(kw_only=True)
    result: ModerationRecord = field(default_factory=ModerationRecord, kw_only=True)

    def __post_init__(self) -> None:
        self.by = self.result.by
        # A webhook may name a claim without calling it harmful.
        self.takes_contradictions = bool(self.moderation.forbidden)

    async def verdict(
        self,
        judges: Sequence[Deployment],
        inputs: Sequence[ModerationInput],
        prompt: str | None = None,
        excepted: Mapping[ModerationInput, frozenset[str]] = NOTHING_EXCEPTED,
    ) -> Verdict:
        """Return the verdict on these inputs. See `Judging.find`.

        `excepted`: the categories that do not count in an input, because its user gets or got the crisis text for them.
        """

        rules, is_answer = self.moderation, prompt is not None

        def flagged(content: ModerationInput, result: ModerationResult) -> frozenset[str] | None:
            ignored = excepted.get(content, frozenset())
            if not rules.forbidden:
                return counting(result, ignored) if rules.flags(result) else None
            is_claim = is_answer and bool(found_in(result, rules.forbidden))
            is_flagged = rules.flags(result) or result.contradicts_itself or is_claim
            return counting(result, ignored if is_answer else ignored | rules.forbidden) if is_flagged else None

        found = await self.find(judges, inputs, flagged, prompt)
        return Verdict(tuple(sorted(found[0])) if found else None)


def policy_of(moderation: Moderation, judges: Iterable[Deployment]) -> str:
    """Return the judges and the policy of a region as a text, under which passed texts are remembered."""
    return ";".join([names_of(judges), moderation.controversial, *sorted(moderation.forbidden)])


def names_of(judges: Iterable[Deployment]) -> str:
    """Return the judges as a text, under which passed texts are remembered: with other thresholds they are others."""
    return ",".join(
        f"{it.name}={it.origin}={it.model}{'' if it.verdicts is None else f'={it.verdicts!r}'}" for it in judges
    )
