"""A kit that can't fail is worthless: each of these adapters is broken in one way, and the kit says so."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from email.utils import formatdate
from importlib import import_module
from itertools import count
from pathlib import Path
from zlib import crc32

import pytest

from providers.adapter import Adapter, Capabilities, StreamParser, Target
from providers.chat import (
    AssistantMessage,
    ChatCompletion,
    ChatRequest,
    ChoiceFinish,
    Failed,
    Finished,
    Opened,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    SystemMessage,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)
from providers.conformance import test_answers as answers
from providers.conformance import test_errors as errors
from providers.conformance import test_garbage as garbage
from providers.conformance import test_purity as purity
from providers.conformance import test_requests as requests
from providers.conformance import test_streams as streams
from providers.conformance.cases import answer_cases, request_cases
from providers.conformance.recordings import WireError, find_wire_cases
from providers.conformance.selection import select
from providers.conformance.subject import Subject, subjects_of
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.json_values import loads
from providers.vendors.openai.adapter import COMPATIBLE, OpenAIAdapter
from providers.vendors.openai.simulator import SIMULATOR, OpenAISimulator
from providers.wire import WireRequest, WireResponse

pytestmark = pytest.mark.slow  # runs the whole kit over and over

_ERROR = (FailureKind.CREDENTIALS, 401)


@dataclass(frozen=True, slots=True)
class Broken(OpenAIAdapter):
    """A good adapter, with one function of it replaced."""

    build: Callable[[ChatRequest, Target], WireRequest] = COMPATIBLE.build_request
    parse: Callable[[WireResponse, Target], ChatCompletion] = COMPATIBLE.parse_response
    parser: Callable[[Target], StreamParser] = COMPATIBLE.stream_parser
    classify: Callable[[WireResponse], Failure] = COMPATIBLE.classify_error
    claims: Capabilities = COMPATIBLE.capabilities

    @property
    def capabilities(self) -> Capabilities:
        return self.claims

    def build_request(self, request: ChatRequest, target: Target) -> WireRequest:
        return self.build(request, target)

    def parse_response(self, response: WireResponse, target: Target) -> ChatCompletion:
        return self.parse(response, target)

    def stream_parser(self, target: Target) -> StreamParser:
        return self.parser(target)

    def classify_error(self, response: WireResponse) -> Failure:
        return self.classify(response)


GOOD = Broken(COMPATIBLE.name, COMPATIBLE.auth, COMPATIBLE.max_tokens_field)


class Parser:
    """A parser whose events pass through a function."""

    def __init__(self, change: Callable[[StreamEvent], Iterable[StreamEvent]]) -> None:
        self._inner = COMPATIBLE.stream_parser(Target("m", "", subject(GOOD).facts))
        self._change = change

    def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
        return self._changed(self._inner.feed(data))

    def close(self) -> tuple[StreamEvent, ...]:
        return self._changed(self._inner.close())

    def _changed(self, events: Iterable[StreamEvent]) -> tuple[StreamEvent, ...]:
        return tuple(new for event in events for new in self._change(event))


class Decoding(Parser):
    """Decodes each piece as it comes, as a parser over text does."""

    def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
        return super().feed(data.decode("utf-8", "replace").encode())


class SplittingLines(Parser):
    """Splits lines where text does: at U+2028 and U+0085 too."""

    def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
        return super().feed(b"\n".join(line.encode() for line in data.decode("utf-8", "replace").split("\u2028")))


class Skipping(Parser):
    """Passes over what it can't read."""

    def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
        read = COMPATIBLE.stream_parser(Target("m", "", subject(GOOD).facts)).feed(data)
        return () if any(isinstance(event, Failed) for event in read) else super().feed(data)


class Raising(Parser):
    """Raises for what goes wrong, instead of saying so."""

    def _changed(self, events: Iterable[StreamEvent]) -> tuple[StreamEvent, ...]:
        changed = super()._changed(events)
        for event in changed:
            if isinstance(event, Failed):
                raise ProviderFailed(event.failure)
        return changed


class Holding(Parser):
    """Holds everything back until the end."""

    def __init__(self) -> None:
        super().__init__(lambda event: [event])
        self._held: list[bytes] = []

    def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
        self._held.append(data)
        return ()

    def close(self) -> tuple[StreamEvent, ...]:
        fed = tuple(event for data in self._held for event in super(Holding, self).feed(data))
        return (*fed, *super().close())


class Late(Parser):
    """Gives out each event when the next one comes."""

    def __init__(self) -> None:
        super().__init__(lambda event: [event])
        self._late: tuple[StreamEvent, ...] = ()

    def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
        events = (*self._late, *super().feed(data))
        self._late = events[-1:]
        return events[:-1]

    def close(self) -> tuple[StreamEvent, ...]:
        return (*self._late, *super().close())


