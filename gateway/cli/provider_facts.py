"""Compare a real answer of a provider with the facts of a deployment, for `gateway providers check`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gateway.model.deployment import Deployment
from providers.adapter import known_models
from providers.catalogue.models import UNKNOWN_MODEL, model_facts
from providers.chat import ChatCompletion
from providers.failures import ProviderFailed
from providers.json_values import JsonError, as_map, dumps, loads, read_int, read_map
from providers.reading.errors import request_id_of
from providers.value import replace
from providers.wire import WireResponse

_SAME, _DIFFERS, _NOTE = "same", "differs", "note"
_SHOWN_NAMES = 8


def compared(deployment: Deployment, answer: ChatCompletion, response: WireResponse) -> list[str]:
    """Return a line for each fact that one answer shows: whether it is as the adapter and the catalogue have it."""
    try:
        body = as_map(loads(response.body))
    except JsonError:
        body = {}  # a stream: its members are spread over many objects
    findings = [
        *_about_model(deployment, answer),
        *_about_finish(answer),
        *_about_usage(answer, body),
        *_about_reasoning(deployment, answer),
        *_about_request_id(response.headers, body),
        *_about_unread_members(deployment, response, body),
    ]
    return [f"{state:<8} {text}" for state, text in findings]


def _about_model(deployment: Deployment, answer: ChatCompletion) -> Iterator[tuple[str, str]]:
    if model_facts(known_models(deployment.adapter), deployment.model) is UNKNOWN_MODEL:
        yield _NOTE, f"model: the catalogue does not know {deployment.model!r}, so its features are only claimed"
    if answer.model == deployment.model:
        yield _SAME, f"model: {answer.model!r} answered"
    else:
        yield _NOTE, f"model: {answer.model!r} answered for {deployment.model!r}, which may be an alias"


def _about_finish(answer: ChatCompletion) -> Iterator[tuple[str, str]]:
    for choice in answer.choices:
        if choice.finish_reason == "other":
            yield _DIFFERS, f"finish reason: {choice.raw_finish_reason!r} is not known, and is shown as `length`"
        else:
            yield _SAME, f"finish reason: {choice.finish_reason}"


def _about_usage(answer: ChatCompletion, body: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    usage = answer.usage
    if usage is None or not usage.prompt_tokens or not usage.completion_tokens:
        yield _DIFFERS, "usage: the answer has no count of input or output tokens that the adapter reads"
        return
    total = read_int(read_map(body, "usage"), "total_tokens")
    counted = usage.prompt_tokens + usage.completion_tokens
    if total is not None and total != counted:
        yield _DIFFERS, f"usage: the total is {total} tokens, but input and output that were read make {counted}"
    else:
        yield _SAME, f"usage: {usage.prompt_tokens} input and {usage.completion_tokens} output tokens"


def _about_reasoning(deployment: Deployment, answer: ChatCompletion) -> Iterator[tuple[str, str]]:
    reasons = any(choice.message.reasoning for choice in answer.choices)
    if reasons and "reasoning" not in deployment.capabilities.features:
        yield _DIFFERS, "reasoning: the model reasons, but the deployment has no feature 'reasoning'"


def _about_request_id(headers: Mapping[str, str], body: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    if request_id_of(headers) is not None or "request_id" in body:
        return
    alike = sorted(name for name in headers if name.endswith(("-id", "requestid")) or "trace" in name)
    found = f"; these headers may have one: {', '.join(alike[:_SHOWN_NAMES])}" if alike else ""
    yield _NOTE, f"request id: none was found{found}"


def _about_unread_members(
    deployment: Deployment, response: WireResponse, body: Mapping[str, object]
) -> Iterator[tuple[str, str]]:
    """Find members of the answer that the adapter does not read: without them, it reads the same answer."""
    adapter, target = deployment.adapter, deployment.target

    def read_without(name: str) -> ChatCompletion | None:
        rest = {other: value for other, value in body.items() if other != name}
        try:
            return adapter.parse_response(replace(response, body=dumps(rest)), target)
        except ProviderFailed:
            return None

    try:
        whole = adapter.parse_response(response, target)
    except ProviderFailed:
        return
    unread = sorted(name for name in body if read_without(name) == whole and name != "object")
    if unread:
        yield _NOTE, f"members that the adapter does not read: {', '.join(unread[:_SHOWN_NAMES])}"
