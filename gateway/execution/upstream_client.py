"""Call one deployment: build the request, sign it, send it, and read until the answer begins."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec

from gateway.execution.answer_stream import AnswerStream, LiveStream
from gateway.execution.conversation import Conversation, for_caches
from gateway.execution.deadline import RESOLUTION_S, Deadline
from gateway.execution.failure_observations import digest_of
from gateway.execution.folded_answers import BoundedResponse, as_stream, folds, whole_of, whole_of_body
from gateway.execution.held_tokens import HeldTokens
from gateway.execution.input_calls import fitted_input, read_input, stream_reader_of, write_input
from gateway.execution.latency import RecentAnswers, first_token_timeout_s
from gateway.execution.pseudonyms import pseudonymous
from gateway.execution.redaction import redacted, redacting
from gateway.execution.transport import TURN_BYTES, Transport, UpstreamResponse, sent_anew
from gateway.execution.upstream_request import UpstreamRequest, upstream_request
from gateway.model.config_version import ConfigVersion, Region
from gateway.model.decision import Step
from gateway.model.deployment import Deployment
from gateway.model.held_token import TokenSource
from gateway.model.resilience import DEFAULT_RESILIENCE, Resilience
from gateway.model.served import INPUTS, ServedRequest, measured_as_chat
from gateway.model.wrapper import AnswerRestoring, NotWrappable, TooMuchToSearch, Wrapped, Wrapper, WrapperNote
from gateway.policy.fence import answers_elsewhere, lacking_approval
from gateway.tasks import run_apart
from gateway.usage.accounting import CallUsage, RequestUsage
from gateway.usage.estimates import input_size
from gateway.usage.refusals import CallRefused
from gateway.usage.token_count import count_tokens
from providers.adapter import STREAM_OPTIONS, CountsTokens
from providers.auth import Secret, credential
from providers.chat import (
    AnswerRefused,
    AssistantMessage,
    ChatCompletion,
    ChatRequest,
    JsonSchemaFormat,
    StreamEvent,
    Texts,
    change_request,
    text_of,
)
from providers.failures import Failure, FailureKind, ProviderFailed, UnsupportedFeature
from providers.formats.fitting import client_names, events_with_client_names, with_client_names
from providers.json_values import JsonError, as_map, dumps, loads, read_count
from providers.matching.capability_matching import with_files_as_text, with_supported_choice, without_parameters
from providers.matching.refused_fields import has_reasoning, own_field, refuses_reasoning, unsent_parameter
from providers.matching.requirements import CACHE_KEY, REASONING, moves_data, param_of, requirements_of
from providers.openai_json.decode_request import CANONICAL_FIELDS, CHECKS
from providers.reading.errors import MESSAGES
from providers.reading.event_stream import StreamShortcuts, TextReader
from providers.reading.json_object import json_start_of
from providers.reading.response_reader import AnswerReader, is_event_stream, read_answer
from providers.served import InputAnswer
from providers.value import Value
from providers.wire import WireRequest, WireResponse

StillAllowed = Callable[[Step], str | None]
"""Returns why a step of the plan may no longer be taken; None if it may."""

_Change = Callable[[tuple[StreamEvent, ...]], tuple[StreamEvent, ...]]
_LARGE_BYTES = 64 * 1024
_REFUSAL_S = 2.0
"""Time for the body of a refusal, whose status has arrived."""
_REMEDIES = {
    STREAM_OPTIONS: "set `stream_options: false` on the deployment to leave it out",
    "stream": "set `fold: false` on the deployment to request one JSON answer",
}

_COUNT_S = 2.0
"""Time for a count of tokens, which an estimate replaces."""
_NOT_FOUND = 404
_REFUSES_FILE = frozenset({400, 413, 415, 422})
_ABOUT_REQUEST = frozenset({FailureKind.INVALID_REQUEST, FailureKind.MALFORMED, FailureKind.REFUSED_HERE})
_PARAMETERS = CANONICAL_FIELDS | CHECKS.keys()
_NEEDED = ("model", "messages", "max_tokens", "stream")
_LEFT_OUT_S = 3600.0


class Withdrawn(Exception):
    """The step is no longer allowed, and nothing was sent. The message is the reason."""


class WrapperRefused(Withdrawn):
    """Nothing was sent, because the values of the request can't be replaced. The message is the reason.

    The failure is reported if no other step answers. If it is final, no other step is tried.
    """

    def __init__(self, reason: str, failure: Failure, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.failure = failure
        self.is_final = is_final


class ConfigChanged(Exception):
    """Another config version is active by now, and decides anew. Nothing was sent under the former one since then."""


class StillActive(Value, frozen=True):
    """A `StillAllowed` of the plan of a config version: its steps may be taken while that version is active."""

    current: Callable[[], ConfigVersion]
    config: ConfigVersion
    region: Region
    clock: Callable[[], float]
    reveal_model: bool = True

    def __call__(self, step: Step) -> str | None:
        """Return why a step may no longer be taken, or None if it may. Raises ConfigChanged."""
        if self.current() is not self.config:
            raise ConfigChanged
        # The same version still allows the same steps, unless an approval has ended meanwhile, or the model leaves.
        if not self.region.approvals_required and step.deployment.leaving is None:
            return None
        now_s, reveal = self.clock(), self.reveal_model
        elsewhere = answers_elsewhere(step.deployment, now_s, reveal_model=reveal)
        return elsewhere or lacking_approval(self.region, step.deployment, now_s, reveal_model=reveal)


class Answer(Value, frozen=True):
    """The step that answered, and its answer: whole, or a stream that has begun."""

    step: Step
    completion: ChatCompletion | None = None
    stream: AnswerStream | None = None
    result: InputAnswer | None = None
    """The answer of embeddings or moderations."""
    changed: frozenset[str] = frozenset()
    """The names of what the model has learned in another way than the client sent it, or not at all."""
    wrapped: Wrapped | None = None
    """The request as the deployment got it, if a wrapper changed it."""
    is_large: bool = False
    """It is whole and larger than `TURN_BYTES`, so that it is changed and written in threads."""


class OwnAnswer(Value, frozen=True):
    """An answer of the gateway itself: no deployment was asked. It is whole, or a stream of it."""

    completion: ChatCompletion | None = None
    stream: AnswerStream | None = None
    result: None = None
    is_large: bool = False


class AttemptOptions(msgspec.Struct):
    """The request of an attempt, and the limits of its parts."""

    request: ServedRequest
    limit_s: float
    """Seconds until the answer begins; for one JSON answer, until it is complete."""
    connect_s: float
    """Limit for DNS, TCP and TLS together."""
    idle_s: float
    """The longest silence within a stream."""
    head_s: float | None = None
    """Seconds until the head of the response, if that limit is shorter."""
    is_quick: bool = False
    """One JSON answer is asked for because the deployment is known to answer quickly, so that no answer within
    `limit_s` counts as silence."""
    usage: RequestUsage | None = None
    """Holds and records the call, or None if usage is not recorded."""
    call: CallUsage | None = None
    """The call, once its cost is held."""
    check: Callable[[Answer], Awaitable[Answer]] | None = None
    """Checks a whole answer, and returns it as it is shown, or None if every answer is accepted."""
    is_large: bool = False
    """Set when it is sent: the request is too large to be held while its answer is streamed."""
    is_large_answer: bool = False
    """Set when it has arrived: the whole answer is larger than `TURN_BYTES`."""
    has_head: bool = False
    """Set when the head of a response has arrived."""
    started_at: float = 0.0
    """When the attempt began, in monotonic seconds."""
    answers: RecentAnswers | None = None
    """The answers of the deployment to anybody, or None if its silence shows nothing."""
    bounds: Resilience = DEFAULT_RESILIENCE
    """The times that the configuration gives a deployment."""
    anew: bool = False
    """It is sent on a new connection, because a kept one has ended under it."""
    changed: frozenset[str] = frozenset()
    """Set when it is written: see `Answer`."""
    conversation: Conversation | None = None
    """The conversation of the client's chat, where a cache of a provider needs it."""
    restores: bool = True
    """Values are put back into the answer."""
    wrapped: Wrapped | None = None
    """The request as it is sent, once a wrapper has changed it."""
    note: WrapperNote | None = None
    """The values that the wrapper replaced and restored, as numbers."""
    on_wrapped: Callable[[WrapperNote], None] | None = None
    """Called with the note before anything is sent."""
    unseal: Callable[[ChatRequest, tuple[str, ...]], ChatRequest] | None = None
    """Returns a chat with the reasoning state that its deployment may get, for the values that were replaced. None: the
    chat has no state."""
    least_context: int = 0
    """About how many tokens the prompt has. 0: its length does not matter."""
    token: Secret | None = None
    """Set when it is signed with the token of a sign-in."""
    on_held: Callable[[], None] | None = None
    """Called when the call is held, so that it has a slot of the store too."""
    is_wide: bool = False
    """See `Exchange`."""
    digest: bytes | None = None
    """That of the request, set when a wide one is written."""

    def digest_of_request(self) -> bytes:
        """Return the digest of the client's request: see `digest_of`."""
        return self.digest or digest_of(self.request)

    @property
    def rewritten(self) -> ServedRequest | None:
        """The request as the adapter gets it, if values were looked for."""
        return self.wrapped.request if self.wrapped is not None else None

    @property
    def sent(self) -> ServedRequest:
        """The request, with placeholders if values were replaced."""
        return self.request if self.wrapped is None else self.wrapped.request

    def secrets_of(self, deployment: Deployment) -> Deployment:
        """Return the deployment with the token that was sent among its credentials, for the redaction of errors."""
        if self.token is None:
            return deployment
        return replace(deployment, credentials=(*deployment.credentials, self.token))

    def was_silent(self, step: Step, now: float) -> bool:
        """Return whether no byte came for the time to the first token, and the deployment answered no other request."""
        if self.has_head or self.answers is None or self.answers.since(self.started_at):
            return False
        limit_s = first_token_timeout_s(step.deployment, self.request, self.bounds)
        return now - self.started_at >= limit_s - RESOLUTION_S

    def __repr__(self) -> str:
        """Do not show the request, which holds a prompt."""
        return f"AttemptOptions(limit_s={self.limit_s!r}, head_s={self.head_s!r}, is_quick={self.is_quick!r})"


