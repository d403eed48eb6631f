"""Plant one bug at a time in a finished adapter, and run the whole conformance kit: it must find each.

The adapter is Anthropic's, with a wire format of its own. A bug changes the canonical request before it is built, the
JSON that was built, the bytes before they are read, or the values that were read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from providers.adapter import Capabilities, StreamParser, Target
from providers.auth import AuthScheme
from providers.catalogue.models import ModelFacts
from providers.chat import (
    AllowedTools,
    AssistantMessage,
    ChatCompletion,
    ChatRequest,
    Choice,
    ChoiceFinish,
    Failed,
    Finished,
    Heartbeat,
    ImagePart,
    JsonSchemaFormat,
    Message,
    NamedTool,
    ReasoningDelta,
    StreamEvent,
    SystemMessage,
    TextDelta,
    ToolCallDelta,
    ToolMessage,
    UsageReport,
    UserMessage,
    text_of,
)
from providers.conformance.selection import Selection
from providers.conformance.subject import subjects_of
from providers.failures import Failure, FailureKind, ProviderFailed, UnsupportedFeature
from providers.json_values import JsonError, dumps, loads
from providers.reading.folding import expand
from providers.sites import Site
from providers.vendors.anthropic.adapter import ADAPTER
from providers.vendors.anthropic.simulator import SIMULATOR
from providers.wire import WireRequest, WireResponse
from tests.conformance.kit_run import first_failure

pytestmark = pytest.mark.slow("runs the kit once for each bug")


@dataclass(frozen=True, slots=True)
class Bug:
    """One planted bug: the function of each kind that it changes."""

    request: Callable[[ChatRequest], ChatRequest] = lambda request: request
    target: Callable[[Target], Target] = lambda target: target
    body: Callable[[dict[str, Any]], object] = lambda body: None
    wire: Callable[[WireRequest], WireRequest] = lambda wire: wire
    build: Callable[[ChatRequest, Target], WireRequest] | None = None
    answer: Callable[[ChatCompletion, Target], ChatCompletion] = lambda answer, _: answer
    bytes_read: Callable[[bytes], bytes] = lambda data: data
    event: Callable[[StreamEvent], Iterable[StreamEvent]] | None = None
    failure: Callable[[Failure, WireResponse], Failure] = lambda failure, _: failure
    unread: Callable[[ProviderFailed], ChatCompletion] | None = None


class PlantedParser:
    """The adapter's parser with a bug."""

    def __init__(self, bug: Bug, target: Target) -> None:
        self._bug, self._inner = bug, ADAPTER.stream_parser(target)

    def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
        return self._changed(self._inner.feed(self._bug.bytes_read(data)))

    def close(self) -> tuple[StreamEvent, ...]:
        return self._changed(self._inner.close())

    def _changed(self, events: Iterable[StreamEvent]) -> tuple[StreamEvent, ...]:
        change = self._bug.event
        return tuple(events) if change is None else tuple(new for one in expand(list(events)) for new in change(one))


@dataclass(frozen=True, slots=True)
class Planted:
    """The adapter with a bug."""

    bug: Bug
    name: str = ADAPTER.name

    @property
    def capabilities(self) -> Capabilities:
        return ADAPTER.capabilities

    @property
    def sites(self) -> Mapping[str, Site]:
        return ADAPTER.sites

    @property
    def models(self) -> Mapping[str, ModelFacts]:
        return ADAPTER.models

    @property
    def emulated(self) -> frozenset[str]:
        return ADAPTER.emulated

    @property
    def auth(self) -> AuthScheme:
        return ADAPTER.auth

    def build_request(self, request: ChatRequest, target: Target) -> WireRequest:
        bug = self.bug
        if bug.build is not None:
            return bug.build(request, target)
        wire = ADAPTER.build_request(bug.request(request), bug.target(target))
        body: Any = loads(wire.body)
        bug.body(body)
        return bug.wire(replace(wire, body=dumps(body)))

    def parse_response(self, response: WireResponse, target: Target) -> ChatCompletion:
        try:
            read = ADAPTER.parse_response(replace(response, body=self.bug.bytes_read(response.body)), target)
        except ProviderFailed as error:
            if self.bug.unread is not None:
                return self.bug.unread(error)
            raise ProviderFailed(self.bug.failure(error.failure, response)) from None
        return self.bug.answer(read, target)

    def stream_parser(self, target: Target) -> StreamParser:
        return PlantedParser(self.bug, target)

    def classify_error(self, response: WireResponse) -> Failure:
        return self.bug.failure(ADAPTER.classify_error(response), response)


