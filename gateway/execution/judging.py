"""Ask the judges of a region for verdicts on texts: in order, within 5 s, recorded and paid as calls of the client."""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from gateway.execution.deadline import Deadline
from gateway.execution.run import PlanExecutor, PlanExhausted, RunContext
from gateway.execution.upstream_client import Answer
from gateway.model.assistant import Assistant
from gateway.model.config_version import Client, ConfigVersion, Region
from gateway.model.decision import Plan, Step
from gateway.model.deployment import Deployment, moderations_of
from gateway.model.moderation import Moderation, ModerationRecord, NoVerdict
from gateway.model.permit import Permit
from gateway.model.record import Record
from gateway.policy.fence import evaluation_permit, judge_still_permitted
from providers.failures import Failure, FailureKind
from providers.moderations import ModerationAnswer, ModerationRequest
from providers.moderations.values import ModerationInput
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


def pieces_of(text: str) -> Iterator[str]:
    r"""Yield a text in pieces of at most 8,000 characters, which overlap by 200, so that no sentence hides between.

    Escapes of JSON (`\u4f60`), as in arguments of tools, become their characters: few judges read them.
    """
    if "\\u" in text:
        text = _ESCAPES.sub(_unescaped, text)
    yield text[:MOST_CHARACTERS]
    for start in range(MOST_CHARACTERS - _OVERLAP, max(len(text) - _OVERLAP, 0), MOST_CHARACTERS - _OVERLAP):
        yield text[start : start + MOST_CHARACTERS]


def _unescaped(escapes: re.Match[str]) -> str:
    units = b"".join(int(unit, 16).to_bytes(2, "big") for unit in escapes[0].split("\\u")[1:])
    return units.decode("utf-16-be", "replace")


class PassedTexts:
    """Remembers texts that passed, by an HMAC, so that a conversation is judged once. Bounded in number and time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._key = secrets.token_bytes(32)
        self._clock = clock
        self._passed: OrderedDict[bytes, float] = OrderedDict()

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


@dataclass(slots=True)
class Judge:
    """The judges of one request.

    Attributes:
        current: Returns the active config version: a judge that it disables gets no further text.
        context: The deadline, the record and the usage of the request, and who asks.
        moderation: The policy of the region.
        client: The client of the request, which pays for the calls. `user`: its end user.
        result: Collects what was decided.
    """

    executor: PlanExecutor
    config: ConfigVersion
    current: Callable[[], ConfigVersion]
    context: RunContext
    assistant: Assistant
    region: Region
    moderation: Moderation
    client: Client | None
    user: str | None
    result: ModerationRecord = field(default_factory=ModerationRecord)

    def policy_of(self, judges: Iterable[Deployment]) -> str:
        """Return the judges and the policy as a text, under which passed texts are remembered."""
        names = ",".join(f"{it.name}={it.origin}={it.model}" for it in judges)
        return f"{names};{self.moderation.passes_controversial}"

    async def verdict(
        self, judges: Sequence[Deployment], inputs: Sequence[ModerationInput], prompt: str | None = None
    ) -> Verdict:
        """Return the verdict on these inputs.

        Args:
            judges: The deployments, asked in order if one fails.
            inputs: The contents, each of which is judged by itself.
            prompt: The user's text that they answer, for guard models.

        Raises:
            NoVerdict: No deployment gave one in time.
            CallRefused: A budget does not pay for it.
        """
        able = [it for it in judges if it.enabled and it.has_credential]
        steps = tuple(Step(it, permit) for it in able if (permit := self._permit(it)) is not None)
        formats = [found for step in steps if (found := moderations_of(step.deployment)) is not None]
        if not formats:
            raise NoVerdict
        most = min(it.most_inputs for it in formats) if all(isinstance(it, str) for it in inputs) else 1
        plan = Plan(self.assistant, self.region, steps)
        requests = [
            ModerationRequest("", tuple(inputs[start : start + most]), prompt=prompt)
            for start in range(0, len(inputs), most)
        ]
        if len(requests) == 1:
            return await self._ask(plan, requests[0])
        for start in range(0, len(requests), _CALLS_AT_ONCE):
            asking = [self._ask(plan, request) for request in requests[start : start + _CALLS_AT_ONCE]]
            verdicts = await asyncio.gather(*asking, return_exceptions=True)
            for verdict in verdicts:
                if isinstance(verdict, Verdict) and verdict.flagged is not None:
                    return verdict
            for failed in verdicts:
                if isinstance(failed, BaseException):
                    raise failed
        return Verdict(None)

    async def _ask(self, plan: Plan, request: ModerationRequest) -> Verdict:
        """Return the verdict of one call. Its attempts are not those of the client's request."""
        time_s = min(VERDICT_S, self._left_s())
        # A judge that hangs leaves time for the next one, and counts for its breaker.
        bounds = replace(self.config.resilience, total_s=time_s, first_token_s=time_s / len(plan.steps))
        record, accounting = self.context.record, self.executor.accounting
        own = Record(record.request_id, time.monotonic(), record.config_version, record.decided, client=record.client)
        deadline = Deadline.start(time_s, time_s)
        context = RunContext(bounds, deadline, own, self._why_not_now, asker=self.context.asker)
        if accounting is not None:
            context.usage = accounting.request(self.config, self.client, self.user, own)
        try:
            answer = await self._answer(plan, request, context)
        finally:
            deadline.close()
            record.note_judges(own)
            if self.context.usage is not None and context.usage is not None:
                self.context.usage.add(context.usage)
        if not isinstance(answer.result, ModerationAnswer) or len(answer.result.results) != len(request.inputs):
            raise NoVerdict
        name = answer.step.deployment.name
        if name not in self.result.by:
            self.result.by.append(name)
        for result in answer.result.results:
            if result.flagged and not (result.controversial and self.moderation.passes_controversial):
                return Verdict(tuple(sorted(name for name, applies in result.categories.items() if applies)))
        return Verdict(None)

    async def _answer(self, plan: Plan, request: ModerationRequest, context: RunContext) -> Answer:
        """Return the answer of the first judge that gives one. Raises NoVerdict.

        A judge that refuses a text, for its content or its length, has failed: another one may accept it.
        """
        while True:
            try:
                return await self.executor.run(plan, request, context)
            except PlanExhausted:
                self._left_s()
            asked = {attempt.deployment for attempt in context.record.attempts}
            last = max((at for at, step in enumerate(plan.steps, 1) if step.deployment.name in asked), default=0)
            if last in (0, len(plan.steps)):
                raise NoVerdict
            plan = replace(plan, steps=plan.steps[last:])

    def _left_s(self) -> float:
        """Return the time that the request has left.

        Raises:
            PlanExhausted: It is over. This is not a missing verdict: a client names the time, and could choose one with
                which no judge ever answers.
        """
        left_s = self.context.deadline.left_s(committed=True)
        if left_s <= 0:
            raise PlanExhausted(Failure(FailureKind.DEADLINE, "the request's time is over"))
        return left_s

    def _permit(self, deployment: Deployment) -> Permit | None:
        """Return the permit to send texts to a judge. It needs no approval, and must be inside the boundary."""
        return evaluation_permit(self.config, self.region, deployment, self.executor.clock())

    def _why_not_now(self, step: Step) -> str | None:
        current = self.current()
        if current is self.config:
            return None
        return judge_still_permitted(step.permit, current, self.executor.clock())