class _Attempt(msgspec.Struct, frozen=True):
    """One attempt. `recheck` raises Withdrawn if the step is no longer allowed."""

    step: Step
    secret: Secret | None
    options: AttemptOptions
    deadline: Deadline
    recheck: Callable[[], None] | None


class UpstreamClient:
    """Makes attempts over one transport. `clock` is Unix time, for signatures."""

    def __init__(
        self, transport: Transport, clock: Callable[[], float] = time.time, tokens: HeldTokens | None = None
    ) -> None:
        self._transport = transport
        self.tokens = tokens or HeldTokens()
        self._clock = clock
        self._refused: dict[tuple[str, str], dict[str, float]] = {}
        self._streams_only: dict[tuple[str, str], float] = {}
        self._without_count: dict[tuple[str, str], float] = {}

    def send(
        self,
        step: Step,
        secret: Secret | None,
        options: AttemptOptions,
        deadline: Deadline,
        still_allowed: StillAllowed | None = None,
    ) -> Coroutine[Any, Any, Answer]:
        """Return a coroutine that makes one call to one deployment.

        `still_allowed` is asked again if a connection had to be made, which may take seconds. Raises ProviderFailed
        without an answer; and, when nothing was sent, Withdrawn for a step that is no longer allowed, and CallRefused
        by a limit.
        """
        recheck = partial(_recheck, still_allowed, step) if still_allowed is not None else None
        if self._streams_only:
            self._fold(step.deployment, options)
        if self._refused:
            step = self._without_reasoning(step, options.request)
        attempt = _Attempt(step, secret, options, deadline, recheck)
        if step.permit.wrapper is not None:
            return self._send_wrapped(attempt, step.permit.wrapper)
        if options.usage is not None:
            return self._send_counted(attempt, options.usage)
        if options.is_wide:
            return self._send_changed(attempt)
        chat, wire = self._write(step, options.request, options.conversation)
        exchange = self._exchange(attempt, chat, self._sign(attempt, wire))
        return exchange if options.check is None else _check(exchange, options.check)

    async def _send_wrapped(self, attempt: _Attempt, wrapper: Wrapper) -> Answer:
        """Make a call whose request has placeholders in place of values. Raises WrapperRefused."""
        step, options = attempt.step, attempt.options
        note = options.note = WrapperNote(wrapper.names, {})
        given = step, options.request, options.conversation
        fitted = await run_apart(_fitted, *given) if options.is_wide else _fitted(*given)
        found = options.wrapped = await wrapped_request(step, fitted, wrapper, is_wide=options.is_wide)
        note.kinds = dict(found.counts)
        if options.unseal is not None and isinstance(found.request, ChatRequest):
            options.wrapped = msgspec.structs.replace(found, request=options.unseal(found.request, found.values))
        if options.on_wrapped is not None:
            options.on_wrapped(note)
        if options.least_context and isinstance(options.wrapped.request, ChatRequest):
            # Placeholders may be longer than their values.
            size = step.deployment.capabilities.context_tokens
            if size is not None and (tokens := count_tokens(options.wrapped.request)) > size:
                message = f"its context is too small for a prompt of about {tokens} tokens"
                raise ProviderFailed(Failure(FailureKind.CONTEXT_LENGTH, message, unsent=True))
        return await self._send_changed(attempt)

    async def _send_changed(self, attempt: _Attempt) -> Answer:
        """Make a call whose request was changed by a wrapper, or has many objects."""
        options = attempt.options
        if options.usage is not None:
            return await self._send_counted(attempt, options.usage)
        chat, wire = await self._written(attempt, options.request)
        exchange = self._exchange(attempt, chat, self._sign(attempt, wire))
        return await (exchange if options.check is None else _check(exchange, options.check))

    async def _send_counted(self, attempt: _Attempt, usage: RequestUsage) -> Answer:
        """Make a call whose cost is held before and recorded when it has ended. A stream records its own end."""
        # Long: the parts of a call in their order, from its text to each of its ends, of which each has a line or two.
        step, options, clock = attempt.step, attempt.options, attempt.deadline.clock
        wrapped = options.wrapped
        rewritten = wrapped.request if wrapped is not None else None
        if options.is_wide:
            chat, wire = await self._written(attempt, options.request)
        else:  # the usual call, which is spared a coroutine
            chat, wire = self._write(step, options.request, options.conversation, rewritten)
        sent = chat or measured_as_chat(options.request)
        if wrapped is not None:
            sent = longer(sent, measured_as_chat(options.request))
        size = await run_apart(input_size, sent) if options.is_wide and chat is not None else None
        call = options.call = await usage.begin(step, sent, size)
        if options.on_held is not None:
            options.on_held()
        del sent
        try:
            if call.held.sent_cap is not None and isinstance(options.request, ChatRequest):
                capped = change_request(options.request, max_tokens=call.held.sent_cap)
                if (wrapped := options.wrapped) is not None and isinstance(wrapped.request, ChatRequest):
                    shortened = change_request(wrapped.request, max_tokens=call.held.sent_cap)
                    options.wrapped = msgspec.structs.replace(wrapped, request=shortened)
                chat, wire = await self._written(attempt, capped)
            request = call.transmission = self._sign(attempt, wire)
            del wire
            answer = await self._exchange(attempt, chat, request)
            if options.check is not None:
                answer = await options.check(answer)
        except ProviderFailed as error:
            is_silent = error.failure.kind is FailureKind.SILENT and options.was_silent(step, clock())
            call.is_silent = is_silent or error.failure.was_kept
            await call.failed(error.failure, error.usage if isinstance(error, AnswerRefused) else None)
            raise
        except BaseException:
            call.is_silent = options.was_silent(step, clock())
            await call.stopped()
            raise
        if answer.completion is not None:
            completion = await call.answered(answer.completion)
            if completion is not answer.completion:
                return msgspec.structs.replace(answer, completion=completion)
        elif (result := answer.result) is not None:
            units = result.search_units
            judged, charged = await call.counted(result.usage, units)
            if judged is not result.usage:
                result = msgspec.structs.replace(result, usage=judged)
            if charged != units:
                result = msgspec.structs.replace(result, search_units=charged)
            if result is not answer.result:
                return msgspec.structs.replace(answer, result=result)
        return answer

    async def send_alone(
        self,
        step: Step,
        secret: Secret | None,
        options: AttemptOptions,
        deadline: Deadline,
        still_allowed: StillAllowed | None = None,
    ) -> Answer:
        """Return what `send` does, for a caller that makes one attempt and records none."""

        def send(anew: bool) -> Coroutine[Any, Any, Answer]:
            options.anew = anew
            return self.send(step, secret, options, deadline, still_allowed)

        return await sent_anew(send)

    async def count(
        self,
        step: Step,
        secret: Secret | None,
        chat: ChatRequest,
        usage: RequestUsage | None,
        allowed: StillAllowed,
        note: WrapperNote | None = None,
    ) -> int | None:
        """Return how many tokens the server of a step counts in a prompt: 0 if it was asked and gives no count.

        None: it was not asked. The call has a row of usage as any other, without tokens: nothing is generated.
        `note` gets the values that were replaced.
        """
        deployment = step.deployment
        if not isinstance(deployment.adapter, CountsTokens):
            return None
        if self._clock() < self._without_count.get(_server_of(deployment), 0.0):
            return None
        try:
            fitted = _fitted(step, chat)
            if step.permit.wrapper is not None:
                found = await wrapped_request(step, fitted, step.permit.wrapper)
                fitted = found.request
                if note is not None:
                    note.kinds = dict(found.counts)
            sent, _ = self._write(step, chat, sent=fitted)
            wire = deployment.adapter.count_request(sent, deployment.target) if sent is not None else None
            if sent is None or wire is None:
                return None
            options = AttemptOptions(sent, _COUNT_S, _COUNT_S, _COUNT_S)
            call = None
            if usage is not None:
                call = await usage.begin(step, change_request(sent, max_tokens=1), is_counted=False)
        except (ProviderFailed, UnsupportedFeature, CallRefused, WrapperRefused):
            return None
        try:
            deadline = Deadline.start(_COUNT_S, _COUNT_S)
            request = self._sign(_Attempt(step, secret, options, deadline, partial(_recheck, allowed, step)), wire)
            if call is not None:
                call.transmission, call.is_refused = request, True
            async with asyncio.timeout(_COUNT_S):
                response = await self._transport.send(request)
                try:
                    whole = await response.read_whole()
                finally:
                    await response.close()
            if whole.status == _NOT_FOUND:
                self._without_count[_server_of(deployment)] = self._clock() + _LEFT_OUT_S
            body = as_map(loads(whole.body))
            tokens = read_count(body, "count") or read_count(body, "input_tokens")
        except (ProviderFailed, TimeoutError, JsonError, Withdrawn):
            tokens = 0
        finally:
            if call is not None:
                await call.counted(None)
        return tokens

    def _sign(self, attempt: _Attempt, wire: WireRequest) -> UpstreamRequest:
        step, options = attempt.step, attempt.options
        deployment, options.changed = step.deployment, wire.changed
        if options.wrapped is not None and options.wrapped.dropped:
            options.changed |= options.wrapped.dropped
        if deployment.sign_in is None:
            headers = credential(deployment.adapter.auth, wire, deployment.origin, attempt.secret, self._clock())
        else:
            headers = self._signed_in(attempt, deployment.sign_in, wire)
        if deployment.headers:
            headers = (*headers, *((name.lower(), value.reveal()) for name, value in deployment.headers))
        return upstream_request(step.permit, wire, options.connect_s, headers, attempt.recheck, deployment.link)

    def _signed_in(self, attempt: _Attempt, sign_in: TokenSource, wire: WireRequest) -> tuple[tuple[str, str], ...]:
        """Return the headers with the token of a sign-in, and of a key if it has one too. Raises ProviderFailed."""
        token = attempt.options.token = self.tokens.current(sign_in.id)
        if token is None:
            raise ProviderFailed(Failure(FailureKind.CREDENTIALS, self.tokens.why(sign_in), unsent=True))
        deployment = attempt.step.deployment
        return token_headers(deployment, sign_in, wire, deployment.origin, token, attempt.secret, self._clock())

    async def _exchange(self, attempt: _Attempt, chat: ChatRequest | None, upstream: UpstreamRequest) -> Answer:
        """Send a request, and read until its answer begins. `chat`: the chat as it is sent, or None."""
        step, options, deadline = attempt.step, attempt.options, attempt.deadline
        deployment, options.is_large = step.deployment, len(upstream.body) > _LARGE_BYTES or upstream.rest != ()
        upstream.anew = options.anew
        try:
            with deadline.limit(options.limit_s):
                # Only the transport holds the body from here on: no copy is kept while the provider thinks.
                sending = self._transport.send(upstream)
                if options.head_s is None:
                    response = await sending
                else:
                    with deadline.limit(options.head_s):
                        response = await sending
                options.has_head = True
                if deployment.quotas and options.usage is not None:
                    options.usage.accounting.stated[deployment.name] = response.headers, response.received_at
                try:
                    begun = await _begun(response, attempt, chat)
                except BaseException as error:
                    await response.close()
                    if chat is None or type(error) is not ProviderFailed:
                        raise
                    # A refusal may come with the status of a success.
                    raise ProviderFailed(self._as_operator_fault(error.failure, deployment, chat, options)) from None
        except TimeoutError:
            raise ProviderFailed(Failure(FailureKind.SILENT, "the provider did not answer in time")) from None
        if begun is None:
            refusal = _judged(await _read_refusal(response, attempt), options.request, deployment)
            shown = refusal if chat is None else self._as_operator_fault(refusal, deployment, chat, options)
            raise ProviderFailed(shown)
        if isinstance(begun, LiveStream):
            if not options.request.folded:
                return Answer(step, stream=begun, changed=options.changed, wrapped=options.wrapped)
            stream = begun
            begun = await whole_of(stream, deadline)
            options.is_large_answer = stream.received_bytes > TURN_BYTES
        elif isinstance(begun, WireResponse):
            # The answer arrived in time, however long it takes to parse.
            begun = await whole_of_body(_reader(deployment, begun, chat, _restorer(step, options)), begun.body)
        if isinstance(begun, ChatCompletion):
            large = options.is_large_answer
            return Answer(step, begun, changed=options.changed, wrapped=options.wrapped, is_large=large)
        return Answer(step, result=begun, wrapped=options.wrapped)

    async def _written(self, attempt: _Attempt, request: ServedRequest) -> tuple[ChatRequest | None, WireRequest]:
        """Do what `_write` does; in the thread if the request has many objects.

        Raises Withdrawn if the step may not be taken after the thread.
        """
        options, deadline = attempt.options, attempt.deadline
        if not options.is_wide:
            return self._write(attempt.step, request, options.conversation, options.rewritten)
        try:
            with deadline.limit(deadline.left_s(committed=True)):
                options.digest = options.digest or await run_apart(digest_of, options.request)
                written = await run_apart(self._write, attempt.step, request, options.conversation, options.rewritten)
        except TimeoutError:
            raise Withdrawn("the time of the request has ended") from None
        if attempt.recheck is not None:
            attempt.recheck()
        return written

    def _write(
        self,
        step: Step,
        request: ServedRequest,
        conversation: Conversation | None = None,
        sent: ServedRequest | None = None,
    ) -> tuple[ChatRequest | None, WireRequest]:
        """Return the request in the wire format of its provider, and the same as a chat if it is one.

        It lacks the gateway's own fields that this server has refused. `sent`: the request with placeholders.
        """
        deployment = step.deployment
        chat = _fitted(step, request, conversation) if sent is None else sent
        try:
            if not isinstance(chat, ChatRequest):
                return None, write_input(step, chat)
            if sent is not None and type(chat.messages) is not Texts:
                chat = with_files_as_text(chat, deployment.capabilities)
            wire = deployment.adapter.build_request(chat, deployment.target)
            if CACHE_KEY in request.extra and CACHE_KEY not in chat.extra and CACHE_KEY not in step.dropped:
                # It names the end user, or this is not the client's chat.
                wire = replace(wire, changed=wire.changed | {CACHE_KEY})
        except UnsupportedFeature as error:
            raise ProviderFailed(_unsupported(error)) from error
        refused = self._refused and self._refused.get(_server_of(deployment))
        if not refused:
            return chat, wire
        now_s, of_client = self._clock(), requirements_of(chat).parameters
        # A copy, because a thread may run this while another call is refused.
        left_out = {name for name, until_s in tuple(refused.items()) if now_s < until_s} - of_client - {REASONING}
        if not left_out:
            return chat, wire
        body = {name: value for name, value in as_map(loads(wire.body)).items() if name not in left_out}
        return chat, replace(wire, body=dumps(body))

    def _without_reasoning(self, step: Step, request: ServedRequest) -> Step:
        """Return the step without the reasoning of earlier answers, if its server has refused that."""
        until_s = self._refused.get(_server_of(step.deployment), {}).get(REASONING, 0.0)
        if self._clock() >= until_s or not isinstance(request, ChatRequest) or not has_reasoning(request):
            return step
        return msgspec.structs.replace(step, dropped=step.dropped | {REASONING})

    def _fold(self, deployment: Deployment, options: AttemptOptions) -> None:
        """Ask for a stream, and fold it, where the server has shown that it answers in streams only."""
        request, until_s = options.request, self._streams_only.get(_server_of(deployment), 0.0)
        if self._clock() >= until_s or not isinstance(request, ChatRequest) or request.stream:
            return
        if folds(request, deployment, is_last_step=False):
            options.request = as_stream(request)

    def _as_operator_fault(
        self, failure: Failure, deployment: Deployment, sent: ChatRequest, options: AttemptOptions
    ) -> Failure:
        """Return FIELD_REFUSED if the provider refuses what the client has not sent, or reasoning of earlier answers.

        A server of one's own is asked again without the field, and gets none of it for an hour: then it may have been
        replaced by a newer one.
        """
        if failure.kind is FailureKind.FIELD_REFUSED and not sent.stream:
            # The adapter recognised the sentence of a model that answers in streams only.
            remedy = "the provider answers this in streams only"
            if not folds(sent, deployment, is_last_step=False):
                return replace(failure, detail=f"{remedy}: {failure.detail}")
            self._streams_only[_server_of(deployment)] = self._clock() + _LEFT_OUT_S
            remedy += "; it is asked for them for an hour, or always with `fold: true` on the deployment"
            return replace(failure, detail=f"{remedy}: {failure.detail}", should_retry=True)
        path = deployment.target.base_path
        if failure.kind is FailureKind.MODEL_NOT_FOUND and not deployment.adapter.sites and "/v" not in path:
            return replace(failure, detail=f"the endpoint may lack its version, such as /v1: {failure.detail}")
        if failure.kind is not FailureKind.INVALID_REQUEST:
            return failure
        if not deployment.adapter.sites and refuses_reasoning(sent, failure):
            self._refused.setdefault(_server_of(deployment), {})[REASONING] = self._clock() + _LEFT_OUT_S
            kind, detail = (
                FailureKind.FIELD_REFUSED,
                f"reasoning of earlier answers is left out for an hour: {failure.detail}",
            )
            return replace(failure, kind=kind, message=MESSAGES[kind], detail=detail, param=None, should_retry=True)
        name, kind = own_field(deployment.adapter, deployment.target, sent, failure), FailureKind.FIELD_REFUSED
        if name is None:
            # The cap of a budget is not the client's.
            is_capped = options.call is not None and options.call.held.sent_cap is not None
            asked = options.request if isinstance(options.request, ChatRequest) else sent
            sent = change_request(sent, max_tokens=None) if is_capped else sent
            other = unsent_parameter(deployment.adapter, deployment.target, sent, asked, failure, _PARAMETERS)
            if other is None:
                return failure
            detail = f"the client has not sent `{other}`: {failure.detail}"
            return replace(failure, kind=kind, message=MESSAGES[kind], detail=detail, param=None)
        remedy = _REMEDIES.get(name, "it comes from the catalogue's entry of this provider or site")
        told = failure.should_retry
        # A field that states what may happen to the prompt is never left out, nor one without which there is no answer.
        if not deployment.adapter.sites and name not in {*_NEEDED, *deployment.target.pins, *moves_data()}:
            self._refused.setdefault(_server_of(deployment), {})[name] = self._clock() + _LEFT_OUT_S
            remedy, told = f"it is left out for an hour; {remedy}", True
        detail = f"the gateway adds the field `{name}`; {remedy}: {failure.detail}"
        return replace(failure, kind=kind, message=MESSAGES[kind], detail=detail, param=None, should_retry=told)