# --- changes of a request -------------------------------------------------------------------------


def setting(**values: object) -> Bug:
    return Bug(request=lambda request: replace(request, **values))  # type: ignore[arg-type]


def each_message(change: Callable[[Message], Message | None]) -> Bug:
    def changed(request: ChatRequest) -> ChatRequest:
        messages = (change(message) for message in request.messages)
        return replace(request, messages=tuple(message for message in messages if message is not None))

    return Bug(request=changed)


def first_system_only(request: ChatRequest) -> ChatRequest:
    systems = [message for message in request.messages if isinstance(message, SystemMessage)]
    kept = tuple(one for one in request.messages if not isinstance(one, SystemMessage) or one is systems[0])
    return replace(request, messages=kept)


def leading_systems_only(request: ChatRequest) -> ChatRequest:
    seen, kept = False, []
    for message in request.messages:
        seen = seen or not isinstance(message, SystemMessage)
        if not (seen and isinstance(message, SystemMessage)):
            kept.append(message)
    return replace(request, messages=tuple(kept))


def first_part_of(kind: type[Message]) -> Bug:
    def change(message: Message) -> Message:
        if isinstance(message, kind) and isinstance(message.content, tuple) and len(message.content) > 1:
            return replace(message, content=message.content[:1])  # type: ignore[arg-type]
        return message

    return each_message(change)


def last_image_only(message: Message) -> Message:
    if not isinstance(message, UserMessage) or isinstance(message.content, str):
        return message
    images = [part for part in message.content if isinstance(part, ImagePart)]
    kept = tuple(part for part in message.content if not isinstance(part, ImagePart) or part is images[-1])
    return replace(message, content=kept)


def results_by_position(request: ChatRequest) -> ChatRequest:
    """Pair results with calls by their positions instead of their ids."""
    messages, ids = [], []
    for message in request.messages:
        if isinstance(message, AssistantMessage):
            ids = [call.id for call in message.tool_calls]
        if isinstance(message, ToolMessage) and ids:
            message = replace(message, tool_call_id=ids.pop(0))
        messages.append(message)
    return replace(request, messages=tuple(messages))


def one_result_of_a_turn(request: ChatRequest) -> ChatRequest:
    kept = [
        message
        for before, message in zip((None, *request.messages), request.messages, strict=False)
        if not (isinstance(message, ToolMessage) and isinstance(before, ToolMessage))
    ]
    return replace(request, messages=tuple(kept))


def with_calls(message: Message, **values: object) -> Message:
    if not isinstance(message, AssistantMessage):
        return message
    return replace(message, tool_calls=tuple(replace(call, **values) for call in message.tool_calls))  # type: ignore[arg-type]


def with_tools(**values: object) -> Bug:
    def changed(request: ChatRequest) -> ChatRequest:
        return replace(request, tools=tuple(replace(tool, **values) for tool in request.tools))  # type: ignore[arg-type]

    return Bug(request=changed)


def quoting(request: ChatRequest, target: Target) -> WireRequest:
    try:
        return ADAPTER.build_request(request, target)
    except UnsupportedFeature as error:
        words = " ".join(text_of(message.content) for message in request.messages)
        raise UnsupportedFeature(error.feature, f"{error} in {words!r}") from None


def dropping_unclaimed(request: ChatRequest, target: Target) -> WireRequest:
    return ADAPTER.build_request(replace(request, n=None, logprobs=None, top_logprobs=None), target)


