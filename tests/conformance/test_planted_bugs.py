"""Plant one bug at a time in a finished adapter, and run the conformance kit: it must find each.

The whole kit runs over Anthropic's adapter, which has a wire format of its own. A bug of `FOUND_BY` is planted in the
adapter of OpenAI's API, and a certain test of the kit must find it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

import pytest

from providers import chat
from providers.adapter import Target
from providers.catalogue.models import UNKNOWN_MODEL
from providers.conformance.cases import request_cases
from providers.conformance.selection import Selection
from providers.conformance.subject import subjects_of
from providers.failures import Failure, FailureKind, ProviderFailed, UnsupportedFeature
from providers.json_values import JsonError, loads
from providers.value import replace
from providers.vendors.anthropic.adapter import ADAPTER
from providers.vendors.anthropic.simulator import SIMULATOR
from providers.vendors.openai.adapter import COMPATIBLE
from providers.wire import WireRequest, WireResponse
from tests.conformance.kit_run import first_failure
from tests.conformance.planted import Bug, Planted, PlantedParser, selection_of, subject_of

pytestmark = pytest.mark.slow("runs the kit once for each bug")


# --- changes of a request -------------------------------------------------------------------------


def setting(**values: object) -> Bug:
    return Bug(request=lambda request: replace(request, **values))  # type: ignore[arg-type]


def each_message(change: Callable[[chat.Message], chat.Message | None]) -> Bug:
    def changed(request: chat.ChatRequest) -> chat.ChatRequest:
        messages = (change(message) for message in request.messages)
        return replace(request, messages=tuple(message for message in messages if message is not None))

    return Bug(request=changed)


def first_system_only(request: chat.ChatRequest) -> chat.ChatRequest:
    systems = [message for message in request.messages if isinstance(message, chat.SystemMessage)]
    kept = tuple(one for one in request.messages if not isinstance(one, chat.SystemMessage) or one is systems[0])
    return replace(request, messages=kept)


def leading_systems_only(request: chat.ChatRequest) -> chat.ChatRequest:
    seen, kept = False, []
    for message in request.messages:
        seen = seen or not isinstance(message, chat.SystemMessage)
        if not (seen and isinstance(message, chat.SystemMessage)):
            kept.append(message)
    return replace(request, messages=tuple(kept))


def first_part_of(kind: type[chat.Message]) -> Bug:
    def change(message: chat.Message) -> chat.Message:
        if isinstance(message, kind) and isinstance(message.content, tuple) and len(message.content) > 1:
            return replace(message, content=message.content[:1])  # type: ignore[arg-type]
        return message

    return each_message(change)


def last_image_only(message: chat.Message) -> chat.Message:
    if not isinstance(message, chat.UserMessage) or isinstance(message.content, str):
        return message
    images = [part for part in message.content if isinstance(part, chat.ImagePart)]
    kept = tuple(part for part in message.content if not isinstance(part, chat.ImagePart) or part is images[-1])
    return replace(message, content=kept)


def results_by_position(request: chat.ChatRequest) -> chat.ChatRequest:
    """Pair results with calls by their positions instead of their ids."""
    messages, ids = [], []
    for message in request.messages:
        if isinstance(message, chat.AssistantMessage):
            ids = [call.id for call in message.tool_calls]
        if isinstance(message, chat.ToolMessage) and ids:
            message = replace(message, tool_call_id=ids.pop(0))
        messages.append(message)
    return replace(request, messages=tuple(messages))


def one_result_of_a_turn(request: chat.ChatRequest) -> chat.ChatRequest:
    kept = [
        message
        for before, message in zip((None, *request.messages), request.messages, strict=False)
        if not (isinstance(message, chat.ToolMessage) and isinstance(before, chat.ToolMessage))
    ]
    return replace(request, messages=tuple(kept))


def with_calls(message: chat.Message, **values: object) -> chat.Message:
    if not isinstance(message, chat.AssistantMessage):
        return message
    return replace(message, tool_calls=tuple(replace(call, **values) for call in message.tool_calls))  # type: ignore[arg-type]


def with_tools(**values: object) -> Bug:
    def changed(request: chat.ChatRequest) -> chat.ChatRequest:
        return replace(request, tools=tuple(replace(tool, **values) for tool in request.tools))  # type: ignore[arg-type]

    return Bug(request=changed)


def quoting(request: chat.ChatRequest, target: Target) -> WireRequest:
    try:
        return ADAPTER.build_request(request, target)
    except UnsupportedFeature as error:
        words = " ".join(chat.text_of(message.content) for message in request.messages)
        raise UnsupportedFeature(error.feature, f"{error} in {words!r}") from None


def dropping_unclaimed(request: chat.ChatRequest, target: Target) -> WireRequest:
    return ADAPTER.build_request(replace(request, n=None, logprobs=None, top_logprobs=None), target)


def failing_for_odd_arguments(request: chat.ChatRequest, target: Target) -> WireRequest:
    for message in request.messages:
        for call in message.tool_calls if isinstance(message, chat.AssistantMessage) else ():
            json.loads(call.arguments)
    return ADAPTER.build_request(request, target)


def pins_first(request: chat.ChatRequest, target: Target) -> WireRequest:
    return ADAPTER.build_request(replace(request, extra={**target.pins, **request.extra}), replace(target, pins={}))


# --- changes of an answer -------------------------------------------------------------------------


def each_choice(
    change: Callable[[chat.Choice], chat.Choice],
) -> Callable[[chat.ChatCompletion, Target], chat.ChatCompletion]:
    return lambda answer, _: replace(answer, choices=tuple(map(change, answer.choices)))


def each_answered(**values: object) -> Callable[[chat.ChatCompletion, Target], chat.ChatCompletion]:
    return each_choice(lambda choice: replace(choice, message=replace(choice.message, **values)))  # type: ignore[arg-type]


def counted(**values: int) -> Callable[[chat.ChatCompletion, Target], chat.ChatCompletion]:
    def changed(answer: chat.ChatCompletion, _: Target) -> chat.ChatCompletion:
        return replace(answer, usage=answer.usage and replace(answer.usage, **values))

    return changed


def instead(old: str, new: str) -> Bug:
    """Read one finish reason as another, in a whole answer and in a stream."""
    return Bug(
        answer=each_choice(
            lambda one: replace(one, finish_reason=new) if one.finish_reason == old else one  # type: ignore[arg-type]
        ),
        event=lambda one: [
            replace(one, reason=new) if isinstance(one, chat.ChoiceFinish) and one.reason == old else one  # type: ignore[arg-type]
        ],
    )


def changing(kind: type, change: Callable[[Any], Iterable[chat.StreamEvent]]) -> Bug:
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
    def changed(event: Any) -> list[chat.StreamEvent]:
        return [replace(event, failure=change(event.failure))]

    return Bug(
        failure=lambda failure, _: change(failure),
        event=lambda event: changed(event) if isinstance(event, chat.Failed) else [event],
    )


def raising_for_html(failure: Failure, response: WireResponse) -> Failure:
    if response.body.startswith(b"<"):
        raise ValueError("HTML")
    return failure


_EMPTY = chat.ChatCompletion("", ADAPTER.name, 0, (chat.Choice(chat.AssistantMessage(""), "stop"),))
K = FailureKind
BUGS: dict[str, Bug] = {
    "system texts are lost": each_message(lambda one: None if isinstance(one, chat.SystemMessage) else one),
    "only the first system message is sent": Bug(request=first_system_only),
    "system messages after the first turn are lost": Bug(request=leading_systems_only),
    "only the first part of a system text is sent": first_part_of(chat.SystemMessage),
    "a system text is sent as the user's": each_message(
        lambda one: chat.UserMessage(chat.text_of(one.content)) if isinstance(one, chat.SystemMessage) else one
    ),
    "only the first part of a question is sent": first_part_of(chat.UserMessage),
    "only the first part of an earlier answer is sent": first_part_of(chat.AssistantMessage),
    "only the first part of a result is sent": first_part_of(chat.ToolMessage),
    "an earlier refusal is lost": each_message(
        lambda one: replace(one, refusal=None) if isinstance(one, chat.AssistantMessage) else one
    ),
    "earlier answers are lost": each_message(
        lambda one: None if isinstance(one, chat.AssistantMessage) and not one.tool_calls else one
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
        request=lambda one: replace(one, tool_choice="required") if isinstance(one.tool_choice, chat.NamedTool) else one
    ),
    "all tools are allowed": Bug(
        request=lambda one: (
            replace(one, tool_choice="required") if isinstance(one.tool_choice, chat.AllowedTools) else one
        )
    ),
    "parallel calls are not switched off": setting(parallel_tool_calls=None),
    "results are paired with calls by position": Bug(request=results_by_position),
    "only the first result of a turn is sent": Bug(request=one_result_of_a_turn),
    "arguments of earlier calls are lost": each_message(lambda one: with_calls(one, arguments="{}")),
    "names of earlier calls are changed": each_message(lambda one: with_calls(one, name="tool")),
    "the text beside a call is lost": each_message(
        lambda one: replace(one, content=None) if isinstance(one, chat.AssistantMessage) and one.tool_calls else one
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
    "the JSON schema is lost": Bug(
        request=lambda one: (
            replace(one, response_format=None) if isinstance(one.response_format, chat.JsonSchemaFormat) else one
        )
    ),
    "the client's model name is sent": Bug(
        build=lambda request, target: ADAPTER.build_request(request, replace(target, model=request.model))
    ),
    "the content type is missing": Bug(wire=lambda wire: replace(wire, headers=())),
    "passthrough parameters are lost": setting(extra={}),
    "the client overrides pinned values": Bug(build=pins_first),
    "the prompt is quoted in UnsupportedFeature": Bug(build=quoting),
    "unclaimed features are dropped": Bug(build=dropping_unclaimed),
    "max_tokens is halved": Bug(body=lambda body: body.update(max_tokens=body.get("max_tokens", 0) // 2)),
    "only half of the text is read": Bug(
        answer=each_choice(
            lambda one: replace(one, message=replace(one.message, content=chat.text_of(one.message.content)[:9]))
        )
    ),
    "usage of a stream is not read": changing(chat.UsageReport, lambda _: []),
    "usage of a stream is reported twice": changing(chat.UsageReport, lambda event: [event, event]),
    "cached tokens are not counted": Bug(answer=counted(cached_tokens=0)),
    "output tokens are not counted": Bug(answer=counted(completion_tokens=0)),
    "the answer names the requested model": Bug(answer=lambda answer, target: replace(answer, model=target.model)),
    "a truncated answer is complete": instead("length", "stop"),
    "a filtered answer is complete": instead("content_filter", "stop"),
    "calls finish with stop": instead("tool_calls", "stop"),
    "a missing finish reason is complete": changing(
        chat.Failed, lambda event: [event] if event.failure.status else [chat.ChoiceFinish("stop"), chat.Finished()]
    ),
    "ids of calls are replaced": Bug(
        event=lambda one: [replace(one, id=f"c{one.index}") if isinstance(one, chat.ToolCallDelta) and one.id else one]
    ),
    "calls are not read from a stream": changing(chat.ToolCallDelta, lambda _: []),
    "reasoning is read as text": changing(chat.ReasoningDelta, lambda event: [chat.TextDelta(event.text)]),
    "reasoning is not read": Bug(
        answer=each_answered(reasoning=None), event=lambda one: [] if isinstance(one, chat.ReasoningDelta) else [one]
    ),
    "pieces are decoded separately": Bug(bytes_read=lambda data: data.decode("utf-8", "replace").encode()),
    "events of invalid JSON are ignored": Bug(bytes_read=skipping_invalid),
    "an error in a stream is ignored": changing(chat.Failed, lambda _: [chat.ChoiceFinish("stop"), chat.Finished()]),
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


class Holding(PlantedParser):
    """A parser that emits all events at the end."""

    def __init__(self, target: Target) -> None:
        super().__init__(COMPATIBLE.stream_parser(target), Bug())
        self._held: list[bytes] = []

    def feed(self, data: bytes) -> tuple[chat.StreamEvent, ...]:
        self._held.append(data)
        return ()

    def close(self) -> tuple[chat.StreamEvent, ...]:
        fed = tuple(event for data in self._held for event in super(Holding, self).feed(data))
        return (*fed, *super().close())


class Late(PlantedParser):
    """A parser that emits each event only when the next one arrives."""

    def __init__(self, target: Target) -> None:
        super().__init__(COMPATIBLE.stream_parser(target), Bug())
        self._late: tuple[chat.StreamEvent, ...] = ()

    def feed(self, data: bytes) -> tuple[chat.StreamEvent, ...]:
        events = (*self._late, *super().feed(data))
        self._late = events[-1:]
        return events[:-1]

    def close(self) -> tuple[chat.StreamEvent, ...]:
        return (*self._late, *super().close())


def careless_build(request: chat.ChatRequest, target: Target) -> WireRequest:
    wire = COMPATIBLE.build_request(request, target)
    return replace(wire, path=f"{target.base_path}/{target.model}/chat/completions")


def greedy_build(request: chat.ChatRequest, target: Target) -> WireRequest:
    for tool in request.tools:
        if tool.parameters is not None:
            dict.setdefault(tool.parameters, "additionalProperties", False)  # type: ignore[arg-type]
    return COMPATIBLE.build_request(request, target)


def with_header(*header: str) -> Bug:
    return Bug(wire=lambda wire: replace(wire, headers=(*wire.headers, header)))  # type: ignore[arg-type]


def fragile(failure: Failure, response: WireResponse) -> Failure:
    response.body.decode("utf-8")
    return failure


def without_dates(failure: Failure, response: WireResponse) -> Failure:
    return failure if response.headers.get("retry-after", "7").isdigit() else replace(failure, retry_after_s=None)


def waiting(failure: Failure, response: WireResponse) -> Failure:
    return replace(failure, retry_after_s=float(response.headers.get("retry-after", 7)))


def strict(data: bytes) -> bytes:
    if b"x_new" in data:
        raise ProviderFailed(Failure(FailureKind.MALFORMED, "an unknown field"))
    return data


def numbered(choice: chat.Choice) -> chat.Choice:
    calls = tuple(replace(call, id=f"call_{number}") for number, call in enumerate(choice.message.tool_calls))
    return replace(choice, message=replace(choice.message, tool_calls=calls))


def raised(event: chat.Failed) -> list[chat.StreamEvent]:
    raise ProviderFailed(event.failure)


def whole(**values: object) -> Bug:
    """Change members of the failures of whole answers alone."""

    def unread(error: ProviderFailed) -> chat.ChatCompletion:
        raise ProviderFailed(replace(error.failure, **values))  # type: ignore[arg-type]

    return Bug(unread=unread)


def in_a_stream(**values: Callable[[Failure], str | None]) -> Bug:
    """Change members of the failures of streams alone."""

    def changed(event: chat.Failed) -> list[chat.StreamEvent]:
        made = {name: value(event.failure) for name, value in values.items()}
        return [replace(event, failure=replace(event.failure, **made))]  # type: ignore[arg-type]

    return changing(chat.Failed, changed)


_NUMBERS = count()
_SHARED = COMPATIBLE.stream_parser(Target("m", "", UNKNOWN_MODEL))
_CLAIMS = COMPATIBLE.capabilities
_VALID, _SAME = "test_path_and_headers_are_valid", "test_provider_receives_the_same_request"
_READ, _LOGGED = "test_streamed_answer_is_read_as_it_was_sent", "test_error_event_is_classified_and_logged"
_DETERMINISTIC = "test_build_request_is_deterministic_and_does_not_change_its_input"
_ANY_BODY, _RETRY = "test_every_error_status_with_any_body_is_a_failure", "test_retry_after_header_is_read"
FOUND_BY: dict[str, tuple[Bug, str]] = {
    "model name is not encoded in the path": (
        Bug(build=careless_build),
        "test_model_name_cannot_change_the_destination",
    ),
    "base path of the target is ignored": (
        Bug(wire=lambda wire: replace(wire, path="/v1/chat/completions")),
        "test_base_path_of_the_target_is_used",
    ),
    "host header is set": (with_header("host", "evil.example"), _VALID),
    "API key is in the URL": (Bug(wire=lambda wire: replace(wire, query=(("key", "AIza"),))), _VALID),
    "header occurs twice": (with_header("content-type", "text/plain"), _VALID),
    "body is a list": (Bug(wire=lambda wire: replace(wire, body=b"[" + wire.body + b"]")), _VALID),
    "request is not deterministic": (
        Bug(wire=lambda wire: replace(wire, headers=(*wire.headers, ("x-number", str(next(_NUMBERS)))))),
        _DETERMINISTIC,
    ),
    "input is changed": (Bug(build=greedy_build), _DETERMINISTIC),
    "a parameter is lost": (setting(seed=None), _SAME),
    "stream is requested as JSON": (setting(stream=False), _SAME),
    "default max_tokens is added": (
        Bug(request=lambda one: replace(one, max_tokens=one.max_tokens or 512)),
        "test_no_unneeded_max_tokens_is_sent",
    ),
    "stream names an invented model": (
        changing(chat.Opened, lambda event: [replace(event, model="m-1")]),
        "test_answer_names_the_model_that_answered",
    ),
    "unclaimed feature is sent": (
        Bug(claims=replace(_CLAIMS, features=_CLAIMS.features - {"vision"})),
        "test_unclaimed_feature_is_refused",
    ),
    "unknown feature is claimed": (
        Bug(claims=replace(_CLAIMS, features=frozenset({"tool"}))),
        "test_claimed_features_are_known",
    ),
    "vendor parameter is claimed but not sent": (
        Bug(lambda one: replace(one, extra={}), claims=replace(_CLAIMS, parameters=_CLAIMS.parameters | {"top_k"})),
        "test_claimed_vendor_parameters_are_sent",
    ),
    "reasoning effort is lost": (setting(reasoning_effort=None), "test_reasoning_effort_changes_the_request"),
    "usage is not read": (
        Bug(answer=lambda answer, _: replace(answer, usage=None)),
        "test_streamed_and_whole_answers_are_equal",
    ),
    "all text is emitted at the end": (Bug(parser=Holding), "test_text_is_streamed_before_the_end"),
    "parser memory is unbounded": (Bug(parser=Holding), "test_endless_line_fails_in_bounded_memory"),
    "each event waits for the next": (Bug(parser=Late), "test_each_event_is_emitted_when_it_arrives"),
    "all streams share one parser": (Bug(parser=lambda _: _SHARED), "test_interleaved_streams_do_not_mix"),
    "lines end at U+2028": (Bug(bytes_read=lambda data: data.replace("\u2028".encode(), b"\n")), _READ),
    "call ids differ from the provider's": (
        changing(
            chat.ToolCallDelta, lambda one: [replace(one, id=f"call_{one.index}") if one.id and one.index else one]
        ),
        _READ,
    ),
    "truncated answer is finished": (changing(chat.Failed, lambda _: [chat.Finished()]), "test_truncated_stream_fails"),
    "error in the middle of a stream is ignored": (
        changing(chat.Failed, lambda _: [chat.Finished()]),
        "test_error_in_the_middle_ends_the_stream",
    ),
    "terminal event is emitted twice": (
        changing(chat.Finished, lambda event: [event, event]),
        "test_truncated_stream_fails",
    ),
    "comments are read as text": (
        changing(chat.Heartbeat, lambda _: [chat.TextDelta("?")]),
        "test_comments_become_heartbeats",
    ),
    "parser raises an exception": (changing(chat.Failed, raised), "test_random_bytes_never_raise"),
    "refusals are not read": (changing(chat.RefusalDelta, lambda _: []), "test_reasoning_and_refusals_are_read"),
    "text follows the finish": (
        changing(chat.ChoiceFinish, lambda event: [event, chat.TextDelta("!")]),
        "test_order_is_canonical_when_events_are_repeated_or_missing",
    ),
    "unknown member fails a stream": (Bug(bytes_read=strict), "test_unknown_fields_and_events_are_ignored"),
    "unknown member fails an answer": (Bug(bytes_read=strict), "test_unknown_fields_of_a_whole_answer_are_ignored"),
    "call ids are the same in each answer": (
        Bug(answer=each_choice(numbered)),
        "test_generated_call_ids_differ_between_answers",
    ),
    "every error is classified as content_filter": (
        Bug(failure=lambda failure, _: replace(failure, kind=K.CONTENT_FILTER)),
        _ANY_BODY,
    ),
    "binary body raises an exception": (Bug(failure=fragile), _ANY_BODY),
    "retry-after date is ignored": (Bug(failure=without_dates), _RETRY),
    "invalid retry-after raises an exception": (Bug(failure=waiting), _RETRY),
    "retry-after is lost with status 200": (whole(retry_after_s=None), "test_retry_after_is_read_with_status_200"),
    "start of the provider text reaches the client": (
        Bug(failure=lambda failure, _: replace(failure, message=f"it failed: {failure.detail[:8]}")),
        "test_error_text_of_the_provider_does_not_reach_the_client",
    ),
    "error code is classified differently with status 200": (
        whole(kind=K.CREDENTIALS),
        "test_error_with_status_200_fails",
    ),
    "error in a stream repeats provider text": (in_a_stream(message=lambda one: one.detail or "it failed"), _LOGGED),
    "error in a stream has no detail for the log": (in_a_stream(code=lambda _: None, detail=lambda _: ""), _LOGGED),
}


def most_capable(bug: Bug) -> Selection:
    """Return the most capable model of Anthropic's adapter with a bug."""
    return Selection(Selection(subjects_of(Planted(bug), SIMULATOR), None).subjects[:1], None)


def test_kit_passes_for_the_finished_adapter() -> None:
    assert first_failure(most_capable(Bug())) is None


def test_kit_finds_all_planted_bugs() -> None:
    missed = [name for name, bug in BUGS.items() if first_failure(most_capable(bug)) is None]
    assert not missed, f"the kit does not find: {'; '.join(missed)}"


@pytest.mark.parametrize("name", FOUND_BY)
def test_bug_is_found_by_a_certain_test_of_the_kit(name: str) -> None:
    bug, test = FOUND_BY[name]
    assert first_failure(selection_of(subject_of(Bug())), test) is None
    assert first_failure(selection_of(subject_of(bug)), test) is not None


def test_change_of_the_input_is_found_after_an_earlier_case_changed_the_same_tools() -> None:
    one = subject_of(Bug(build=greedy_build))
    for case in request_cases(one):
        one.build(case.request)
    assert first_failure(selection_of(one), _DETERMINISTIC) is not None
