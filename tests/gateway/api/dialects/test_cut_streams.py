"""A provider's stream that is cut at every byte: the client's stream in the form of a dialect never looks like a
success.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

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


@dataclass
class Read:
    """A stream as its client reads it. A strict reader has checked its events."""

    is_whole: bool
    text: str
    arguments: object = None


def read_message(content: bytes) -> Read:
    message = messages.read_stream(content)
    assert message.ended
    assert (message.stop_reason is None) is (message.error is not None)
    return Read(message.error is None, message.text, message.error is None and message.content[-1]["input"])


def read_content(form: gemini.Form, content: bytes) -> Read:
    stream = gemini.read_stream(content, form)
    assert stream.state in ("ended", "failed")
    is_whole = stream.state == "ended"
    assert bool(stream.finish) is bool(stream.calls) is is_whole
    return Read(
        is_whole, stream.text.get(0, ""), is_whole and json.dumps(stream.calls[0][0]["args"], separators=(",", ":"))
    )


def read_response(content: bytes) -> Read:
    response = responses.read_stream(content).response
    if response["status"] != "completed":
        assert (response["status"], response["error"]["code"]) == ("failed", "stream_interrupted")
        return Read(False, "")
    return Read(True, response["output"][0]["content"][0]["text"], response["output"][-1]["arguments"])


def read_text_completion(content: bytes) -> Read:
    events = [json.loads(line[6:]) for line in content.split(b"\n\n") if line.startswith(b"data: {")]
    is_whole = content.endswith(END)
    assert is_whole or events[-1]["error"]["code"] == "stream_interrupted"
    return Read(is_whole, "".join(choice["text"] for event in events for choice in event.get("choices", ())))


GEMINI = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
CASES: dict[str, tuple[Dialect, dict[str, Any], bytes, Callable[[bytes], Read]]] = {
    "messages": (Messages(), {"max_tokens": 100, "messages": HELLO}, CALLED, read_message),
    "gemini events": (Gemini("assistant", stream=True, events=True), GEMINI, CALLED, partial(read_content, "events")),
    "gemini array": (Gemini("assistant", stream=True), GEMINI, CALLED, partial(read_content, "array")),
    "responses": (Responses(), {"input": "hello"}, CALLED, read_response),
    "completions": (Completions(), {"prompt": "hello"}, SAID, read_text_completion),
}


@pytest.mark.parametrize("name", CASES)
async def test_stream_that_is_cut_at_any_byte_ends_in_an_error(name: str) -> None:
    """Before and after the ends of its lines, and at every third byte between them."""
    dialect, fields, whole, read = CASES[name]
    asked = fields if "contents" in fields else {"model": "assistant", "stream": True, **fields}
    ends = set()
    for length in range(len(whole + END) + 1):
        sent = (whole + END)[:length]
        if length % 3 and b"\n" not in (whole + END)[length - 1 : length + 1]:
            continue
        exchange = await DialectExchange(answering(sent), json.dumps(asked).encode(), dialect=dialect).run()
        if exchange.sent[0]["status"] != 200:
            assert "error" in json.loads(exchange.content)
            continue
        seen = read(exchange.content)
        ends.add(seen.is_whole)
        assert exchange.record.outcome == ("ok" if seen.is_whole else "interrupted")
        if seen.is_whole:
            assert sent.startswith(whole.rpartition(USAGE)[0].rstrip(b"\n"))
            assert (seen.text, seen.arguments) == ('Hél"lo', '{"city":"Oslo"}' if whole is CALLED else None)
    assert ends == {True, False}