def subject(adapter: Adapter) -> Subject:
    (one,) = subjects_of(adapter, SIMULATOR)
    return one


def parsing(change: Callable[[StreamEvent], Iterable[StreamEvent]]) -> Broken:
    return replace(GOOD, parser=lambda _: Parser(change))


def sending(change: Callable[[WireRequest], WireRequest]) -> Broken:
    return replace(GOOD, build=lambda request, target: change(COMPATIBLE.build_request(request, target)))


def asking(change: Callable[[ChatRequest], ChatRequest]) -> Broken:
    return replace(GOOD, build=lambda request, target: COMPATIBLE.build_request(change(request), target))


def without_systems(request: ChatRequest) -> ChatRequest:
    return replace(request, messages=tuple(m for m in request.messages if not isinstance(m, SystemMessage)))


def careless_build(request: ChatRequest, target: Target) -> WireRequest:
    wire = COMPATIBLE.build_request(request, target)
    return replace(wire, path=f"{target.base_path}/{target.model}/chat/completions")


def greedy_build(request: ChatRequest, target: Target) -> WireRequest:
    for tool in request.tools:
        if tool.parameters is not None:
            dict.setdefault(tool.parameters, "additionalProperties", False)  # type: ignore[arg-type]
    return COMPATIBLE.build_request(request, target)


def pins_first(request: ChatRequest, target: Target) -> WireRequest:
    return COMPATIBLE.build_request(replace(request, extra={**target.pins, **request.extra}), replace(target, pins={}))


def always(kind: FailureKind) -> Callable[[WireResponse], Failure]:
    return lambda response: replace(COMPATIBLE.classify_error(response), kind=kind)


def quoting(response: WireResponse) -> Failure:
    failure = COMPATIBLE.classify_error(response)
    return replace(failure, message=failure.detail or failure.message)


def fragile(response: WireResponse) -> Failure:
    response.body.decode("utf-8")
    return COMPATIBLE.classify_error(response)


def saying(change: Callable[[Failure, WireResponse], Failure]) -> Broken:
    return replace(GOOD, classify=lambda response: change(COMPATIBLE.classify_error(response), response))


def without_dates(failure: Failure, response: WireResponse) -> Failure:
    return failure if response.headers.get("retry-after", "7").isdigit() else replace(failure, retry_after_s=None)


def waiting(failure: Failure, response: WireResponse) -> Failure:
    return replace(failure, retry_after_s=float(response.headers.get("retry-after", 7)))


def with_other_ids(event: StreamEvent) -> list[StreamEvent]:
    is_second = isinstance(event, ToolCallDelta) and event.id is not None and event.index > 0
    return [replace(event, id=f"call_{event.index}") if is_second else event]  # type: ignore[union-attr]


def uncounted(response: WireResponse, target: Target) -> ChatCompletion:
    return replace(COMPATIBLE.parse_response(response, target), usage=None)


def reading_arguments(request: ChatRequest, target: Target) -> WireRequest:
    for message in request.messages:
        for call in message.tool_calls if isinstance(message, AssistantMessage) else ():
            loads(call.arguments)
    return COMPATIBLE.build_request(request, target)


class Strict(Parser):
    """Fails at what it doesn't know."""

    def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
        if b"x_new" in data:
            return (Failed(Failure(FailureKind.MALFORMED, "an unknown field")),)
        return super().feed(data)


def strict_answer(response: WireResponse, target: Target) -> ChatCompletion:
    if b"x_new" in response.body:
        raise ProviderFailed(Failure(FailureKind.MALFORMED, "an unknown field"))
    return COMPATIBLE.parse_response(response, target)


def numbered_calls(response: WireResponse, target: Target) -> ChatCompletion:
    answer = COMPATIBLE.parse_response(response, target)
    message = answer.choices[0].message
    calls = tuple(replace(call, id=f"call_{number}") for number, call in enumerate(message.tool_calls))
    return replace(answer, choices=(replace(answer.choices[0], message=replace(message, tool_calls=calls)),))


def failing(change: Callable[[Failure], Failure], response: WireResponse, target: Target) -> ChatCompletion:
    try:
        return COMPATIBLE.parse_response(response, target)
    except ProviderFailed as error:
        raise ProviderFailed(change(error.failure)) from None


def blaming_the_key(response: WireResponse, target: Target) -> ChatCompletion:
    return failing(lambda failure: replace(failure, kind=FailureKind.CREDENTIALS), response, target)


def impatient(response: WireResponse, target: Target) -> ChatCompletion:
    return failing(lambda failure: replace(failure, retry_after_s=None), response, target)


def quoted(event: StreamEvent) -> StreamEvent:
    if not isinstance(event, Failed):
        return event
    return replace(event, failure=replace(event.failure, message=event.failure.detail or "it failed"))


