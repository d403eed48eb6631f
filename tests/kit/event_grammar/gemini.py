"""A strict validator of Gemini's answers: whole ones, streams of events, and streams as one JSON array.

A stream is a state machine: `open` until an object ends all candidates (`ended`) or is an error (`failed`). Nothing may
follow an end, and a stream that stops in `open` is broken, because Google's clients take it for a success.

Source: google-genai 3.4 for Python (`_api_client.py`: it fails at any line that is neither `data:` nor blank, and reads
`error` as the first key) and its types, read 2026-11-23; google.golang.org/genai (`api_client.go`: it splits at two line
feeds, and reads an error only where `data:` does not stand before it), read 2026-11-30.
"""

import base64
import json
from dataclasses import dataclass, field
from typing import Any, Literal

Form = Literal["events", "array"]
State = Literal["open", "ended", "failed"]
_OBJECT = {"candidates", "usageMetadata", "modelVersion", "responseId", "x_gateway"}
_CANDIDATE = {"content", "finishReason", "finishMessage", "index", "citationMetadata", "logprobsResult"}
_KINDS = ("text", "functionCall")
_FINISH = {"STOP", "MAX_TOKENS", "SAFETY", "OTHER", "MALFORMED_FUNCTION_CALL"}
_COUNTS = {
    "promptTokenCount",
    "candidatesTokenCount",
    "totalTokenCount",
    "cachedContentTokenCount",
    "thoughtsTokenCount",
}


class GrammarError(AssertionError):
    """The answer breaks the grammar of its dialect."""


def _require(condition: object, problem: str) -> None:
    if not condition:
        raise GrammarError(problem)


