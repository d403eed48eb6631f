"""Write a request that is not a chat in its provider's wire format, and read and check the answer."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any, assert_never

from gateway.execution.pseudonyms import pseudonymous
from gateway.model.decision import Step
from gateway.model.deployment import Deployment, moderations_of, voice_of
from gateway.model.input_requests import TRANSCRIPTION_PARAMETERS, InputAnswer, InputRequest, ServedRequest
from providers.adapter import InputFormat
from providers.audio.contract import SpeechFormat, speech_of, transcription_of
from providers.audio.reading import TaggedReader
from providers.audio.values import SpeechRequest, Transcript, TranscriptionRequest, with_members
from providers.chat import AnswerRefused
from providers.embeddings.contract import embeddings_of
from providers.embeddings.values import EmbeddingAnswer, EmbeddingRequest, check_answer
from providers.failures import About, FailureKind, ProviderFailed
from providers.moderations.values import ModerationAnswer, ModerationRequest
from providers.reading.errors import error_object, malformed
from providers.reading.event_stream import StreamShortcuts
from providers.reading.response_reader import check_head
from providers.rerank.contract import rerank_of
from providers.rerank.values import RerankAnswer, RerankRequest
from providers.value import replace
from providers.wire import WireRequest, WireResponse

_BOUNDARY_BYTES = 16
_LARGE_BYTES = 256 * 1024
"""A larger answer is parsed in a thread, so that no other request waits for it."""


def fitted_input(step: Step, request: InputRequest) -> InputRequest:
    """Return the request without the fields that are dropped for the step's deployment, and with pseudonyms."""
    deployment, dropped = step.deployment, step.dropped
    if dropped and not dropped.isdisjoint(request.extra):
        extra = {name: value for name, value in request.extra.items() if name not in dropped}
        request = replace(request, extra=extra)
    key, provider, passthrough = deployment.pseudonym_key, deployment.provider, deployment.target.passthrough
    match request:
        case EmbeddingRequest():
            if "user" in dropped:
                request = replace(request, user=None)
            return request if key is None else pseudonymous(request, provider, key, passthrough)
        case ModerationRequest():
            return request if key is None else pseudonymous(request, provider, key, passthrough)
        case RerankRequest():
            return replace(request, max_tokens_per_doc=None) if "max_tokens_per_doc" in dropped else request
        case TranscriptionRequest():
            lists, lacks = ("languages", "keywords", "include"), dropped.intersection(TRANSCRIPTION_PARAMETERS)
            emptied: dict[str, Any] = {name: () if name in lists else None for name in lacks}
            return replace(request, boundary=secrets.token_hex(_BOUNDARY_BYTES), **emptied)
        case SpeechRequest():
            without: dict[str, Any] = dict.fromkeys(dropped & {"speed", "instructions"})
            return replace(request, voice=voice_of(deployment, request.voice) or request.voice, **without)
        case _:
            assert_never(request)


def write_input(step: Step, request: InputRequest) -> WireRequest:
    """Return a request of `fitted_input` in the wire format of the step's deployment."""
    if isinstance(request, SpeechRequest):
        return _speech_of(step.deployment).build_request(request, step.deployment.target)
    return _format_of(request, step.deployment).build_request(request, step.deployment.target)


def stream_reader_of(request: ServedRequest, head: WireResponse, deployment: Deployment) -> StreamShortcuts:
    """Return a parser of the response to a request for audio, as events of a stream."""
    if isinstance(request, SpeechRequest):
        reader = _speech_of(deployment).stream_reader(request, head, deployment.target)
        return TaggedReader(reader, head, request) if request.tags else reader
    transcription = transcription_of(deployment.adapter)
    if not isinstance(request, TranscriptionRequest) or transcription is None:
        raise TypeError(f"a {type(request).__name__} is not streamed")
    return transcription.stream_reader(request, head, deployment.target)


def _speech_of(deployment: Deployment) -> SpeechFormat:
    """Return the wire format of speech, which the config check ensures."""
    if (found := speech_of(deployment.adapter)) is None:
        raise RuntimeError(f"{deployment.name!r} does not speak")
    return found


def _format_of(request: InputRequest, deployment: Deployment) -> InputFormat[Any, InputAnswer]:
    """Return the wire format of a deployment for a request of this kind, which the config check ensures."""
    found: InputFormat[Any, InputAnswer] | None
    match request:
        case EmbeddingRequest():
            found = embeddings_of(deployment.adapter)
        case ModerationRequest():
            found = moderations_of(deployment)
        case RerankRequest():
            found = rerank_of(deployment.adapter)
        case TranscriptionRequest():
            found = transcription_of(deployment.adapter)
        case SpeechRequest():
            raise TypeError("speech has no whole answer")
        case _:
            assert_never(request)
    if found is None:
        raise RuntimeError(f"{deployment.name!r} does not answer a {type(request).__name__}")
    return found


async def read_input(request: InputRequest, response: WireResponse, deployment: Deployment) -> InputAnswer:
    """Return the whole and checked answer of a response. Raises ProviderFailed."""
    if len(response.body) > _LARGE_BYTES:
        return await asyncio.to_thread(_read, request, response, deployment)
    return _read(request, response, deployment)


def _read(request: InputRequest, response: WireResponse, deployment: Deployment) -> InputAnswer:
    check_head(deployment.adapter, response)
    try:
        answer = _format_of(request, deployment).parse_response(response, deployment.target)
        try:
            _expect_results(answer, request, deployment)
        except ProviderFailed as error:
            raise AnswerRefused(error.failure, answer.usage) from None
        if isinstance(answer, Transcript) and isinstance(request, TranscriptionRequest):
            return with_members(answer, request.response_format)
        return answer
    except ProviderFailed as error:
        # Some providers send errors with the status 200.
        body = error_object(response.body)
        if not (body.get("error") or body.get("code")):
            raise
        failure = deployment.adapter.classify_error(response)
        raise (error if failure.kind is FailureKind.MALFORMED else ProviderFailed(failure)) from None


def _expect_results(answer: InputAnswer, request: InputRequest, deployment: Deployment) -> None:
    """Raise ProviderFailed unless the answer has a usable result for each input of the request."""
    match request, answer:
        case EmbeddingRequest(), EmbeddingAnswer():
            embeddings = embeddings_of(deployment.adapter)
            known = embeddings.facts(deployment.model).dimensions if embeddings is not None else None
            check_answer(answer, request, known)
        case ModerationRequest(), ModerationAnswer():
            if len(answer.results) != len(request.inputs):
                raise malformed(f"{len(answer.results)} verdicts for {len(request.inputs)} inputs")
            if not request.takes_contradictions and any(result.contradicts_itself for result in answer.results):
                raise malformed("a verdict contradicts its categories")
        case TranscriptionRequest(), Transcript():
            if request.asks_segments and answer.segments is None:
                raise malformed("the answer has no segments", About.REQUEST)
        case RerankRequest(), RerankAnswer():
            if len(answer.scores) != len(request.documents):
                raise malformed(f"{len(answer.scores)} scores for {len(request.documents)} documents")
        case _:
            raise TypeError(f"{type(answer).__name__} is not the answer to {type(request).__name__}")
