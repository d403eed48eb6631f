"""A simulated provider as an ASGI application: it reads a request and performs the wire steps of its answer.

If the server puts the connection's transport into the state of the scope, connections are really broken. Without it
(for an in-process client) the application raises ConnectionResetError instead.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, assert_never

from providers.adapter import KnowsOffers
from providers.catalogue.model_lists import model_lists
from providers.catalogue.prices import Offers
from providers.chat import ChatCompletion, ChatRequest, Usage
from providers.failures import FailureKind
from providers.inputs.embeddings.facts import load_embedding_facts
from providers.inputs.embeddings.values import EmbeddingRequest
from providers.json_values import dumps
from providers.moderations.guard_models import guard_kind_of
from providers.registry import load_registry
from providers.testkit.capacity import Capacity, Gate
from providers.testkit.prefix_cache import PrefixCache
from providers.testkit.scenario import Fault, HttpError, Scenario
from providers.testkit.simulated_inputs import DIMENSIONS, embed, score
from providers.testkit.simulated_model import continued, respond
from providers.testkit.simulated_verdicts import moderate, with_verdict
from providers.testkit.simulator import (
    IncomingRequest,
    RefusesTokens,
    RequestRejected,
    SimulatesAudio,
    SimulatesCounts,
    SimulatesDecisions,
    SimulatesInputs,
    SimulatesModerations,
    SimulatesRerank,
    Simulator,
)
from providers.testkit.wire_steps import Break, Head, Send, Step, Wait, stage, stage_whole, whole
from providers.value import replace
from providers.wire import WireResponse

TRANSPORT = "simulator.transport"
"""The name under which a server puts the connection's asyncio transport into the scope's `state`."""

_MOST_REMEMBERED = 1000
_CATCHES_UP_S = 0.05
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class SimulatorApp:
    """One simulated provider. Its requests and counts can be read at any time from any thread."""

    def __init__(
        self,
        simulator: Simulator,
        persona: str,
        scenario: Scenario | None = None,
        *,
        now: Callable[[], float] = time.time,
        accepts: Callable[[IncomingRequest], bool] | None = None,
        cache: PrefixCache | None = None,
    ) -> None:
        self._simulator = simulator
        self._cache = cache
        self._accepts = accepts
        self._persona = persona
        self._now = now
        self._scenario = scenario or Scenario()
        self._position = 0
        self._gate = Gate()
        self._remembered: list[IncomingRequest] = []
        self.received = 0
        """The number of requests with a complete body."""
        self.disconnects = 0
        """The number of requests that the client cancelled before their answer was complete."""
        self.closing = False

    @property
    def scenario(self) -> Scenario:
        """The delays and faults. A new scenario can be set at any time. It starts its script anew."""
        return self._scenario

    @scenario.setter
    def scenario(self, scenario: Scenario) -> None:
        self._scenario, self._position, self._gate = scenario, 0, Gate()

    @property
    def requests(self) -> list[IncomingRequest]:
        """The last requests with a complete body, oldest first. At most 1,000."""
        return list(self._remembered)

    async def __call__(self, scope: Mapping[str, Any], receive: _Receive, send: _Send) -> None:
        """Handle an ASGI 3 scope of the type `http`. Raises RuntimeError for other types."""
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
                    # The server notices the broken connection later, and would report an incomplete response as an
                    # error.
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
        """Store the request, and return its number in the scenario."""
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
        status = await gate.enter(scenario.capacity or Capacity())
        began_at = asyncio.get_running_loop().time()
        fault = scenario.fault_of(number) if status is None else HttpError(status)
        try:
            return await _play(self._steps(incoming, scenario, fault), send, transport, began_at)
        finally:
            if status is None:
                gate.leave()

    def _steps(self, incoming: IncomingRequest, scenario: Scenario, fault: Fault | None) -> tuple[Step, ...]:
        simulator = self._simulator
        if self._accepts is not None and not self._accepts(incoming):
            refuses = simulator.refuse_token if isinstance(simulator, RefusesTokens) else None
            return whole(refuses() if refuses is not None else simulator.write_error(FailureKind.CREDENTIALS, 401))
        try:
            if (listed := _listed(simulator.name, incoming)) is not None:
                return stage_whole(simulator, listed, scenario, fault)
            if isinstance(simulator, SimulatesInputs) and (content := simulator.read_input(incoming)) is not None:
                if isinstance(content, EmbeddingRequest):
                    response = simulator.write_embeddings(
                        embed(content, _dimensions(simulator.name, content)), incoming
                    )
                elif isinstance(simulator, SimulatesModerations):
                    response = simulator.write_moderations(moderate(content), incoming)
                else:
                    raise TypeError(f"the simulator {simulator.name} reads moderations, but writes none")
                return stage_whole(simulator, response, scenario, fault)
            if isinstance(simulator, SimulatesRerank) and (ranked := simulator.read_rerank(incoming)) is not None:
                return stage_whole(simulator, simulator.write_rerank(score(ranked), incoming), scenario, fault)
            if isinstance(simulator, SimulatesDecisions) and (made := simulator.answer_decisions(incoming)) is not None:
                return stage_whole(simulator, made, scenario, fault)
            if isinstance(simulator, SimulatesAudio) and (heard := simulator.answer_audio(incoming)) is not None:
                return stage_whole(simulator, heard, scenario, fault)
            if isinstance(simulator, SimulatesCounts) and (counted := simulator.read_count(incoming)) is not None:
                usage = respond(counted, self._persona).usage
                response = simulator.write_count(usage.prompt_tokens if usage is not None else 0, incoming)
                return stage_whole(simulator, response, scenario, fault)
            request = simulator.read_request(incoming)
        except RequestRejected as refusal:
            return whole(refusal.response)
        answer = self._answer(request, scenario)
        if self._cache is not None and fault is None:
            read = self._cache.read(incoming, request.model)
            usage = replace(answer.usage or Usage(), prompt_tokens=read.prompt_tokens, cached_tokens=read.cached_tokens)
            answer = replace(answer, usage=usage)
        return stage(self._simulator, request, answer, scenario, fault)

    def _answer(self, request: ChatRequest, scenario: Scenario) -> ChatCompletion:
        completion = scenario.completion or respond(request, self._persona)
        if scenario.completion is None and (kind := guard_kind_of(request.model)) is not None:
            completion = with_verdict(completion, request, kind)
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


def _listed(provider: str, incoming: IncomingRequest) -> WireResponse | None:
    """Return the answer to a question for the list of models or for one of them. None: it is another request."""
    row, adapter = model_lists().get(provider), load_registry().adapters.get(provider)
    _, found, model = incoming.path.partition(row.path.removeprefix("{base}") if row is not None else "/")
    if row is None or incoming.method != "GET" or not found:
        return None
    offers = adapter.offers if isinstance(adapter, KnowsOffers) else Offers()
    entries: dict[str, dict[str, object]] = {}
    priced = {name for price in offers.prices for name in price.models}
    for name in sorted(priced.union(*(end.models for end in offers.retirements))):
        entry: dict[str, object] = {row.name: f"{row.prefix}{name}"}
        if row.end and (end := offers.retirement(name)) is not None:
            *outer, last = row.end.split(".")
            entry |= {outer[0]: {last: f"{end.on}"}} if outer else {last: f"{end.on}"}
        entries[name] = entry
    body = entries.get(model.removeprefix("/")) if model else {row.entries: [*entries.values()]}
    return WireResponse(200 if body else 404, {"content-type": "application/json"}, dumps(body or {}), 0)


def _dimensions(provider: str, request: EmbeddingRequest) -> int:
    vendor = load_embedding_facts(provider)
    known = vendor.facts(request.model).dimensions if vendor is not None else None
    return known or DIMENSIONS


async def _read(scope: Mapping[str, Any], receive: _Receive) -> IncomingRequest | None:
    """Return the whole request, or None if the client disconnected before it was complete."""
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
    """Perform the steps. Return whether the connection was broken on purpose.

    `began_at` is a time of the loop's clock. Each wait starts at the due time of the last one, so that the sum of many
    short waits is exact.
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
                # After a delay by a slow client, do not send all events at once.
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
    # The data before the break is part of the scenario, so it must be sent first.
    while transport.get_write_buffer_size():  # noqa: ASYNC110  # a transport has no event for an empty buffer
        await asyncio.sleep(0)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()
