"""Read DashScope's answers and stream events, and find the new text in streams that repeat the whole text so far.

Source: Alibaba Cloud Model Studio API reference (DashScope) and dashscope 2.0.2, read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from providers.chat import ChatCompletion, FinishReason, Usage
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.formats.tool_calls import arguments_text
from providers.json_values import are_counts, as_map, read_count, read_int, read_list, read_map, read_str
from providers.openai_json.read_answer import read_text
from providers.reading.error_classification import error_object, failure
from providers.reading.folding import fold
from providers.reading.stream_assembler import Assembler
from providers.reading.token_counts import count_completion
from providers.vendors.dashscope.errors import classify, holds_error
from providers.wire import WireResponse

_MAX_HELD_PIECES = 8


class Increments:
    """Find the new part of each piece of a text, whether the stream sends only additions or repeats the whole text.

    Args:
        proof: How many consecutive pieces must extend the previous one before the stream counts as repeating. Two for
            prose; one for JSON, where no addition can begin with the whole text so far.
    """

    __slots__ = ("_mode", "_proof", "_seen")

    def __init__(self, proof: int) -> None:
        self._proof = proof
        self._mode: Literal["open", "adding", "repeating"] = "open"
        self._seen: list[str] = []

    def new(self, piece: str, *, last: bool) -> list[str]:
        """Return the additions that are certain after this piece.

        Args:
            piece: The next piece.
            last: Whether no more text follows, so that nothing may be held back.
        """
        match self._mode:
            case "adding":
                return [piece] if piece else []
            case "repeating":
                return self._additions([piece]) if piece else []
            case "open":
                return self._decide(piece, last)

    def _decide(self, piece: str, last: bool) -> list[str]:
        seen = self._seen
        if not seen:
            if piece:
                seen.append(piece)
            return [piece] if piece else []
        if piece.startswith(seen[-1]):
            seen.append(piece)
            grown = len(set(seen)) - 1
            if grown >= self._proof or last:
                self._mode = "repeating"
                held = seen[1:]
                del seen[1:]
                return self._additions(held)
            if len(seen) <= _MAX_HELD_PIECES:
                return []
        elif piece:
            seen.append(piece)
        elif not last:
            return []
        self._mode = "adding"
        held = seen[1:]
        seen.clear()
        return held

    def _additions(self, pieces: list[str]) -> list[str]:
        """Return what each piece adds to the text so far (`_seen[0]`). A piece that does not extend it is new text."""
        additions: list[str] = []
        for piece in pieces:
            so_far = self._seen[0]
            extends = piece.startswith(so_far)
            addition = piece[len(so_far) :] if extends else piece
            self._seen[0] = piece if extends else so_far + piece
            if addition:
                additions.append(addition)
        return additions


_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
}


_STATUS_COMMENT = "HTTP_STATUS/"


_NO_STATUS = 200


def read_completion(response: WireResponse, model: str) -> ChatCompletion:
    """Read the whole answer of a 2xx body.

    Raises:
        ProviderFailed: The body is an error with status 200, or has no choices.
    """
    body = error_object(response.body)
    if holds_error(body):
        raise ProviderFailed(classify(body, response))
    if not _choices(body):
        raise ProviderFailed(failure(response, FailureKind.MALFORMED, detail="no choices in the answer"))
    reader = DashScopeReader(model)
    reader.read_chunk(body, "result")
    reader.assembler.complete()
    return fold(reader.assembler.take())


def _choices(body: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Return the choices. If the result format is `text`, the only choice is `output.text`."""
    output = read_map(body, "output")
    choices = [as_map(entry) for entry in read_list(output, "choices")]
    text = read_str(output, "text")
    if not choices and text is not None:
        choices = [{"message": {"content": text}, "finish_reason": output.get("finish_reason")}]
    return choices


@dataclass(slots=True)
class _Call:
    """The known part of a tool call."""

    id: str
    arguments: Increments


@dataclass(slots=True)
class _Choice:
    """The known part of a choice."""

    text: Increments = field(default_factory=lambda: Increments(proof=2))
    calls: dict[int, _Call] = field(default_factory=dict)
    finished: bool = False


