"""Write a request that is not a chat in its provider's wire format, and read and check the answer."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from gateway.execution.pseudonyms import pseudonymous
from gateway.model.decision import Step
from gateway.model.deployment import Deployment, format_of
from gateway.model.served import INPUTS, ServedRequest
from providers.chat import AnswerRefused, ChatRequest
from providers.failures import FailureKind, ProviderFailed
from providers.reading.errors import error_object
from providers.reading.event_stream import StreamShortcuts
from providers.reading.response_reader import check_head
from providers.served import InputAnswer, InputRequest
from providers.wire import WireRequest, WireResponse

_BOUNDARY_BYTES = 16
_LARGE_BYTES = 256 * 1024
"""A larger answer is parsed in a thread, so that no other request waits for it."""


def fitted_input(step: Step, request: InputRequest) -> InputRequest:
    """Return the request without the fields that are dropped for the step's deployment, and with pseudonyms."""
    deployment = step.deployment
    boundary = secrets.token_hex(_BOUNDARY_BYTES) if request.has_file else ""
    request = request.fitted(step.dropped, deployment.voices, boundary)
    if (key := deployment.pseudonym_key) is None:
        return request
    return pseudonymous(request, deployment.provider, key, deployment.target.passthrough)


def write_input(step: Step, request: InputRequest) -> WireRequest:
    """Return a request of `fitted_input` in the wire format of the step's deployment."""
    found: WireRequest = _format_of(request, step.deployment).build_request(request, step.deployment.target)
    return found


def stream_reader_of(request: ServedRequest, head: WireResponse, deployment: Deployment) -> StreamShortcuts:
    """Return a parser of the response to a request, as events of a stream."""
    if isinstance(request, ChatRequest):
        raise TypeError("a chat has a reader of its own")
    return INPUTS[request.use].reader(request, _format_of(request, deployment), head, deployment.target)


def _format_of(request: InputRequest, deployment: Deployment) -> Any:
    """Return the wire format of a deployment for a request of this kind, which the config check ensures."""
    if (found := format_of(deployment, request.use)) is None:
        raise RuntimeError(f"{deployment.name!r} does not answer a {type(request).__name__}")
    return found


async def read_input(request: InputRequest, response: WireResponse, deployment: Deployment) -> InputAnswer:
    """Return the whole and checked answer of a response. Raises ProviderFailed."""
    if len(response.body) > _LARGE_BYTES:
        return await asyncio.to_thread(_read, request, response, deployment)
    return _read(request, response, deployment)


def _read(request: InputRequest, response: WireResponse, deployment: Deployment) -> InputAnswer:
    try:
        return _checked(request, response, deployment)
    except ProviderFailed as error:
        failure = INPUTS[request.use].judged(error.failure, deployment)
        raise (error if failure is error.failure else ProviderFailed(failure)) from None


def _checked(request: InputRequest, response: WireResponse, deployment: Deployment) -> InputAnswer:
    check_head(deployment.adapter, response)
    form = _format_of(request, deployment)
    try:
        answer: InputAnswer = form.parse_response(response, deployment.target)
        try:
            return request.checked(answer, INPUTS[request.use].facts(form, deployment.model))
        except ProviderFailed as error:
            raise AnswerRefused(error.failure, answer.usage) from None
    except ProviderFailed as error:
        # Some providers send errors with the status 200.
        body = error_object(response.body)
        if not (body.get("error") or body.get("code")):
            raise
        failure = deployment.adapter.classify_error(response)
        raise (error if failure.kind is FailureKind.MALFORMED else ProviderFailed(failure)) from None
