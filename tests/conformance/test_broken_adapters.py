"""Each adapter here is broken in one way, and a test of the conformance kit must fail for it."""

from __future__ import annotations

import os
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
    ChatCompletion,
    ChatRequest,
    ChoiceFinish,
    Failed,
    Finished,
    Opened,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
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
from providers.vendors.openai.adapter import COMPATIBLE, OpenAIAdapter
from providers.vendors.openai.simulator import SIMULATOR, OpenAISimulator
from providers.wire import WireRequest, WireResponse

pytestmark = pytest.mark.slow("runs parts of the kit many times")

_ERROR = (FailureKind.CREDENTIALS, 401)


@dataclass(frozen=True, slots=True)
class Broken(OpenAIAdapter):
    """A correct adapter in which functions can be replaced."""

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
    """A parser whose events are changed by a function."""

    def __init__(self, change: Callable[[StreamEvent], Iterable[StreamEvent]]) -> None:
        self._inner = COMPATIBLE.stream_parser(Target("m", "", subject(GOOD).facts))
        self._change = change

    def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
        return self._changed(self._inner.feed(data))

    def close(self) -> tuple[StreamEvent, ...]:
        return self._changed(self._inner.close())

    def _changed(self, events: Iterable[StreamEvent]) -> tuple[StreamEvent, ...]:
        return tuple(new for event in events for new in self._change(event))


class SplittingLines(Parser):
    """A parser that also splits lines at U+2028, as `str.splitlines` does."""

    def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
        return super().feed(b"\n".join(line.encode() for line in data.decode("utf-8", "replace").split("\u2028")))


class Raising(Parser):
    """A parser that raises an exception instead of emitting `Failed`."""

    def _changed(self, events: Iterable[StreamEvent]) -> tuple[StreamEvent, ...]:
        changed = super()._changed(events)
        for event in changed:
            if isinstance(event, Failed):
                raise ProviderFailed(event.failure)
        return changed


class Holding(Parser):
    """A parser that emits all events at the end."""

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
    """A parser that emits each event only when the next one arrives."""

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


def careless_build(request: ChatRequest, target: Target) -> WireRequest:
    wire = COMPATIBLE.build_request(request, target)
    return replace(wire, path=f"{target.base_path}/{target.model}/chat/completions")


def greedy_build(request: ChatRequest, target: Target) -> WireRequest:
    for tool in request.tools:
        if tool.parameters is not None:
            dict.setdefault(tool.parameters, "additionalProperties", False)  # type: ignore[arg-type]
    return COMPATIBLE.build_request(request, target)


def always(kind: FailureKind) -> Callable[[WireResponse], Failure]:
    return lambda response: replace(COMPATIBLE.classify_error(response), kind=kind)


def fragile(response: WireResponse) -> Failure:
    response.body.decode("utf-8")
    return COMPATIBLE.classify_error(response)


def classifying(change: Callable[[Failure, WireResponse], Failure]) -> Broken:
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