async def _begun(
    response: UpstreamResponse, attempt: _Attempt, chat: ChatRequest | None
) -> ChatCompletion | InputAnswer | LiveStream | WireResponse | None:
    """Return a whole answer, a stream that has begun, or a large body that is not parsed yet; None for a refusal."""
    step, options = attempt.step, attempt.options
    request, deployment = options.request, step.deployment
    restorer = _restorer(step, options) if options.wrapped is not None else None
    if response.is_refusal:
        if options.call is not None:
            options.call.is_refused = True
        return None
    if chat is None and not request.stream:
        return await _read_result(options.sent, response, deployment)
    if chat is None or request.stream:
        redact = None
        if options.is_wide:
            redact = await run_apart(redacting, options.secrets_of(deployment), options.sent)
        stream = _live_stream(response, attempt, chat, restorer, redact)
        await stream.begin()
        return stream
    whole = await response.read_whole()
    options.is_large_answer = len(whole.body) > TURN_BYTES
    if options.is_large_answer and is_event_stream(whole):
        return whole
    start = json_start_of(deployment.adapter, chat, deployment.target) if chat.response_format is not None else None
    given = deployment.adapter, whole, deployment.target, chat.stop, start, chat.max_tokens
    completion = await run_apart(read_answer, *given) if options.is_large_answer else read_answer(*given)
    names = client_names(deployment.adapter, chat) if chat.tools else None
    if restorer is None and not names:
        return completion

    def changed() -> ChatCompletion:
        named = with_client_names(completion, names) if names else completion
        return named if restorer is None else restorer.completion(named)

    return await run_apart(changed) if options.is_large_answer else changed()


