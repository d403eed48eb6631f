"""Scenarios: the fault of each request, their notation, and their steps on the wire, without a socket."""

import json

import pytest

from providers.chat import ChatRequest, UserMessage
from providers.failures import FailureKind
from providers.testkit import Scenario, ScenarioError, parse_fault, respond
from providers.testkit.scenario import (
    FAULT_WORDS,
    Cut,
    DuplicateFinish,
    Empty,
    ErrorEvent,
    Fault,
    Garbage,
    Html,
    HttpError,
    NoEndMark,
    Redirect,
    Reset,
    Silent,
    Slow,
    Stall,
    Truncated,
)
from providers.testkit.wire_steps import Break, Head, Send, Step, Wait, stage
from providers.vendors.openai.simulator import SIMULATOR
from tests.kit.case_files import cases

REQUEST = ChatRequest("gpt-4o", (UserMessage("Hi"),), stream=True, include_usage=True)


def staged(fault: Fault | None, *, stream: bool = True, scenario: Scenario | None = None) -> list[Step]:
    request = REQUEST if stream else ChatRequest("gpt-4o", (UserMessage("Hi"),))
    return list(stage(SIMULATOR, request, respond(request, "p"), scenario or Scenario(), fault))


def body(steps: list[Step]) -> bytes:
    return b"".join(step.data for step in steps if isinstance(step, Send))


def head(steps: list[Step]) -> Head:
    (found,) = (step for step in steps if isinstance(step, Head))
    return found


def events(steps: list[Step]) -> list[bytes]:
    return [step.data for step in steps if isinstance(step, Send)]


GOOD = events(staged(None))


# --- choice of the fault --------------------------------------------------------------------------


def test_the_script_comes_first_one_entry_a_request() -> None:
    scenario = Scenario(script=(Html(), None, Reset()), faults=((Empty(), 1.0),))
    assert [scenario.fault_of(n) for n in range(5)] == [Html(), None, Reset(), Empty(), Empty()]


def test_faults_have_the_configured_frequency_at_the_same_requests_each_time() -> None:
    scenario = Scenario(faults=((Html(), 0.2), (Reset(), 0.1)))
    drawn = [scenario.fault_of(n) for n in range(5000)]
    assert drawn == [scenario.fault_of(n) for n in range(5000)]
    assert 900 < drawn.count(Html()) < 1100
    assert 420 < drawn.count(Reset()) < 580
    assert drawn != [Scenario(faults=scenario.faults, seed=1).fault_of(n) for n in range(5000)]


def test_probabilities_may_not_exceed_one() -> None:
    with pytest.raises(ValueError, match="more than 1"):
        Scenario(faults=((Html(), 0.7), (Reset(), 0.4)))


# --- written form ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fault", "probability"),
    [
        ("429:0.2", HttpError(429), 0.2),
        ("503=7:0.1", HttpError(503, 7.0), 0.1),
        (" 500 ", HttpError(500), 1.0),
        ("RESET:0.1", Reset(), 0.1),
        ("reset=3:1", Reset(3), 1.0),
        ("cut:0.05", Cut(), 0.05),
        ("cut=0", Cut(0), 1.0),
        ("stall=2", Stall(2), 1.0),
        ("garbage=1", Garbage(1), 1.0),
        ("error-event=4", ErrorEvent(after_events=4), 1.0),
        ("slow=0.5:0.5", Slow(0.5), 0.5),
        ("slow", Slow(), 1.0),
        ("silent", Silent(), 1.0),
        ("redirect=http://127.0.0.1:9/x:0.5", Redirect("http://127.0.0.1:9/x"), 0.5),
        ("quota", HttpError(429, kind=FailureKind.QUOTA), 1.0),
    ],
)
def test_a_fault_is_read(text: str, fault: Fault, probability: float) -> None:
    assert parse_fault(text) == (fault, probability)


def test_every_word_is_a_fault() -> None:
    for word in FAULT_WORDS:
        text = f"{word}=http://x:1" if word == "redirect" else word
        fault, probability = parse_fault(text)
        assert probability == 1
        assert staged(fault)


@cases("text", "complaint")
def test_invalid_fault_notation_states_the_expected_form(text: str, complaint: str) -> None:
    with pytest.raises(ScenarioError, match=complaint) as raised:
        parse_fault(text)
    assert str(raised.value).startswith(f"fault '{text}'")


# --- form on the wire -----------------------------------------------------------------------------


def test_a_good_answer() -> None:
    assert head(staged(None)).status == 200
    assert GOOD[-1] == b"data: [DONE]\n\n"
    whole = staged(None, stream=False)
    assert head(whole).headers[-1] == ("content-length", str(len(body(whole))))


