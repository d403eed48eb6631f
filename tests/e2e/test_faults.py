"""Provider failures on real sockets: cooldowns, and streams of other formats that break off.

`tests/faults` asks how each failure of a provider of OpenAI's format ends.
"""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from providers.failures import FailureKind
from providers.testkit.scenario import Cut, ErrorEvent, Fault, Garbage, HttpError, Reset, Scenario, Stall
from providers.testkit.server import SimulatorThread
from tests.e2e.conftest import SITES
from tests.kit.chat_http import CHAT, EU, body, events_of


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


@pytest.mark.parametrize("territory", ["CN", "JP"])
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