def _restorer(step: Step, options: AttemptOptions) -> AnswerRestoring | None:
    """Return what puts the values back into the answer, or None if there is no placeholder in the request."""
    wrapped, note, request = options.wrapped, options.note, options.request
    if wrapped is None or note is None or not options.restores:
        return None
    is_json = step.emulates or (isinstance(request, ChatRequest) and request.response_format is not None)
    return wrapped.restorer(note, is_json=is_json)


async def wrapped_request(step: Step, request: ServedRequest, wrapper: Wrapper, *, is_wide: bool = False) -> Wrapped:
    """Return a request with placeholders, for the deployment of a step. Raises WrapperRefused.

    A large one is searched in a thread, so that no other request waits for it.
    """
    deployment = step.deployment
    try:
        if not is_wide and characters_of(request) < wrapper.most_at_once:
            return wrapper.wrap(request)
        return await asyncio.to_thread(wrapper.wrap, request)
    except NotWrappable as error:
        reason = f"redaction: {error}"
        message = f"{deployment.name} gets placeholders in place of personal values, and not this request: {error}"
        failure = Failure(FailureKind.UNSUPPORTED, message, code="redaction", unsent=True)
        raise WrapperRefused(reason, failure) from None
    except TooMuchToSearch:
        message = "the request has too much text, or too many personal values, to be sent without them"
        failure = Failure(FailureKind.INVALID_REQUEST, message, unsent=True)
        raise WrapperRefused(f"redaction: {message}", failure, is_final=True) from None


