"""A provider's stream that is cut at every byte: the client's stream in the form of a dialect never looks like a
success.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Self

import pytest

from gateway.api.dialects.completions import Completions
from gateway.api.dialects.dialect import Dialect
from gateway.api.dialects.gemini import Gemini
from gateway.api.dialects.messages import Messages
from gateway.api.dialects.responses import Responses
from tests.kit.chat_exchange import CONFIG, Exchange, answering, chunk
from tests.kit.configs import table_of
from tests.kit.event_grammar import gemini, messages, responses

USAGE = b'data: {"id":"s","model":"m","created":1,"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n'
CALL = {"index": 0, "id": "c1", "function": {"name": "get_weather", "arguments": '{"city":"Oslo"}'}}
CALLING = {"id": "s", "model": "m", "choices": [{"index": 0, "delta": {"tool_calls": [CALL]}}]}
TEXT = (chunk("Hé"), chunk('l"lo'))
CALLED = b"".join((*TEXT, b"data: " + json.dumps(CALLING).encode() + b"\n\n", chunk(finish="tool_calls"), USAGE))
SAID = b"".join((*TEXT, chunk(finish="stop"), USAGE))
END = b"data: [DONE]\n\n"
HELLO = [{"role": "user", "content": "hello"}]


@dataclass
class DialectExchange(Exchange):
    """One request in a dialect, with one provider."""

    dialect: Dialect | None = None

    async def run(self) -> Self:
        assert self.dialect is not None
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(self.body))]
        scope = {"type": "http", "method": "POST", "headers": headers, "client": ("127.0.0.1", 1), "query_string": b""}
        await self.endpoint.answer(scope, self.receive, self.send, self.dialect)
        return self


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile the configuration once: every exchange has a gateway of its own."""
    table = table_of(
        CONFIG.merge({"resilience": {"attempts": {"per_deployment": 1, "total": 1}}}), {"KEY": "sk-secret"}
    )
    monkeypatch.setattr("tests.kit.chat_exchange.table_of", lambda *_: table)


async def exchanges(whole: bytes, asked: object, dialect: Dialect) -> AsyncIterator[tuple[bytes, DialectExchange]]:
    """Cut the provider's stream at every byte. Yield what it sent, with the exchange after its end."""
    for length in range(len(whole) + 1):
        exchange = DialectExchange(answering(whole[:length]), json.dumps(asked).encode(), dialect=dialect)
        yield whole[:length], await exchange.run()


def has_finish(sent: bytes) -> bool:
    return b"finish_reason" in sent.rpartition(b"\n\n")[0].rpartition(b"tool_calls")[0]


async def test_message_that_is_cut_at_any_byte_ends_in_an_error() -> None:
    asked = {"model": "assistant", "max_tokens": 100, "stream": True, "messages": HELLO}
    seen = set()
    async for sent, exchange in exchanges(CALLED + END, asked, Messages()):
        if exchange.sent[0]["status"] != 200:
            assert json.loads(exchange.content)["type"] == "error"
            continue
        message = messages.read_stream(exchange.content)
        assert message.ended
        seen.add(message.error is None)
        if message.error is None:
            assert has_finish(sent)
            assert message.text == 'Hél"lo'
            assert message.content[-1]["input"] == '{"city":"Oslo"}'
            assert exchange.record.outcome == "ok"
        else:
            assert message.stop_reason is None
            assert exchange.record.outcome == "interrupted"
    assert seen == {True, False}


@pytest.mark.parametrize("form", ["events", "array"])
async def test_content_that_is_cut_at_any_byte_ends_in_an_error(form: gemini.Form) -> None:
    asked = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
    ends = set()
    async for sent, exchange in exchanges(
        CALLED + END, asked, Gemini("assistant", stream=True, events=form == "events")
    ):
        if exchange.sent[0]["status"] != 200:
            assert gemini.read_answer(exchange.content).error is not None
            continue
        stream = gemini.read_stream(exchange.content, form)
        ends.add(stream.state)
        if stream.state == "ended":
            assert has_finish(sent)
            assert stream.text == {0: 'Hél"lo'}
            assert stream.calls[0][0]["args"] == {"city": "Oslo"}
            assert exchange.record.outcome == "ok"
        else:
            assert not stream.finish
            assert not stream.calls
            assert exchange.record.outcome == "interrupted"
    assert ends == {"ended", "failed"}


async def test_response_that_is_cut_at_any_byte_ends_in_an_error() -> None:
    ends = set()
    async for sent, exchange in exchanges(
        CALLED + END, {"model": "assistant", "input": "hello", "stream": True}, Responses()
    ):
        if exchange.sent[0]["status"] != 200:
            assert json.loads(exchange.content)["error"]["code"]
            continue
        response = responses.read_stream(exchange.content).response
        ends.add(response["status"])
        if response["status"] == "completed":
            assert sent.startswith(CALLED.rpartition(USAGE)[0].rstrip(b"\n"))
            assert response["output"][-1]["arguments"] == '{"city":"Oslo"}'
            assert exchange.record.outcome == "ok"
        else:
            assert (response["status"], response["error"]["code"]) == ("failed", "stream_interrupted")
            assert exchange.record.outcome == "interrupted"
    assert ends == {"completed", "failed"}


async def test_text_completion_that_is_cut_at_any_byte_ends_in_an_error() -> None:
    ends = set()
    async for sent, exchange in exchanges(
        SAID + END, {"model": "assistant", "prompt": "hello", "stream": True}, Completions()
    ):
        if exchange.sent[0]["status"] != 200:
            assert json.loads(exchange.content)["error"]["code"]
            continue
        events = [json.loads(line[6:]) for line in exchange.content.split(b"\n\n") if line.startswith(b"data: {")]
        is_done = exchange.content.endswith(END)
        ends.add(is_done)
        if is_done:
            assert sent.startswith(SAID.rpartition(USAGE)[0].rstrip(b"\n"))
            assert "".join(choice["text"] for event in events for choice in event["choices"]) == 'Hél"lo'
            assert exchange.record.outcome == "ok"
        else:
            assert events[-1]["error"]["code"] == "stream_interrupted"
            assert exchange.record.outcome == "interrupted"
    assert ends == {True, False}
