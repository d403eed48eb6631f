"""Write a request that is not a chat in its provider's wire format, and read and check the answer."""

from __future__ import annotations

import asyncio
from typing import assert_never

from gateway.execution.pseudonyms import pseudonymous
from gateway.model.decision import Step
from gateway.model.deployment import Deployment, moderations_of
from gateway.model.input_requests import InputAnswer, InputRequest
from providers.chat import AnswerRefused
from providers.embeddings import EmbeddingAnswer, EmbeddingFormat, EmbeddingRequest, check_answer, embeddings_of
from providers.failures import FailureKind, ProviderFailed
from providers.moderations import ModerationAnswer, ModerationFormat, ModerationRequest
from providers.reading.errors import error_object, malformed
from providers.reading.response_reader import check_head
from providers.rerank import RerankAnswer, RerankFormat, RerankRequest, rerank_of
from providers.value import replace
from providers.wire import WireRequest, WireResponse

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
        case _:
            assert_never(request)


def write_input(step: Step, request: InputRequest) -> WireRequest:
    """Return a request of `fitted_input` in the wire format of the step's deployment."""
    deployment = step.deployment
    match request:
        case EmbeddingRequest():
            return _embeddings(deployment).build_request(request, deployment.target)
        case ModerationRequest():
            return _moderations(deployment).build_request(request, deployment.target)
        case RerankRequest():
            return _rerank(deployment).build_request(request, deployment.target)
        case _:
            assert_never(request)


async def read_input(request: InputRequest, response: WireResponse, deployment: Deployment) -> InputAnswer:
    """Return the whole and checked answer of a response. Raises ProviderFailed."""
    if len(response.body) > _LARGE_BYTES:
        return await asyncio.to_thread(_read, request, response, deployment)
    return _read(request, response, deployment)


def _read(request: InputRequest, response: WireResponse, deployment: Deployment) -> InputAnswer:
    check_head(deployment.adapter, response)
    try:
        match request:
            case EmbeddingRequest():
                return _read_embeddings(request, response, deployment)
            case ModerationRequest():
                return _read_moderations(request, response, deployment)
            case RerankRequest():
                return _read_rerank(request, response, deployment)
            case _:
                assert_never(request)
    except ProviderFailed as error:
        # Some providers send errors with the status 200.
        body = error_object(response.body)
        if not (body.get("error") or body.get("code")):
            raise
        failure = deployment.adapter.classify_error(response)
        raise (error if failure.kind is FailureKind.MALFORMED else ProviderFailed(failure)) from None


def _read_embeddings(request: EmbeddingRequest, response: WireResponse, deployment: Deployment) -> EmbeddingAnswer:
    embeddings = _embeddings(deployment)
    answer = embeddings.parse_response(response, deployment.target)
    try:
        return check_answer(answer, request, embeddings.facts(deployment.model).dimensions)
    except ProviderFailed as error:
        raise AnswerRefused(error.failure, answer.usage) from None


def _read_moderations(request: ModerationRequest, response: WireResponse, deployment: Deployment) -> ModerationAnswer:
    answer = _moderations(deployment).parse_response(response, deployment.target)
    if len(answer.results) != len(request.inputs):
        detail = f"{len(answer.results)} verdicts for {len(request.inputs)} inputs"
        raise AnswerRefused(malformed(detail).failure, answer.usage)
    if not request.takes_contradictions and any(result.contradicts_itself for result in answer.results):
        raise AnswerRefused(malformed("a verdict contradicts its categories").failure, answer.usage)
    return answer


def _read_rerank(request: RerankRequest, response: WireResponse, deployment: Deployment) -> RerankAnswer:
    answer = _rerank(deployment).parse_response(response, deployment.target)
    if len(answer.scores) != len(request.documents):
        detail = f"{len(answer.scores)} scores for {len(request.documents)} documents"
        raise AnswerRefused(malformed(detail).failure, answer.usage)
    return answer


def _rerank(deployment: Deployment) -> RerankFormat:
    rerank = rerank_of(deployment.adapter)
    if rerank is None:
        raise RuntimeError(f"the deployment {deployment.name!r} scores nothing, which the config check ensures")
    return rerank


def _embeddings(deployment: Deployment) -> EmbeddingFormat:
    embeddings = embeddings_of(deployment.adapter)
    if embeddings is None:
        raise RuntimeError(f"the deployment {deployment.name!r} has no embeddings, which the config check ensures")
    return embeddings


def _moderations(deployment: Deployment) -> ModerationFormat:
    moderations = moderations_of(deployment)
    if moderations is None:
        raise RuntimeError(f"the deployment {deployment.name!r} classifies nothing, which the config check ensures")
    return moderations