@dataclass
class GeminiStream:
    """The state of one answer.

    Attributes:
        state: Where the stream is.
        error: The error object that ended it.
        text: The text of each candidate, without thoughts.
        thoughts: The thoughts of each candidate.
        calls: The function calls of each candidate.
        finish: The finish reason of each candidate that has ended.
        usage: The latest counts.
    """

    state: State = "open"
    error: dict[str, Any] | None = None
    text: dict[int, str] = field(default_factory=dict)
    thoughts: dict[int, str] = field(default_factory=dict)
    calls: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    finish: dict[int, str] = field(default_factory=dict)
    usage: dict[str, int] = field(default_factory=dict)
    objects: list[dict[str, Any]] = field(default_factory=list)
    _id: str = ""

    def add(self, one: Any) -> None:
        """Read the next object. Raises GrammarError."""
        _require(self.state == "open", f"an object after the end: {one}")
        _require(isinstance(one, dict), "not an object")
        self.objects.append(one)
        if "error" in one:
            self._fail(one)
            return
        _require(one.keys() <= _OBJECT, f"unknown members: {one.keys() - _OBJECT}")
        _require({"candidates", "modelVersion", "responseId"} <= one.keys(), f"a member is missing: {one}")
        _require(one["responseId"] and self._id in ("", one["responseId"]), "the id of the answer changes")
        self._id = one["responseId"]
        _require(isinstance(one["modelVersion"], str) and one["modelVersion"], "no model")
        indexes = [candidate.get("index") for candidate in one["candidates"]]
        _require(indexes and indexes == sorted(set(indexes)), f"indexes: {indexes}")
        for candidate in one["candidates"]:
            self._candidate(candidate)
        if "usageMetadata" in one:
            self._count(one["usageMetadata"])
        if self.finish:
            _require(self.finish.keys() == self.text.keys(), "a candidate has begun and not ended")
            _require(self.usage, "the last object has no usage")
            self.state = "ended"

    def end(self) -> None:
        """Check that the stream may stop here. Raises GrammarError."""
        _require(self.state != "open", "the stream stops without an end, which clients take for a success")

    def _fail(self, one: dict[str, Any]) -> None:
        _require(list(one) == ["error"], f"`error` is not the only member: {list(one)}")
        error = one["error"]
        _require(type(error["code"]) is int and 400 <= error["code"] <= 599, f"code: {error['code']!r}")
        _require(isinstance(error["message"], str) and error["message"], "no message")
        _require(error["status"].isupper(), "no status name")
        info = error["details"][0]
        _require(info["@type"] == "type.googleapis.com/google.rpc.ErrorInfo", "the first detail is no ErrorInfo")
        _require(info["reason"] and info["domain"], "no reason")
        _require(all(isinstance(value, str) for value in info["metadata"].values()), "metadata is not all text")
        self.state, self.error = "failed", error

    def _candidate(self, candidate: dict[str, Any]) -> None:
        _require(candidate.keys() <= _CANDIDATE, f"unknown members: {candidate.keys() - _CANDIDATE}")
        index = candidate["index"]
        _require(index not in self.finish, f"candidate {index} goes on after its end")
        content = candidate["content"]
        _require(content.keys() == {"parts", "role"} and content["role"] == "model", f"content: {content}")
        _require(content["parts"], "no parts")
        self.text.setdefault(index, "")
        for part in content["parts"]:
            self._part(index, part)
        if "finishReason" in candidate:
            _require(candidate["finishReason"] in _FINISH, f"reason: {candidate['finishReason']}")
            self.finish[index] = candidate["finishReason"]

    def _part(self, index: int, part: dict[str, Any]) -> None:
        (kind,) = [kind for kind in _KINDS if kind in part]
        _require(part.keys() <= {kind, "thought", "thoughtSignature"}, f"unknown members: {part.keys()}")
        if kind == "text":
            _require(isinstance(part["text"], str), "text is not a string")
            shown = self.thoughts if part.get("thought") else self.text
            shown[index] = shown.get(index, "") + part["text"]
        else:
            call = part["functionCall"]
            _require(call.keys() == {"id", "name", "args"} and call["id"] and call["name"], f"call: {call}")
            _require(isinstance(call["args"], dict), "the arguments are not an object")
            known = [one["id"] for one in self.calls.get(index, [])]
            _require(call["id"] not in known, "the id of a call is used twice")
            self.calls.setdefault(index, []).append(call)
        if "thoughtSignature" in part:
            base64.b64decode(part["thoughtSignature"], validate=True)

    def _count(self, counts: dict[str, int]) -> None:
        _require(counts.keys() <= _COUNTS, f"unknown counts: {counts.keys() - _COUNTS}")
        _require(all(type(count) is int and count >= 0 for count in counts.values()), f"counts: {counts}")
        _require(counts["promptTokenCount"] > 0, "no tokens in the prompt")
        _require(counts.get("cachedContentTokenCount", 0) <= counts["promptTokenCount"], "more cached than sent")
        parts = ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount")
        _require(counts["totalTokenCount"] == sum(counts.get(name, 0) for name in parts), f"the sum: {counts}")
        _require(all(counts.get(name, 0) >= before for name, before in self.usage.items()), "counts get smaller")
        self.usage = counts


def read_stream(data: bytes, form: Form) -> GeminiStream:
    """Return what a whole stream contains. Raises GrammarError."""
    stream = GeminiStream()
    for one in _events(data) if form == "events" else _array(data):
        stream.add(one)
    stream.end()
    return stream


def read_answer(body: bytes) -> GeminiStream:
    """Return what a whole answer, or an error response, contains. Raises GrammarError."""
    answer = GeminiStream()
    answer.add(json.loads(body))
    answer.end()
    return answer


def _events(data: bytes) -> list[Any]:
    *events, rest = data.decode().split("\n\n")
    _require(not rest, "the last event has no blank line after it")
    found: list[Any] = []
    for event in filter(None, events):
        if found and "error" in found[-1]:
            _require(json.loads(event) == found[-1], "the error without `data:` is another one")
            return found
        _require(event.startswith("data: "), f"an event that ends Google's clients with an exception: {event[:40]!r}")
        _require("\n" not in event, "an event has two lines")
        found.append(json.loads(event.removeprefix("data: ")))
    _require(not found or "error" not in found[-1], "Google's client for Go does not see the error")
    return found


def _array(data: bytes) -> list[Any]:
    try:
        found: list[Any] = json.loads(data)
    except ValueError as error:
        raise GrammarError(f"not valid JSON: {error}") from None
    _require(isinstance(found, list) and found, "not an array with objects")
    return found
