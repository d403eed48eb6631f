"""A strict validator of streams in the form of OpenAI's Responses API, as a state machine over the bytes.

It accepts less than the SDKs do: sequence numbers without gaps, each item added before its events and ended once, each
text equal to its deltas, and a last event that repeats all items.
"""

import json
from dataclasses import dataclass, field
from typing import Any

__all__ = ["GrammarError", "StreamedResponse", "read_stream"]

_TERMINAL = {"response.completed": "completed", "response.incomplete": "incomplete", "response.failed": "failed"}
_PART_TEXT = {"output_text": "text", "refusal": "refusal", "reasoning_text": "text"}
# For each kind of delta: the type of its part, and the events that end it.
_DELTAS = {
    "response.output_text.delta": "output_text",
    "response.refusal.delta": "refusal",
    "response.reasoning_text.delta": "reasoning_text",
}
_DONE = {
    "response.output_text.done": ("output_text", "text"),
    "response.refusal.done": ("refusal", "refusal"),
    "response.reasoning_text.done": ("reasoning_text", "text"),
}
_MEMBERS = frozenset(
    "id object created_at completed_at status incomplete_details model previous_response_id instructions output error "
    "tools tool_choice truncation parallel_tool_calls text top_p presence_penalty frequency_penalty top_logprobs "
    "temperature reasoning usage max_output_tokens max_tool_calls store background service_tier metadata "
    "safety_identifier prompt_cache_key".split()
)
"""The members that the schema of Open Responses 2026-04-24 requires of each occurrence of the object."""


class GrammarError(AssertionError):
    """The stream breaks a rule."""


@dataclass
class _Part:
    kind: str
    text: str = ""
    text_done: bool = False
    annotations: list[Any] = field(default_factory=list)


@dataclass
class _Item:
    added: dict[str, Any]
    part: _Part | None = None
    parts: list[dict[str, Any]] = field(default_factory=list)
    arguments: str = ""
    arguments_done: bool = False
    done: dict[str, Any] | None = None


