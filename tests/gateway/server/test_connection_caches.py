"""The caches of a connection and a config version change nothing: a request on a used connection gets
the same answer as on a new one, by the config version that is active when it is checked."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import httptools
import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from gateway.assembly.application import Gateway
from gateway.model.record import Record
from gateway.server import request_head
from gateway.server.http_protocol import ConnectionProtocol
from gateway.server.uvicorn_server import server_config
from gateway.usage.client_limits import ClientLimits
from gateway.usage.quota_store import _RUNNING
from tests.gateway.server.memory_transport import Wire
from tests.kit.configs import Config, key_hash, table_of
from tests.kit.example_counts import examples
from tests.kit.httpx_transport import HttpxTransport
from tests.kit.scripted_server import until

LIMIT_S = 60.0
APP_KEY, NO_KEY = key_hash("app-key"), f"sha256:{'0' * 64}"
CONFIG = Config.parse("""
version: 1
cell: {territory: DE}
assistants:
  assistant: {aliases: [gpt-4o], routes: {eu: [here], us: [there], default: [there, here]}}
  other: {routes: {eu: [here], us: [there]}}
regions:
  eu: {territories: [DE, FR], boundary: [DE, FR]}
  us: {territories: [US], boundary: [US], transit: [DE]}
  default: {territories: ["*"], boundary: ["*"]}
location:
  signals: [api_key, assertion, edge_header]
  edges: [{from: [127.0.0.0/8], country: CF-IPCountry, secret: {header: X-Edge, value: edge-secret}}]
deployments:
  here: {provider: openai-compatible, model: m, endpoint: "http://127.0.0.1:1/v1", stores: DE, processes: DE, api_key: "k1"}
  there: {provider: openai-compatible, model: m, endpoint: "http://127.0.0.1:2/v1", stores: US, processes: US, api_key: "k2"}
