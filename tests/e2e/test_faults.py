"""Provider failures on real sockets: what the client gets, and what the provider received."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from providers.failures import FailureKind
from providers.testkit.scenario import (
    Cut,
    Empty,
    ErrorEvent,
    Fault,
    Garbage,
    Html,
    HttpError,
    NoEndMark,
    Redirect,
    Reset,
    Scenario,
    Silent,
    Stall,
    Truncated,
)
from providers.testkit.server import SimulatorThread
from tests.e2e.conftest import SITES
from tests.kit.chat_http import CHAT, EU, body, events_of


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fault",
    [
        HttpError(500),
        HttpError(503),
        HttpError(429),
        Reset(),
        Html(),
        Empty(),
        ErrorEvent(),
    ],
    ids=repr,
)
def test_failure_before_the_answer_fails_over(
    client: httpx.Client, providers: SimulatorThread, fault: Fault, stream: bool
) -> None:
    providers["eu"].scenario = Scenario(faults=((fault, 1.0),))
    response = client.post(CHAT, json=body(stream=stream), headers=EU)
    assert response.status_code == 200, response.text
    assert response.headers["x-gateway-deployment"] == "chatgpt-eu-2"
    assert response.headers["x-gateway-attempts"] == "3"


@pytest.mark.parametrize("stream", [False, True])
def test_redirect_fails_over_without_a_retry(client: httpx.Client, providers: SimulatorThread, stream: bool) -> None:
    providers["eu"].scenario = Scenario(faults=((Redirect("http://127.0.0.1:9/"), 1.0),))
    response = client.post(CHAT, json=body(stream=stream), headers=EU)
    assert (response.status_code, response.headers["x-gateway-deployment"]) == (200, "chatgpt-eu-2")
    assert response.headers["x-gateway-attempts"] == "2"


@pytest.mark.parametrize(
    ("fault", "first", "later"),
    [
        (HttpError(401), (502, "provider_error"), (503, "no_healthy_deployment")),
        (HttpError(429, retry_after_s=60), (429, "rate_limited"), (429, "rate_limited")),
        *(
            # Each case has its own gateway. `tests/gateway/execution/test_plan_execution.py` tests the cooldown for
            # every kind.
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (HttpError(403), (502, "provider_error"), (503, "no_healthy_deployment")),
                (HttpError(404), (502, "provider_error"), (503, "no_healthy_deployment")),
                (
                    HttpError(429, kind=FailureKind.QUOTA),
                    (503, "no_healthy_deployment"),
                    (503, "no_healthy_deployment"),
                ),
            )
        ),
    ],
    ids=repr,
)
def test_failing_deployment_gets_a_cooldown(
    fresh: httpx.Client, providers: SimulatorThread, fault: Fault, first: tuple[int, str], later: tuple[int, str]
) -> None:
    site = providers["eu"]
    site.scenario = Scenario(faults=((fault, 1.0),))
    before = site.received
    for _ in range(3):
        response = fresh.post(CHAT, json=body(), headers=EU)
        assert response.headers["x-gateway-deployment"] == "chatgpt-eu-2"
    assert site.received == before + 1
    providers["eu2"].scenario = Scenario(faults=((fault, 1.0),))
    response = fresh.post(CHAT, json=body(), headers=EU)
    assert (response.status_code, response.json()["error"]["code"]) == first
    assert "secret" not in response.text
    response = fresh.post(CHAT, json=body(), headers=EU)
    assert (response.status_code, response.json()["error"]["code"]) == later
    assert int(response.headers["retry-after"]) >= 1


def ask_until(
    is_expected: Callable[[httpx.Response], bool], client: httpx.Client, headers: dict[str, str]
) -> httpx.Response:
    """Return the first streamed answer that meets one of the conditions, or the last of several.

    A busy machine may read a provider's text and the fault after it at once. The gateway then discards the text, no
    stream has broken off, and it is an ordinary failure. A machine that stalls makes a healthy provider look silent.
    """
    for _ in range(10):
        response = client.post(CHAT, json=body(stream=True), headers=headers)
        if is_expected(response):
            break
    return response


def test_silent_provider_fails_over(impatient: httpx.Client, providers: SimulatorThread) -> None:
    providers["eu"].scenario = Scenario(faults=((Silent(), 1.0),))
    response = ask_until(lambda answer: answer.status_code == 200, impatient, EU)
    assert response.headers["x-gateway-deployment"] == "chatgpt-eu-2"
    assert response.headers["x-gateway-attempts"] == "2"


@pytest.mark.parametrize("fault", [Truncated(), Cut(), Reset(after_events=1)], ids=repr)
def test_json_answer_that_breaks_off_fails_over(client: httpx.Client, providers: SimulatorThread, fault: Fault) -> None:
    providers["eu"].scenario = Scenario(faults=((fault, 1.0),))
    response = client.post(CHAT, json=body(), headers=EU)
    assert response.status_code == 200
    assert response.headers["x-gateway-deployment"] == "chatgpt-eu-2"


@pytest.mark.parametrize("territory", ["DE", "CN", "JP"])
@pytest.mark.parametrize(
    "fault",
    [
        Cut(after_events=3),
        Reset(after_events=3),
        Stall(after_events=3),
        Garbage(after_events=3),
        ErrorEvent(after_events=3),
    ],
    ids=repr,
)
def test_broken_stream_is_not_reported_as_complete(
    impatient: httpx.Client, providers: SimulatorThread, territory: str, fault: Fault
) -> None:
    text = "one two three four five six seven eight nine ten " * 5
    for site in SITES:
        providers[site].scenario = Scenario(faults=((fault, 1.0),), between_events_s=0.01, text=text)
    response = ask_until(lambda answer: answer.status_code == 200, impatient, {"cf-ipcountry": territory})
    assert response.status_code == 200, response.text
    events = events_of(response)
    assert "[DONE]" not in events
    assert events[-1]["error"]["code"] == "stream_interrupted"
    assert events[0]["choices"][0]["delta"]["content"]
    assert not any(event["choices"][0]["finish_reason"] for event in events[:-1])


def test_missing_end_mark_is_not_a_failure(client: httpx.Client, providers: SimulatorThread) -> None:
    providers["eu"].scenario = Scenario(faults=((NoEndMark(), 1.0),))
    assert events_of(client.post(CHAT, json=body(stream=True), headers=EU))[-1] == "[DONE]"


@pytest.mark.parametrize("stream", [False, True])
def test_content_filter_does_not_fail_over(client: httpx.Client, providers: SimulatorThread, stream: bool) -> None:
    before = providers["eu2"].accepted
    providers["eu"].scenario = Scenario(faults=((HttpError(400, kind=FailureKind.CONTENT_FILTER), 1.0),))
    response = client.post(CHAT, json=body(stream=stream), headers=EU)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "content_filter")
    assert providers["eu2"].accepted == before


def test_failover_never_leaves_the_boundary(client: httpx.Client, providers: SimulatorThread) -> None:
    outside = {name: providers[name].accepted for name in ("us", "gemini", "intl", "eu", "eu2")}
    providers["cn"].scenario = Scenario(faults=((Reset(), 1.0),))
    response = client.post(CHAT, json=body(), headers={"cf-ipcountry": "CN"})
    assert response.status_code == 502
    assert {name: providers[name].accepted for name in outside} == outside
