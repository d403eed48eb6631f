"""The stages of one request as separate calls that can be repeated with the same values."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import orjson

from bench.config import chat_body, client_headers
from bench.inprocess import bench_table, provider_answers
from gateway.api.body import parse_json
from gateway.api.caller.authentication import authenticate
from gateway.api.caller.request_headers import headers_of, read_caller, request_id_of
from gateway.api.dialects.openai_chat import ChunkEncoder
from gateway.api.response_headers import response_lines
from gateway.execution.deadline import Deadline
from gateway.execution.exchange import AnswerStyle
from gateway.execution.upstream_request import upstream_request
from gateway.model.decision import Plan, Step
from gateway.model.deployment import Deployment
from gateway.model.record import AnsweredBy, AttemptRecord, Decided, Record, Shown
from gateway.policy.routing import decide
from gateway.service.assistants import find_assistant
from gateway.service.location import locate
from gateway.telemetry.log import log_requests
from providers.auth import apply
from providers.chat import StreamEvent
from providers.matching.requirements import requirements_of
from providers.openai_json import decode_request, encode_completion
from providers.reading.response_reader import AnswerReader, read_answer
from providers.wire import WireResponse

__all__ = ["Stop", "stops"]


@dataclass(frozen=True, slots=True)
class Stop:
    """One stage: `call` runs it once."""

    name: str
    call: Callable[[], object]


def stops() -> list[Stop]:
    """Yield the stages in the order of the request, those of streams last. Call inside a running loop."""
    return [*_caller_stage(), *_plan_and_send(), *_streams()]


def _scope() -> dict[str, object]:
    body = chat_body("assistant", stream=False)
    headers = {"host": "127.0.0.1", "content-length": str(len(body)), **client_headers()}
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    return {"headers": pairs, "client": ("127.0.0.1", 50000), "query_string": b"", "extensions": {}}


def _caller_stage() -> Iterator[Stop]:
    config, scope, body = bench_table(), _scope(), chat_body("assistant", stream=False)
    headers = headers_of(scope)
    caller = read_caller(config, headers)
    value = parse_json(body)
    yield Stop("headers", lambda: headers_of(scope))
    yield Stop("request id", lambda: request_id_of(headers))
    yield Stop("key", lambda: authenticate(config, headers))
    yield Stop("caller", lambda: read_caller(config, headers))
    yield Stop("location", lambda: locate(config, caller))
    yield Stop("deadline", lambda: Deadline.start(600, 55))
    yield Stop("parse the JSON", lambda: parse_json(body))
    yield Stop("decode the request", lambda: decode_request(value))


def _plan_and_send() -> Iterator[Stop]:
    config, headers = bench_table(), headers_of(_scope())
    caller = read_caller(config, headers)
    client, location = caller.client, locate(config, caller).location
    request = decode_request(parse_json(chat_body("assistant", stream=False)))
    needs, assistant = requirements_of(request), find_assistant(config, client, "assistant")
    step = _first_step(decide(config, assistant, location, needs, {}, 0.0).outcome)
    deployment = step.deployment
    adapter, target = deployment.adapter, deployment.target
    credential = (("authorization", "Bearer k"),)
    wire = adapter.build_request(request, target)
    response = _response("JSON")
    completion = read_answer(adapter, response, target)
    decided = Decided(location, "assistant")
    record = Record("req_0123456789abcdef01234567", time.monotonic(), config.version, decided, Shown(status=200))
    record.client = "client-1"
    record.answered_by = AnsweredBy(deployment.name, deployment.provider, deployment.model)
    record.first_s = record.total_s = 0.5
    record.usage = completion.usage
    record.attempts.append(AttemptRecord(deployment.name, deployment.provider, deployment.model, 0.5, None))
    ended = [(record, time.time())]

    yield Stop("assistant", lambda: find_assistant(config, client, "assistant"))
    yield Stop("needs", lambda: requirements_of(request))
    yield Stop("decide", lambda: decide(config, assistant, location, needs, {}, 0.0))
    yield Stop("build the provider's request", lambda: adapter.build_request(request, target))
    yield Stop("sign", lambda: apply(adapter.auth, wire, deployment.origin, deployment.credentials[0], 0.0))
    yield Stop("check what the adapter wrote", lambda: upstream_request(step.permit, wire, 5.0, credential))
    yield Stop("a time limit", _pass_a_time_limit)
    yield Stop("read the answer", lambda: read_answer(adapter, response, target))
    yield Stop("write the answer", lambda: orjson.dumps(encode_completion(completion, completion.model)))
    yield Stop("response headers", lambda: response_lines(record))
    yield Stop("log line", lambda: log_requests(ended))


def _pass_a_time_limit() -> None:
    # Its own deadline: a deadline belongs to the task that uses it first.
    with Deadline.start(600, 55).limit(10):
        pass


def _first_step(outcome: object) -> Step:
    if not isinstance(outcome, Plan):
        raise TypeError(f"the config of the bench returns no plan: {outcome}")
    return outcome.steps[0]


def _response(case: str) -> WireResponse:
    """Return the provider's answer of a case as the pool delivers it, without framing."""
    head, _, rest = b"".join(provider_answers(case)).partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return WireResponse(200, {"content-type": "application/json"}, rest, 0.0)
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
    return WireResponse(200, {"content-type": "text/event-stream"}, body, 0.0)


def _streams() -> Iterator[Stop]:
    config = bench_table()
    for words, case, name in (
        ("64 events", "stream of 64 events at once", "assistant-1"),
        ("64 events, translated", "stream of 64 events at once, translated", "assistant-gemini-1"),
    ):
        yield from _stream(config.deployments[name], _response(case), words)


def _stream(deployment: Deployment, response: WireResponse, words: str) -> Iterator[Stop]:
    head = WireResponse(200, response.headers, b"", 0.0)

    def read() -> tuple[StreamEvent, ...]:
        return AnswerReader(deployment.adapter, head, deployment.target).feed(response.body)

    events = read()
    yield Stop(f"read {words}", read)
    yield Stop(f"write {words}", lambda: ChunkEncoder(AnswerStyle(), Record("bench", 0.0, "")).encode(events))
