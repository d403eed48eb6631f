"""Each fault of the table on real sockets: the results for the client, the provider and the operator."""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.faults.conftest import AT_ONCE, FaultGateway, FaultGateways
from tests.kit.fault_table import FAULTS, WHOLE, Fault, Seen
from tests.kit.faulty_provider import ANSWER
from tests.kit.waiting import eventually

CASES = [(fault, stream) for fault in FAULTS for stream in (False, True) if (fault.streams if stream else fault.json)]
SHAPES = [pytest.param(fault, stream, id=f"{fault.name}-{'stream' if stream else 'json'}") for fault, stream in CASES]


class ClientAnswer:
    """One answer as a client reads it."""

    def __init__(self, setup: FaultGateway, assistant: str, stream: bool) -> None:
        self.request_id = uuid.uuid4().hex
        self.done = False
        self.text, self.finish, self.error = "", None, None
        body = {"model": assistant, "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
        headers = {"x-request-id": self.request_id}
        with setup.client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
            self.status, self.headers = response.status_code, response.headers
            if response.headers["content-type"].startswith("text/event-stream"):
                for line in response.iter_lines():
                    self._read_line(line)
                    if self.text:
                        setup.faulty.has_been_read(assistant.replace(".", "/"))
            else:
                response.read()
                self._read_whole(response.json())

    def _read_whole(self, body: dict[str, Any]) -> None:
        self.error = body.get("error")
        if self.error is None:
            choice = body["choices"][0]
            self.text, self.finish, self.done = choice["message"]["content"], choice["finish_reason"], True

    def _read_line(self, line: str) -> None:
        if not line.startswith("data: "):
            return
        assert not self.done, "no event follows [DONE]"
        if line == "data: [DONE]":
            self.done = True
            return
        event = json.loads(line.removeprefix("data: "))
        if "error" in event:
            self.error = event["error"]
            return
        for choice in event["choices"]:
            self.text += choice["delta"].get("content") or ""
            self.finish = choice["finish_reason"] or self.finish

    @property
    def seen(self) -> Seen:
        return self.status, self.error["code"] if self.error else None


@pytest.fixture(scope="module")
def answers(gateways: FaultGateways) -> dict[str, ClientAnswer]:
    """The answers that the clients got, all at the same time, because many of them wait for a time limit."""

    def ask(fault: Fault, stream: bool, role: str) -> tuple[str, ClientAnswer]:
        assistant = f"{fault.name}.{'stream' if stream else 'json'}.{role}"
        return assistant, ClientAnswer(gateways.of(fault, alone=role == "alone"), assistant, stream)

    every = [(fault, stream, role) for fault, stream in CASES for role in ("alone", "first")]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(pool.map(lambda each: ask(*each), every))


def kinds_of(line: dict[str, Any], deployment: str) -> set[str | None]:
    """Return the failure kinds that the log has for the attempts on that deployment."""
    return {attempt.get("kind") for attempt in attempts_on(line, deployment)}


def attempts_on(line: dict[str, Any], deployment: str) -> list[dict[str, Any]]:
    return [attempt for attempt in line.get("attempts", []) if attempt["deployment"] == deployment]


@pytest.mark.parametrize(("fault", "stream"), SHAPES)
def test_client_without_a_fallback_gets_a_complete_answer_or_one_clear_error(
    gateways: FaultGateways, answers: dict[str, ClientAnswer], fault: Fault, stream: bool
) -> None:
    """The first test waits for all requests of the table, which are sent together: as long as the longest limit."""
    setup = gateways.of(fault, alone=True)
    alone = f"{fault.name}.{'stream' if stream else 'json'}.alone"
    got = answers[alone]
    assert got.seen == fault.alone[stream], got.error
    assert got.done == (got.error is None), "[DONE] ends complete answers only"
    line = setup.line_of(got.request_id)
    assert (line["status"], line.get("code")) == got.seen
    if got.error is None:
        assert got.finish in ("stop", "content_filter")
        return
    assert got.error["message"]
    assert got.error["type"]
    assert got.error["param"] is None
    if got.status != 200:
        assert got.headers["x-should-retry"] == "false"
        assert kinds_of(line, alone) == {fault.kind}
        assert all(fault.detail in attempt.get("detail", "") for attempt in attempts_on(line, alone))
    if got.status in (429, 503):
        assert int(got.headers["retry-after"]) >= 1


@pytest.mark.parametrize(("fault", "stream"), SHAPES)
def test_fallback_is_used_after_the_expected_number_of_calls(
    gateways: FaultGateways, answers: dict[str, ClientAnswer], fault: Fault, stream: bool
) -> None:
    setup = gateways.of(fault, alone=False)
    shape = "stream" if stream else "json"
    primary = f"{fault.name}.{shape}.first"
    got = answers[primary]
    line = setup.line_of(got.request_id)
    # On a busy machine the provider may read a call only after the gateway has given it up.
    call = f"{fault.name}/{shape}/first"
    eventually(lambda: setup.faulty.calls[call] >= fault.calls)
    # Each attempt whose kept connection is closed without a byte of an answer is sent once more.
    sent_again = range(fault.calls + 1) if fault.name == "reset" else (0,)
    assert setup.faulty.calls[call] - fault.calls in sent_again
    fallback_calls = len(attempts_on(line, "healthy"))
    if fault.kind is None:
        assert (got.seen, fallback_calls, got.headers["x-gateway-deployment"]) == (WHOLE, 0, primary)
    elif fault.moves_on:
        assert (got.seen, fallback_calls, got.headers["x-gateway-deployment"]) == (WHOLE, 1, "healthy")
        assert (got.text, got.finish) == (ANSWER, "stop")
        assert kinds_of(line, primary) == {fault.kind}
    else:
        assert (got.seen, fallback_calls) == (fault.alone[stream], 0)


def test_healthy_provider_got_a_call_for_each_request_that_moved_on(
    gateways: FaultGateways, answers: dict[str, ClientAnswer]
) -> None:
    moved_on = [fault for fault, _ in CASES if fault.kind is not None and fault.moves_on]
    assert gateways.patient.healthy.calls["healthy"] == len(moved_on)