""").merge(
    {
        "clients": {
            "app": {"keys": [APP_KEY], "may_assert": ["territory", "user"]},
            "other": {"keys": [key_hash("other-key")], "region": "us"},
        }
    }
)
EDGE = CONFIG.data["location"]["edges"][0]
# Changes by an operator.
CHANGES: dict[str, str | dict[str, Any]] = {
    "as it was": {},
    "the key is revoked": {"clients": {"app": {"keys": [NO_KEY]}}},
    "the key is another client's": {"clients": {"app": {"keys": [NO_KEY]}, "new": {"keys": [APP_KEY], "region": "us"}}},
    "the key is bound": "clients: {app: {region: us}}",
    "the client may ask for less": "clients: {app: {assistants: [other]}}",
    "the client may assert nothing": "clients: {app: {may_assert: null}}",
    "limits": "clients: {app: {limits: {rpm: 3, concurrent: 2}}}",
    "no keys": "clients: null",
    "the place is another region's": "regions: {eu: {territories: [FR]}, us: {territories: [US, DE]}}",
    "the place is blocked": "{blocked_by: 'https://law.example/why', blocked: [DE, CU], regions: {eu: {territories: [FR]}}}",
    "unknown places are served": "location: {unknown: default}",
    "another edge header": {"location": {"edges": [EDGE | {"country": "X-Country"}]}},
    "another edge secret": {
        "location": {"edges": [EDGE | {"secret": {"header": "X-Edge", "value": "another-secret"}}]}
    },
    "another edge": {"location": {"edges": [EDGE | {"from": ["10.0.0.0/8"]}]}},
    "prompts are logged": "regions: {eu: {log_prompts: true}}",
    "no alias": "assistants: {assistant: {aliases: null}}",
    "the model is hidden": "assistants: {assistant: {aliases: null, reveal_model: false}}",
    "labels": "regions: {eu: {labels: [eu-art50]}}",
    "claims are believed": "location: {claim: {issuer: i, audience: a, algorithms: [ES256], jwks: /no/keys}}",
    "pages may call": "cors: {origins: ['https://page.example']}",
}


TABLES = [table_of(CONFIG.merge(patch), {}) for patch in CHANGES.values()]
# Checks that run when the head has arrived, under the config of that moment.
AT_THE_HEAD = {[*CHANGES].index(name) for name in ("limits", "pages may call")}


# --- requests -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Message:
    """One request: its first line and headers, and a body that is announced in one way or another."""

    target: bytes = b"/v1/chat/completions"
    method: bytes = b"POST"
    version: bytes = b"1.1"
    lines: tuple[bytes, ...] = ()
    body: bytes = b""
    framing: bytes = b"content-length: %d"

    @property
    def head(self) -> bytes:
        framing = self.framing % len(self.body) if b"%" in self.framing else self.framing
        # In the middle, where a client library puts it.
        lines = (b"host: x", *self.lines[:2], framing, *self.lines[2:])
        return b"%b %b HTTP/%b\r\n%b\r\n" % (
            self.method,
            self.target,
            self.version,
            b"".join(line + b"\r\n" for line in lines),
        )

    @property
    def wire(self) -> bytes:
        if b"%" in self.framing:
            return self.head + self.body
        return self.head + (b"%x\r\n%b\r\n" % (len(self.body), self.body) if self.body else b"") + b"0\r\n\r\n"


@dataclass(frozen=True)
class Step:
    """Messages that are sent together, in pieces.

    table: active from then on, or, with `during`, from the body's second piece on. leaves: the client leaves before the
    last piece, or, where there is one alone, before its answer is complete.
    """

    messages: tuple[Message, ...]
    cuts: tuple[float, ...] = ()
    table: int | None = None
    during: bool = False
    leaves: bool = False

    @property
    def pieces(self) -> list[bytes]:
        wire = b"".join(message.wire for message in self.messages)
        start = len(self.messages[0].head) if self.during else 0
        at = sorted({0, len(wire), *(start + int((len(wire) - start) * cut) for cut in self.cuts)})
        return [wire[start:end] for start, end in pairwise(at)]


def chat(text: str, **more: object) -> bytes:
    return json.dumps({"model": "assistant", "messages": [{"role": "user", "content": text}], **more}).encode()


# The usual value of each part of a head, and others.
PARTS: list[tuple[bytes | None, ...]] = [
    (
        b"/v1/chat/completions",
        b"/v1/chat/completionz",
        b"/v1/chat/compl%65tions",
        b"http://x/v1/chat/completions",
        b"/v1/chat/completions?a=b",
        b"/v1/chat/completions?key=b",
    ),
    (b"POST", b"GET", b"OPTIONS"),
    (b"1.1", b"1.0"),
    (b"content-length: %d", b"Content-Length: %d", b"content-length: 0%d", b"transfer-encoding: chunked"),
    (b"content-type: application/json", b"content-type: text/plain", None),
    (
        b"authorization: Bearer app-key",
        b"Authorization: bearer  app-key",
        b"authorization: Bearer other-key",
        b"authorization: Bearer wrong",
        b"authorization: Bearer app-key\r\nauthorization: Bearer other-key",
        b"authorization: Bearer app-key\r\nx-api-key: app-key",
        b"x-api-key: other-key",
        None,
    ),
    (b"x-edge: edge-secret", b"x-edge: another-secret", b"x-edge: edge-secret\r\nx-edge: a", None),
    (
        b"cf-ipcountry: DE",
        b"cf-ipcountry: US",
        b"CF-IPCountry:US",
        b"cf-ipcountry: CU",
        b"cf-ipcountry: XX",
        b"cf-ipcountry: DE\r\ncf-ipcountry: US",
        b"x-country: US",
        b"x-forwarded-for: 192.0.2.1",
        None,
    ),
    (None, b"x-gateway-territory: US", b"x-gateway-territory: DE"),
    (None, b"x-gateway-user: me", b"x-gateway-user: me\r\nx-gateway-user: you"),
    (None, b"x-gateway-timeout-ms: 60000", b"x-gateway-timeout-ms: 0"),
    (None, b"x-request-id: mine", b"x-request-id: not sane"),
    (None, b"origin: https://page.example", b"origin: https://page.example\r\naccess-control-request-method: POST"),
    (
        None,
        b"connection: close",
        b"connection: keep-alive",
        b"expect: 100-continue",
        b"x: y\r\n folded",
        b"x: " + b"y" * 2100,
    ),
]


def head_of(parts: Sequence[bytes | None]) -> Message:
    target, method, version, framing, *lines = parts
    return Message(target or b"", method or b"", version or b"", tuple(filter(None, lines)), b"", framing or b"")


USUAL = [usual for usual, *_ in PARTS]


_TELLING = [5, 6, 7, 8]
_ELSEWHERE = [b"/healthz", b"/v1/models", b"/v1/explain?assistant=assistant"]


@st.composite
def unusual_heads(draw: st.DrawFn) -> Message:
    """The usual head with one or two changes, often in headers of identity or location, sometimes with another path."""
    parts = USUAL.copy()
    for _ in range(draw(st.sampled_from([1, 1, 2]))):
        at = draw(st.sampled_from([*range(len(PARTS)), *_TELLING, *_TELLING]))
        parts[at] = draw(st.sampled_from(PARTS[at][1:]))
    if draw(st.integers(0, 9)) == 9:
        parts[:2] = draw(st.sampled_from(_ELSEWHERE)), b"GET"
    return head_of(parts)


BODIES = st.one_of(
    st.builds(
        lambda number, more: chat(f"word {number}", **more),
        st.integers(0, 10**12),
        st.sampled_from(
            [{}, {"stream": True}, {"model": "gpt-4o"}, {"model": "other"}, {"model": "no"}, {"temperature": 9}]
        ),
    ),
    st.sampled_from([b"", b"{}", b"no json", chat("hang", stream=True), chat("x" * 60_000)]),
)


@st.composite
def conversations(draw: st.DrawFn) -> list[Step]:
    """Few heads that come again and again, each time with another body, while the tables change."""
    known = [head_of(USUAL), *draw(st.lists(unusual_heads(), min_size=1, max_size=2))]
    steps: list[Step] = []
    for _ in range(draw(st.integers(3, 5))):
        head = draw(st.sampled_from(known))
        # Sent so often that it is recognised afterwards.
        steps += [Step((replace(head, body=draw(BODIES)),)) for _ in range(draw(st.integers(0, 3)))]
        heads = [head, *draw(st.lists(st.sampled_from(known), max_size=2))] if draw(st.integers(0, 3)) == 3 else [head]
        messages = tuple(replace(head, body=draw(BODIES)) for head in heads)
        cuts = tuple(draw(st.lists(st.floats(0, 1), max_size=2)))
        table = draw(st.none() | st.integers(0, len(TABLES) - 1))
        is_lone = len(messages) == 1
        steps.append(
            Step(messages, cuts, table, is_lone and draw(st.booleans()), is_lone and draw(st.integers(0, 9)) == 9)
        )
        steps.append(Step((replace(head, body=draw(BODIES)),), table=draw(st.sampled_from([None, 0]))))
    return steps


# --- answers --------------------------------------------------------------------------------------


class Answers(Wire):
    """Read the received bytes as HTTP."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[tuple[Any, ...]] = []
        self.changed = asyncio.Event()
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = b""

    def on_message_begin(self) -> None:
        self._headers, self._body = [], b""

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if (status := self._parser.get_status_code()) >= 200:
            self.answers.append((status, self._headers, self._body))
            self.changed.set()

    def write(self, data: Any) -> None:
        if not self.closed:
            self._parser.feed_data(bytes(data))
            if self._body:
                self.changed.set()

    def close(self) -> None:
        super().close()
        self.changed.set()


