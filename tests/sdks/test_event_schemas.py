"""Each event of each recorded stream is valid by the schemas of Open Responses and of Anthropic, which llm-comply has.

The events and items that OpenAI's clients read beyond the schema are named in `OPENAIS` and `ITEMS`, and on the page of the API.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from gateway.api.dialects.messages import Messages
from gateway.api.dialects.responses import Responses
from gateway.api.errors import ApiError
from gateway.execution.exchange import AnswerStyle
from gateway.model.record import Record
from providers import chat
from providers.adapter import answers_chats
from providers.conformance.recordings import WireCase, find_wire_cases
from providers.conformance.subject import parse_stream, subjects_of
from providers.reading.folding import fold
from providers.registry import load_registry
from tests.kit.vendor_checks import checked_simulators

schema = pytest.importorskip("llm_comply.schema", reason="make install-sdks installs the kit")

pytestmark = [
    pytest.mark.slow("reads schemas of a megabyte"),
    pytest.mark.filterwarnings("ignore:jsonschema.RefResolver is deprecated:DeprecationWarning"),
]
WIRE = Path(__file__).parents[1] / "wire"
SPECS = Path(schema.__file__).parent / "specs"
STYLE = AnswerStyle(include_usage=True)
OPENAIS = {
    "response.custom_tool_call_input.delta",
    "response.custom_tool_call_input.done",
    "response.reasoning_text.delta",
    "response.reasoning_text.done",
}
"""The events that OpenAI has, and the schema has not."""
ITEMS = {"custom_tool_call", "tool_search_call", "image_generation_call"}
"""The items that OpenAI has, and the schema has not."""
SUMMARY = "ResponseReasoningSummary{}StreamingEvent"
BY_NAME = {
    **schema.SSE_EVENT_TO_SCHEMA,
    "response.reasoning_summary_text.delta": SUMMARY.format("Delta"),
    "response.reasoning_summary_text.done": SUMMARY.format("Done"),
}
MESSAGE_EVENTS = {
    "message_start": "MessageStartEvent",
    "message_delta": "MessageDeltaEvent",
    "message_stop": "MessageStopEvent",
    "content_block_start": "ContentBlockStartEvent",
    "content_block_delta": "ContentBlockDeltaEvent",
    "content_block_stop": "ContentBlockStopEvent",
}
FUNCTION: Any = {"type": "function", "name": "f"}
CLOSED: Any = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
OPEN: Any = {"type": "object", "properties": {"a": {"type": "string"}}}
STREAM: tuple[chat.StreamEvent, ...] = (
    chat.Opened("id-1", "model-1", 7, "flex"),
    chat.ReasoningDelta("Hm."),
    chat.TextDelta("Hi"),
    chat.ToolCallDelta(0, '{"a": 1}', "call_1", "f"),
    chat.ChoiceFinish("tool_calls"),
    chat.UsageReport(chat.Usage(3, 2)),
    chat.Finished(),
)


@cache
def loader(name: str) -> Any:
    return schema.SpecLoader(str(SPECS / name))


@cache
def recorded() -> list[tuple[WireCase, tuple[chat.StreamEvent, ...]]]:
    """Return the recorded streams of all vendors, as events."""
    simulators = checked_simulators()
    adapters = [it for name, it in load_registry().adapters.items() if name in simulators and answers_chats(it)]
    subjects = [subject for adapter in adapters for subject in subjects_of(adapter, simulators[adapter.name])[:1]]
    found = [case for case in find_wire_cases(WIRE, subjects) if case.path("stream.txt").exists()]
    return [
        (
            case,
            parse_stream(
                case.adapter, case.target(case.document("expect.json")), [case.path("stream.txt").read_bytes()]
            ),
        )
        for case in found
    ]


def events_of(data: bytes) -> Iterator[Any]:
    for block in data.decode().split("\n\n")[:-1]:
        if not block.startswith(":"):
            yield json.loads(block.partition("\ndata: ")[2])


def problems_of_response(response: Any, known: Any = ()) -> list[str]:
    """Return the mistakes of the object by the schema, apart from what OpenAI alone has."""
    response["output"] = [item for item in response["output"] if item["type"] not in ITEMS]
    found: list[str] = loader("openresponses.json").validate(response, "ResponseResource")
    return [it for it in found if it.partition(":")[0].partition(".")[0] not in known]


def problems_of_event(event: Any, known: Any = ()) -> list[str]:
    if event["type"] in OPENAIS or event.get("item", {}).get("type") in ITEMS:
        return []
    if "response" in event:
        return problems_of_response(event["response"], known)
    found: list[str] = loader("openresponses.json").validate(event, BY_NAME[event["type"]])
    return found


def responses(body: Any, *events: chat.StreamEvent) -> tuple[list[Any], Any]:
    """Return the events of a stream of Responses, and the whole answer, or None if there is none."""
    dialect = Responses()
    dialect.decode(json.dumps({"model": "a", "input": "Hi", **body}).encode())
    shown = [*events_of(dialect.encoder(STYLE, Record("req_1", 0.0, "t")).encode(events))]
    if isinstance(events[-1], chat.Failed):
        return shown, None
    return shown, json.loads(dialect.encode_answer(fold(events), STYLE, Record("req_1", 0.0, "t")))


def test_each_event_of_each_recorded_stream_is_valid_in_responses() -> None:
    seen: set[str] = set()
    for case, events in recorded():
        shown, whole = responses({}, *events)
        problems = [problem for event in shown for problem in problems_of_event(event)]
        problems += problems_of_response(whole) if whole is not None else []
        # vLLM states no number for a token that is impossible. Log probabilities are passed on as they are.
        assert problems == [] or (case.folder.name, case.name) == ("vllm", "infinity"), case
        seen |= {event["type"] for event in shown}
    assert {"response.completed", "response.incomplete", "response.failed", "response.refusal.delta"} <= seen
    assert "response.reasoning_summary_text.delta" in seen
    assert "response.function_call_arguments.done" in seen


def test_each_event_of_each_recorded_stream_is_valid_in_messages() -> None:
    known = loader("anthropic.json")
    for case, events in recorded():
        dialect = Messages()
        dialect.decode(b'{"model": "a", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}')
        for event in events_of(dialect.encoder(STYLE, Record("req_1", 0.0, "t")).encode(events)):
            if event["type"] != "error":
                assert known.validate(event, MESSAGE_EVENTS[event["type"]]) == [], case
        if not isinstance(events[-1], chat.Failed):
            whole = json.loads(dialect.encode_answer(fold(events), STYLE, Record("req_1", 0.0, "t")))
            assert known.validate(whole, "Message") == [], case


MEMBERS: list[tuple[Any, Any, Any]] = [
    ("temperature", 0.5, 1.0),
    ("top_p", 0.5, 1.0),
    ("presence_penalty", -1, 0.0),
    ("frequency_penalty", 1.5, 0.0),
    ("top_logprobs", 3, 0),
    ("safety_identifier", "user-1", None),
    ("prompt_cache_key", "key-1", None),
    ("max_output_tokens", 64, None),
    ("instructions", "Be brief.", None),
    ("metadata", {"a": "b"}, {}),
    ("parallel_tool_calls", False, True),
    ("tools", [{**FUNCTION, "description": "d", "parameters": OPEN, "strict": True}], []),
    ("reasoning", {"effort": "low", "summary": "auto"}, None),
    ("text", {"format": {"type": "json_object"}, "verbosity": "low"}, {"format": {"type": "text"}}),
    ("tool_choice", {"type": "function", "name": "f"}, "auto"),
]


@pytest.mark.parametrize(("name", "value", "usual"), MEMBERS, ids=[name for name, *_ in MEMBERS])
def test_a_member_is_valid_at_its_default_set_and_set_to_null(name: str, value: Any, usual: Any) -> None:
    tools = {} if name == "tools" else {"tools": [FUNCTION]}
    for body, wanted in (({}, usual), ({name: value}, value), ({name: None}, usual)):
        shown, whole = responses({**tools, **body}, *STREAM)
        assert [problem for event in shown for problem in problems_of_event(event)] == []
        assert problems_of_response(whole) == []
        of_stream = [event["response"] for event in shown if "response" in event]
        assert [it[name] for it in (*of_stream, whole)] == [wanted] * 4


@pytest.mark.parametrize(("tool", "shown"), [
    (FUNCTION, {"description": None, "parameters": None, "strict": False}),
    ({**FUNCTION, "parameters": CLOSED}, {"description": None, "strict": True}),
    ({**FUNCTION, "parameters": OPEN}, {"description": None, "strict": False}),
    ({**FUNCTION, "parameters": CLOSED, "strict": False, "description": "d"}, {}),
    ({**FUNCTION, "parameters": OPEN, "strict": True, "description": None}, {}),
])  # fmt: skip
def test_function_is_shown_with_the_strict_that_is_sent(tool: Any, shown: Any) -> None:
    _, whole = responses({"tools": [tool]}, *STREAM)
    assert problems_of_response(whole) == []
    assert whole["tools"] == [{**tool, **shown}]


def test_tools_that_only_openai_has_are_shown_as_they_were_sent() -> None:
    custom = {"type": "custom", "name": "patch", "format": {"type": "grammar", "syntax": "lark", "definition": "x"}}
    search = {"type": "tool_search", "execution": "client"}
    group = {"type": "namespace", "name": "g", "description": "d", "tools": [{**FUNCTION, "parameters": CLOSED}]}
    events = (*STREAM[:3], chat.ToolCallDelta(0, '{"input": "x"}', "call_1", "patch"), *STREAM[4:])
    shown, whole = responses({"tools": [custom, search, group, {"type": "web_search"}, FUNCTION]}, *events)
    assert [problem for event in shown for problem in problems_of_event(event, {"tools"})] == []
    inner = {"description": None, "strict": True, "parameters": CLOSED, **FUNCTION}
    assert whole["tools"][:4] == [custom, search, {**group, "tools": [inner]}, {"type": "web_search"}]


@pytest.mark.parametrize(("body", "name", "wanted", "known"), [
    ({"tool_choice": {"type": "allowed_tools", "tools": [FUNCTION]}}, "tool_choice",
     {"type": "allowed_tools", "tools": [FUNCTION], "mode": "auto"}, ()),
    ({"tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [FUNCTION]}}, "tool_choice",
     {"type": "allowed_tools", "tools": [FUNCTION], "mode": "required"}, ()),
    ({"tool_choice": "required"}, "tool_choice", "required", ()),
    ({"reasoning": {}}, "reasoning", {"effort": None, "summary": None}, ()),
    ({"reasoning": {"effort": "high"}}, "reasoning", {"effort": "high", "summary": None}, ()),
    ({"reasoning": {"summary": "none", "effort": None}}, "reasoning", {"effort": None, "summary": None}, ()),
    ({"text": {}}, "text", {"format": {"type": "text"}}, ()),
    ({"text": {"format": None, "verbosity": None}}, "text", {"format": {"type": "text"}}, ()),
    # The schema takes null alone as the schema of a format, which is a mistake.
    ({"text": {"format": {"type": "json_schema", "name": "n", "schema": OPEN}}}, "text",
     {"format": {"type": "json_schema", "name": "n", "schema": OPEN, "description": None, "strict": False}}, {"text"}),
    ({"truncation": "auto", "max_tool_calls": 3}, "truncation", "disabled", ()),
    ({"truncation": "auto", "max_tool_calls": 3}, "max_tool_calls", None, ()),
    ({"service_tier": "priority"}, "service_tier", "flex", ()),
])  # fmt: skip
def test_a_member_has_all_that_its_schema_requires(body: Any, name: str, wanted: Any, known: Any) -> None:
    shown, whole = responses({"tools": [FUNCTION], **body}, *STREAM)
    assert [problem for event in shown for problem in problems_of_event(event, known)] == []
    assert problems_of_response(whole, known) == []
    assert [it[name] for it in (shown[0]["response"], shown[-1]["response"], whole)] == [wanted] * 3


@pytest.mark.parametrize(("reason", "status"), [
    ("stop", "completed"), ("length", "incomplete"), ("content_filter", "incomplete"), ("other", "incomplete"),
])  # fmt: skip
def test_an_answer_is_valid_whatever_its_end(reason: chat.FinishReason, status: str) -> None:
    for said in (chat.TextDelta("Hi"), chat.RefusalDelta("No"), chat.ReasoningDelta("Hm")):
        shown, whole = responses({}, STREAM[0], said, chat.ChoiceFinish(reason), *STREAM[5:])
        assert [problem for event in shown for problem in problems_of_event(event)] == []
        assert problems_of_response(whole) == []
        assert (whole["status"], whole["completed_at"] is not None) == (status, status == "completed")
    failed = Responses()
    failed.decode(b'{"model": "a", "input": "Hi"}')
    writer = failed.encoder(STYLE, Record("req_1", 0.0, "t"))
    data = writer.encode(STREAM[:3]) + writer.encode_failure(ApiError("stream_interrupted", "it broke off"))
    events = [*events_of(data)]
    assert [problem for event in events for problem in problems_of_event(event)] == []
    assert (events[-1]["response"]["status"], events[-1]["response"]["completed_at"]) == ("failed", None)


@pytest.mark.parametrize(("tier", "model", "shown"), [
    ("flex", None, "flex"), ("auto", None, "default"), ("standard", None, "default"), ("batch", None, "default"),
    ("priority", "assistant", "default"), (None, None, "default"),
])  # fmt: skip
def test_tier_is_openais_word_and_never_auto(tier: str | None, model: str | None, shown: str) -> None:
    dialect = Responses()
    dialect.decode(b'{"model": "a", "input": "Hi"}')
    style = AnswerStyle(shown_model=model)
    events = (chat.Opened("id-1", "model-1", 7, tier), *STREAM[1:])
    streamed = [*events_of(dialect.encoder(style, Record("req_1", 0.0, "t")).encode(events))]
    whole = json.loads(dialect.encode_answer(fold(events), style, Record("req_1", 0.0, "t")))
    assert [it["service_tier"] for it in (streamed[0]["response"], streamed[-1]["response"], whole)] == [shown] * 3
