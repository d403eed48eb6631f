"""A remembered caller applies to the same head under the same config version, and to nothing else."""

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
from gateway.api.body_room import BodyLimits
from gateway.api.caller.request_headers import KnownCaller, known_caller, remember_caller
from gateway.api.connection import SameHead
from gateway.assembly.application import Gateway
from gateway.model.caller import Caller, RequestContext, RequestHeaders
from gateway.model.config_version import ConfigVersion
from gateway.server import request_head
from tests.gateway.location_reports import caller_of
from tests.kit.configs import Config

ANSWER = provider_answers("JSON")
BODY = chat_body("assistant", stream=False)
CONFIG = Config.parse(production_config(PORTS))
TABLE = bench_table(CONFIG.text)


def request(body: bytes = BODY, **headers: str) -> bytes:
    """A request with the client's key, or with other headers."""
    sent = {**client_headers(), **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: here", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in sent.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class ClientConnection:
    """One client's connection to one gateway."""

    def __init__(self, table: ConfigVersion = TABLE) -> None:
        self.door = InProcess(table, lambda transport: self._made(table, transport))

    def _made(self, table: ConfigVersion, transport: Any) -> Gateway:
        self.gateway = Gateway(table, transport)
        return self.gateway

    async def ask(self, sent: bytes) -> tuple[int, bytes]:
        answer = await self.door.ask(sent, ANSWER)
        return int(answer[9:12]), answer


async def test_repeated_head_is_authenticated_once() -> None:
    connection = ClientConnection()
    limiter = connection.gateway._chat.limiter
    with patch.object(limiter, "authenticate", wraps=limiter.authenticate) as asked:
        for number in range(6):
            status, _ = await connection.ask(request(BODY[:-1] + b" " * number + b"}"))
            assert status == 200
    # The first request has no earlier one, the second is remembered, and the third is the first to be recognised.
    assert asked.call_count == 3


async def test_cached_head_is_refused_by_a_version_without_its_key() -> None:
    connection = ClientConnection()
    for _ in range(4):
        assert (await connection.ask(request()))[0] == 200
    other_key = {"clients": {"client-9": {"keys": [f"sha256:{'0' * 64}"]}}}
    connection.gateway.activate(bench_table(CONFIG.merge(other_key).text))
    assert (await connection.ask(request()))[0] == 401
    connection.gateway.activate(TABLE)
    assert (await connection.ask(request()))[0] == 200


async def test_each_request_of_a_known_head_counts_against_its_clients_limit() -> None:
    limits = {"limits": {"rpm": 5}}
    connection = ClientConnection(
        bench_table(CONFIG.merge({"clients": dict.fromkeys(CONFIG.data["clients"], limits)}).text)
    )
    assert [(await connection.ask(request()))[0] for _ in range(7)] == [200] * 5 + [429] * 2


async def test_each_request_of_a_known_head_has_its_own_id() -> None:
    connection = ClientConnection()
    ids = [re.findall(rb"x-request-id: (\S+)", (await connection.ask(request()))[1]) for _ in range(5)]
    assert len({tuple(found) for found in ids}) == 5


async def test_request_over_the_body_memory_limit_is_refused_at_once() -> None:
    connection = ClientConnection()
    connection.gateway._chat.body_limits = BodyLimits(most_bytes=10)
    status, answer = await connection.ask(request())
    assert status == 503
    assert b"connection: close" not in answer


def comparable(answer: bytes) -> tuple[bytes, object]:
    """An answer without what differs each time."""
    head, _, body = answer.partition(b"\r\n\r\n")
    head = re.sub(rb"(x-request-id|server-timing|openai-processing-ms|date|content-length): [^\r]*", rb"\1", head)
    value = json.loads(body)
    return head, value


async def answers_to(sent: Sequence[bytes]) -> list[tuple[bytes, object]]:
    connection = ClientConnection()
    return [comparable((await connection.ask(one))[1]) for one in sent]


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
def test_answers_are_equal_with_and_without_remembered_heads(runs: list[tuple[bytes, int]]) -> None:
    sent = [one for one, times in runs for _ in range(times)]
    remembering = asyncio.run(answers_to(sent))
    with patch.object(request_head, "_MAX_UNMATCHED", 0):
        assert asyncio.run(answers_to(sent)) == remembering


@pytest.mark.parametrize(("size", "is_remembered"), [(2048, True), (2049, False)])
def test_caller_is_cached_only_for_a_head_within_the_size_limit(size: int, is_remembered: bool) -> None:
    head, table = SameHead(), TABLE
    visitor = RequestHeaders({}, size, "127.0.0.1", "")
    remember_caller(head, KnownCaller(table, visitor, caller_of(table, None, visitor)))
    assert (known_caller(head, table) is not None) is is_remembered
    assert known_caller(head, bench_table()) is None
    assert known_caller(None, table) is None


def test_cached_caller_holds_no_data_of_a_single_request() -> None:
    """A caller that was remembered would give the second request of a connection the id and trace of the first."""
    assert not {*Caller.__struct_fields__} & {*RequestContext.__struct_fields__}
    assert {*KnownCaller.__struct_fields__} == {"config", "headers", "caller"}