class Provider:
    """Answers with the received request; while it hangs, it sends only one word."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, bytes]] = []
        self.hangs = False

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append((str(request.url), request.headers["authorization"], request.content))
        asked = json.loads(request.content)
        text = asked["messages"][-1]["content"]
        more = {"id": "a", "created": 1, "model": "m"}
        if not asked.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            if self.hangs:
                await asyncio.Event().wait()
            return httpx.Response(200, json={**more, "choices": [choice]})
        deltas = [({"role": "assistant", "content": text}, None), ({}, "stop")]
        chunks = [
            {
                **more,
                "object": "chat.completion.chunk",
                "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
            }
            for delta, reason in deltas
        ]
        events = [b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks] + [b"data: [DONE]\n\n"]
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=self._stream(events))

    async def _stream(self, events: Sequence[bytes]) -> AsyncIterator[bytes]:
        for event in events:
            yield event
            if self.hangs:
                await asyncio.Event().wait()


_OWN = (b"date", b"server-timing", b"openai-processing-ms", b"content-length", b"connection")


def shown(value: object) -> str:
    return re.sub(r"req_[0-9a-f]{16}[0-9]+", "req", str(value))


def comparable_answer(status: int, pairs: list[tuple[bytes, bytes]], body: bytes) -> tuple[object, ...]:
    """An answer without what differs each time."""
    return status, sorted((name, shown(value)) for name, value in pairs if name not in _OWN), shown(body)


@dataclass
class Outcome:
    """The result of one step. `early`: it was answered before the config was switched."""

    answers: list[tuple[object, ...]] = field(default_factory=list)
    known: list[object] = field(default_factory=list)
    early: bool = False
    is_closed: bool = False


class ConnectedGateway:
    """A gateway with one client. With `apart`, each message uses a new connection, and no cache applies."""

    def __init__(self, *, apart: bool) -> None:
        self.provider = Provider()
        self.gateway = Gateway(TABLES[0], HttpxTransport(httpx.MockTransport(self.provider)))
        self.chat = self.gateway._chat
        self.chat.service._limits = ClientLimits(clock=lambda: 0)
        self.chat._observe = self._observe
        self.chat.service._log_prompt = lambda _, text: self.known.append(("logged", text))
        self.config = server_config(self.gateway, 1)
        self.config.load()
        self.state = ServerState()
        self.apart = apart
        self.known: list[object] = []
        self.connection: ConnectionProtocol | None = None
        self.wire = Answers()

    def _observe(self, record: Record) -> None:
        place = (
            (record.decided.location.region and record.decided.location.region.name, record.decided.location.why)
            if record.decided.location is not None
            else None
        )
        self.known.append(
            (
                shown(record.request_id),
                record.config_version,
                record.client,
                place,
                record.decided.assistant,
                record.answered_by.deployment,
                record.stream,
                (record.shown.status, record.outcome, record.shown.code, shown(record.detail)),
                record.shown.dropped,
                record.shown.labels,
                bool(record.shown.allowance),
            )
        )

    def connect(self) -> ConnectionProtocol:
        if self.apart:
            for table in TABLES:
                table.memo.clear()
            request_head._split_cached.cache_clear()
        if self.connection is None or self.wire.closed or self.apart:
            self.leave()
            self.wire = Answers()
            self.connection = ConnectionProtocol(self.config, self.state, {})
            self.connection.connection_made(self.wire)
        return self.connection

    def leave(self) -> None:
        if self.connection is not None:
            self.connection.connection_lost(None)
            self.connection = None

    async def take(self, step: Step, early: bool | None) -> Outcome:
        """early: None on the side that finds it out."""
        outcome, first_known, first_request = Outcome(), len(self.known), len(self.provider.requests)
        changing = {TABLES.index(self.gateway.config), step.table} & AT_THE_HEAD
        # Elsewhere the table is looked up when the framework gets there.
        is_chat = step.messages[0].method == b"POST"
        during = step.during and is_chat and not changing and len(step.pieces) > 1 and not step.leaves
        table = TABLES[step.table] if step.table is not None else self.gateway.config
        self.provider.hangs = step.leaves
        if not during or early is False:
            self.gateway.activate(table)
        groups = [step.messages] if early is None or step.leaves else [(message,) for message in step.messages]
        for group in groups:
            connection, wire = self.connect(), self.wire
            wire.answers.clear()
            pieces = [b"".join(request.wire for request in group)] if self.apart and not step.leaves else step.pieces
            for number, piece in enumerate(pieces):
                if wire.closed:
                    break
                connection.data_received(piece)
                if number < len(pieces) - 1:
                    await turns()
                    if step.leaves and number == len(pieces) - 2:
                        break
                    if during and number == 0 and early is None:
                        outcome.early = bool(wire.answers or wire.closed)
                        self.gateway.activate(table)
            if step.leaves:
                await turns()
                self.leave()
                await self._is_quiet()
                return Outcome()
            while len(wire.answers) < len(group) and not wire.closed:
                wire.changed.clear()
                await asyncio.wait_for(wire.changed.wait(), LIMIT_S)
            await self._is_quiet()
            outcome.answers += [comparable_answer(*answer) for answer in wire.answers]
            outcome.is_closed = wire.closed
            if wire.closed:
                break
        self.gateway.activate(table)
        outcome.known = [*self.known[first_known:], *self.provider.requests[first_request:]]
        return outcome

    async def _is_quiet(self) -> None:
        """All requests are recorded; a request may be cut off before the chat endpoint counts it."""
        await until(lambda: not (self.state.tasks or self.chat.in_flight))

    def assert_nothing_is_held(self) -> None:
        """Assert that every finished request has released its resources."""
        assert self.chat.in_flight == self.chat.open_streams == self.chat.body_limits._held_bytes == 0
        assert not any(self.chat.service._limits._store._cells[_RUNNING :: _RUNNING + 1])


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


_USUAL_CHAT = replace(head_of(USUAL), body=chat("word"))
_MALFORMED = replace(_USUAL_CHAT, lines=(*_USUAL_CHAT.lines, b"x: y\r\n folded"))


@settings(max_examples=examples(50))
@example(steps=[Step((_USUAL_CHAT, _MALFORMED)), Step((_USUAL_CHAT,))])
@given(steps=conversations())
async def test_connection_caches_do_not_change_answers(steps: list[Step]) -> None:
    for table in TABLES:
        table.memo.clear()
    together, apart = ConnectedGateway(apart=False), ConnectedGateway(apart=True)
    found = [await together.take(step, None) for step in steps]
    for step, outcome in zip(steps, found, strict=True):
        expected = await apart.take(step, outcome.early)
        if len(outcome.answers) < len(expected.answers):
            # Bytes that are not HTTP end the connection, and with it the answers to earlier requests.
            assert len(step.messages) > 1
            assert outcome.is_closed
            assert expected.answers[-1][0] == 400
            assert outcome.answers == expected.answers[: len(outcome.answers)]
        else:
            assert outcome.answers == expected.answers
            assert outcome.known == expected.known
            # A body that has been read by then does not end the connection.
            assert outcome.is_closed == expected.is_closed or (step.during and not outcome.is_closed)
    for side in (together, apart):
        side.leave()
        await until(lambda side=side: not side.state.tasks)
        side.assert_nothing_is_held()


@pytest.mark.parametrize("name", [name for at, name in enumerate(CHANGES) if at not in AT_THE_HEAD])
@pytest.mark.parametrize("before", ["as it was", "the key is bound"])
async def test_body_received_during_a_reload_uses_the_new_version(before: str, name: str) -> None:
    names = [*CHANGES]
    usual = replace(head_of(USUAL), body=chat("word"))
    reload = Step((usual,), (0.5,), names.index(name), during=True)
    together, apart = ConnectedGateway(apart=False), ConnectedGateway(apart=True)
    for side in (together, apart):
        await side.take(Step((usual,), table=names.index(before)), None)
    outcome = await together.take(reload, None)
    expected = await apart.take(reload, outcome.early)
    assert (outcome.answers, outcome.known) == (expected.answers, expected.known)