class DashScopeReader:
    """Read the events of one answer into its `assembler`."""

    def __init__(self, model: str) -> None:
        self.assembler = Assembler(model)
        self._status = _NO_STATUS
        self._choices: dict[int, _Choice] = {}
        self._usage: dict[int, Usage] = {}

    def read_comment(self, comment: str) -> None:
        """Read the status of the event from its comment: `HTTP_STATUS/400`."""
        if comment.startswith(_STATUS_COMMENT):
            status = comment[len(_STATUS_COMMENT) :].strip()
            self._status = int(status) if len(status) == 3 and status.isascii() and status.isdigit() else _NO_STATUS

    def read_chunk(self, chunk: Mapping[str, object], event: str) -> None:
        """Read one event, or a whole answer."""
        if event == "error" or holds_error(chunk):
            self._end(classify(chunk, WireResponse(self._status, {}, b"", 0)))
            return
        self.assembler.identify(id=read_str(chunk, "request_id"))
        choices = _choices(chunk)
        # If no choice has an index, its position counts, as in the vendor's own SDK.
        by_position = len(choices) > 1 and all("index" not in choice for choice in choices)
        for position, choice in enumerate(choices):
            self._read_choice(choice, position if by_position else read_int(choice, "index") or 0)
        usage = read_map(chunk, "usage")
        if usage:
            self._read_usage(usage, choices)

    def _end(self, failed: Failure) -> None:
        """End the answer with a failure. If it was filtered, emit the text that is still held back first."""
        for index, choice in self._choices.items():
            if failed.kind is FailureKind.CONTENT_FILTER and not choice.finished:
                for text in choice.text.new("", last=True):
                    self.assembler.text(text, index)
        self.assembler.fail(failed)

    def _read_choice(self, source: Mapping[str, object], index: int) -> None:
        choice = self._choices.setdefault(index, _Choice())
        message = read_map(source, "message") or read_map(source, "delta")
        raw_reason = read_str(source, "finish_reason")
        ends = bool(raw_reason) and raw_reason != "null"
        calls = read_list(message, "tool_calls")
        # Thinking requires incremental output, so reasoning is never repeated.
        reasoning = read_str(message, "reasoning_content") or ""
        self.assembler.reasoning(reasoning, index)
        texts = choice.text.new(read_text(message.get("content")), last=ends or bool(calls))
        self.assembler.text(texts[0] if texts else "", index, read_map(source, "logprobs") or None)
        for text in texts[1:]:
            self.assembler.text(text, index)
        for entry in calls:
            self._read_call(as_map(entry), index, choice, ends)
        if ends and raw_reason:
            choice.finished = True
            raw = None if raw_reason in _FINISH else raw_reason[:100]
            self.assembler.finish(_FINISH.get(raw_reason, "other"), index, raw)

    def _read_call(self, source: Mapping[str, object], index: int, choice: _Choice, ends: bool) -> None:
        function = read_map(source, "function")
        arguments = arguments_text(function.get("arguments"))
        if arguments is None:
            self.assembler.fail(Failure(FailureKind.MALFORMED, "the provider's tool call is nested too deeply"))
            return
        position, id = read_int(source, "index"), read_str(source, "id") or ""
        if position is not None:
            call = choice.calls.get(position)
            if call is None or (id and call.id and id != call.id):
                call = choice.calls[position] = _Call(id, Increments(proof=1))
            call.id = call.id or id
            arguments = "".join(call.arguments.new(arguments, last=ends))
        name, empty = read_str(function, "name"), function.get("arguments") == {}
        self.assembler.tool_call(arguments, choice=index, index=position, id=id, name=name, empty=empty)

    def _read_usage(self, source: Mapping[str, object], choices: list[Mapping[str, object]]) -> None:
        """Read usage. Counts are cumulative. If there are several choices, an event of one counts only its output."""
        usage = _usage(source)
        if len(choices) != 1:
            self._usage.clear()
            self.assembler.usage(usage)
            return
        self._usage[read_int(choices[0], "index") or 0] = usage
        self.assembler.usage(
            Usage(
                usage.prompt_tokens,
                sum(each.completion_tokens for each in self._usage.values()),
                usage.cached_tokens,
                sum(each.reasoning_tokens for each in self._usage.values()),
            )
        )


def _usage(source: Mapping[str, object]) -> Usage:
    """Return the counts; a missing one is 0. The prompt is 0 if one is invalid."""
    of_prompt = read_map(source, "prompt_tokens_details")
    prompt, completion = read_count(source, "input_tokens"), read_count(source, "output_tokens")
    reasoning = read_count(read_map(source, "output_tokens_details"), "reasoning_tokens")
    return Usage(
        prompt_tokens=prompt if are_counts(source, "input_tokens", "output_tokens") else 0,
        completion_tokens=count_completion(prompt, completion, reasoning, source.get("total_tokens")),
        cached_tokens=read_count(of_prompt if "cached_tokens" in of_prompt else source, "cached_tokens"),
        reasoning_tokens=reasoning,
    )
