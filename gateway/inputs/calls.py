"""Split a request that is not a chat into calls, and join their answers.

The calls of one request follow each other, so that a request takes one slot of its deployment at a time.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from gateway.execution.exchange import Exchange
from gateway.execution.judging import Judge
from gateway.execution.upstream_client import Answer
from gateway.model.assistant import Assistant
from gateway.model.config_version import Client, ConfigVersion, Region
from gateway.model.decision import Step
from gateway.model.deployment import format_of
from gateway.model.record import AttemptRecord, Record
from gateway.model.route import deployments_of
from gateway.model.served import INPUTS, OtherInput, measured_as_chat
from gateway.service.assistants import assistants_of
from gateway.usage.accounting import RequestUsage
from providers.chat import ChatRequest
from providers.failures import InvalidRequest
from providers.inputs.rerank.values import RerankAnswer
from providers.moderations.values import ModerationRequest
from providers.served import InputAnswer, InputRequest
from providers.value import replace

_MODEL_DIGITS = 8


def calls_of(request: InputRequest, assistant: Assistant, region: Region | None) -> tuple[InputRequest, ...]:
    """Return the calls of a request. Each is small enough for every deployment of the route."""
    route = assistant.routes.get(region.name, ()) if region is not None else ()
    deployments = deployments_of(route)
    return INPUTS[request.use].calls_of(request, deployments) if deployments else (request,)


class InputCalls:
    """The calls of a request, of which each is decided and executed by itself. They have one account.

    Attributes:
        paid: These, and the answers that were given up for those of another deployment, as one; None without any.
        redacted: The number of values by kind that their recipients did not get.
        judged_by: The config version whose judges have passed the whole request, or None.
        judge: These judges, or None if there are none.
        paid_for: The last whole answer, which is paid for even if it is not released.

    If a request is whole, one deployment answers it: it stays the first choice, and one that takes over answers all.
    """

    def __init__(self, calls: Sequence[InputRequest]) -> None:
        self._calls = calls
        self._measured: tuple[ChatRequest, ...] = ()
        self._usage: RequestUsage | None = None
        self.answers: list[Answer] = []
        self._given_up: list[Answer] = []
        self.redacted: Mapping[str, int] = {}
        self.judged_by: ConfigVersion | None = None
        self.judge: Judge | None = None
        self.paid_for: InputAnswer | None = None
        self._answered_by: str | None = None
        self._has_moved = False

    def steps_of(self, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        """Return the steps that may answer the current call, in order. They may be none."""
        if self._has_moved:
            return tuple(step for step in steps if step.deployment.name == self._answered_by)
        if self._answered_by is None or len(steps) == 1:
            return steps
        return tuple(sorted(steps, key=lambda step: step.deployment.name != self._answered_by))

    def take(self, answer: Answer) -> None:
        """Note the answer of the current call. If another deployment has to give all of them, all are asked again."""
        self.answers.append(answer)
        if not self._calls[0].is_whole:
            return
        name = answer.step.deployment.name
        if self._answered_by not in (None, name):
            self._given_up += self.answers
            self.answers.clear()
            self._has_moved = True
        self._answered_by = name

    @property
    def is_answered(self) -> bool:
        """Whether every call has its answer."""
        return len(self.answers) == len(self._calls)

    @property
    def current(self) -> InputRequest:
        return self._calls[len(self.answers)]

    def note_redacted(self, counts: Mapping[str, int]) -> Mapping[str, int]:
        """Return the number of values by kind for all calls so far, with these of the last one."""
        # The numbers of a whole request go on from call to call, so that its last call has counted all.
        if self.answers and not self.current.is_whole:
            kinds = sorted({*self.redacted, *counts})
            counts = {kind: self.redacted.get(kind, 0) + counts.get(kind, 0) for kind in kinds}
        self.redacted = counts
        return counts

    def _joined(self, answers: Sequence[Answer]) -> InputAnswer | None:
        """Return one answer with all results in order, or None if there are no answers."""
        results = [it.result for it in answers if it.result is not None]
        return INPUTS[self._calls[0].use].joined(results) if len(results) > 1 else next(iter(results), None)

    @property
    def paid(self) -> InputAnswer | None:
        return self._joined([*self._given_up, *self.answers])

    @property
    def result(self) -> InputAnswer | None:
        """The answers of all calls as one, with the counts of everything that is paid."""
        result, paid = self._joined(self.answers), self.paid if self._given_up else None
        if result is None or paid is None:
            return result
        changes: Any = {"usage": paid.usage}
        if isinstance(paid, RerankAnswer):
            changes["search_units"] = paid.search_units
        return replace(result, **changes)

    async def account(self, usage: RequestUsage) -> RequestUsage:
        """Return the account of the current call. `usage`: a new one, as the present config version limits it."""
        if len(self._calls) > 1 and not self._measured:
            self._measured = tuple(map(measured_as_chat, self._calls))
        self._usage = await usage.follow(self._usage, self._measured[len(self.answers) + 1 :])
        return self._usage

    async def end(self) -> None:
        """Give back what is held for calls that were not sent."""
        if self._usage is not None:
            await self._usage.release_ahead()


@contextmanager
def counted_anew(record: Record) -> Iterator[None]:
    """Count the attempts of one call from 0, and add them to those of the earlier calls at its end."""
    earlier: list[AttemptRecord] = record.attempts
    record.attempts = []
    try:
        yield
    finally:
        record.attempts = earlier + record.attempts


def with_assistant(request: InputRequest, config: ConfigVersion, client: Client | None) -> InputRequest:
    """Return the request with the name of its assistant. A moderation may leave it out if there is only one.

    Raises InvalidRequest if the client has no assistant with moderations, or several.
    """
    if request.model or not isinstance(request, ModerationRequest):
        return request
    names = sorted({one.name for one in assistants_of(config, client).values() if one.routes_for("moderations")})
    if len(names) != 1:
        choices = f"name one of {', '.join(names)}" if names else "no assistant of this key has moderations"
        raise InvalidRequest(f"`model` is required: {choices}", "model")
    return replace(request, model=names[0])


class EmbeddingSpace:
    """The space of an assistant's vectors in a region: the name of the model, and the length of the vectors.

    A key hides the name of the model if the assistant does not reveal it.
    """

    def __init__(self, assistant: Assistant, region: Region, key: bytes) -> None:
        first = deployments_of(assistant.routes[region.name])[0]
        self._model = first.model
        form = format_of(first, "embeddings")
        self._known: int | None = form.facts(first.model).dimensions if form is not None else None
        if not assistant.reveal_model:
            digest = hmac.digest(key, f"space 1\0{first.provider}\0{first.model}".encode(), "sha256")
            self._model = f"{assistant.name}-{digest.hex()[:_MODEL_DIGITS]}"

    def name(self, dimensions: int) -> str:
        """Return the value of `x-gateway-embedding-space`."""
        return f"{self._model}@{dimensions}"

    def check(self, required: tuple[str, ...], dimensions: int | None) -> None:
        """Check before a call whether its vectors can be in the space that every value of the request's header names.

        The length of the vectors is the one that the request names or that was received, or None. Raises
        OtherInput if they cannot, and InvalidRequest if the header was sent twice, with different values.
        """
        if len(set(required)) > 1:
            raise InvalidRequest("`x-gateway-embedding-space` was sent more than once, with different values")
        if not required:
            return
        model, _, length = required[0].rpartition("@")
        expected = dimensions if dimensions is not None else self._known
        if model != self._model or (expected is not None and length != str(expected)):
            space = self.name(expected) if expected is not None else self._model
            message = f"`x-gateway-embedding-space` requires other vectors than those of this region, {space}: embed "
            message += "the stored texts again, or send the request to the region whose vectors you have"
            raise OtherInput("other_embedding_space", message)


def space_of(exchange: Exchange, key: bytes) -> EmbeddingSpace:
    """Return the space of the vectors of a request that has a plan. `key` is that of a config without one."""
    config, region = exchange.config, exchange.location.region
    if region is None:
        raise RuntimeError("a request without a region has no plan")
    secrets = config.secrets.identity or config.secrets.consent
    return EmbeddingSpace(exchange.assistant, region, secrets[0].reveal().encode() if secrets else key)
