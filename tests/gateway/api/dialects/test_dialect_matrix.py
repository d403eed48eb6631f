"""Every dialect with every adapter: the provider gets the same request as from chat, and the client the same answer.

A request of the conformance kit is written by a client of the dialect, decoded, built by the adapter and read by the
adapter's simulator. An answer takes the way back. Every dialect meets the six wire formats, every adapter meets the
Responses API, and of the other pairs each adapter meets one more dialect.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from gateway.execution.exchange import AnswerStyle
from gateway.model.record import Record
from providers.chat import ChatCompletion, ChatRequest, Finished, Heartbeat, Opened, StreamEvent, text_of
from providers.conformance.cases import answer_cases, request_cases
from providers.conformance.meaning import arguments_value, callable_tools, conversation, parameters
from providers.conformance.subject import Subject
from providers.failures import ProviderFailed, UnsupportedFeature
from providers.matching.requirements import requirements_of
from providers.reading.folding import fold
from providers.testkit.simulator import RequestRejected
from tests.gateway.api.dialects.chat_subjects import SUBJECTS
from tests.kit.dialect_clients import DIALECT_CLIENTS, DialectClient

WIRE_FORMATS = ("openai", "anthropic", "gemini", "bedrock", "dashscope")
NEW = [name for name in DIALECT_CLIENTS if name != "chat"]
# The vendor's API has no such levels of thinking.
INEXPRESSIBLE = {("messages", "effort_minimal"), *(("gemini", f"effort_{level}") for level in ("none", "xhigh", "max"))}
# DashScope's models with vision refuse an empty text of the assistant.
REFUSED_FROM_CHAT = {"empty_text"}
# The strict reader of Messages wants output tokens, which an empty answer has not.
NOT_READ = {("messages", "empty_text")}
STYLE = AnswerStyle(include_usage=True)


@dataclass(frozen=True)
class Pair:
    client: DialectClient
    subject: Subject

    def __str__(self) -> str:
        return f"{self.client}-{self.subject.adapter.name}"


def pairs() -> Iterator[Pair]:
    available = [name for name in NEW if DIALECT_CLIENTS[name].dialect(stream=False) is not None]
    for position, (name, subject) in enumerate(SUBJECTS.items()):
        chosen = available if name in WIRE_FORMATS else ["responses", available[position % len(available)]]
        for dialect in dict.fromkeys(chosen):
            yield Pair(DIALECT_CLIENTS[dialect], subject)


PAIRS = list(pairs())


def requests_of(pair: Pair) -> Iterator[tuple[str, ChatRequest]]:
    """Yield the requests that both the client and the provider can express."""
    client, subject = pair.client, pair.subject
    for case in request_cases(subject):
        needs = requirements_of(case.request)
        if needs.features <= client.features and needs.parameters <= client.parameters:
            yield case.name, case.request


def sent(client: DialectClient, request: ChatRequest) -> ChatRequest | None:
    """Return the request as the gateway reads it; None if the client's API does not have it."""
    try:
        wire = client.request(request)
    except UnsupportedFeature:
        return None
    return client.decode(wire)[1]


def is_refused(subject: Subject, request: ChatRequest) -> bool:
    try:
        subject.received(request)
    except RequestRejected:
        return True
    return False


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_provider_gets_the_same_request_as_from_chat(pair: Pair) -> None:
    compared = 0
    for name, request in requests_of(pair):
        decoded = sent(pair.client, request) if (pair.client.name, name) not in INEXPRESSIBLE else None
        if decoded is None:
            continue
        assert decoded.stream == request.stream, name
        if name in REFUSED_FROM_CHAT and is_refused(pair.subject, request):
            continue
        try:
            wanted, received = pair.subject.received(request), pair.subject.received(decoded)
        except UnsupportedFeature:
            continue  # the adapter refuses it by name
        for read in (conversation, callable_tools, lambda one: parameters(one, request)):  # noqa: B023
            assert read(received) == read(wanted), name
        compared += 1
    assert compared >= 15


def answers_of(pair: Pair) -> Iterator[tuple[str, ChatCompletion, ChatRequest]]:
    for case in answer_cases(pair.subject):
        if case.name != "n":
            yield case.name, case.completion, case.request


def has_begun(events: tuple[StreamEvent, ...]) -> bool:
    """Return whether the client gets a stream. A failure before that is a response of its own."""
    return any(isinstance(event, Opened) for event in events)


def without_heartbeats(events: tuple[StreamEvent, ...]) -> tuple[StreamEvent, ...]:
    """Return the events that reach an encoder at the start of a stream."""
    return tuple(event for event in events if not isinstance(event, Heartbeat))


def shown(completion: ChatCompletion) -> Any:
    """Return what a client sees of an answer."""
    choice = completion.choices[0]
    message = choice.message
    usage = completion.usage
    return (
        text_of(message.content) + (message.refusal or ""),
        [(call.name, arguments_value(call.arguments)) for call in message.tool_calls],
        choice.finish_reason,
        (usage.prompt_tokens, usage.completion_tokens) if usage and usage.completion_tokens else None,
    )


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_client_gets_the_same_answer_as_from_chat(pair: Pair, stream: bool) -> None:
    client, subject = pair.client, pair.subject
    for name, completion, request in answers_of(pair):
        record = Record("req_1", 0.0, "t")
        wire = client.request(replace(request, response_format=None, logprobs=None, top_logprobs=None, stream=stream))
        dialect, _ = client.decode(wire)
        if stream:
            events = without_heartbeats(subject.events(*subject.stream(completion, request)))
            if not has_begun(events) or (client.name, name) in NOT_READ:
                continue
            encoder = dialect.encoder(STYLE, record)
            data = b"".join(encoder.encode((event,)) for event in events)
            wanted, got = fold(events), fold(client.read_stream(data))
        else:
            try:
                wanted = subject.answer(completion, request)
            except ProviderFailed:
                continue  # DashScope refuses a whole answer that its filter cut
            got = client.read_answer(dialect.encode_answer(wanted, STYLE, record))
        expected, seen = shown(wanted), shown(got)
        if expected[3] is None:
            expected, seen = expected[:3], seen[:3]
        assert seen == expected, name


@pytest.mark.parametrize("step", [17, pytest.param(1, marks=pytest.mark.full)])
@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair.subject.adapter.name in WIRE_FORMATS], ids=str)
def test_stream_cut_at_any_byte_is_never_a_success(pair: Pair, step: int) -> None:
    """The parser reports the cut as a failure, and the client reads a failure too."""
    client, subject = pair.client, pair.subject
    name, completion, request = next(iter(answers_of(pair)))
    dialect, _ = client.decode(client.request(replace(request, stream=True)))
    whole = b"".join(subject.stream(completion, request))
    seen: tuple[StreamEvent, ...] = ()  # most cuts within a line leave the same events
    for end in range(0, len(whole), step):
        events = without_heartbeats(subject.events(whole[:end]))
        if not has_begun(events) or events == seen:
            continue
        seen = events
        encoder = dialect.encoder(STYLE, Record("req_1", 0.0, "t"))
        data = b"".join(encoder.encode((event,)) for event in events)
        if isinstance(events[-1], Finished):
            # Only the end mark of the provider is missing.
            continue
        assert encoder.failed is not None, f"{name}: neither the end nor a failure at byte {end}"
        last = client.read_stream(data)[-1]
        assert type(last).__name__ == "Failed", f"{name}: {last} at byte {end}"