def failing_for_odd_arguments(request: ChatRequest, target: Target) -> WireRequest:
    for message in request.messages:
        for call in message.tool_calls if isinstance(message, AssistantMessage) else ():
            json.loads(call.arguments)
    return ADAPTER.build_request(request, target)


def pins_first(request: ChatRequest, target: Target) -> WireRequest:
    return ADAPTER.build_request(replace(request, extra={**target.pins, **request.extra}), replace(target, pins={}))


# --- changes of an answer -------------------------------------------------------------------------


def each_choice(change: Callable[[Choice], Choice]) -> Callable[[ChatCompletion, Target], ChatCompletion]:
    return lambda answer, _: replace(answer, choices=tuple(map(change, answer.choices)))


def each_answered(**values: object) -> Callable[[ChatCompletion, Target], ChatCompletion]:
    return each_choice(lambda choice: replace(choice, message=replace(choice.message, **values)))  # type: ignore[arg-type]


def counted(**values: int) -> Callable[[ChatCompletion, Target], ChatCompletion]:
    def changed(answer: ChatCompletion, _: Target) -> ChatCompletion:
        return replace(answer, usage=answer.usage and replace(answer.usage, **values))

    return changed


def instead(old: str, new: str) -> Bug:
    """Read one finish reason as another, in a whole answer and in a stream."""
    return Bug(
        answer=each_choice(
            lambda one: replace(one, finish_reason=new) if one.finish_reason == old else one  # type: ignore[arg-type]
        ),
        event=lambda one: [
            replace(one, reason=new) if isinstance(one, ChoiceFinish) and one.reason == old else one  # type: ignore[arg-type]
        ],
    )


def changing(kind: type, change: Callable[[Any], Iterable[StreamEvent]]) -> Bug:
    return Bug(event=lambda event: change(event) if isinstance(event, kind) else [event])


def skipping_invalid(data: bytes) -> bytes:
    def valid(line: bytes) -> bool:
        try:
            return not line.startswith(b"data:") or bool(loads(line[5:])) or True
        except JsonError:
            return False

    return b"\n".join(line for line in data.split(b"\n") if valid(line)) if data.endswith(b"\n\n") else data


def kind_instead(old: FailureKind, new: FailureKind) -> Bug:
    return failing(lambda failure: replace(failure, kind=new) if failure.kind is old else failure)


def failing(change: Callable[[Failure], Failure]) -> Bug:
    def changed(event: Any) -> list[StreamEvent]:
        return [replace(event, failure=change(event.failure))]

    return Bug(
        failure=lambda failure, _: change(failure),
        event=lambda event: changed(event) if isinstance(event, Failed) else [event],
    )


def raising_for_html(failure: Failure, response: WireResponse) -> Failure:
    if response.body.startswith(b"<"):
        raise ValueError("HTML")
    return failure