def characters_of(request: ServedRequest) -> int:
    """Return about how many characters of a request are searched."""
    if not isinstance(request, ChatRequest):
        return sum(map(len, request.texts())) + _characters_in(request.extra)
    count = _characters_in(request.extra) + sum(map(len, request.stop))
    for message in request.messages:
        count += len(text_of(message.content))
        if isinstance(message, AssistantMessage):
            count += len(message.reasoning or "") + len(message.refusal or "")
            count += sum(len(call.arguments) for call in message.tool_calls)
    for tool in request.tools:
        count += len(tool.description or "") + _characters_in(tool.parameters)
    if isinstance(request.response_format, JsonSchemaFormat):
        count += _characters_in(request.response_format.schema)
    return count


def _characters_in(value: object) -> int:
    """Return how many characters the texts in a JSON value have."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_characters_in, value.values()))
    return sum(map(_characters_in, value)) if isinstance(value, list | tuple) else 0


def longer(sent: ChatRequest, own: ChatRequest) -> ChatRequest:
    """Return the longer of a request and the same with placeholders. Its cost is held."""
    return own if characters_of(own) > characters_of(sent) else sent


async def _check(exchange: Coroutine[Any, Any, Answer], check: Callable[[Answer], Awaitable[Answer]]) -> Answer:
    return await check(await exchange)


def _server_of(deployment: Deployment) -> tuple[str, str]:
    return deployment.origin, deployment.target.model


def _fitted(step: Step, request: ServedRequest, conversation: Conversation | None = None) -> ServedRequest:
    """Return the request with all that this deployment gets of it, in the canonical form."""
    deployment = step.deployment
    try:
        if not isinstance(request, ChatRequest):
            return fitted_input(step, request)
        sent = without_parameters(request, step.dropped) if step.dropped else request
        if request.tool_choice is not None:
            sent = with_supported_choice(sent, deployment.capabilities)
        if type(sent.messages) is not Texts and step.permit.wrapper is None:
            # A wrapper judges files before they are texts.
            sent = with_files_as_text(sent, deployment.capabilities)
        if conversation is not None or CACHE_KEY in request.extra:
            sent = for_caches(sent, request, deployment, conversation)
        if deployment.pseudonym_key is not None:
            sent = pseudonymous(sent, deployment.provider, deployment.pseudonym_key, deployment.target.passthrough)
        return sent
    except UnsupportedFeature as error:
        raise ProviderFailed(_unsupported(error)) from error


async def _read_result(request: ServedRequest, response: UpstreamResponse, deployment: Deployment) -> InputAnswer:
    if isinstance(request, ChatRequest):
        raise TypeError("a chat has no result")
    return await read_input(request, await response.read_whole(), deployment)


def _live_stream(
    response: UpstreamResponse,
    attempt: _Attempt,
    sent: ChatRequest | None,
    restorer: AnswerRestoring | None,
    redact: Callable[[Failure], Failure] | None,
) -> LiveStream:
    """Return an answer that is read while it arrives. The deadline measures its silence. `redact`: if it is made."""
    deployment, options = attempt.step.deployment, attempt.options
    request = options.request
    reader: StreamShortcuts
    if sent is None:
        reader = stream_reader_of(request, response.head, deployment)
    else:
        reader = _reader(deployment, response.head, sent, restorer)
    body = BoundedResponse(response) if request.folded else response
    # A stream may take minutes, and must not hold a large request for as long.
    if redact is None:
        told, secret = options.sent, options.secrets_of(deployment)
        redact = redacting(secret, told) if options.is_large else partial(redacted, deployment=secret, request=told)
    choices = sent.n or 1 if sent is not None else 1
    stream = LiveStream(body, reader, attempt.deadline, options.idle_s, redact, choices)
    stream.call = options.call
    return stream


def _reader(
    deployment: Deployment, head: WireResponse, sent: ChatRequest | None, restorer: AnswerRestoring | None
) -> StreamShortcuts:
    if sent is None:
        raise TypeError("only the answer to a chat is read in pieces")
    start = json_start_of(deployment.adapter, sent, deployment.target) if sent.response_format is not None else None
    expected = sent.stop, start, sent.max_tokens
    reader: AnswerReader | _ChangingReader = AnswerReader(deployment.adapter, head, deployment.target, *expected)
    if sent.tools and (names := client_names(deployment.adapter, sent)):
        reader = _ChangingReader(reader, lambda events: events_with_client_names(events, names), keeps_texts=True)
    return reader if restorer is None else _ChangingReader(reader, restorer.events, keeps_texts=False)


class _ChangingReader:
    """Reads an answer, and changes its events: to the client's names of tools, or to values in place of placeholders.

    `keeps_texts`: it changes no text, so that plain text may take the fast path.
    """

    def __init__(self, reader: AnswerReader | _ChangingReader, change: _Change, *, keeps_texts: bool) -> None:
        self._reader, self._change, self._keeps_texts = reader, change, keeps_texts

    def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
        return self._change(self._reader.feed(data))

    def close(self) -> tuple[StreamEvent, ...]:
        return self._change(self._reader.close())

    def text_reader(self) -> TextReader | None:
        return self._reader.text_reader() if self._keeps_texts else None

    def is_complete(self) -> bool:
        return self._reader.is_complete()


def _judged(failure: Failure, request: ServedRequest, deployment: Deployment) -> Failure:
    """Return a refusal as the use judges it, one of a file as that of this server: another one may take its size."""
    if isinstance(request, ChatRequest):
        return failure
    failure = INPUTS[request.use].judged(failure, deployment)
    if not request.has_file or failure.status not in _REFUSES_FILE or failure.kind not in _ABOUT_REQUEST:
        return failure
    return replace(failure, kind=FailureKind.REFUSED_HERE, message="the provider refused the file", about=None)


def token_headers(
    deployment: Deployment,
    sign_in: TokenSource,
    wire: WireRequest,
    origin: str,
    token: Secret,
    secret: Secret | None,
    now_s: float,
) -> tuple[tuple[str, str], ...]:
    """Return the headers of a request with the token of a sign-in, and of a key if the deployment has one too."""
    scheme = deployment.adapter.auth
    if sign_in.is_aws:
        return credential(scheme, wire, origin, token, now_s)
    if sign_in.header == "authorization":
        return token.bearer
    proxied = tuple(("proxy-authorization", value) for _, value in token.bearer)
    return (*credential(scheme, wire, origin, secret, now_s), *proxied)


def _recheck(still_allowed: StillAllowed, step: Step) -> None:
    """Raise Withdrawn if a reload has forbidden the step while the connection was made."""
    reason = still_allowed(step)
    if reason is not None:
        raise Withdrawn(reason)


def _unsupported(error: UnsupportedFeature) -> Failure:
    param = error.param or param_of(error.feature)
    return Failure(FailureKind.UNSUPPORTED, str(error), code=error.feature, param=param, unsent=True)


async def _read_refusal(response: UpstreamResponse, attempt: _Attempt) -> Failure:
    """Classify an error by its status, and by its body if that arrives soon."""
    deployment, options, deadline = attempt.step.deployment, attempt.options, attempt.deadline
    is_whole = options.request.folded or not options.request.stream
    limit_s = min(_REFUSAL_S, options.idle_s, deadline.left_s(committed=is_whole))
    try:
        read_answer(deployment.adapter, await response.read_refusal(deadline.limit(limit_s)), deployment.target)
    except ProviderFailed as error:
        return error.failure
    finally:
        await response.close()
    raise AssertionError("a response with an error status was read as an answer")