def test_waits_are_at_the_configured_positions() -> None:
    scenario = Scenario(latency_s=3, first_token_s=2, between_events_s=1)
    steps = staged(None, scenario=scenario)
    assert isinstance(steps[1], Head)
    waits = [step.seconds for step in steps if isinstance(step, Wait)]
    assert waits == [3, 2, *[1] * (len(GOOD) - 2)], "the role comes with the first word"
    assert [type(step) for step in steps[2:6]] == [Wait, Send, Send, Wait]
    assert [step.seconds for step in staged(NoEndMark(), scenario=scenario) if isinstance(step, Wait)][:3] == [3, 2, 1]
    assert staged(None, stream=False, scenario=scenario)[0] == Wait(5)
    assert [step.seconds for step in staged(Slow(9)) if isinstance(step, Wait)] == [0, *[9] * len(GOOD)]


def test_first_token_delays_have_the_configured_distribution_over_few_requests() -> None:
    scenario = Scenario(first_token_s=0.1, first_token_p95_s=0.3, seed=5)
    for begin in (0, 17, 1000):
        times = sorted(scenario.first_token_of(number) for number in range(begin, begin + 40))
        assert times[19] <= 0.105
        assert times[20] >= 0.095
        assert times[36] <= 0.3 <= times[39]
    assert {Scenario(first_token_s=0.1).first_token_of(number) for number in range(9)} == {0.1}
    with pytest.raises(ValueError, match="95th percentile"):
        Scenario(first_token_s=0.1, first_token_p95_s=0.05)


@pytest.mark.parametrize("stream", [False, True])
def test_faults_before_the_answer(stream: bool) -> None:
    assert staged(Reset(), stream=stream)[1:] == [Break(reset=True)]
    assert staged(Silent(), stream=stream)[1:] == [Wait(None)]
    limited = staged(HttpError(429, 7), stream=stream)
    assert head(limited).status == 429
    assert ("retry-after", "7") in head(limited).headers
    assert json.loads(body(limited))["error"]["code"] == "rate_limit_exceeded"
    assert dict(head(staged(Html(), stream=stream)).headers)["content-type"].startswith("text/html")
    redirect = head(staged(Redirect("http://x/"), stream=stream))
    assert (redirect.status, redirect.headers[0]) == (307, ("location", "http://x/"))
    assert head(staged(Empty(), stream=stream)).status == 200
    assert body(staged(Empty(), stream=stream)) == b""


@pytest.mark.parametrize("kind", list(FailureKind))
def test_every_kind_of_failure_can_be_had(kind: FailureKind) -> None:
    assert json.loads(body(staged(HttpError(400, kind=kind))))["error"]["message"]
    assert b"error" in body(staged(ErrorEvent(kind), stream=False))
    assert events(staged(ErrorEvent(kind))) == [SIMULATOR.write_error_event(kind)]


@pytest.mark.parametrize(
    ("fault", "last"), [(Reset(2), Break(reset=True)), (Cut(2), Send(GOOD[1])), (Stall(2), Wait(None))]
)
def test_faults_after_so_many_events(fault: Fault, last: Step) -> None:
    steps = staged(fault)
    assert (events(steps), steps[-1]) == (GOOD[:2], last)


@pytest.mark.parametrize("fault", [Cut(), Truncated(), Stall()])
def test_the_middle_has_content_and_no_finish(fault: Fault) -> None:
    sent = body(staged(fault))
    assert b'"content":"Hello"' in sent
    assert b'"finish_reason":"stop"' not in sent


def test_faults_within_the_stream() -> None:
    assert events(staged(ErrorEvent(after_events=2)))[:2] == GOOD[:2]
    assert b'"error"' in events(staged(ErrorEvent(after_events=2)))[2]
    assert len(events(staged(Garbage()))) == len(GOOD) + 1
    with pytest.raises(json.JSONDecodeError):
        json.loads(events(staged(Garbage(1)))[1].removeprefix(b"data: "))
    assert events(staged(NoEndMark())) == GOOD[:-1]
    assert body(staged(DuplicateFinish())).count(b'"finish_reason":"stop"') == 2


def test_faults_within_json() -> None:
    complete = body(staged(None, stream=False))
    for fault, last in ((Reset(3), Break(reset=True)), (Cut(), Break(reset=False)), (Stall(), Wait(None))):
        steps = staged(fault, stream=False)
        assert steps[-1] == last
        assert complete.startswith(body(steps))
        assert dict(head(steps).headers)["content-length"] == str(len(complete))
    cut = staged(Truncated(), stream=False)
    assert dict(head(cut).headers)["content-length"] == str(len(body(cut)))
    assert body(staged(Slow(1), stream=False)) == complete
    error = staged(ErrorEvent(FailureKind.QUOTA), stream=False)
    assert head(error).status == 200
    assert json.loads(body(error))["error"]["code"] == "insufficient_quota"
    assert b"{" in body(staged(Garbage(), stream=False))
    assert body(staged(DuplicateFinish(), stream=False)) == complete