_EMPTY = ChatCompletion("", ADAPTER.name, 0, (Choice(AssistantMessage(""), "stop"),))
K = FailureKind
BUGS: dict[str, Bug] = {
    "system texts are lost": each_message(lambda one: None if isinstance(one, SystemMessage) else one),
    "only the first system message is sent": Bug(request=first_system_only),
    "system messages after the first turn are lost": Bug(request=leading_systems_only),
    "only the first part of a system text is sent": first_part_of(SystemMessage),
    "a system text is sent as the user's": each_message(
        lambda one: UserMessage(text_of(one.content)) if isinstance(one, SystemMessage) else one
    ),
    "only the first part of a question is sent": first_part_of(UserMessage),
    "only the first part of an earlier answer is sent": first_part_of(AssistantMessage),
    "only the first part of a result is sent": first_part_of(ToolMessage),
    "an earlier refusal is lost": each_message(
        lambda one: replace(one, refusal=None) if isinstance(one, AssistantMessage) else one
    ),
    "earlier answers are lost": each_message(
        lambda one: None if isinstance(one, AssistantMessage) and not one.tool_calls else one
    ),
    "the last message is lost": Bug(request=lambda one: replace(one, messages=one.messages[:-1] or one.messages)),
    "only the last image is sent": each_message(last_image_only),
    "every image is sent as PNG": Bug(
        wire=lambda one: replace(one, body=one.body.replace(b"image/jpeg", b"image/png"))
    ),
    "tools are lost": setting(tools=(), tool_choice=None, parallel_tool_calls=None),
    "descriptions of tools are lost": with_tools(description=None),
    "schemas of tools are lost": with_tools(parameters=None),
    "the choice of tools is lost": setting(tool_choice=None),
    "a named tool becomes any tool": Bug(
        request=lambda one: replace(one, tool_choice="required") if isinstance(one.tool_choice, NamedTool) else one
    ),
    "all tools are allowed": Bug(
        request=lambda one: replace(one, tool_choice="required") if isinstance(one.tool_choice, AllowedTools) else one
    ),
    "parallel calls are not switched off": setting(parallel_tool_calls=None),
    "results are paired with calls by position": Bug(request=results_by_position),
    "only the first result of a turn is sent": Bug(request=one_result_of_a_turn),
    "arguments of earlier calls are lost": each_message(lambda one: with_calls(one, arguments="{}")),
    "names of earlier calls are changed": each_message(lambda one: with_calls(one, name="tool")),
    "the text beside a call is lost": each_message(
        lambda one: replace(one, content=None) if isinstance(one, AssistantMessage) and one.tool_calls else one
    ),
    "arguments that are not JSON raise an exception": Bug(build=failing_for_odd_arguments),
    "only the first stop sequence is sent": Bug(request=lambda one: replace(one, stop=one.stop[:1])),
    "the temperature is lost": setting(temperature=None),
    "a temperature of 0 is read as absent": Bug(request=lambda one: replace(one, temperature=one.temperature or None)),
    "a default temperature is added": Bug(
        request=lambda one: replace(one, temperature=0.7 if one.temperature is None else one.temperature)
    ),
    "temperatures above 1 become 0": Bug(
        request=lambda one: replace(one, temperature=one.temperature if (one.temperature or 0) <= 1 else 0)
    ),
    "top_p is lost": setting(top_p=None),
    "the end user is lost": setting(user=None),
    "max_tokens is ignored": setting(max_tokens=None),
    "max_tokens is one too many": Bug(
        request=lambda one: replace(one, max_tokens=one.max_tokens and one.max_tokens + 1)
    ),
    "the reasoning effort is lost": setting(reasoning_effort=None),
    "the JSON schema is lost": Bug(
        request=lambda one: (
            replace(one, response_format=None) if isinstance(one.response_format, JsonSchemaFormat) else one
        )
    ),
    "a stream is requested as JSON": setting(stream=False),
    "the client's model name is sent": Bug(
        build=lambda request, target: ADAPTER.build_request(request, replace(target, model=request.model))
    ),
    "the base path is ignored": Bug(target=lambda target: replace(target, base_path="/v1")),
    "the key is in the URL": Bug(wire=lambda wire: replace(wire, query=(("key", "AIza"),))),
    "the content type is missing": Bug(wire=lambda wire: replace(wire, headers=())),
    "passthrough parameters are lost": setting(extra={}),
    "the client overrides pinned values": Bug(build=pins_first),
    "the prompt is quoted in UnsupportedFeature": Bug(build=quoting),
    "unclaimed features are dropped": Bug(build=dropping_unclaimed),
    "max_tokens is halved": Bug(body=lambda body: body.update(max_tokens=body.get("max_tokens", 0) // 2)),
    "only half of the text is read": Bug(
        answer=each_choice(
            lambda one: replace(one, message=replace(one.message, content=text_of(one.message.content)[:9]))
        )
    ),
    "usage of a whole answer is not read": Bug(answer=lambda answer, _: replace(answer, usage=None)),
    "usage of a stream is not read": changing(UsageReport, lambda _: []),
    "usage of a stream is reported twice": changing(UsageReport, lambda event: [event, event]),
    "cached tokens are not counted": Bug(answer=counted(cached_tokens=0)),
    "output tokens are not counted": Bug(answer=counted(completion_tokens=0)),
    "the answer names the requested model": Bug(answer=lambda answer, target: replace(answer, model=target.model)),
    "a truncated answer is complete": instead("length", "stop"),
    "a filtered answer is complete": instead("content_filter", "stop"),
    "calls finish with stop": instead("tool_calls", "stop"),
    "a missing finish reason is complete": changing(
        Failed, lambda event: [event] if event.failure.status else [ChoiceFinish("stop"), Finished()]
    ),
    "ids of calls are replaced": Bug(
        event=lambda one: [replace(one, id=f"c{one.index}") if isinstance(one, ToolCallDelta) and one.id else one]
    ),
    "calls are not read from a stream": changing(ToolCallDelta, lambda _: []),
    "reasoning is read as text": changing(ReasoningDelta, lambda event: [TextDelta(event.text)]),
    "reasoning is not read": Bug(
        answer=each_answered(reasoning=None), event=lambda one: [] if isinstance(one, ReasoningDelta) else [one]
    ),
    "text follows the finish": changing(ChoiceFinish, lambda event: [event, TextDelta("!")]),
    "comments are read as text": changing(Heartbeat, lambda _: [TextDelta("?")]),
    "pieces are decoded separately": Bug(bytes_read=lambda data: data.decode("utf-8", "replace").encode()),
    "lines end at U+2028": Bug(bytes_read=lambda data: data.replace("\u2028".encode(), b"\n")),
    "events of invalid JSON are ignored": Bug(bytes_read=skipping_invalid),
    "an error in a stream is ignored": changing(Failed, lambda _: [ChoiceFinish("stop"), Finished()]),
    "an error with status 200 is an empty answer": Bug(unread=lambda _: _EMPTY),
    "a rate limit is classified as unavailable": kind_instead(K.RATE_LIMITED, K.UNAVAILABLE),
    "a refused key is classified as an invalid request": kind_instead(K.CREDENTIALS, K.INVALID_REQUEST),
    "an unknown model is classified as an invalid request": kind_instead(K.MODEL_NOT_FOUND, K.INVALID_REQUEST),
    "a server error is classified as an invalid request": kind_instead(K.UNAVAILABLE, K.INVALID_REQUEST),
    "an invalid request is classified as unavailable": kind_instead(K.INVALID_REQUEST, K.UNAVAILABLE),
    "the vendor's sentence is the code": failing(lambda failure: replace(failure, code=failure.detail or failure.code)),
    "the vendor's sentence is the message": failing(
        lambda failure: replace(failure, message=failure.detail or failure.message)
    ),
    "retry-after is not read": failing(lambda failure: replace(failure, retry_after_s=None)),
    "retry-after is read as milliseconds": failing(
        lambda failure: replace(failure, retry_after_s=failure.retry_after_s and failure.retry_after_s / 1000)
    ),
    "the status is lost": failing(lambda failure: replace(failure, status=None)),
    "an error has nothing for the log": failing(lambda failure: replace(failure, code=None, detail="")),
    "an HTML error raises an exception": Bug(failure=raising_for_html),
}


def selection_of(bug: Bug) -> Selection:
    """Return the most capable model of the adapter with a bug."""
    subjects = Selection(subjects_of(Planted(bug), SIMULATOR), None).subjects
    return Selection(subjects[:1], None)


def test_kit_passes_for_the_finished_adapter() -> None:
    assert first_failure(selection_of(Bug())) is None


def test_kit_finds_all_planted_bugs() -> None:
    missed = [name for name, bug in BUGS.items() if first_failure(selection_of(bug)) is None]
    assert not missed, f"the kit does not find: {'; '.join(missed)}"
