"""Read the answers of OpenAI's Responses API: whole answers and stream events.

An answer's form shows its API: a whole answer has `"object": "response"`, an event has a type.

Source: openai 3.51.0 (Response, ResponseStreamEvent, ResponseError, ResponseUsage), read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Mapping

from providers.chat import ChatCompletion, Usage
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.formats.tool_calls import arguments_text
from providers.json_values import are_counts, as_map, read_count, read_float, read_int, read_list, read_map, read_str
from providers.reading.assembler import Assembler
from providers.reading.errors import IN_A_STREAM, classify, error_object, failure
from providers.reading.finishes import ending_of, failed_by
from providers.reading.folding import fold
from providers.reading.token_counts import count_completion
from providers.vendors.openai.responses_request import SealedThought, pack, thought_of
from providers.wire import WireResponse

# Codes of a failed answer that mean an invalid request. Others have their own kind, or are the provider's fault.
_INVALID_REQUEST_CODES = ("invalid_image", "invalid_base64_image", "image_", "unsupported_image", "empty_image")
_PARAGRAPH_BREAK = "\n\n"
_MAX_THOUGHT_CHARACTERS = 8 * 1024 * 1024
_MAX_CREATED = 2**63


def is_response(body: Mapping[str, object]) -> bool:
    """Return whether this JSON object is a whole answer of this API."""
    return body.get("object") == "response"


def is_event(chunk: Mapping[str, object]) -> bool:
    """Return whether this JSON object of a stream is an event of this API. A chunk of chat completions has no type."""
    kind = chunk.get("type")
    return isinstance(kind, str) and (kind == "error" or kind.startswith("response."))


def read_response(response: WireResponse, model: str) -> ChatCompletion:
    """Read the whole answer of a 2xx body for which `is_response` is true. Raises ProviderFailed."""
    body = error_object(response.body)
    reader = ResponseReader(Assembler(model), model)
    reader.end(body, response)
    if not reader.assembler.done:
        raise ProviderFailed(failure(response, FailureKind.MALFORMED, detail="the answer is incomplete"))
    return fold(reader.assembler.take())


class ResponseReader:
    """Read one answer into `assembler`. `model` is the requested model."""

    def __init__(self, assembler: Assembler, model: str) -> None:
        self.assembler = assembler
        self._model = model
        self._thoughts: list[SealedThought] = []
        self._thought_characters = 0
        # The index of each call by the position of its item, and the positions of calls that have arguments.
        self._calls: dict[int, int] = {}
        self._with_arguments: set[int] = set()
        self._last_summary: tuple[int, int] | None = None
        self._last_text_item: int | None = None
        self._texts: list[str] = []

    def read_event(self, event: Mapping[str, object]) -> None:
        """Read one event of a stream for which `is_event` is true. An unknown event is a heartbeat."""
        position = read_int(event, "output_index") or 0
        delta = read_str(event, "delta") or ""
        match read_str(event, "type"):
            case "response.output_text.delta":
                self._add_text(delta, position)
            case "response.refusal.delta":
                self.assembler.refusal(delta)
            case "response.reasoning_summary_text.delta":
                self._add_summary(delta, position, read_int(event, "summary_index") or 0)
            case "response.reasoning_text.delta":
                # Of open models (vllm-project/vllm#35184, read 2026-11-26), which number each delta as another content.
                self._add_summary(delta, position, 0)
            case "response.function_call_arguments.delta" if delta and position in self._calls:
                self._with_arguments.add(position)
                self.assembler.tool_call(delta, index=self._calls[position])
            case "response.function_call_arguments.done" if position in self._calls:
                self._end_call(position, event)
            case "response.output_item.added":
                self._start_item(position, read_map(event, "item"))
            case "response.output_item.done":
                self._end_item(position, read_map(event, "item"))
            case "response.completed" | "response.incomplete" | "response.failed" | "response.cancelled":
                self.end(read_map(event, "response"), IN_A_STREAM)
            case "error":
                named = event if event.get("error") else {"error": event}
                self.assembler.fail(classify(named, IN_A_STREAM))
            case "response.created":
                self._identify(read_map(event, "response"))
                self.assembler.heartbeat()
            case _:
                self.assembler.heartbeat()

    def end(self, body: Mapping[str, object], response: WireResponse) -> None:
        """Read the whole answer, which is also the last event of a stream. Use only parts that were not streamed."""
        self._identify(body)
        status = read_str(body, "status")
        if body.get("error") or status in ("failed", "cancelled"):
            # The error of a failed answer has no status, and seldom a type.
            error = read_map(body, "error")
            is_invalid = (read_str(error, "code") or "").startswith(_INVALID_REQUEST_CODES)
            kind = read_str(error, "type") or ("invalid_request_error" if is_invalid else None)
            self.assembler.fail(classify({"error": {**error, "type": kind}}, response))
            return
        if status not in ("completed", "incomplete") and (status or response is IN_A_STREAM):
            return
        self._read_output(body, is_streamed=self.assembler.opened)
        if usage := read_map(body, "usage"):
            self.assembler.report(usage, _usage)
        if not status:
            self.assembler.complete(is_whole=True)
            return
        reason = read_str(read_map(body, "incomplete_details"), "reason") or ""
        reason = "stop" if status == "completed" else reason or "incomplete"
        if isinstance(ending := ending_of(reason, {}), FailureKind):
            self.assembler.fail(failed_by(reason, ending))
            return
        self.assembler.finish(ending, raw=reason[:100] if ending == "other" else None)
        self.assembler.complete()

    def _identify(self, body: Mapping[str, object]) -> None:
        created = read_float(body, "created_at") or 0
        self.assembler.identify(
            id=read_str(body, "id"),
            model=read_str(body, "model"),
            created=int(created) if 0 <= created < _MAX_CREATED else None,
        )
        # Before the end of the answer this is the request's value, and `auto` does not show the tier that is used.
        tier = read_str(body, "service_tier")
        self.assembler.describe(service_tier=tier if tier != "auto" else None, system_fingerprint=None)

    def _read_output(self, body: Mapping[str, object], *, is_streamed: bool) -> None:
        """Read all items of an answer; of a streamed one, only calls and text that did not come before."""
        if is_streamed and self._texts:
            # The text of the whole answer after the text so far, if it begins with that.
            items = [item for item in map(as_map, read_list(body, "output")) if read_str(item, "type") == "message"]
            parts = [[read_str(as_map(part), "text") or "" for part in read_list(item, "content")] for item in items]
            whole, so_far = _PARAGRAPH_BREAK.join(filter(None, map("".join, parts))), "".join(self._texts)
            if len(whole) > len(so_far) and whole.startswith(so_far):
                self.assembler.text(whole[len(so_far) :])
        for position, entry in enumerate(read_list(body, "output")):
            item = as_map(entry)
            if is_streamed and position not in self._calls:
                continue
            match read_str(item, "type"):
                case "reasoning":
                    for index, part in enumerate(read_list(item, "summary") or read_list(item, "content")):
                        self._add_summary(read_str(as_map(part), "text") or "", position, index)
                case "message":
                    for part in read_list(item, "content"):
                        self._add_text(read_str(as_map(part), "text") or "", position)
                        self.assembler.refusal(read_str(as_map(part), "refusal") or "")
            self._end_item(position, item)

    def _add_text(self, text: str, position: int) -> None:
        """Add text of a message.

        An answer may have several messages: commentary (`phase`), then the answer itself. Chat completions have only
        one text, so each message becomes a paragraph of it.
        """
        if text and self._last_text_item not in (None, position):
            text = _PARAGRAPH_BREAK + text
        if text:
            self._last_text_item = position
            self._texts.append(text)
        self.assembler.text(text)

    def _add_summary(self, text: str, position: int, index: int) -> None:
        """Add text of a reasoning summary. Each summary is a paragraph."""
        if not text:
            return
        if self._last_summary not in (None, (position, index)):
            self.assembler.reasoning(_PARAGRAPH_BREAK)
        self._last_summary = position, index
        self.assembler.reasoning(text)

    def _start_item(self, position: int, item: Mapping[str, object]) -> None:
        if read_str(item, "type") != "function_call" or position in self._calls:
            self.assembler.heartbeat()
            return
        self._calls[position] = call = len(self._calls)
        signature = pack(self._thoughts, self._model)
        self._thoughts.clear()
        self.assembler.tool_call(
            index=call, id=read_str(item, "call_id"), name=read_str(item, "name"), signature=signature
        )

    def _end_item(self, position: int, item: Mapping[str, object]) -> None:
        """Read a complete item, which is a thought with its encrypted content or a call with its arguments."""
        kind = read_str(item, "type")
        if kind == "function_call":
            self._start_item(position, item)
            self._end_call(position, item)
            return
        self.assembler.heartbeat()
        if kind == "image_generation_call" and (data := read_str(item, "result")):
            self.assembler.image(f"data:image/{read_str(item, 'output_format') or 'png'};base64,{data}")
        if kind == "reasoning" and (thought := thought_of(item)) is not None:
            self._thought_characters += len(thought.sealed) + len(thought.id) + sum(map(len, thought.summaries))
            if self._thought_characters > _MAX_THOUGHT_CHARACTERS:
                message = f"the reasoning of the provider's answer is longer than {_MAX_THOUGHT_CHARACTERS} characters"
                self.assembler.fail(Failure(FailureKind.TOO_LARGE, message))
                return
            self._thoughts.append(thought)

    def _end_call(self, position: int, source: Mapping[str, object]) -> None:
        """Read the whole arguments of a call, unless they came in pieces."""
        if position not in self._with_arguments:
            self._with_arguments.add(position)
            arguments = arguments_text(source.get("arguments"))
            self.assembler.tool_call(arguments or "{}", index=self._calls[position])


def _usage(source: Mapping[str, object]) -> Usage:
    """Return the counts; a missing one is 0. The prompt is 0 if one is invalid."""
    of_input = read_map(source, "input_tokens_details")
    prompt, completion = read_count(source, "input_tokens"), read_count(source, "output_tokens")
    reasoning = read_count(read_map(source, "output_tokens_details"), "reasoning_tokens")
    return Usage(
        prompt if are_counts(source, "input_tokens", "output_tokens") else 0,
        count_completion(prompt, completion, reasoning, source.get("total_tokens")),
        read_count(of_input, "cached_tokens"),
        reasoning,
        read_count(of_input, "cache_write_tokens"),
    )