class Strict(Parser):
    """A parser that fails for unknown fields."""

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
    "model name is not encoded in the path": (
        replace(GOOD, build=careless_build),
        lambda one: requests.test_model_name_cannot_change_the_destination(one, "a\r\nHost: evil.example", False),
    ),
    "base path of the target is ignored": (
        sending(lambda wire: replace(wire, path="/v1/chat/completions")),
        lambda one: requests.test_base_path_of_the_target_is_used(one, "/a/b/c"),
    ),
    "host header is set": (
        sending(lambda wire: replace(wire, headers=(*wire.headers, ("host", "evil.example")))),
        each_request(requests.test_path_and_headers_are_valid),
    ),
    "API key is in the URL": (
        sending(lambda wire: replace(wire, query=(("key", "AIza"),))),
        each_request(requests.test_path_and_headers_are_valid),
    ),
    "request is not deterministic": (
        sending(lambda wire: replace(wire, headers=(*wire.headers, ("x-number", str(next(_numbers)))))),
        each_request(requests.test_build_request_is_deterministic_and_does_not_change_its_input),
    ),
    "input is changed": (
        replace(GOOD, build=greedy_build),
        each_request(requests.test_build_request_is_deterministic_and_does_not_change_its_input),
    ),
    "input is changed, after an earlier case changed the same tools": (
        replace(GOOD, build=greedy_build),
        lambda one: (
            [one.build(case.request) for case in request_cases(one)]
            and each_request(requests.test_build_request_is_deterministic_and_does_not_change_its_input)(one)
        ),
    ),
    "a parameter is lost": (
        asking(lambda request: replace(request, seed=None)),
        each_request(requests.test_provider_receives_the_same_request),
    ),
    "default max_tokens is added": (
        asking(lambda request: replace(request, max_tokens=request.max_tokens or 512)),
        requests.test_no_unneeded_max_tokens_is_sent,
    ),
    "stream names an invented model": (
        parsing(lambda event: [replace(event, model="m-1") if isinstance(event, Opened) else event]),
        answers.test_answer_names_the_model_that_answered,
    ),
    "body is a list": (
        sending(lambda wire: replace(wire, body=b"[" + wire.body + b"]")),
        each_request(requests.test_path_and_headers_are_valid),
    ),
    "stream is requested as JSON": (
        asking(lambda request: replace(request, stream=False)),
        each_request(requests.test_provider_receives_the_same_request),
    ),
    "unclaimed feature is sent": (replace(GOOD, claims=_texts_only), requests.test_unclaimed_feature_is_refused),
    "usage is not read": (
        replace(GOOD, parse=uncounted),
        each_answer(answers.test_streamed_and_whole_answers_are_equal),
    ),
    "unknown feature is claimed": (
        replace(GOOD, claims=replace(COMPATIBLE.capabilities, features=frozenset({"tool"}))),
        requests.test_claimed_features_are_known,
    ),
    "all text is emitted at the end": (
        replace(GOOD, parser=lambda _: Holding()),
        answers.test_text_is_streamed_before_the_end,
    ),
    "lines end at U+2028": (
        replace(GOOD, parser=lambda _: SplittingLines(lambda event: [event])),
        each_answer(answers.test_streamed_answer_is_read_as_it_was_sent),
    ),
    "truncated answer is finished": (parsing(finished_anyway), streams.test_truncated_stream_fails),
    "terminal event is emitted twice": (
        parsing(lambda event: [event, event] if isinstance(event, Finished) else [event]),
        streams.test_truncated_stream_fails,
    ),
    "comments are read as text": (
        parsing(lambda event: [TextDelta("?")] if type(event).__name__ == "Heartbeat" else [event]),
        streams.test_comments_become_heartbeats,
    ),
    "parser raises an exception": (
        replace(GOOD, parser=lambda _: Raising(lambda event: [event])),
        garbage.test_random_bytes_never_raise,
    ),
    "every error is classified as content_filter": (
        replace(GOOD, classify=always(FailureKind.CONTENT_FILTER)),
        lambda one: errors.test_every_error_status_with_any_body_is_a_failure(one, b""),
    ),
    "binary body raises an exception": (
        replace(GOOD, classify=fragile),
        lambda one: errors.test_every_error_status_with_any_body_is_a_failure(one, b"\xff\xfe\x00"),
    ),
    "call ids differ from the provider's": (
        parsing(with_other_ids),
        each_answer(answers.test_streamed_answer_is_read_as_it_was_sent),
    ),
    "refusals are not read": (
        parsing(lambda event: [] if isinstance(event, RefusalDelta) else [event]),
        lambda one: answers.test_reasoning_and_refusals_are_read(one, "refusal"),
    ),
    "text follows the finish": (
        parsing(lambda event: [event, TextDelta("!")] if isinstance(event, ChoiceFinish) else [event]),
        answers.test_order_is_canonical_when_events_are_repeated_or_missing,
    ),
    "each event waits for the next": (
        replace(GOOD, parser=lambda _: Late()),
        answers.test_each_event_is_emitted_when_it_arrives,
    ),
    "retry-after date is ignored": (
        classifying(without_dates),
        lambda one: errors.test_retry_after_header_is_read(one, formatdate(1_795_000_007, usegmt=True), 7.0),
    ),
    "invalid retry-after raises an exception": (
        classifying(waiting),
        lambda one: errors.test_retry_after_header_is_read(one, "soon", None),
    ),
    "start of the provider text reaches the client": (
        classifying(lambda failure, _: replace(failure, message=f"it failed: {failure.detail[:8]}")),
        lambda one: errors.test_error_text_of_the_provider_does_not_reach_the_client(one, *_ERROR),
    ),
    "vendor parameter is claimed but not sent": (
        replace(asking(lambda request: replace(request, extra={})), claims=_more_claimed),
        requests.test_claimed_vendor_parameters_are_sent,
    ),
    "all streams share one parser": (
        replace(GOOD, parser=lambda _: _shared_parser),
        purity.test_interleaved_streams_do_not_mix,
    ),
    "parser memory is unbounded": (
        replace(GOOD, parser=lambda _: Holding()),
        lambda one: garbage.test_endless_line_fails_in_bounded_memory(one, b"x"),
    ),
    "header occurs twice": (
        sending(lambda wire: replace(wire, headers=(("content-type", "text/plain"), *wire.headers))),
        each_request(requests.test_path_and_headers_are_valid),
    ),
    "reasoning effort is lost": (
        asking(lambda request: replace(request, reasoning_effort=None)),
        requests.test_reasoning_effort_changes_the_request,
    ),
    "unknown member fails a stream": (
        replace(GOOD, parser=lambda _: Strict(lambda event: [event])),
        streams.test_unknown_fields_and_events_are_ignored,
    ),
    "unknown member fails an answer": (
        replace(GOOD, parse=strict_answer),
        answers.test_unknown_fields_of_a_whole_answer_are_ignored,
    ),
    "call ids are the same in each answer": (
        replace(GOOD, parse=numbered_calls),
        answers.test_generated_call_ids_differ_between_answers,
    ),
    "error code is classified differently with status 200": (
        replace(GOOD, parse=blaming_the_key),
        lambda one: errors.test_error_with_status_200_fails(one, FailureKind.QUOTA, 429),
    ),
    "retry-after is lost with status 200": (
        replace(GOOD, parse=impatient),
        errors.test_retry_after_is_read_with_status_200,
    ),
    "error in a stream repeats provider text": (
        parsing(lambda event: [quoted(event)]),
        lambda one: errors.test_error_event_is_classified_and_logged(one, *_ERROR),
    ),
    "error in a stream has no detail for the log": (
        parsing(lambda event: [silenced(event)]),
        lambda one: errors.test_error_event_is_classified_and_logged(one, *_ERROR),
    ),
    "error in the middle of a stream is ignored": (
        parsing(finished_anyway),
        lambda one: errors.test_error_in_the_middle_ends_the_stream(one, *_ERROR),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_kit_fails_for_a_broken_adapter(name: str) -> None:
    broken, test = CASES[name]
    with pytest.raises((Exception, pytest.fail.Exception)):
        test(subject(broken))


@pytest.mark.parametrize("name", CASES)
def test_kit_passes_for_the_correct_adapter(name: str) -> None:
    _, test = CASES[name]
    test(subject(GOOD))


@dataclass(frozen=True, slots=True)
class PlainTextErrors(OpenAISimulator):
    """A vendor whose error bodies are plain text."""

    def write_error(self, kind: FailureKind, status: int, retry_after_s: float | None = None) -> WireResponse:
        return WireResponse(status, {"content-type": "text/plain"}, f"ERR|{kind.value}".encode(), 0)


def test_kit_accepts_error_bodies_in_plain_text() -> None:
    one = replace(subject(GOOD), simulator=PlainTextErrors("openai-compatible"))
    garbage.test_error_with_one_wrong_value_never_raises(one)
    errors.test_error_text_of_the_provider_does_not_reach_the_client(one, *_ERROR)


@dataclass(frozen=True, slots=True)
class ErrorsWithoutCode(OpenAISimulator):
    """A vendor whose errors have no code: only the status, `fixed_status` or the requested one, shows the kind."""

    fixed_status: int | None = None

    def write_error(self, kind: FailureKind, status: int, retry_after_s: float | None = None) -> WireResponse:
        return WireResponse(
            self.fixed_status or status, {"content-type": "application/json"}, b'{"error": {"code": ""}}', 0
        )


def test_kit_names_the_fix_for_a_quota_error_without_a_code() -> None:
    check_classified = errors.test_provider_errors_are_classified
    with pytest.raises(AssertionError, match=r"leaves `quota` out of \[simulator.errors\]"):
        check_classified(
            replace(subject(GOOD), simulator=ErrorsWithoutCode("openai-compatible")), FailureKind.QUOTA, 429
        )
    check_classified(
        replace(subject(GOOD), simulator=ErrorsWithoutCode("openai-compatible", 402)), FailureKind.QUOTA, 429
    )


@dataclass(frozen=True, slots=True)
class InLines(OpenAISimulator):
    """A vendor whose streams are JSON Lines."""

    stream_type: str = "application/x-ndjson"

    def write_stream(self, completion: ChatCompletion, request: ChatRequest) -> tuple[bytes, ...]:
        events = super(InLines, self).write_stream(completion, request)
        return tuple(event.removeprefix(b"data: ").rstrip() + b"\n" for event in events if b"{" in event)


class Lines(Parser):
    """A parser that reads each line as JSON, and a blank line as `blank`."""

    def __init__(self, blank: bytes) -> None:
        super().__init__(lambda event: [event])
        self._blank, self._rest = blank, b""

    def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        events = b"".join(b"data: " + (line.strip() or self._blank) + b"\n\n" for line in lines)
        return super().feed(events)


@pytest.mark.parametrize(("blank", "is_right"), [(b"[]", False), (b"", True)], ids=["failing", "passed_over"])
def test_kit_fails_if_a_blank_line_is_not_ignored(blank: bytes, is_right: bool) -> None:
    one = replace(subject(replace(GOOD, parser=lambda _: Lines(blank))), simulator=InLines("openai-compatible"))
    assert one.streams_lines
    if is_right:
        streams.test_blank_lines_and_line_ends_of_json_lines_are_ignored(one)
        streams.test_unknown_fields_and_events_are_ignored(one)
        streams.test_invalid_json_event_is_not_ignored(one)
        return
    with pytest.raises((Exception, pytest.fail.Exception)):
        streams.test_blank_lines_and_line_ends_of_json_lines_are_ignored(one)


class SkippingLines(Lines):
    """A parser that ignores lines of invalid JSON."""

    def __init__(self) -> None:
        super().__init__(b"")
        self._kept = b""

    def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
        *lines, self._kept = (self._kept + data).split(b"\n")
        return super().feed(b"".join(line + b"\n" for line in lines if line.endswith((b"}", b"]"))))


def test_kit_fails_if_an_invalid_line_is_ignored() -> None:
    one = replace(subject(replace(GOOD, parser=lambda _: SkippingLines())), simulator=InLines("openai-compatible"))
    streams.test_unknown_fields_and_events_are_ignored(one)
    with pytest.raises(AssertionError, match="is not valid JSON and was ignored"):
        streams.test_invalid_json_event_is_not_ignored(one)


def test_kit_fails_if_the_content_type_of_a_stream_means_one_json_body() -> None:
    called_json = InLines("openai-compatible", stream_type="application/stream+json")
    one = replace(subject(replace(GOOD, parser=lambda _: Lines(b""))), simulator=InLines("openai-compatible"))
    answers.test_stream_is_recognised_by_its_content_type(one)
    with pytest.raises(AssertionError, match="another content type"):
        answers.test_stream_is_recognised_by_its_content_type(replace(one, simulator=called_json))


def test_json_lines_are_broken_in_the_same_way_as_events() -> None:
    lines, events = (list(garbage._broken_events(event)) for event in (b'{"say":"x"}\n', b'data: {"say":"x"}\n\n'))
    assert [b"data: " + line + b"\n" for line in lines] == events != []


def test_kit_fails_if_the_adapter_imports_an_http_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        purity.test_adapter_imports_no_io(subject(ADAPTER))


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
def test_kit_fails_for_impure_code(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        check_purity(impure)


def check_purity(subject: Subject) -> None:
    purity.test_adapter_imports_no_io(subject)
    purity.test_adapter_uses_no_clock_global_state_or_file(subject)


def test_function_may_change_its_local_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vendor_that_is_pure.py").write_text(
        "KINDS = {}\nKINDS['a'] = 1\nWORDS = ['a']\n"
        "def words(WORDS):\n    WORDS.append('b')\n    KINDS = {}\n    KINDS['b'] = 2\n    return WORDS, KINDS\n"
        "from providers.vendors.openai.adapter import COMPATIBLE, OpenAIAdapter\n"
        "class Mine(OpenAIAdapter):\n    pass\n"
        'ADAPTER = Mine("openai-compatible", COMPATIBLE.auth, "max_tokens")\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    check_purity(subject(import_module("vendor_that_is_pure").ADAPTER))


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
def test_kit_passes_for_pure_code_in_unusual_style(
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
    check_purity(subject(import_module(name).ADAPTER))


def run_kit(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the kit as a third party does, in its own repository, without the plug-ins of others: they take seconds to import."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "providers.conformance.plugin"]
    return subprocess.run(
        [*command, "--pyargs", *options],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def plugin_folder(tmp_path: Path) -> Path:
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
        'SIMULATOR = OpenAISimulator("theirs")\n'
    )
    (tmp_path / "unfinished.py").write_text("ADAPTER = Theirs(\n")
    (tmp_path / "misread.py").write_text(
        "from providers.compatible import adapter_of\n"
        "ADAPTER = adapter_of('name = \"misread\"\\n[dialect]\\ncolour = 1\\n')\n"
    )
    (tmp_path / "alone.py").write_text(
        "from their_adapter import SIMULATOR as _theirs, GOOD\n"
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


def test_third_party_adapter_passes_on_the_command_line(plugin_folder: Path) -> None:
    modules = [f"providers.conformance.test_{name}" for name in ("requests", "wire")]
    done = run_kit(plugin_folder, *modules, "--adapter", "their_adapter:GOOD", "--simulator", "their_adapter:SIMULATOR")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_adapter_in_the_current_folder_is_found_with_the_simulator_of_its_module(plugin_folder: Path) -> None:
    """`pytest` itself, unlike `python -m pytest`, does not add the current folder to the import path."""
    command = [str(Path(sys.executable).with_name("pytest")), "-q", "-p", "no:cacheprovider", "--pyargs"]
    kit = ["providers.conformance.test_purity", "--adapter", "their_adapter:GOOD"]
    done = subprocess.run([*command, *kit], cwd=plugin_folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_class_as_adapter_is_instantiated(plugin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(plugin_folder)
    for name in ("their_adapter", "alone"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (one,) = select(["alone:Made"], ["alone:Side"], plugin_folder, wire_is_given=False).subjects
    assert (one.adapter.name, one.simulator.name) == ("theirs", "theirs")


def test_broken_third_party_adapter_fails_on_the_command_line(plugin_folder: Path) -> None:
    kit = "providers.conformance.test_requests"
    done = run_kit(plugin_folder, kit, "--adapter", "their_adapter:BROKEN", "--simulator", "their_adapter:SIMULATOR")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED" in done.stdout
    assert "test_provider_receives_the_same_request[theirs-some-model-stop]" in done.stdout


@pytest.mark.parametrize(
    ("adapters", "simulators", "complaint"),
    [
        (["their_adapter"], [], "MODULE:NAME"),
        (["their_adapter:NOTHING"], [], "NOTHING"),
        (["no_such_module:ADAPTER"], [], "no_such_module"),
        (["unfinished:ADAPTER"], [], r"--adapter unfinished:ADAPTER: .* was never closed \(unfinished\.py, line 1\)"),
        (["misread:ADAPTER"], [], "--adapter misread:ADAPTER: DialectError: dialect: 'colour' is not known"),
        (["their_adapter:SIMULATOR"], [], "is not a valid adapter: it lacks capabilities"),
        (["their_adapter:Theirs"], [], "missing 3 required positional arguments"),
        (["alone:GOOD"], [], "no simulator is registered for 'theirs'"),
        (["their_adapter:GOOD"], ["their_adapter:GOOD"], "is not a valid simulator: it lacks"),
    ],
)
def test_wrong_option_is_reported(
    plugin_folder: Path, monkeypatch: pytest.MonkeyPatch, adapters: list[str], simulators: list[str], complaint: str
) -> None:
    monkeypatch.syspath_prepend(plugin_folder)
    for name in ("their_adapter", "alone"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(pytest.UsageError, match=complaint):
        select(adapters, simulators, plugin_folder, wire_is_given=False)


def test_wrong_option_is_reported_in_one_line(plugin_folder: Path) -> None:
    kit = "providers.conformance.test_purity"
    done = run_kit(plugin_folder, kit, "--adapter", "providers.vendors.openai.adapter:ADAPTER", "--wire", "nowhere")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert done.stderr.strip().splitlines() == [f"ERROR: --wire: {plugin_folder / 'nowhere'} is not a folder"]


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"a.stream.txt": ""}, "needs an expect.json, and the reverse"),
        ({"a.expect.json": "{}"}, "needs an expect.json, and the reverse"),
        ({"a.text": ""}, "unknown kind of fixture"),
        ({"a.response.json": "{}", "a.expect.json": "{"}, "a.expect.json: not valid JSON"),
        ({"a.response.json": "{}", "a.expect.json": '{"about":"x"}'}, "lacks source, date, model"),
        ({"a.request.json": "[]"}, "a.request.json: is not a JSON object"),
        ({"a.request.json": '{"based_on":"b.json"}'}, r"b\.json: .*No such file"),
        (
            {
                "a.request.json": '{"about":"x","source":"x","date":"x","model":"x"}',
                "b.request.json": '{"based_on":"a.request.json"}',
            },
            r"b\.request\.json: lacks about, source, date$",
        ),
    ],
)
def test_invalid_fixture_is_reported(tmp_path: Path, files: dict[str, str], complaint: str) -> None:
    (tmp_path / "openai-compatible").mkdir()
    for name, text in files.items():
        (tmp_path / "openai-compatible" / name).write_text(text)
    with pytest.raises(WireError, match=complaint):
        find_wire_cases(tmp_path, [subject(GOOD)])
