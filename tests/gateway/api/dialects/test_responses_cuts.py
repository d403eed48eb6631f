"""A provider's stream that is cut at every byte: the client's stream of the Responses API, or of text completions,
never looks like a success.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from gateway.api.dialects.completions import Completions
from gateway.api.dialects.dialect import Dialect
from gateway.api.dialects.responses import Responses
from tests.kit.chat_exchange import CONFIG, Exchange, answering, chunk
from tests.kit.configs import table_of
from tests.kit.event_grammar.responses import read_stream

USAGE = b'data: {"id":"s","model":"m","created":1,"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n'
CALL = {"index": 0, "id": "c1", "function": {"name": "get_weather", "arguments": '{"city":"Oslo"}'}}
CALLING = {"id": "s", "model": "m", "choices": [{"index": 0, "delta": {"tool_calls": [CALL]}}]}
TEXT = (chunk("Hé"), chunk('l"lo'))
CALLED = b"".join((*TEXT, b"data: " + json.dumps(CALLING).encode() + b"\n\n", chunk(finish="tool_calls"), USAGE))
SAID = b"".join((*TEXT, chunk(finish="stop"), USAGE))
END = b"data: [DONE]\n\n"


@dataclass
class DialectExchange(Exchange):
    """One request in a dialect, with one provider."""

    dialect: Dialect | None = None

    async def run(self) -> None:
        assert self.dialect is not None
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(self.body))]
        scope = {"type": "http", "method": "POST", "headers": headers, "client": ("127.0.0.1", 1), "query_string": b""}
        await self.endpoint.answer(scope, self.receive, self.send, self.dialect)


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile the configuration once: every exchange has a gateway of its own."""
    table = table_of(
        CONFIG.merge({"resilience": {"attempts": {"per_deployment": 1, "total": 1}}}), {"KEY": "sk-secret"}
    )
    monkeypatch.setattr("tests.kit.chat_exchange.table_of", lambda *_: table)


async def test_response_that_is_cut_at_any_byte_ends_in_an_error() -> None:
    whole = CALLED + END
    body = json.dumps({"model": "assistant", "input": "hello", "stream": True}).encode()
    ends = set()
    for length in range(len(whole) + 1):
        exchange = DialectExchange(answering(whole[:length]), body, dialect=Responses())
        await exchange.run()
        if exchange.sent[0]["status"] != 200:
            assert json.loads(exchange.content)["error"]["code"]
            continue
        response = read_stream(exchange.content).response
        ends.add(response["status"])
        if response["status"] == "completed":
            assert whole[:length].startswith(CALLED.rpartition(USAGE)[0].rstrip(b"\n"))
            assert response["output"][-1]["arguments"] == '{"city":"Oslo"}'
            assert exchange.record.outcome == "ok"
        else:
            assert (response["status"], response["error"]["code"]) == ("failed", "stream_interrupted")
            assert exchange.record.outcome == "interrupted"
    assert ends == {"completed", "failed"}


async def test_text_completion_that_is_cut_at_any_byte_ends_in_an_error() -> None:
    whole = SAID + END
    body = json.dumps({"model": "assistant", "prompt": "hello", "stream": True}).encode()
    ends = set()
    for length in range(len(whole) + 1):
        exchange = DialectExchange(answering(whole[:length]), body, dialect=Completions())
        await exchange.run()
        if exchange.sent[0]["status"] != 200:
            assert json.loads(exchange.content)["error"]["code"]
            continue
        events = [json.loads(line[6:]) for line in exchange.content.split(b"\n\n") if line.startswith(b"data: {")]
        is_done = exchange.content.endswith(END)
        ends.add(is_done)
        if is_done:
            assert whole[:length].startswith(SAID.rpartition(USAGE)[0].rstrip(b"\n"))
            assert "".join(choice["text"] for event in events for choice in event["choices"]) == 'Hél"lo'
            assert exchange.record.outcome == "ok"
        else:
            assert events[-1]["error"]["code"] == "stream_interrupted"
            assert exchange.record.outcome == "interrupted"
    assert ends == {True, False}
