"""One call to one deployment: built, signed, sent, and read until the answer begins."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from gateway.execution.deadline import Deadline
from gateway.execution.fold import BoundedReply, whole_of, whole_of_body
from gateway.execution.identity import pseudonymous
from gateway.execution.redaction import redacted, redacting
from gateway.execution.reply import Reply
from gateway.execution.send import Sender
from gateway.execution.stream import AnswerStream, LiveStream
from gateway.execution.transports import TURN_BYTES, Withdrawn
from gateway.model.config_version import Resilience
from gateway.model.decision import Step
from gateway.model.deployment import Deployment
from providers.adapter import STREAM_OPTIONS
from providers.auth import Secret, credential
from providers.chat import ChatCompletion, ChatRequest
from providers.classify import MESSAGES
from providers.exchange import AnswerReader, comes_in_events, read_answer
from providers.failures import Failure, FailureKind, ProviderFailed, UnsupportedFeature
from providers.fitting import with_sayable_choice, without_parameters
from providers.needs import PLACES
from providers.own_fields import own_field
from providers.wire import WireRequest

StillAllowed = Callable[[Step], str | None]
"""Why a step of the plan may not be asked any more; None if it may."""

_LARGE_BYTES = 64 * 1024
# For the body of a refusal, whose status has already come.
_REFUSAL_S = 2.0
_REMEDIES = {
    STREAM_OPTIONS: "`stream_options: false` on the deployment leaves it out",
    "stream": "`fold: false` on the deployment asks for one JSON",
}


@dataclass(slots=True)
class Answer:
    """Who answers, and the answer: whole, or a stream that has begun."""

    step: Step
    completion: ChatCompletion | None = None
    stream: AnswerStream | None = None


class Caller:
    """Makes calls over one sender. `clock` is Unix time, for signatures."""

    def __init__(self, sender: Sender, clock: Callable[[], float] = time.time) -> None:
        self._sender = sender
        self._clock = clock

    async def attempt(
        self,
        step: Step,
        secret: Secret | None,
        request: ChatRequest,
        bounds: Resilience,
        deadline: Deadline,
        limit_s: float,
        head_s: float | None = None,
        timer: Deadline | None = None,
        still_allowed: StillAllowed | None = None,
    ) -> Answer:
        """One call to one deployment, within `limit_s` until the answer begins; raises ProviderFailed, or Withdrawn
        where nothing was sent because it isn't allowed any more.

        head_s: the limit of the answer's head, where it is another one.
        timer: measures these where this is another task than the deadline's.
        """
        deployment = step.deployment
        sent, wire = _written(step, request)
        headers = credential(deployment.adapter.auth, wire, deployment.origin, secret, self._clock())
        if deployment.headers:
            headers = (*headers, *((name.lower(), value.reveal()) for name, value in deployment.headers))
        timer = timer or deadline
        recheck = partial(_recheck, still_allowed, step) if still_allowed is not None else None
        is_large, large = len(wire.body) > _LARGE_BYTES, None
        try:
            with timer.limit(limit_s):
                opening = self._sender.open(step.permit, wire, bounds.connect_s, headers, recheck)
                # Its bytes are the transport's by now: nobody is to hold them while the provider thinks.
                del wire
                if head_s is None:
                    reply = await opening
                else:
                    with timer.limit(head_s):
                        reply = await opening
                try:
                    if reply.is_refusal:
                        stream = None
                    elif not request.stream:
                        response = await reply.read_whole()
                        if len(response.body) <= TURN_BYTES or not comes_in_events(response):
                            completion = read_answer(deployment.adapter, response, deployment.target, sent.stop)
                            return Answer(step, completion)
                        stream, large = None, response
                    else:
                        reading = timer if request.folded else deadline
                        stream = _live_stream(deployment, reply, request, sent, bounds, reading, is_large)
                        await stream.begin()
                except BaseException:
                    await reply.close()
                    raise
        except TimeoutError:
            raise ProviderFailed(Failure(FailureKind.SILENT, "the provider did not answer in time")) from None
        if large is not None:
            # It has been answered in time, however long it takes to read that.
            reader = AnswerReader(deployment.adapter, large, deployment.target, sent.stop)
            return Answer(step, await whole_of_body(reader, large.body))
        if stream is None:
            raise ProviderFailed(_by_whom(await _refusal(deployment, reply, request, bounds, timer), deployment, sent))
        if request.folded:
            return Answer(step, completion=await whole_of(stream, timer))
        return Answer(step, stream=stream)


def _written(step: Step, request: ChatRequest) -> tuple[ChatRequest, WireRequest]:
    """What this deployment is asked, and that in its provider's words."""
    deployment = step.deployment
    try:
        sent = without_parameters(request, step.dropped) if step.dropped else request
        if request.tool_choice is not None:
            sent = with_sayable_choice(sent, deployment.capabilities)
        if deployment.pseudonym_key is not None:
            sent = pseudonymous(sent, deployment.provider, deployment.pseudonym_key, deployment.target.passthrough)
        return sent, deployment.adapter.build_request(sent, deployment.target)
    except UnsupportedFeature as error:
        raise ProviderFailed(_unsayable(error)) from error


def _live_stream(
    deployment: Deployment,
    reply: Reply,
    request: ChatRequest,
    sent: ChatRequest,
    bounds: Resilience,
    reading: Deadline,
    is_large: bool,
) -> LiveStream:
    """An answer that is read while it comes; `reading` measures its silence."""
    reader = AnswerReader(deployment.adapter, reply.head, deployment.target, sent.stop)
    body = BoundedReply(reply) if request.folded else reply
    # A stream may take minutes, and isn't to hold a large request for as long.
    redact = redacting(deployment, request) if is_large else partial(redacted, deployment=deployment, request=request)
    return LiveStream(body, reader, reading, bounds.idle_s, redact, sent.n or 1)


def _recheck(still_allowed: StillAllowed, step: Step) -> None:
    """A reload may have come while the connection was made, which takes seconds at worst."""
    reason = still_allowed(step)
    if reason is not None:
        raise Withdrawn(reason)


def _unsayable(error: UnsupportedFeature) -> Failure:
    param = error.param or PLACES.get(error.feature)
    return Failure(FailureKind.UNSUPPORTED, str(error), code=error.feature, param=param, unsent=True)


async def _refusal(
    deployment: Deployment, reply: Reply, request: ChatRequest, bounds: Resilience, timer: Deadline
) -> Failure:
    """What a status that is no success comes to, with what its body says if that comes soon."""
    is_whole = request.folded or not request.stream
    limit_s = min(_REFUSAL_S, bounds.idle_s, timer.left_s(committed=is_whole))
    try:
        response = await reply.read_refusal(timer.limit(limit_s))
        read_answer(deployment.adapter, response, deployment.target)
    except ProviderFailed as error:
        return error.failure
    finally:
        await reply.close()
    raise AssertionError("a status that is no success was read as an answer")


def _by_whom(failure: Failure, deployment: Deployment, sent: ChatRequest) -> Failure:
    """The failure as the operator's, where it is about a field that stands in everybody's request."""
    if failure.kind is not FailureKind.INVALID_REQUEST:
        return failure
    field = own_field(deployment.adapter, deployment.target, sent, failure)
    if field is None:
        return failure
    kind = FailureKind.FIELD_REFUSED
    remedy = _REMEDIES.get(field, "it is this provider's in the catalogue, or a site's")
    detail = f"no client sends `{field}`; {remedy}: {failure.detail}"
    return replace(failure, kind=kind, message=MESSAGES[kind], detail=detail, param=None)
