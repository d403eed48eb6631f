"""The simulated provider as a pure ASGI application: reads a request, plays the steps that were staged for it.

Where the server puts the connection's transport into the scope's state, a break is a real one; without it (an
in-process client) the application raises ConnectionResetError instead.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import replace
from typing import Any, assert_never

from providers.chat import ChatCompletion, ChatRequest
from providers.testkit.capacity import Gate
from providers.testkit.scenario import Fault, HttpError, Scenario
from providers.testkit.simulated_model import continued, respond
from providers.testkit.simulator import IncomingRequest, RequestRejected, Simulator
from providers.testkit.wire_steps import Break, Head, Send, Step, Wait, stage, whole

TRANSPORT = "simulator.transport"
"""The name under which a server puts the connection's asyncio transport into the scope's `state`."""

_MOST_REMEMBERED = 1000
_CATCHES_UP_S = 0.05
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class SimulatorApp:
    """One simulated provider. What it was asked and what became of it can be read at any time, from any thread."""

    def __init__(
        self,
        dialect: Simulator,
        persona: str,
        scenario: Scenario | None = None,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._dialect = dialect
        self._persona = persona
        self._now = now
        self._scenario = scenario or Scenario()
        self._position = 0
        self._gate = Gate()
        self._remembered: list[IncomingRequest] = []
        self.received = 0
        self.disconnects = 0
        self.closing = False

    @property
    def scenario(self) -> Scenario:
        """What happens to requests; a new one begins its script from the start."""
        return self._scenario

    @scenario.setter
    def scenario(self, scenario: Scenario) -> None:
        self._scenario, self._position, self._gate = scenario, 0, Gate()

    @property
    def requests(self) -> list[IncomingRequest]:
        """The last requests (at most 1,000) that came with their whole body, oldest first."""
        return list(self._remembered)

    async def __call__(self, scope: Mapping[str, Any], receive: _Receive, send: _Send) -> None:
        """ASGI 3: serves `http`, refuses everything else."""
        if scope["type"] != "http":
            raise RuntimeError(f"a simulator serves http only, not {scope['type']}")
        incoming = await _read(scope, receive)
        if incoming is None:
            self._count_disconnect()
            return
        number = self._note(incoming)
        transport: asyncio.Transport | None = scope.get("state", {}).get(TRANSPORT)
        playing = asyncio.ensure_future(self._perform(incoming, number, send, transport))
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((playing, leaving), return_when=asyncio.FIRST_COMPLETED)
            if playing.done():
                if playing.result():
                    # The server notes the end of the connection a moment later, and takes less for a mistake.
                    await leaving
            else:
                self._count_disconnect()
        finally:
            playing.cancel()
            leaving.cancel()

    def _count_disconnect(self) -> None:
        if not self.closing:
            self.disconnects += 1

    def _note(self, incoming: IncomingRequest) -> int:
        """Remember the request; the number that it has in the scenario."""
        number = self._position
        self._position += 1
        self.received += 1
        self._remembered.append(incoming)
        del self._remembered[:-_MOST_REMEMBERED]
        return number

    async def _perform(
        self, incoming: IncomingRequest, number: int, send: _Send, transport: asyncio.Transport | None
    ) -> bool:
        scenario, gate = self._scenario, self._gate
        if scenario.first_token_p95_s is not None:
            scenario = replace(scenario, first_token_s=scenario.first_token_of(number), first_token_p95_s=None)
        clock = asyncio.get_running_loop().time
        if scenario.capacity is None:
            began_at = clock()
            steps = self._steps(incoming, scenario, scenario.fault_of(number))
            return await _play(steps, send, transport, began_at)
        status = await gate.enter(scenario.capacity)
        began_at = clock()
        if status is not None:
            return await _play(self._steps(incoming, scenario, HttpError(status)), send, transport, began_at)
        try:
            steps = self._steps(incoming, scenario, scenario.fault_of(number))
            return await _play(steps, send, transport, began_at)
        finally:
            gate.leave()

    def _steps(self, incoming: IncomingRequest, scenario: Scenario, fault: Fault | None) -> tuple[Step, ...]:
        try:
            request = self._dialect.read_request(incoming)
        except RequestRejected as refusal:
            return whole(refusal.response)
        return stage(self._dialect, request, self._answer(request, scenario), scenario, fault)

    def _answer(self, request: ChatRequest, scenario: Scenario) -> ChatCompletion:
        completion = scenario.completion or respond(request, self._persona)
        if scenario.text is not None and scenario.completion is None:
            text = continued(request, scenario.text)
            choices = tuple(
                replace(choice, message=replace(choice.message, content=text, tool_calls=()))
                for choice in completion.choices
            )
            completion = replace(completion, choices=choices)
        if scenario.aptitude is not None:
            completion = scenario.aptitude.taught(request, completion)
        return replace(completion, created=completion.created or int(self._now()))


async def _read(scope: Mapping[str, Any], receive: _Receive) -> IncomingRequest | None:
    """The whole request; None if the client left before it was complete."""
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    path = scope.get("raw_path") or scope["path"].encode()
    return IncomingRequest(
        scope["method"], path.decode("latin-1"), scope["query_string"].decode("latin-1"), headers, bytes(body)
    )


async def _disconnected(receive: _Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _play(steps: tuple[Step, ...], send: _Send, transport: asyncio.Transport | None, began_at: float) -> bool:
    """Play the steps; whether the connection was broken on purpose.

    began_at: by the clock of the loop. Waits count from when they were due, so that many short ones are together as
    long as they were meant to be.
    """
    clock = asyncio.get_running_loop().time
    due = began_at
    for step in steps:
        match step:
            case Head(status, headers):
                encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
                await send({"type": "http.response.start", "status": status, "headers": encoded})
            case Send(data):
                await send({"type": "http.response.body", "body": data, "more_body": True})
            case Wait(seconds):
                if seconds is None:
                    await asyncio.Event().wait()
                    continue
                now = clock()
                # A client that reads slowly doesn't get in a heap what it kept waiting.
                due = (due if now - due < _CATCHES_UP_S else now) + seconds
                await asyncio.sleep(due - now)
            case Break(reset):
                await _break(transport, reset)
                return True
            case _:
                assert_never(step)
    await send({"type": "http.response.body", "body": b"", "more_body": False})
    return False


async def _break(transport: asyncio.Transport | None, reset: bool) -> None:
    if transport is None:
        raise ConnectionResetError("the simulated provider broke the connection")
    if not reset:
        transport.close()
        return
    # What was sent before is part of the scenario: let it leave first.
    while transport.get_write_buffer_size():  # noqa: ASYNC110  # a transport tells nobody when it has drained
        await asyncio.sleep(0)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()
