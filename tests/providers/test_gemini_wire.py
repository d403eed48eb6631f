"""The recorded-shape answers in `tests/wire/gemini`: read right, however the network cuts them, and built right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from providers._json import loads
from providers.adapter import Target, WireResponse
from providers.adapters.gemini import ADAPTER
from providers.catalogue.models import model_facts
from providers.chat import ChatCompletion, Failed, Finished, StreamEvent
from providers.codec import decode_request, encode_completion
from providers.failures import Failure, ProviderFailed
from providers.folding import fold

WIRE = Path(__file__).parent.parent / "wire" / "gemini"
STREAMS = sorted(path.name.removesuffix(".stream.txt") for path in WIRE.glob("*.stream.txt"))
ANSWERS = sorted(path.name.removesuffix(".response.json") for path in WIRE.glob("*.response.json"))
REQUESTS = sorted(path.name.removesuffix(".request.json") for path in WIRE.glob("*.request.json"))
LINE_ENDS = (b"\r\n", b"\n", b"\r")


def target(model: str = "gemini-3.8-flash") -> Target:
    return Target(model, "/v1beta", model_facts(ADAPTER.models, model))


def expected(case: str) -> dict[str, object]:
    value = json.loads((WIRE / f"{case}.expect.json").read_text("utf-8"))
    assert isinstance(value, dict)
    return value


def parse(*pieces: bytes) -> list[StreamEvent]:
    parser = ADAPTER.stream_parser(target())
    events: list[StreamEvent] = []
    for piece in pieces:
        events += parser.feed(piece)
    return [*events, *parser.close()]


def shown(outcome: ChatCompletion | Failure) -> dict[str, object]:
    if isinstance(outcome, ChatCompletion):
        return {"model": "gemini-3.8-flash", "completion": encode_completion(outcome, outcome.model)}
    failure = {
        "kind": outcome.kind.value,
        "code": outcome.code,
        "detail": outcome.detail,
        "retry_after_s": outcome.retry_after_s,
    }
    return {"model": "gemini-3.8-flash", "failure": failure}


def folded(events: list[StreamEvent]) -> ChatCompletion | Failure:
    try:
        return fold(events)
    except ProviderFailed as error:
        return error.failure


def test_the_folder_has_every_kind_of_case() -> None:
    assert len(STREAMS) >= 8
    assert len(ANSWERS) >= 8
    assert REQUESTS == ["tools"]


@pytest.mark.parametrize("case", STREAMS)
@pytest.mark.parametrize("line_end", LINE_ENDS)
def test_a_stream_is_read_the_same_in_every_cut(case: str, line_end: bytes) -> None:
    data = (WIRE / f"{case}.stream.txt").read_bytes().replace(b"\r\n", line_end)
    whole = parse(data)
    assert shown(folded(whole)) == expected(case)
    for cut in range(1, len(data)):
        assert parse(data[:cut], data[cut:]) == whole, cut
    assert parse(*(data[i : i + 1] for i in range(len(data)))) == whole


@pytest.mark.parametrize("case", STREAMS)
def test_every_prefix_of_a_stream_ends_with_one_terminal_event(case: str) -> None:
    data = (WIRE / f"{case}.stream.txt").read_bytes()
    for end in range(len(data) + 1):
        events = parse(data[:end])
        assert [isinstance(event, Finished | Failed) for event in events].index(True) == len(events) - 1, end


@pytest.mark.parametrize("case", ANSWERS)
def test_a_whole_answer_is_read(case: str) -> None:
    body = (WIRE / f"{case}.response.json").read_bytes()
    error = loads(body)
    error = error[0] if isinstance(error, list) else error
    assert isinstance(error, dict)
    code = error["error"]["code"] if "error" in error else 200
    response = WireResponse(code, {"content-type": "application/json; charset=UTF-8"}, body, 1_700_000_000.5)
    outcome = ADAPTER.classify_error(response) if code >= 400 else ADAPTER.parse_response(response, target())
    assert shown(outcome) == expected(case)


@pytest.mark.parametrize("case", sorted(set(STREAMS) & set(ANSWERS)))
def test_stream_and_whole_answer_are_one(case: str) -> None:
    response = WireResponse(200, {}, (WIRE / f"{case}.response.json").read_bytes(), 0)
    assert ADAPTER.parse_response(response, target()) == fold(parse((WIRE / f"{case}.stream.txt").read_bytes()))


@pytest.mark.parametrize("case", REQUESTS)
def test_a_request_is_built(case: str) -> None:
    request = decode_request(loads((WIRE / f"{case}.chat.json").read_bytes()))
    wire = ADAPTER.build_request(request, target())
    assert json.loads(wire.body) == json.loads((WIRE / f"{case}.request.json").read_text("utf-8"))
    assert ADAPTER.build_request(request, target()) == wire
