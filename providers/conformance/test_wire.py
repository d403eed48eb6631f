"""Test recorded fixtures: the requests that are built, and the results of recorded answers and streams."""

from __future__ import annotations

import pytest

from providers.adapter import StatesConfirmation
from providers.chat import Failed, StreamEvent, TextDelta
from providers.conformance.checks import check_division, check_ends_once, lengths_of_prefixes
from providers.conformance.recordings import RecordedVendor, WireCase, completion_to_json, failure_to_json
from providers.conformance.subject import parse_stream
from providers.failures import ProviderFailed
from providers.json_values import loads
from providers.openai_json import decode_request
from providers.reading.folding import fold

_LINE_ENDS = (b"\n", b"\r\n", b"\r")
_WANTED_RECORDINGS = 2


def test_compatible_vendor_is_confirmed_by_recordings(recorded_vendor: RecordedVendor) -> None:
    """The adapter and the simulator read one file, so a wrong fact in it passes all other tests."""
    adapter = recorded_vendor.subject.adapter
    assert isinstance(adapter, StatesConfirmation), "the adapter does not state whether recordings confirm it"
    found = [case.name for case in recorded_vendor.cases if case.is_from_vendor]
    assert adapter.unconfirmed or len(found) >= _WANTED_RECORDINGS, (
        f"{adapter.name}: {len(found)} recorded answers are from the vendor's documentation or a real call; "
        f"{_WANTED_RECORDINGS} are needed. Add them with their source to the folder {adapter.name!r} of --wire, or "
        "write `unconfirmed = true` into [dialect], which the page of the providers shows"
    )


def test_recorded_request_is_built(wire_request: WireCase, pytestconfig: pytest.Config) -> None:
    document = wire_request.document("request.json")
    sent = wire_request.adapter.build_request(decode_request(document["request"]), wire_request.target(document))
    wanted = document.get("sent", {})
    actual = {
        "path": sent.path,
        "query": dict(sent.query),
        "headers": {name: value for name, value in sent.headers if name in wanted.get("headers", {})},
        "body": loads(sent.body),
    }
    if pytestconfig.getoption("--write-wire"):
        present = {name: value for name, value in actual.items() if value}
        wire_request.write("request.json", {**document, "sent": present})
        return
    assert actual == {"query": {}, "headers": {}, **wanted}, "the request is not the recorded one"


def test_recorded_answer_is_read(wire_answer: WireCase, pytestconfig: pytest.Config) -> None:
    _expect(wire_answer, "answer", _of_answer(wire_answer), pytestconfig)


def test_recorded_stream_is_read(wire_stream: WireCase, pytestconfig: pytest.Config) -> None:
    document = wire_stream.document("expect.json")
    recorded = wire_stream.path("stream.txt").read_bytes()
    events = parse_stream(wire_stream.adapter, wire_stream.target(document), [recorded])
    check_ends_once(events)
    differs = "stream" in document or not wire_stream.path("response.json").exists()
    _expect(wire_stream, "stream" if differs else "answer", _of_stream(events), pytestconfig)


def test_recorded_stream_is_read_the_same_in_any_pieces(wire_stream: WireCase) -> None:
    recorded = wire_stream.path("stream.txt").read_bytes()
    target = wire_stream.target(wire_stream.document("expect.json"))

    def parsed(*pieces: bytes) -> tuple[StreamEvent, ...]:
        return parse_stream(wire_stream.adapter, target, pieces)

    whole = parsed(recorded)
    for line_end in _LINE_ENDS:
        body = recorded.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", line_end)
        assert parsed(body) == whole, f"the events differ if lines end with {line_end!r}"
        assert parsed(*(body[i : i + 1] for i in range(len(body)))) == whole, (
            "the recorded stream must give the same events in any pieces"
        )
        # For other line ends, only cuts near a line end can make a difference.
        every = line_end == b"\n"
        check_division(
            parsed, body, [cut for cut in range(1, len(body)) if every or line_end[-1] in body[cut - 2 : cut + 2]]
        )
    for cut in lengths_of_prefixes(recorded):
        check_ends_once(parsed(recorded[:cut]))


def _of_answer(wire: WireCase) -> dict[str, object]:
    response = wire.response
    if response.status >= 400:
        return {"failure": failure_to_json(wire.adapter.classify_error(response))}
    try:
        return completion_to_json(wire.adapter.parse_response(response, wire.target(wire.document("expect.json"))))
    except ProviderFailed as error:
        return {"failure": failure_to_json(error.failure)}


def _of_stream(events: tuple[StreamEvent, ...]) -> dict[str, object]:
    if not isinstance(events[-1], Failed):
        return completion_to_json(fold(events))
    before = "".join(event.text for event in events if isinstance(event, TextDelta))
    return {"failure": failure_to_json(events[-1].failure), "before": before}


def _expect(wire: WireCase, key: str, actual: dict[str, object], config: pytest.Config) -> None:
    document = wire.document("expect.json")
    if config.getoption("--write-wire"):
        wire.write("expect.json", {**document, key: actual})
        return
    assert actual == document.get(key), f"{wire.path('expect.json')}: {key}"