def silenced(event: StreamEvent) -> StreamEvent:
    return replace(event, failure=replace(event.failure, code=None, detail="")) if isinstance(event, Failed) else event


_numbers = count()
_texts_only = Capabilities(COMPATIBLE.capabilities.features - {"vision"}, COMPATIBLE.capabilities.parameters)


def each_request(test: Callable[..., None]) -> Callable[[Subject], None]:
    return lambda one: [test(case) for case in request_cases(one)] and None


def each_answer(test: Callable[..., None]) -> Callable[[Subject], None]:
    return lambda one: [test(case) for case in answer_cases(one)] and None


def finished_anyway(event: StreamEvent) -> list[StreamEvent]:
    return [Finished()] if isinstance(event, Failed) else [event]


_shared_parser = Parser(lambda event: [event])
_more_claimed = replace(COMPATIBLE.capabilities, parameters=COMPATIBLE.capabilities.parameters | {"top_k"})
CASES: dict[str, tuple[Adapter, Callable[[Subject], None]]] = {
    "a model's name goes into the path as it is": (
        replace(GOOD, build=careless_build),
        lambda one: requests.test_no_model_name_leads_elsewhere(one, "a\r\nHost: evil.example", False),
    ),
    "the path is fixed": (
        sending(lambda wire: replace(wire, path="/v1/chat/completions")),
        lambda one: requests.test_the_base_path_is_the_target_s(one, "/a/b/c"),
    ),
    "a header names the host": (
        sending(lambda wire: replace(wire, headers=(*wire.headers, ("host", "evil.example")))),
        each_request(requests.test_path_and_headers),
    ),
    "a key stands in the URL": (
        sending(lambda wire: replace(wire, query=(("key", "AIza"),))),
        each_request(requests.test_path_and_headers),
    ),
    "no two requests are the same": (
        sending(lambda wire: replace(wire, headers=(*wire.headers, ("x-number", str(next(_numbers)))))),
        each_request(requests.test_build_is_deterministic_and_leaves_its_input_alone),
    ),
    "the input is changed": (
        replace(GOOD, build=greedy_build),
        each_request(requests.test_build_is_deterministic_and_leaves_its_input_alone),
    ),
    "the request is changed, as an earlier case's was": (
        replace(GOOD, build=greedy_build),
        lambda one: (
            [one.build(case.request) for case in request_cases(one)]
            and each_request(requests.test_build_is_deterministic_and_leaves_its_input_alone)(one)
        ),
    ),
    "system texts are lost": (asking(without_systems), each_request(requests.test_the_provider_understands_the_same)),
    "tools are lost": (
        asking(lambda request: replace(request, tools=(), tool_choice=None, parallel_tool_calls=None)),
        each_request(requests.test_the_provider_understands_the_same),
    ),
    "a parameter is lost": (
        asking(lambda request: replace(request, seed=None)),
        each_request(requests.test_the_provider_understands_the_same),
    ),
    "a temperature of its own is sent": (
        asking(
            lambda request: replace(request, temperature=0.7 if request.temperature is None else request.temperature)
        ),
        each_request(requests.test_nothing_is_asked_for_that_nobody_said),
    ),
    "an answer's length has a limit of its own": (
        asking(lambda request: replace(request, max_tokens=request.max_tokens or 512)),
        requests.test_no_limit_of_its_own_is_sent_where_none_is_needed,
    ),
    "whoever answers, the model that was asked is named": (
        replace(
            GOOD, parse=lambda answer, target: replace(COMPATIBLE.parse_response(answer, target), model=target.model)
        ),
        answers.test_the_model_that_answered_is_the_one_that_is_named,
    ),
    "a stream's model is made up": (
        parsing(lambda event: [replace(event, model="m-1") if isinstance(event, Opened) else event]),
        answers.test_the_model_that_answered_is_the_one_that_is_named,
    ),
    "a body is a list": (
        sending(lambda wire: replace(wire, body=b"[" + wire.body + b"]")),
        each_request(requests.test_path_and_headers),
    ),
    "streams are asked for as JSON": (
        asking(lambda request: replace(request, stream=False)),
        each_request(requests.test_the_provider_understands_the_same),
    ),
    "what isn't claimed is sent all the same": (
        replace(GOOD, claims=_texts_only),
        requests.test_nothing_is_dropped_in_silence,
    ),
    "a client overrules what a site pins": (
        replace(GOOD, build=pins_first),
        requests.test_what_a_site_pins_is_written_last,
    ),
    "usage is not read": (replace(GOOD, parse=uncounted), each_answer(answers.test_streamed_and_whole_are_the_same)),
    "a stream's usage is not read": (
        parsing(lambda event: [] if isinstance(event, UsageReport) else [event]),
        each_answer(answers.test_a_streamed_answer_says_what_the_provider_said),
    ),
    "a feature that no request asks for": (
        replace(GOOD, claims=replace(COMPATIBLE.capabilities, features=frozenset({"tool"}))),
        requests.test_every_feature_is_a_word_that_is_known,
    ),
    "all text comes at the end": (
        replace(GOOD, parser=lambda _: Holding()),
        answers.test_text_arrives_in_pieces,
    ),
    "pieces are decoded as they come": (
        replace(GOOD, parser=lambda _: Decoding(lambda event: [event])),
        lambda one: streams.test_every_split_gives_the_same_events(one, b"\n"),
    ),
    "lines end at U+2028": (
        replace(GOOD, parser=lambda _: SplittingLines(lambda event: [event])),
        each_answer(answers.test_a_streamed_answer_says_what_the_provider_said),
    ),
    "a cut answer is passed off as whole": (
        parsing(finished_anyway),
        streams.test_every_prefix_ends_once_and_a_cut_answer_fails,
    ),
    "an event that is no JSON is passed over": (
        replace(GOOD, parser=lambda _: Skipping(lambda event: [event])),
        streams.test_an_event_that_is_no_json_is_not_passed_over,
    ),
    "the end comes twice": (
        parsing(lambda event: [event, event] if isinstance(event, Finished) else [event]),
        streams.test_every_prefix_ends_once_and_a_cut_answer_fails,
    ),
    "comments are taken for text": (
        parsing(lambda event: [TextDelta("?")] if type(event).__name__ == "Heartbeat" else [event]),
        streams.test_comments_are_signs_of_life,
    ),
    "a parser raises": (replace(GOOD, parser=lambda _: Raising(lambda event: [event])), garbage.test_random_bytes),
    "a key that is refused looks like a bad request": (
        replace(GOOD, classify=always(FailureKind.INVALID_REQUEST)),
        lambda one: errors.test_the_provider_s_own_errors_are_told_apart(one, *_ERROR),
    ),
    "any error is the filter's": (
        replace(GOOD, classify=always(FailureKind.CONTENT_FILTER)),
        lambda one: errors.test_every_status_with_any_body(one, b""),
    ),
    "the provider's words reach the client": (
        replace(GOOD, classify=quoting),
        lambda one: errors.test_the_provider_s_own_errors_are_told_apart(one, *_ERROR),
    ),
    "a body that is no text raises": (
        replace(GOOD, classify=fragile),
        lambda one: errors.test_every_status_with_any_body(one, b"\xff\xfe\x00"),
    ),
    "calls have other ids than the provider's": (
        parsing(with_other_ids),
        each_answer(answers.test_a_streamed_answer_says_what_the_provider_said),
    ),
    "refusals are not read": (
        parsing(lambda event: [] if isinstance(event, RefusalDelta) else [event]),
        lambda one: answers.test_thoughts_and_refusals_that_are_sent_are_read(one, "refusal"),
    ),
    "thoughts are not read": (
        parsing(lambda event: [] if isinstance(event, ReasoningDelta) else [event]),
        lambda one: answers.test_thoughts_and_refusals_that_are_sent_are_read(one, "reasoning"),
    ),
    "text comes behind the finish": (
        parsing(lambda event: [event, TextDelta("!")] if isinstance(event, ChoiceFinish) else [event]),
        answers.test_order_holds_whatever_the_provider_repeats_or_leaves_out,
    ),
    "each event waits for the next": (replace(GOOD, parser=lambda _: Late()), answers.test_no_event_waits_for_the_next),
    "a date is no time to wait": (
        saying(without_dates),
        lambda one: errors.test_a_retry_after_header_is_read(one, formatdate(1_795_000_007, usegmt=True), 7.0),
    ),
    "a time to wait that is none raises": (
        saying(waiting),
        lambda one: errors.test_a_retry_after_header_is_read(one, "soon", None),
    ),
    "the beginning of the provider's words reaches the client": (
        saying(lambda failure, _: replace(failure, message=f"it failed: {failure.detail[:8]}")),
        lambda one: errors.test_no_text_of_theirs_reaches_the_client(one, *_ERROR),
    ),
    "nothing is left for the log": (
        saying(lambda failure, _: replace(failure, code=None, detail="")),
        lambda one: errors.test_an_error_leaves_a_word_for_the_log(one, *_ERROR),
    ),
    "0 is taken for nothing": (
        asking(lambda request: replace(request, temperature=request.temperature or None)),
        requests.test_zero_is_a_value,
    ),
    "what the operator lets through is lost": (
        asking(lambda request: replace(request, extra={})),
        requests.test_what_the_operator_lets_through_is_sent,
    ),
    "a parameter of the vendor's own is claimed alone": (
        replace(asking(lambda request: replace(request, extra={})), claims=_more_claimed),
        requests.test_the_provider_s_own_parameters_are_sent,
    ),
    "all streams have one parser": (
        replace(GOOD, parser=lambda _: _shared_parser),
        purity.test_two_streams_at_once_are_two_answers,
    ),
    "what is held has no bound": (
        replace(GOOD, parser=lambda _: Holding()),
        lambda one: garbage.test_a_line_without_an_end_is_given_up(one, b"x"),
    ),
    "a body without its content type": (
        sending(lambda wire: replace(wire, headers=())),
        each_request(requests.test_path_and_headers),
    ),
    "a header stands twice": (
        sending(lambda wire: replace(wire, headers=(("content-type", "text/plain"), *wire.headers))),
        each_request(requests.test_path_and_headers),
    ),
    "every image is a PNG": (
        sending(lambda wire: replace(wire, body=wire.body.replace(b"image/jpeg", b"image/png"))),
        each_request(requests.test_the_provider_understands_the_same),
    ),
    "arguments that are no JSON raise": (
        replace(GOOD, build=reading_arguments),
        lambda one: requests.test_an_odd_history_is_sent_or_refused(one, "arguments {broken"),
    ),
    "an effort is lost": (
        asking(lambda request: replace(request, reasoning_effort=None)),
        requests.test_an_effort_makes_a_difference,
    ),
    "a new member fails a stream": (
        replace(GOOD, parser=lambda _: Strict(lambda event: [event])),
        streams.test_unknown_fields_and_events_make_no_difference,
    ),
    "a new member fails an answer": (
        replace(GOOD, parse=strict_answer),
        answers.test_unknown_fields_of_a_whole_answer_make_no_difference,
    ),
    "ids of calls are the same in each answer": (
        replace(GOOD, parse=numbered_calls),
        answers.test_ids_that_a_provider_doesn_t_give_differ_between_answers,
    ),
    "a code means something else with status 200": (
        replace(GOOD, parse=blaming_the_key),
        lambda one: errors.test_an_error_with_status_200_is_no_answer(one, FailureKind.QUOTA, 429),
    ),
    "a time to wait is lost with status 200": (
        replace(GOOD, parse=impatient),
        errors.test_a_time_to_wait_is_read_with_status_200,
    ),
    "a stream's error repeats the provider's words": (
        parsing(lambda event: [quoted(event)]),
        lambda one: errors.test_what_an_error_event_says(one, *_ERROR),
    ),
    "a stream's error leaves nothing for the log": (
        parsing(lambda event: [silenced(event)]),
        lambda one: errors.test_what_an_error_event_says(one, *_ERROR),
    ),
    "an error in the middle is passed over": (
        parsing(finished_anyway),
        lambda one: errors.test_an_error_in_the_middle(one, *_ERROR),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_kit_sees_that(name: str) -> None:
    broken, test = CASES[name]
    with pytest.raises((Exception, pytest.fail.Exception)):
        test(subject(broken))


@pytest.mark.parametrize("name", CASES)
def test_the_kit_is_content_where_nothing_is_broken(name: str) -> None:
    _, test = CASES[name]
    test(subject(GOOD))


@dataclass(frozen=True, slots=True)
class Plainspoken(OpenAISimulator):
    """A vendor whose errors are a line of text."""

    def write_error(self, kind: FailureKind, status: int, retry_after_s: float | None = None) -> WireResponse:
        return WireResponse(status, {"content-type": "text/plain"}, f"ERR|{kind.value}".encode(), 0)


def test_errors_that_are_no_json_are_no_fault() -> None:
    one = replace(subject(GOOD), dialect=Plainspoken("openai-compatible"))
    garbage.test_an_error_with_something_wrong_in_it(one)
    errors.test_no_text_of_theirs_reaches_the_client(one, *_ERROR)


@dataclass(frozen=True, slots=True)
class Wordless(OpenAISimulator):
    """A vendor that has no word for what went wrong, and says it with `says`, or with whatever status is asked for."""

    says: int | None = None

    def write_error(self, kind: FailureKind, status: int, retry_after_s: float | None = None) -> WireResponse:
        return WireResponse(self.says or status, {"content-type": "application/json"}, b'{"error": {"code": ""}}', 0)


def test_a_spent_quota_without_a_word_is_told_by_the_status_and_the_kit_says_so() -> None:
    told_apart = errors.test_the_provider_s_own_errors_are_told_apart
    with pytest.raises(AssertionError, match=r"leaves `quota` out of \[simulator.errors\]"):
        told_apart(replace(subject(GOOD), dialect=Wordless("openai-compatible")), FailureKind.QUOTA, 429)
    told_apart(replace(subject(GOOD), dialect=Wordless("openai-compatible", 402)), FailureKind.QUOTA, 429)


@dataclass(frozen=True, slots=True)
class InLines(OpenAISimulator):
    """A vendor whose streams are lines of JSON."""

    stream_type: str = "application/x-ndjson"

    def write_stream(self, completion: ChatCompletion, request: ChatRequest) -> tuple[bytes, ...]:
        events = super(InLines, self).write_stream(completion, request)
        return tuple(event.removeprefix(b"data: ").rstrip() + b"\n" for event in events if b"{" in event)


class Lines(Parser):
    """Reads each line as JSON; of a blank one it makes what `blank` is."""

    def __init__(self, blank: bytes) -> None:
        super().__init__(lambda event: [event])
        self._blank, self._rest = blank, b""

    def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        events = b"".join(b"data: " + (line.strip() or self._blank) + b"\n\n" for line in lines)
        return super().feed(events)


@pytest.mark.parametrize(("blank", "is_right"), [(b"[]", False), (b"", True)], ids=["failing", "passed_over"])
def test_the_kit_sees_that_a_blank_line_is_no_json(blank: bytes, is_right: bool) -> None:
    one = replace(subject(replace(GOOD, parser=lambda _: Lines(blank))), dialect=InLines("openai-compatible"))
    assert one.streams_lines
    if is_right:
        streams.test_blank_lines_and_other_line_ends_make_no_difference(one)
        streams.test_unknown_fields_and_events_make_no_difference(one)
        streams.test_an_event_that_is_no_json_is_not_passed_over(one)
        return
    with pytest.raises((Exception, pytest.fail.Exception)):
        streams.test_blank_lines_and_other_line_ends_make_no_difference(one)


class SkippingLines(Lines):
    """Passes over a line that is no JSON."""

    def __init__(self) -> None:
        super().__init__(b"")
        self._kept = b""

    def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
        *lines, self._kept = (self._kept + data).split(b"\n")
        return super().feed(b"".join(line + b"\n" for line in lines if line.endswith((b"}", b"]"))))


def test_the_kit_sees_that_a_line_is_passed_over() -> None:
    one = replace(subject(replace(GOOD, parser=lambda _: SkippingLines())), dialect=InLines("openai-compatible"))
    streams.test_unknown_fields_and_events_make_no_difference(one)
    with pytest.raises(AssertionError, match="is no JSON and was passed over"):
        streams.test_an_event_that_is_no_json_is_not_passed_over(one)


def test_the_kit_sees_that_a_stream_is_called_json() -> None:
    called_json = InLines("openai-compatible", stream_type="application/stream+json")
    one = replace(subject(replace(GOOD, parser=lambda _: Lines(b""))), dialect=InLines("openai-compatible"))
    answers.test_a_stream_is_known_by_its_content_type(one)
    with pytest.raises(AssertionError, match="another word"):
        answers.test_a_stream_is_known_by_its_content_type(replace(one, dialect=called_json))


def test_a_line_of_json_is_broken_as_an_event_is() -> None:
    lines, events = (list(garbage._broken_events(event)) for event in (b'{"say":"x"}\n', b'data: {"say":"x"}\n\n'))
    assert [b"data: " + line + b"\n" for line in lines] == events != []


def test_the_kit_sees_an_import_of_a_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "vendor_with_client"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "sockets.py").write_text("def connect():\n    from urllib import request\n    return request\n")
    (package / "adapter.py").write_text(
        "from vendor_with_client import sockets\n"
        "from providers.vendors.openai.adapter import COMPATIBLE, OpenAIAdapter\n"
        "class Mine(OpenAIAdapter):\n    connect = sockets.connect\n"
        'ADAPTER = Mine("openai-compatible", COMPATIBLE.auth, "max_tokens")\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    from vendor_with_client.adapter import ADAPTER

    with pytest.raises(AssertionError, match=r"urllib\.request"):
        purity.test_imports_nothing_that_does_io(subject(ADAPTER))


@pytest.mark.parametrize(
    "source",
    [
        "from datetime import datetime\ndef now():\n    return datetime.now()\n",
        "import uuid\ndef new():\n    return uuid.uuid4().hex\n",
        "_LAST = 0\ndef next():\n    global _LAST\n    _LAST += 1\n",
        "def rules():\n    return open('/etc/rules').read()\n",
        "from datetime import datetime as time_of\ndef now():\n    return time_of.now()\n",
        "_SEEN = {}\ndef seen(id):\n    _SEEN[id] = True\n",
        "_SEEN: list[str] = []\ndef seen(id):\n    _SEEN.append(id)\n",
        "_SEEN = {}\ndef forget(id):\n    del _SEEN[id]\n",
        "class Seen:\n    last = ''\ndef note(id):\n    Seen.last = id\n",
        "from pathlib import Path\ndef note(id):\n    Path('/tmp/ids').write_text(id)\n",
        "import logging\ndef note(id):\n    logging.warning(id)\n",
        "class Seen:\n    ids = []\ndef note(id):\n    Seen.ids.append(id)\n",
        "def note(id, seen={}):\n    seen[id] = True\n",
        "from itertools import count\n_NUMBERS = count()\ndef number():\n    return next(_NUMBERS)\n",
        "class Noting:\n    seen = {}\n    def note(self, id):\n        self.seen[id] = True\n",
    ],
    ids="clock chance global file renamed_clock table_filled list_filled table_emptied class path log list_of_a_class "
    "default counter adapter".split(),
)
def test_the_kit_sees_what_is_not_pure(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"vendor_that_is_not_pure_{crc32(source.encode())}"
    bases = "Noting, OpenAIAdapter" if "class Noting" in source else "OpenAIAdapter"
    (tmp_path / f"{name}.py").write_text(
        f"{source}"
        "from providers.vendors.openai.adapter import COMPATIBLE, OpenAIAdapter\n"
        f"class Mine({bases}):\n    pass\n"
        'ADAPTER = Mine("openai-compatible", COMPATIBLE.auth, "max_tokens")\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    impure = subject(import_module(name).ADAPTER)
    with pytest.raises(AssertionError, match=name):
        held_to_be_pure(impure)


def held_to_be_pure(subject: Subject) -> None:
    purity.test_imports_nothing_that_does_io(subject)
    purity.test_uses_no_clock_no_global_and_no_file(subject)


def test_a_function_may_change_what_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vendor_that_is_pure.py").write_text(
        "KINDS = {}\nKINDS['a'] = 1\nWORDS = ['a']\n"
        "def words(WORDS):\n    WORDS.append('b')\n    KINDS = {}\n    KINDS['b'] = 2\n    return WORDS, KINDS\n"
        "from providers.vendors.openai.adapter import COMPATIBLE, OpenAIAdapter\n"
        "class Mine(OpenAIAdapter):\n    pass\n"
        'ADAPTER = Mine("openai-compatible", COMPATIBLE.auth, "max_tokens")\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    held_to_be_pure(subject(import_module("vendor_that_is_pure").ADAPTER))


@pytest.mark.parametrize(
    "members",
    [
        "    @staticmethod\n    def put(body, name):\n        body[name] = True\n",
        "    def headers(self, more={}):\n        more = dict(more)\n        more['a'] = 'b'\n        return more\n",
        "    def parser(self):\n        class Parser:\n            def feed(self, data):\n                self.last = data\n"
        "        return Parser()\n",
        "    def counted(self):\n        def count(self):\n            self['a'] += 1\n        count({'a': 0})\n",
        "    @cached_property\n    def words(self):\n        found = {}\n        found['a'] = self.name\n        return found\n",
    ],
    ids="static default_copied parser_within function_within cached_property".split(),
)
def test_an_adapter_may_be_written_in_an_odd_style(
    members: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"vendor_in_an_odd_style_{crc32(members.encode())}"
    (tmp_path / f"{name}.py").write_text(
        "from functools import cached_property\n"
        "from providers.vendors.openai.adapter import COMPATIBLE, OpenAIAdapter\n"
        f"class Mine(OpenAIAdapter):\n{members}"
        'ADAPTER = Mine("openai-compatible", COMPATIBLE.auth, "max_tokens")\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    held_to_be_pure(subject(import_module(name).ADAPTER))


def run_kit(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The kit as a stranger runs it, in a repository of theirs."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--pyargs", *options]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    (tmp_path / "their_adapter.py").write_text(
        "from dataclasses import dataclass, replace\n"
        "from providers.vendors.openai.adapter import COMPATIBLE, OpenAIAdapter\n"
        "from providers.vendors.openai.simulator import OpenAISimulator\n"
        "@dataclass(frozen=True, slots=True)\n"
        "class Theirs(OpenAIAdapter):\n"
        "    sites = property(lambda self: {})\n"
        "    models = property(lambda self: {})\n"
        "class Forgetful(Theirs):\n"
        "    def build_request(self, request, target):\n"
        "        return Theirs.build_request(self, replace(request, stop=()), target)\n"
        'GOOD = Theirs("theirs", COMPATIBLE.auth, "max_tokens")\n'
        'BROKEN = Forgetful("theirs", COMPATIBLE.auth, "max_tokens")\n'
        'DIALECT = OpenAISimulator("theirs")\n'
    )
    (tmp_path / "unfinished.py").write_text("ADAPTER = Theirs(\n")
    (tmp_path / "misread.py").write_text(
        "from providers.compatible import adapter_of\n"
        "ADAPTER = adapter_of('name = \"misread\"\\n[dialect]\\ncolour = 1\\n')\n"
    )
    (tmp_path / "alone.py").write_text(
        "from their_adapter import DIALECT as _theirs, GOOD\n"
        "class Made:\n    __new__ = lambda cls: GOOD\n"
        "class Side:\n    __new__ = lambda cls: _theirs\n"
    )
    wire = tmp_path / "tests" / "wire" / "theirs"
    wire.mkdir(parents=True)
    (wire / "hello.stream.txt").write_text('data: {"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}\n\n')
    credits = '"about":"a","source":"b","date":"2026-11-20","model":"m"'
    answer = '{"id":"","model":"m","created":0,"choices":[{"index":0,"content":"x","finish_reason":"stop"}]}'
    (wire / "hello.expect.json").write_text(f'{{{credits},"stream":{answer}}}')
    return tmp_path


def test_a_stranger_s_adapter_passes_by_the_command_line(stranger: Path) -> None:
    modules = [f"providers.conformance.test_{name}" for name in ("requests", "wire")]
    done = run_kit(stranger, *modules, "--adapter", "their_adapter:GOOD", "--dialect", "their_adapter:DIALECT")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_an_adapter_in_the_making_is_found_where_pytest_is_called_with_the_dialect_beside_it(stranger: Path) -> None:
    """`pytest` itself, not `python -m pytest`: it doesn't look for modules where it is called."""
    command = [str(Path(sys.executable).with_name("pytest")), "-q", "-p", "no:cacheprovider", "--pyargs"]
    kit = ["providers.conformance.test_purity", "--adapter", "their_adapter:GOOD"]
    done = subprocess.run([*command, *kit], cwd=stranger, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_a_class_stands_for_what_it_makes(stranger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(stranger)
    for name in ("their_adapter", "alone"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (one,) = select(["alone:Made"], ["alone:Side"], stranger, wire_is_given=False).subjects
    assert (one.adapter.name, one.dialect.name) == ("theirs", "theirs")


def test_a_stranger_s_adapter_fails_by_the_command_line(stranger: Path) -> None:
    kit = "providers.conformance.test_requests"
    done = run_kit(stranger, kit, "--adapter", "their_adapter:BROKEN", "--dialect", "their_adapter:DIALECT")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED" in done.stdout
    assert "test_the_provider_understands_the_same[theirs-some-model-stop]" in done.stdout


@pytest.mark.parametrize(
    ("adapters", "dialects", "complaint"),
    [
        (["their_adapter"], [], "MODULE:NAME"),
        (["their_adapter:NOTHING"], [], "NOTHING"),
        (["no_such_module:ADAPTER"], [], "no_such_module"),
        (["unfinished:ADAPTER"], [], r"--adapter unfinished:ADAPTER: .* was never closed \(unfinished\.py, line 1\)"),
        (["misread:ADAPTER"], [], "--adapter misread:ADAPTER: DialectError: dialect: 'colour' is not known"),
        (["their_adapter:DIALECT"], [], "is not a valid adapter: it lacks capabilities"),
        (["their_adapter:Theirs"], [], "missing 3 required positional arguments"),
        (["alone:GOOD"], [], "no dialect is registered for 'theirs'"),
        (["their_adapter:GOOD"], ["their_adapter:GOOD"], "is not a valid dialect: it lacks"),
    ],
)
def test_what_is_wrong_with_the_options_is_said(
    stranger: Path, monkeypatch: pytest.MonkeyPatch, adapters: list[str], dialects: list[str], complaint: str
) -> None:
    monkeypatch.syspath_prepend(stranger)
    for name in ("their_adapter", "alone"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(pytest.UsageError, match=complaint):
        select(adapters, dialects, stranger, wire_is_given=False)


def test_a_wrong_option_is_one_clear_line(stranger: Path) -> None:
    kit = "providers.conformance.test_purity"
    done = run_kit(stranger, kit, "--adapter", "providers.vendors.openai.adapter:ADAPTER", "--wire", "nowhere")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert done.stderr.strip().splitlines() == [f"ERROR: --wire: {stranger / 'nowhere'} is no folder"]


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"a.stream.txt": ""}, "come together"),
        ({"a.expect.json": "{}"}, "come together"),
        ({"a.text": ""}, "is no fixture"),
        ({"a.response.json": "{}", "a.expect.json": "{"}, "a.expect.json: not valid JSON"),
        ({"a.response.json": "{}", "a.expect.json": '{"about":"x"}'}, "lacks source, date, model"),
    ],
)
def test_a_fixture_that_can_t_be_used_is_named(tmp_path: Path, files: dict[str, str], complaint: str) -> None:
    (tmp_path / "openai-compatible").mkdir()
    for name, text in files.items():
        (tmp_path / "openai-compatible" / name).write_text(text)
    with pytest.raises(WireError, match=complaint):
        find_wire_cases(tmp_path, [subject(GOOD)])