@dataclass
class StreamedResponse:
    """A valid stream.

    Attributes:
        response: The object of the last event.
        events: All events.
    """

    response: dict[str, Any]
    events: list[dict[str, Any]]

    @property
    def status(self) -> str:
        """The status of the answer."""
        return str(self.response["status"])

    @property
    def text(self) -> str:
        """The text of all messages."""
        return "".join(
            part["text"]
            for item in self.response["output"]
            if item["type"] == "message"
            for part in item["content"]
            if part["type"] == "output_text"
        )

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The function calls."""
        return [item for item in self.response["output"] if item["type"] == "function_call"]


def read_stream(data: bytes) -> StreamedResponse:
    """Return a whole stream. Raises GrammarError if it breaks a rule, or if it does not end."""
    machine = _Machine()
    for block in _blocks(data):
        machine.take(block)
    return machine.end()


def _require(condition: object, problem: str) -> None:
    if not condition:
        raise GrammarError(problem)


def _blocks(data: bytes) -> list[dict[str, Any]]:
    """Return the data of all events. Each has two lines, and comments may stand between events."""
    _require(data.endswith(b"\n\n"), "the stream ends inside an event")
    events: list[dict[str, Any]] = []
    for block in data.decode().split("\n\n")[:-1]:
        if block.startswith(":"):
            continue
        lines = block.split("\n")
        _require(len(lines) == 2, f"an event has {len(lines)} lines: {block[:200]}")
        _require(lines[0].startswith("event: ") and lines[1].startswith("data: "), f"no event: {block[:200]}")
        event = json.loads(lines[1].removeprefix("data: "))
        _require(event["type"] == lines[0].removeprefix("event: "), "the name of the event is not its type")
        events.append(event)
    return events


def _text_of(part: dict[str, Any]) -> str:
    return str(part.get("text", part.get("refusal", "")))


class _Machine:
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.items: list[_Item] = []
        self.last: dict[str, Any] | None = None

    def take(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        _require(self.last is None, f"{kind} after the last event")
        _require(event["sequence_number"] == len(self.events), f"{kind}: wrong sequence_number")
        first = ("response.created", "response.in_progress")
        if len(self.events) < len(first):
            _require(kind == first[len(self.events)], f"{kind} in place of {first[len(self.events)]}")
        else:
            _require(kind not in first, f"{kind} for a second time")
        self.events.append(event)
        if kind in first or kind in _TERMINAL:
            self._response(kind, event["response"])
        elif kind == "response.output_item.added":
            self._added(event)
        else:
            self._of_item(kind, event)

    def _response(self, kind: str, response: dict[str, Any]) -> None:
        _require(response["object"] == "response", "the object is not a response")
        _require(response.keys() - {"x_gateway"} == _MEMBERS, f"the members {response.keys() ^ _MEMBERS}")
        is_complete = response["status"] == "completed"
        _require((response["completed_at"] is not None) == is_complete, f"{kind} has completed_at")
        _require(not is_complete or response["completed_at"] >= response["created_at"], "completed before it began")
        _require(response["store"] is False, "the response does not state `store: false`")
        _require(response["id"] == self.events[0]["response"]["id"], "the id of the response changes")
        _require(response["model"] == self.events[0]["response"]["model"], "the model of the response changes")
        if kind not in _TERMINAL:
            _require(response["status"] == "in_progress" and response["output"] == [], f"{kind} has output")
            return
        self.last = response
        _require(response["status"] == _TERMINAL[kind], "the status is not that of the event")
        if kind == "response.failed":
            _require(response["error"]["code"] and response["error"]["message"], "a failure without code or message")
            _require(len(response["output"]) == len(self.items), "the last event lacks items")
            return
        _require(response["error"] is None, "an error in a success")
        _require(all(item.done is not None for item in self.items), "an item has not ended")
        _require(response["output"] == [item.done for item in self.items], "the output is not that of the items")
        details = response["incomplete_details"]
        _require((details is not None) == (kind == "response.incomplete"), "wrong incomplete_details")
        statuses = [item["status"] for item in response["output"]]
        cut = [status for status in statuses if status != "completed"]
        _require(len(cut) <= (kind == "response.incomplete"), f"items with the statuses {statuses}")
        usage = response["usage"]
        is_empty = not any(item.arguments or any(map(_text_of, item.parts)) for item in self.items)
        _require(usage["input_tokens"] > 0 and (usage["output_tokens"] > 0 or is_empty), "usage of 0")
        _require(usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"], "a wrong sum of tokens")
        _require({"cached_tokens", "cache_write_tokens"} <= usage["input_tokens_details"].keys(), "no input details")
        _require("reasoning_tokens" in usage["output_tokens_details"], "no output details")

    def _added(self, event: dict[str, Any]) -> None:
        item = event["item"]
        _require(event["output_index"] == len(self.items), "output_index does not rise by one")
        _require(item["id"] not in [one.added["id"] for one in self.items], "the id of an item occurs twice")
        _require(item["status"] == "in_progress", "a new item is not in progress")
        match item["type"]:
            case "message":
                _require(item["content"] == [] and item["role"] == "assistant", "a new message has content")
            case "function_call":
                _require(item["arguments"] == "" and item["name"] and item["call_id"], "a new call is not empty")
            case "reasoning":
                _require("encrypted_content" not in item, "a new reasoning item has a state")
                _require(item["summary"] == [], "a new reasoning item has a summary")
            case other:
                raise GrammarError(f"an item of type {other}")
        for one in self.items:
            _require(one.done is not None or one.added["type"] == "function_call", "two items are open")
        _require(self.events[0]["response"]["model"], "the response has no model")
        self.items.append(_Item(item))

    def _of_item(self, kind: str, event: dict[str, Any]) -> None:
        index = event["output_index"]
        _require(index < len(self.items), f"{kind} before its item was added")
        item = self.items[index]
        _require(item.done is None, f"{kind} after the end of its item")
        if kind == "response.output_item.done":
            self._done(item, event["item"])
            return
        _require(event["item_id"] == item.added["id"], f"{kind}: another item_id")
        of = item.added["type"]
        match kind:
            case "response.function_call_arguments.delta":
                _require(of == "function_call" and not item.arguments_done, f"{kind} in the wrong place")
                item.arguments += event["delta"]
            case "response.function_call_arguments.done":
                _require(of == "function_call" and not item.arguments_done, f"{kind} in the wrong place")
                _require(event["arguments"] == item.arguments, "the arguments are not those of the deltas")
                _require(event["name"] == item.added["name"], "the name is not that of the call")
                item.arguments_done = True
            case _ if kind.startswith("response.reasoning_summary"):
                _require(of == "reasoning" and event["summary_index"] == len(item.parts), f"{kind}: wrong index")
                self._summary(item, kind, event)
            case _:
                allowed = ("reasoning_text",) if of == "reasoning" else ("output_text", "refusal")
                _require(of in ("message", "reasoning"), f"{kind} in a {of}")
                _require(event["content_index"] == len(item.parts), f"{kind}: wrong content_index")
                self._part(item, kind, event, allowed)

    def _summary(self, item: _Item, kind: str, event: dict[str, Any]) -> None:
        part = item.part
        if kind == "response.reasoning_summary_part.added":
            _require(part is None and event["part"] == {"type": "summary_text", "text": ""}, "a summary is open")
            item.part = _Part("summary_text")
            return
        if part is None:
            raise GrammarError(f"{kind} without an open summary")
        match kind:
            case "response.reasoning_summary_text.delta":
                _require(not part.text_done and event["delta"], "an empty or late delta")
                part.text += event["delta"]
            case "response.reasoning_summary_text.done":
                _require(not part.text_done and event["text"] == part.text, "the summary is not that of the deltas")
                part.text_done = True
            case "response.reasoning_summary_part.done":
                _require(part.text_done, "a part ends before its text")
                _require(event["part"] == {"type": "summary_text", "text": part.text}, "another summary")
                item.parts.append(event["part"])
                item.part = None
            case _:
                raise GrammarError(f"unknown event {kind}")

    def _part(self, item: _Item, kind: str, event: dict[str, Any], allowed: tuple[str, ...]) -> None:
        part = item.part
        if kind == "response.content_part.added":
            added = event["part"]
            _require(part is None, "a part is open")
            _require(added["type"] in allowed, f"a part of type {added['type']}")
            _require(added[_PART_TEXT[added["type"]]] == "", "a new part has a text")
            item.part = _Part(added["type"])
            return
        if part is None:
            raise GrammarError(f"{kind} without an open part")
        if kind in _DELTAS:
            _require(part.kind == _DELTAS[kind] and not part.text_done, f"{kind} in a part of type {part.kind}")
            _require(kind != "response.output_text.delta" or isinstance(event["logprobs"], list), "no logprobs")
            part.text += event["delta"]
        elif kind in _DONE:
            of, member = _DONE[kind]
            _require(part.kind == of and not part.text_done, f"{kind} in a part of type {part.kind}")
            _require(event[member] == part.text, "the text is not that of the deltas")
            _require(kind != "response.output_text.done" or isinstance(event["logprobs"], list), "no logprobs")
            part.text_done = True
        elif kind == "response.output_text.annotation.added":
            _require(event["annotation_index"] == len(part.annotations), "wrong annotation_index")
            part.annotations.append(event["annotation"])
        elif kind == "response.content_part.done":
            whole = event["part"]
            _require(part.text_done and whole["type"] == part.kind, "a part ends before its text")
            _require(whole[_PART_TEXT[part.kind]] == part.text, "another text in the part")
            _require(whole.get("annotations", []) == part.annotations, "other annotations in the part")
            item.parts.append(whole)
            item.part = None
        else:
            raise GrammarError(f"unknown event {kind}")

    def _done(self, item: _Item, whole: dict[str, Any]) -> None:
        _require(item.part is None, "an item ends before its part")
        _require(whole["status"] in ("completed", "incomplete"), "an item ends in progress")
        for name in ("id", "type", "role", "call_id", "name", "namespace"):
            _require(whole.get(name) == item.added.get(name), f"the {name} of an item changes")
        match whole["type"]:
            case "message":
                _require(whole["content"] == item.parts and item.parts, "the content is not that of the parts")
            case "function_call":
                _require(item.arguments_done, "a call ends before its arguments")
                _require(whole["arguments"] == item.arguments, "other arguments in the item")
            case "reasoning":
                _require(isinstance(whole.get("encrypted_content", ""), str), "a state that is no text")
                _require([*whole["summary"], *whole.get("content", [])] == item.parts, "another summary in the item")
        item.done = whole

    def end(self) -> StreamedResponse:
        if self.last is None:
            raise GrammarError("the stream has no last event")
        return StreamedResponse(self.last, self.events)
