"""What a head was judged to be holds for the same head by the same table, and for nothing else."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.config import chat_body, client_headers, production_config
from bench.inprocess import PORTS, InProcess, bench_table, provider_answers
from gateway.api.arrival import Arrival, arrived_before, remember_arrival
from gateway.api.body import BodyLimits
from gateway.api.door import Visitor
from gateway.api.line import SameHead
from gateway.assembly.application import Gateway
from gateway.model.config_version import ConfigVersion
from gateway.model.location import Location
from gateway.policy.location import Sighting
from gateway.server import request_head
from tests.kit.configs import WORLD, table_of

ANSWER = provider_answers("JSON")
BODY = chat_body("assistant", stream=False)
CONFIG = production_config(PORTS)
TABLE = bench_table(CONFIG)


def request(body: bytes = BODY, **headers: str) -> bytes:
    """A request with the client's key, or with other headers."""
    sent = {**client_headers(), **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: here", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in sent.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Conversation:
    """One client's connection to one gateway."""

    def __init__(self, table: ConfigVersion = TABLE) -> None:
        self.door = InProcess(table, lambda transport: self._made(table, transport))

    def _made(self, table: ConfigVersion, transport: Any) -> Gateway:
        self.gateway = Gateway(table, transport)
        return self.gateway

    async def ask(self, sent: bytes) -> tuple[int, bytes]:
        answer = await self.door.ask(sent, ANSWER)
        return int(answer[9:12]), answer


async def test_a_head_that_comes_again_is_judged_once() -> None:
    talk = Conversation()
    guesses = talk.gateway._chat.guesses
    with patch.object(guesses, "authenticate", wraps=guesses.authenticate) as asked:
        for number in range(6):
            status, _ = await talk.ask(request(BODY[:-1] + b" " * number + b"}"))
            assert status == 200
    # The first is nobody's second, the second is learned, and the third is the first that is known.
    assert asked.call_count == 3


async def test_a_table_that_does_not_know_the_key_refuses_a_head_that_was_let_in() -> None:
    talk = Conversation()
    for _ in range(4):
        assert (await talk.ask(request()))[0] == 200
    other_key = f"client-9: {{keys: ['sha256:{'0' * 64}']}}\n  #"
    talk.gateway.activate(bench_table(CONFIG.replace("client-9:", other_key)))
    assert (await talk.ask(request()))[0] == 401
    talk.gateway.activate(TABLE)
    assert (await talk.ask(request()))[0] == 200


async def test_each_request_of_a_known_head_counts_against_its_clients_limit() -> None:
    talk = Conversation(bench_table(re.sub(r'(sha256:\w+"\])', r"\1, limits: {rpm: 5}", CONFIG)))
    assert [(await talk.ask(request()))[0] for _ in range(7)] == [200] * 5 + [429] * 2


async def test_each_request_of_a_known_head_has_an_id_of_its_own() -> None:
    talk = Conversation()
    ids = [re.findall(rb"x-request-id: (\S+)", (await talk.ask(request()))[1]) for _ in range(5)]
    assert len({tuple(found) for found in ids}) == 5


async def test_a_body_that_has_come_is_not_waited_for_where_there_is_no_room_for_it() -> None:
    talk = Conversation()
    talk.gateway._chat._limits = BodyLimits(most_bytes=10)
    status, answer = await talk.ask(request())
    assert status == 503
    assert b"connection: close" not in answer


def told(answer: bytes) -> tuple[bytes, object]:
    """An answer without what differs each time."""
    head, _, body = answer.partition(b"\r\n\r\n")
    head = re.sub(rb"(x-request-id|server-timing|openai-processing-ms|date|content-length): [^\r]*", rb"\1", head)
    value = json.loads(body)
    return head, value


async def answers_to(sent: Sequence[bytes]) -> list[tuple[bytes, object]]:
    talk = Conversation()
    return [told((await talk.ask(one))[1]) for one in sent]


SENT = st.builds(
    request,
    st.sampled_from([BODY, b"{}", b"", BODY[:-1] + b" " * 10 + b"}"]),
    cf_ipcountry=st.sampled_from(["DE", "CN", "CU", "XX"]),
    authorization=st.sampled_from([client_headers()["authorization"], "Bearer wrong"]),
    content_type=st.sampled_from(["application/json", "text/plain"]),
    x_gateway_timeout_ms=st.sampled_from(["5000", "0"]),
)


@settings(max_examples=30)
@given(st.lists(st.tuples(SENT, st.integers(1, 4)), max_size=4))
def test_what_is_remembered_is_what_would_be_judged(runs: list[tuple[bytes, int]]) -> None:
    sent = [one for one, times in runs for _ in range(times)]
    remembering = asyncio.run(answers_to(sent))
    with patch.object(request_head, "_MAX_UNMATCHED", 0):
        assert asyncio.run(answers_to(sent)) == remembering


@pytest.mark.parametrize(("size", "is_remembered"), [(2048, True), (2049, False)])
def test_a_caller_does_not_choose_how_much_is_remembered(size: int, is_remembered: bool) -> None:
    head, table = SameHead(), TABLE
    visitor = Visitor({}, size, "127.0.0.1", "")
    remember_arrival(head, Arrival(table, visitor, None, Sighting(), Location(None, None, "unknown", ())))
    assert (arrived_before(head, table) is not None) is is_remembered
    assert arrived_before(head, bench_table()) is None
    assert arrived_before(None, table) is None


EDGE = "{from: [127.0.0.0/8], country: CF-IPCountry}"
ELSEWHERE = "{from: [10.0.0.0/8], country: X-Country}"
GUARDED = "{from: [127.0.0.0/8], country: CF-IPCountry, secret: {header: X-Edge, value: %s}}"
OLD, NEW = GUARDED % "'the old secret of this edge'", GUARDED % "'the new secret of this edge'"
FR = b"cf-ipcountry", b"FR"
CLAIM = b"x-gateway-claim", b"a.b.c"
CLAIMS = "claim: {issuer: i, audience: a, algorithms: [HS256], secret: '01234567890123456789012345678901'}"
ADDRESSES = "geoip: {path: /nowhere.mmdb}"


def hearing(signals: str, edges: str = "", more: str = "") -> ConfigVersion:
    listed = f", edges: [{edges}]" if edges else ""
    asked = f", {more}" if more else ""
    return table_of(f"{WORLD[: WORLD.index('location:')]}location: {{signals: [{signals}]{listed}{asked}}}")


BY_EDGE = hearing("edge_header", EDGE)


@pytest.mark.parametrize(
    ("before", "now", "sent", "more"),
    [
        (BY_EDGE, BY_EDGE, [FR], False),
        (hearing("api_key"), BY_EDGE, [FR], True),
        (hearing("api_key"), BY_EDGE, [], False),
        (BY_EDGE, hearing("api_key"), [FR], False),
        (hearing("api_key", EDGE), BY_EDGE, [FR], True),
        # One of another network that comes, or goes; one that this peer has become, and one that it was in other words.
        (BY_EDGE, hearing("edge_header", f"{EDGE}, {ELSEWHERE}"), [FR], False),
        (hearing("edge_header", f"{EDGE}, {ELSEWHERE}"), BY_EDGE, [FR], False),
        (hearing("edge_header", f"{EDGE}, {ELSEWHERE}"), BY_EDGE, [], False),
        (hearing("edge_header", f"{EDGE}, {ELSEWHERE}"), hearing("edge_header", ELSEWHERE), [FR], False),
        (hearing("edge_header", ELSEWHERE), hearing("edge_header", f"{EDGE}, {ELSEWHERE}"), [FR], True),
        (BY_EDGE, hearing("edge_header", EDGE.replace("}", ", subdivision: X-Part}")), [FR], True),
        # Its secret: there was none, it came, it didn't; and one that was only replaced.
        (BY_EDGE, hearing("edge_header", NEW), [FR], False),
        (BY_EDGE, hearing("edge_header", NEW), [FR, (b"x-edge", b"the new secret of this edge")], True),
        (BY_EDGE, hearing("edge_header", NEW), [FR, (b"x-edge", b"wrong")], True),
        (
            hearing("edge_header", OLD),
            hearing("edge_header", NEW),
            [FR, (b"x-edge", b"the old secret of this edge")],
            False,
        ),
        (BY_EDGE, hearing("claim, edge_header", EDGE, CLAIMS), [FR, CLAIM], True),
        (BY_EDGE, hearing("claim, edge_header", EDGE, CLAIMS), [FR], False),
        (BY_EDGE, hearing("assertion, edge_header", EDGE), [FR, (b"x-gateway-territory", b"DE")], True),
        (BY_EDGE, hearing("assertion, edge_header", EDGE), [FR], False),
        (BY_EDGE, hearing("edge_header, geoip", EDGE, ADDRESSES), [FR], True),
        (hearing("geoip", "", ADDRESSES), hearing("geoip", "", ADDRESSES), [], False),
        (hearing("geoip", "", ADDRESSES), hearing("geoip", EDGE, ADDRESSES), [], True),
    ],
)
def test_what_another_table_would_hear_of_a_place(
    before: ConfigVersion, now: ConfigVersion, sent: list[tuple[bytes, bytes]], more: bool
) -> None:
    visitor = Visitor(dict(sent), 100, "127.0.0.1", "")
    arrival = Arrival(before, visitor, None, Sighting(), Location(None, None, "unknown", ()))
    assert arrival.brought_more(now) is more


RENAMED = EDGE.replace("CF-IPCountry", "X-Country")


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        ("", "", True),
        (EDGE, EDGE, True),
        (EDGE, "", False),
        ("", EDGE, False),
        (f"{EDGE}, {ELSEWHERE}", EDGE, True),
        (EDGE, f"{ELSEWHERE}, {EDGE}", True),
        (f"{EDGE}, {ELSEWHERE}", ELSEWHERE, False),
        (ELSEWHERE, "", True),
        (f"{EDGE}, {ELSEWHERE}", f"{RENAMED}, {ELSEWHERE}", False),
        (EDGE, NEW, False),
        (f"{OLD}, {ELSEWHERE}", NEW, True),
    ],
)
def test_a_peer_is_the_same_edge_whatever_becomes_of_others(before: str, now: str, same: bool) -> None:
    told_by, asked = hearing("edge_header, api_key", before), hearing("edge_header, api_key", now)
    visitor = Visitor(dict([FR]), 100, "127.0.0.1", "")
    arrival = Arrival(told_by, visitor, None, Sighting(), Location(None, None, "unknown", ()))
    assert arrival.has_same_edge(asked) is same
