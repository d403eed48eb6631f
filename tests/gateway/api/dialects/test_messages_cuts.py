"""A provider's stream that is cut at every byte: the client's stream in Anthropic's form never looks like a success."""

from __future__ import annotations

import json

import pytest

from gateway.api.dialects.messages import Messages
from tests.kit.chat_exchange import CONFIG, Exchange, answering, chunk
from tests.kit.configs import table_of
from tests.kit.event_grammar.messages import read_stream

BODY = json.dumps(
    {"model": "assistant", "max_tokens": 100, "stream": True, "messages": [{"role": "user", "content": "hello"}]}
).encode()
USAGE = b'data: {"id":"s","model":"m","created":1,"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n'
CALL = {"index": 0, "id": "c1", "function": {"name": "get_weather", "arguments": '{"city":"Oslo"}'}}
CALLING = {"id": "s", "model": "m", "choices": [{"index": 0, "delta": {"tool_calls": [CALL]}}]}
WHOLE = b"".join(
    (
        chunk("Hé"),
        chunk('l"lo'),
        b"data: " + json.dumps(CALLING).encode() + b"\n\n",
        chunk(finish="tool_calls"),
        USAGE,
        b"data: [DONE]\n\n",
    )
)


class MessagesExchange(Exchange):
    """One request in Anthropic's form, with one provider."""

    async def run(self) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]
        scope = {"type": "http", "method": "POST", "headers": headers, "client": ("127.0.0.1", 1), "query_string": b""}
        self.body = BODY
        await self.endpoint.answer(scope, self.receive, self.send, Messages())


async def test_stream_that_is_cut_at_any_byte_ends_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    # Compiled once: every exchange has a gateway of its own, with the same configuration.
    table = table_of(
        CONFIG.merge({"resilience": {"attempts": {"per_deployment": 1, "total": 1}}}), {"KEY": "sk-secret"}
    )
    monkeypatch.setattr("tests.kit.chat_exchange.table_of", lambda *_: table)
    seen = set()
    for length in range(len(WHOLE) + 1):
        exchange = MessagesExchange(answering(WHOLE[:length]))
        await exchange.run()
        if exchange.sent[0]["status"] != 200:
            assert json.loads(exchange.content)["type"] == "error"
            continue
        message = read_stream(exchange.content)
        assert message.ended
        is_whole = b"finish_reason" in WHOLE[:length].rpartition(b"\n\n")[0].rpartition(b"tool_calls")[0]
        seen.add(message.error is None)
        if message.error is None:
            assert is_whole
            assert message.text == 'Hél"lo'
            assert message.content[-1]["input"] == '{"city":"Oslo"}'
            assert exchange.record.outcome == "ok"
        else:
            assert message.stop_reason is None
            assert exchange.record.outcome == "interrupted"
    assert seen == {True, False}
