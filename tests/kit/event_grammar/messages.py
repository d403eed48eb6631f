"""A strict reader of Anthropic's event streams: a state machine that accepts exactly the documented order.

Source: platform.claude.com on streaming, anthropic 2.12 (RawMessageStreamEvent), read 2026-11-22.
"""

import json
from dataclasses import dataclass, field
from typing import Any

_DELTAS = {
    "text": ("text_delta", "text"),
    "tool_use": ("input_json_delta", "partial_json"),
    "thinking": ("thinking_delta", "thinking"),
}
_STARTS: dict[str, dict[str, Any]] = {
    "text": {"type": "text", "text": "", "citations": None},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
}
_STOP_REASONS = {"end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"}
_END = {"container", "stop_reason", "stop_sequence", "stop_details"}
_REFUSED = {"type": "refusal", "category": None, "explanation": None}
_OF_MESSAGES = {"cache_creation", "inference_geo", "service_tier"}
_COUNTS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")


class GrammarError(AssertionError):
    """The stream breaks a rule."""


@dataclass(slots=True)
class ReadMessage:
    """A message as a client reads it from a stream.

    Attributes:
        content: The blocks, with the whole text of each. The input of a call is its JSON text.
        error: The error that ended the stream; None for a whole answer.
        ended: Whether the stream has ended, with `message_stop` or with an error.
    """

    start: dict[str, Any] = field(default_factory=dict)
    content: list[dict[str, Any]] = field(default_factory=list)
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    ended: bool = False
    member: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The text of the answer."""
        return "".join(block["text"] for block in self.content if block["type"] == "text")


def read_stream(data: bytes) -> ReadMessage:
    """Return the message of a stream. Raises GrammarError."""
    _check(not data or data.endswith(b"\n\n"), "the stream ends inside an event")
    reader = _Reader()
    for raw in data.decode().split("\n\n")[:-1]:
        reader.read(*_fields(raw))
    return reader.message


def _fields(raw: str) -> tuple[str, dict[str, Any]]:
    lines = raw.split("\n")
    _check(len(lines) == 2, f"an event has {len(lines)} lines: {raw[:80]!r}")
    _check(lines[0].startswith("event: ") and lines[1].startswith("data: "), f"not an event: {raw[:80]!r}")
    body = json.loads(lines[1][6:])
    _check(body.get("type") == lines[0][7:], "the name of the event is not its type")
    return lines[0][7:], body


class _Reader:
    def __init__(self) -> None:
        self.message = ReadMessage()
        self._state = "idle"
        self._open: dict[str, Any] | None = None
        self._is_signed = False

    def read(self, name: str, body: dict[str, Any]) -> None:
        _check(not self.message.ended, f"{name} after the end")
        match name:
            case "ping":
                _check(body == {"type": "ping"}, "a ping has members")
            case "error":
                self._error(body)
            case "message_start":
                self._start(body["message"])
            case "content_block_start":
                self._start_block(body)
            case "content_block_delta":
                self._delta(body)
            case "content_block_stop":
                self._stop_block(body)
            case "message_delta":
                self._finish(body)
            case "message_stop":
                _check(self._state == "finished", "message_stop without message_delta")
                self.message.ended = True
            case _:
                raise GrammarError(f"unknown event {name!r}")

    def _start(self, message: dict[str, Any]) -> None:
        _check(self._state == "idle", "a second message_start")
        wanted = {"type": "message", "role": "assistant", "content": [], **dict.fromkeys(_END)}
        _check({name: message[name] for name in wanted} == wanted, f"message_start has {message}")
        _check(bool(message["id"]) and message["id"].startswith("msg_"), "no id")
        _check(isinstance(message["model"], str) and bool(message["model"]), "no model")
        _check_usage(message["usage"], _OF_MESSAGES)
        _check(message["usage"]["input_tokens"] > 0, "message_start has no input tokens")
        self.message.start = message
        self._state = "between"

    def _start_block(self, body: dict[str, Any]) -> None:
        _check(self._state == "between", f"a block starts in the state {self._state}")
        _check(body["index"] == len(self.message.content), f"the index is {body['index']}")
        block = body["content_block"]
        if block["type"] == "tool_use":
            _check(block["caller"] == {"type": "direct"}, f"a call starts as {block}")
            _check(block["input"] == {} and bool(block["id"]) and bool(block["name"]), f"a call starts as {block}")
            _check(all(block["id"] != other.get("id") for other in self.message.content), "two calls have one id")
            self._open = {**block, "input": ""}
        else:
            _check(block == _STARTS.get(block["type"]), f"a block starts as {block}")
            self._open = dict(block)
        self._state, self._is_signed = "block", False

    def _delta(self, body: dict[str, Any]) -> None:
        block = self._open
        _check(self._state == "block" and block is not None, "a delta without an open block")
        assert block is not None
        _check(body["index"] == len(self.message.content), "a delta for another block")
        delta = body["delta"]
        _check(not self._is_signed, "a delta after the signature")
        if delta["type"] == "signature_delta":
            _check(block["type"] == "thinking" and bool(delta["signature"]), "a signature for another block")
            block["signature"] = delta["signature"]
            self._is_signed = True
            return
        if delta["type"] == "citations_delta":
            _check(block["type"] == "text" and bool(delta["citation"]["url"]), "a citation for another block")
            block["citations"] = [*(block["citations"] or ()), delta["citation"]]
            return
        kind, member = _DELTAS[block["type"]]
        _check(delta.keys() == {"type", member} and delta["type"] == kind, f"{delta} in a block {block['type']}")
        _check(bool(delta[member]), "an empty delta")
        target = "input" if block["type"] == "tool_use" else member
        block[target] += delta[member]

    def _stop_block(self, body: dict[str, Any]) -> None:
        _check(self._state == "block" and self._open is not None, "a block stops that is not open")
        assert self._open is not None
        _check(body["index"] == len(self.message.content), "another block stops")
        _check(self._open["type"] != "thinking" or self._is_signed, "thinking without a signature")
        self.message.content.append(self._open)
        self._open, self._state = None, "between"

    def _finish(self, body: dict[str, Any]) -> None:
        _check(self._state == "between", f"message_delta in the state {self._state}")
        reason = body["delta"]["stop_reason"]
        _check(body["delta"].keys() == _END and body["delta"]["container"] is None, f"the end has {body['delta']}")
        _check(body["delta"]["stop_details"] == (_REFUSED if reason == "refusal" else None), "stop_details")
        _check(reason in _STOP_REASONS, f"the stop reason is {reason!r}")
        has_calls = any(block["type"] == "tool_use" for block in self.message.content)
        if reason not in ("max_tokens", "refusal"):
            _check((reason == "tool_use") == has_calls, "calls and stop reason disagree")
        _check((reason == "stop_sequence") == (body["delta"]["stop_sequence"] is not None), "stop_sequence")
        if reason == "tool_use":
            for block in self.message.content:
                if block["type"] == "tool_use":
                    _check(isinstance(json.loads(block["input"] or "{}"), dict), "arguments are not an object")
        _check_usage(body["usage"])
        _check(body["usage"]["output_tokens"] > 0, "no output tokens")
        whole = sum(body["usage"][name] for name in _COUNTS[:3])
        _check(whole > 0, "no input tokens")
        self.message.stop_reason, self.message.usage = reason, body["usage"]
        self.message.stop_sequence = body["delta"]["stop_sequence"]
        self.message.member = body.get("x_gateway", {})
        self._state = "finished"

    def _error(self, body: dict[str, Any]) -> None:
        _check(self._state != "finished", "an error after message_delta")
        error = body["error"]
        _check(isinstance(error["message"], str) and error["type"].endswith("_error"), f"the error is {error}")
        self.message.error, self.message.ended = error, True


def _check_usage(usage: dict[str, Any], more: set[str] | None = None) -> None:
    _check(usage.keys() == {*_COUNTS, "output_tokens_details", "server_tool_use", *(more or ())}, f"usage is {usage}")
    _check(isinstance(usage["output_tokens_details"]["thinking_tokens"], int), "usage has no thinking tokens")
    for name in _COUNTS:
        _check(isinstance(usage.get(name), int) and usage[name] >= 0, f"usage.{name} is {usage.get(name)!r}")


def _check(holds: bool, problem: str) -> None:
    if not holds:
        raise GrammarError(problem)
