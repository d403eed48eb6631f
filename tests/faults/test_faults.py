"""Each fault of the table, on real sockets: what the client, the provider and the operator see of it."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from tests.faults.conftest import World, Worlds
from tests.kit.fault_table import FAULTS, WHOLE, Fault, Seen
from tests.kit.faulty_provider import ANSWER

SHAPES = [
    pytest.param(fault, stream, id=f"{fault.name}-{'stream' if stream else 'json'}")
    for fault in FAULTS
    for stream in (False, True)
    if (fault.streams if stream else fault.json)
]


class Got:
    """One answer as a client reads it."""

    def __init__(self, world: World, assistant: str, stream: bool) -> None:
        self.request_id = uuid.uuid4().hex
        self.done = False
        self.text, self.finish, self.error = "", None, None
        body = {"model": assistant, "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
        headers = {"x-request-id": self.request_id}
        with world.client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
            self.status, self.headers = response.status_code, response.headers
            if response.headers["content-type"].startswith("text/event-stream"):
                for line in response.iter_lines():
                    self._read_line(line)
                    if self.text:
                        world.badly.has_been_read(assistant.replace(".", "/"))
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
        assert not self.done, "nothing comes behind [DONE]"
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


def line_of(world: World, got: Got) -> dict[str, Any]:
    return world.gateway.wait_for("request", request_id=got.request_id)


def kinds_of(line: dict[str, Any], deployment: str) -> set[str | None]:
    """What the log says of the attempts on that deployment."""
    return {attempt.get("kind") for attempt in attempts_on(line, deployment)}


def attempts_on(line: dict[str, Any], deployment: str) -> list[dict[str, Any]]:
    return [attempt for attempt in line.get("attempts", []) if attempt["deployment"] == deployment]


@pytest.mark.parametrize(("fault", "stream"), SHAPES)
def test_alone_the_client_gets_a_whole_answer_or_one_clear_error(worlds: Worlds, fault: Fault, stream: bool) -> None:
    world = worlds.of(fault, alone=True)
    alone = f"{fault.name}.{'stream' if stream else 'json'}.alone"
    got = Got(world, alone, stream)
    assert got.seen == fault.alone[stream], got.error
    assert got.done == (got.error is None), "[DONE] is said of whole answers, and of no other"
    line = line_of(world, got)
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
def test_with_a_fallback_it_is_asked_as_often_as_it_helps(worlds: Worlds, fault: Fault, stream: bool) -> None:
    world = worlds.of(fault, alone=False)
    shape = "stream" if stream else "json"
    primary, before = f"{fault.name}.{shape}.first", world.well.calls["well"]
    got = Got(world, primary, stream)
    line = line_of(world, got)
    assert world.badly.calls[f"{fault.name}/{shape}/first"] == fault.calls
    asked_well = world.well.calls["well"] - before
    if fault.kind is None:
        assert (got.seen, asked_well, got.headers["x-gateway-deployment"]) == (WHOLE, 0, primary)
    elif fault.moves_on:
        assert (got.seen, asked_well, got.headers["x-gateway-deployment"]) == (WHOLE, 1, "well")
        assert (got.text, got.finish) == (ANSWER, "stop")
        assert kinds_of(line, primary) == {fault.kind}
    else:
        assert (got.seen, asked_well) == (fault.alone[stream], 0)
