"""Read the answers of OpenAI's Responses API: whole ones and the events of a stream.

An answer tells by its own shape which API it is of: a whole one by `"object": "response"`, an event by its type.
Source: openai 3.51.0 (Response, ResponseStreamEvent, ResponseError, ResponseUsage), read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Mapping

from providers.chat import ChatCompletion, FinishReason, Usage
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.json_values import as_map, read_count, read_float, read_int, read_list, read_map, read_str
from providers.openai_json.read_errors import classify
from providers.reading.error_classification import error_object, failure
from providers.reading.folding import fold
from providers.reading.stream_assembler import Assembler
from providers.vendors.openai.responses_request import SealedThought, pack, thought_of
from providers.wire import WireResponse

_INCOMPLETE: dict[str, FinishReason] = {"max_output_tokens": "length", "content_filter": "content_filter"}
# Codes of a failed answer that blame what was asked; all others have a kind of their own or are the provider's fault.
_ABOUT_THE_REQUEST = ("invalid_image", "invalid_base64_image", "image_", "unsupported_image", "empty_image")
_BETWEEN = "\n\n"
_NO_HTTP_ERROR = 200
_MOST_KEPT_CHARACTERS = 8 * 1024 * 1024
_MOST_CREATED = 2**63


def is_response(body: Mapping[str, object]) -> bool:
    """Whether this JSON object is a whole answer of this API."""
    return body.get("object") == "response"


def is_event(chunk: Mapping[str, object]) -> bool:
    """Whether this JSON object of a stream is an event of this API: a chunk of chat completions has no type."""
    kind = chunk.get("type")
    return isinstance(kind, str) and (kind == "error" or kind.startswith("response."))


def read_response(response: WireResponse, model: str) -> ChatCompletion:
    """The whole answer of a 2xx body that `is_response`; raises ProviderFailed."""
    body = error_object(response.body)
    reader = ResponseReader(Assembler(model), model)
    reader.end(body, response)
    if not reader.assembler.done:
        raise ProviderFailed(failure(response, FailureKind.MALFORMED, detail="the answer is not at its end"))
    return fold(reader.assembler.take())


class ResponseReader:
    """Reads one answer into `assembler`; `model` is the one that was asked."""

    def __init__(self, assembler: Assembler, model: str) -> None:
        self.assembler = assembler
        self._model = model
        self._thoughts: list[SealedThought] = []
        self._kept = 0
        # The calls by the places of their items, and which of them have had arguments.
        self._calls: dict[int, int] = {}
        self._argued: set[int] = set()
        self._summary: tuple[int, int] | None = None
        self._said: int | None = None

    def read_event(self, event: Mapping[str, object]) -> None:
        """One event of a stream that `is_event`; one that isn't known is a sign of life."""
        place = read_int(event, "output_index") or 0
        delta = read_str(event, "delta") or ""
        match read_str(event, "type"):
            case "response.output_text.delta":
                self._say(delta, place)
            case "response.refusal.delta":
                self.assembler.refusal(delta)
            case "response.reasoning_summary_text.delta":
                self._summarize(delta, place, read_int(event, "summary_index") or 0)
            case "response.function_call_arguments.delta" if delta and place in self._calls:
                self._argued.add(place)
                self.assembler.tool_call(delta, index=self._calls[place])
            case "response.output_item.added":
                self._add(place, read_map(event, "item"))
            case "response.output_item.done":
                self._close(place, read_map(event, "item"))
            case "response.completed" | "response.incomplete" | "response.failed" | "response.cancelled":
                self.end(read_map(event, "response"), WireResponse(_NO_HTTP_ERROR, {}, b"", 0))
            case "error":
                named = event if event.get("error") else {"error": event}
                self.assembler.fail(classify(named, WireResponse(_NO_HTTP_ERROR, {}, b"", 0)))
            case "response.created":
                self._identify(read_map(event, "response"))
                self.assembler.heartbeat()
            case _:
                self.assembler.heartbeat()

    def end(self, body: Mapping[str, object], response: WireResponse) -> None:
        """The whole answer, in which a stream ends too: what has not come in pieces is read from it."""
        self._identify(body)
        status = read_str(body, "status")
        if body.get("error") or status in ("failed", "cancelled"):
            self.assembler.fail(_failure(read_map(body, "error"), response))
            return
        if status not in ("completed", "incomplete"):
            return
        if not self.assembler.opened:
            self._read_output(body)
        if usage := read_map(body, "usage"):
            self.assembler.usage(_usage(usage))
        word = read_str(read_map(body, "incomplete_details"), "reason") or ""
        if status == "completed":
            self.assembler.finish("stop")
        else:
            self.assembler.finish(
                _INCOMPLETE.get(word, "other"), raw=None if word in _INCOMPLETE else word[:100] or status
            )
        self.assembler.complete()

    def _identify(self, body: Mapping[str, object]) -> None:
        created = read_float(body, "created_at") or 0
        self.assembler.identify(
            id=read_str(body, "id"),
            model=read_str(body, "model"),
            created=int(created) if 0 <= created < _MOST_CREATED else None,
        )
        # Until the answer is at its end this is the request's own word, and `auto` says nothing of how it is processed.
        tier = read_str(body, "service_tier")
        self.assembler.describe(service_tier=tier if tier != "auto" else None, system_fingerprint=None)

    def _read_output(self, body: Mapping[str, object]) -> None:
        for place, entry in enumerate(read_list(body, "output")):
            item = as_map(entry)
            match read_str(item, "type"):
                case "reasoning":
                    for index, part in enumerate(read_list(item, "summary")):
                        self._summarize(read_str(as_map(part), "text") or "", place, index)
                case "message":
                    for part in read_list(item, "content"):
                        self._say(read_str(as_map(part), "text") or "", place)
                        self.assembler.refusal(read_str(as_map(part), "refusal") or "")
            self._close(place, item)

    def _say(self, text: str, place: int) -> None:
        """More of a message. An answer may have several: commentary on the way (`phase`), then the answer itself. Chat
        completions have one text, in which commentary stands before the calls or the answer, a paragraph of its own."""
        if text and self._said not in (None, place):
            self.assembler.text(_BETWEEN)
        if text:
            self._said = place
        self.assembler.text(text)

    def _summarize(self, text: str, place: int, index: int) -> None:
        """More of a summary; each is a paragraph of its own."""
        if not text:
            return
        if self._summary not in (None, (place, index)):
            self.assembler.reasoning(_BETWEEN)
        self._summary = place, index
        self.assembler.reasoning(text)

    def _add(self, place: int, item: Mapping[str, object]) -> None:
        if read_str(item, "type") != "function_call" or place in self._calls:
            self.assembler.heartbeat()
            return
        self._calls[place] = call = len(self._calls)
        signature = pack(self._thoughts, self._model)
        self._thoughts.clear()
        self.assembler.tool_call(
            index=call, id=read_str(item, "call_id"), name=read_str(item, "name"), signature=signature
        )

    def _close(self, place: int, item: Mapping[str, object]) -> None:
        """An item is whole: a thought with its seal, or a call with its arguments."""
        kind = read_str(item, "type")
        if kind == "function_call":
            self._add(place, item)
            if place not in self._argued:
                self._argued.add(place)
                self.assembler.tool_call(read_str(item, "arguments") or "{}", index=self._calls[place])
            return
        self.assembler.heartbeat()
        if kind == "reasoning" and (thought := thought_of(item)) is not None:
            self._kept += len(thought.sealed) + len(thought.id) + sum(map(len, thought.summaries))
            if self._kept > _MOST_KEPT_CHARACTERS:
                self.assembler.fail(Failure(FailureKind.TOO_LARGE, "the provider's thoughts are larger than accepted"))
                return
            self._thoughts.append(thought)


def _failure(error: Mapping[str, object], response: WireResponse) -> Failure:
    """What the error of a failed answer means. It has no status to go by, and seldom a type."""
    code = read_str(error, "code") or ""
    kind = read_str(error, "type") or ("invalid_request_error" if code.startswith(_ABOUT_THE_REQUEST) else None)
    return classify({"error": {**error, "type": kind}}, response)


def _usage(source: Mapping[str, object]) -> Usage:
    """The counts; a missing one is 0."""
    of_input = read_map(source, "input_tokens_details")
    return Usage(
        read_count(source, "input_tokens"),
        read_count(source, "output_tokens"),
        read_count(of_input, "cached_tokens"),
        read_count(read_map(source, "output_tokens_details"), "reasoning_tokens"),
        read_count(of_input, "cache_write_tokens"),
    )
