"""Read DashScope's native answers: whole ones and the events of a stream, which have one shape.

`choices[].message` plays the part of a delta, so a whole answer is read as one large event. Source: Alibaba Cloud
Model Studio API reference (DashScope) and dashscope 2.0.2, read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from providers.adapters._dashscope_errors import classify, holds_error
from providers.adapters._dashscope_increments import Increments
from providers.adapters._openai_answer import read_text
from providers.adapters._tool_loops import arguments_text
from providers.assembly import Assembler
from providers.chat import ChatCompletion, FinishReason, Usage
from providers.classify import error_object, failure
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.folding import fold
from providers.json_values import as_map, read_count, read_int, read_list, read_map, read_str
from providers.wire import WireResponse

__all__ = ["NativeReader", "read_completion"]

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
}
_STATUS_COMMENT = "HTTP_STATUS/"
_NO_STATUS = 200


def read_completion(response: WireResponse, model: str) -> ChatCompletion:
    """The whole answer of a 2xx body; raises ProviderFailed, also for an error that has status 200."""
    body = error_object(response.body)
    if holds_error(body):
        raise ProviderFailed(classify(body, response))
    if not _choices(body):
        raise ProviderFailed(failure(response, FailureKind.MALFORMED, detail="no choices in the answer"))
    reader = NativeReader(model)
    reader.read_chunk(body, "result")
    reader.assembler.complete()
    return fold(reader.assembler.take())


def _choices(body: Mapping[str, object]) -> list[Mapping[str, object]]:
    """The choices, or the one that `output.text` is where the result format is `text`."""
    output = read_map(body, "output")
    choices = [as_map(entry) for entry in read_list(output, "choices")]
    text = read_str(output, "text")
    if not choices and text is not None:
        choices = [{"message": {"content": text}, "finish_reason": output.get("finish_reason")}]
    return choices


@dataclass(slots=True)
class _Call:
    """A tool call as far as it is known."""

    id: str
    arguments: Increments


@dataclass(slots=True)
class _Choice:
    """One choice as far as it is known."""

    text: Increments = field(default_factory=lambda: Increments(proof=2))
    calls: dict[int, _Call] = field(default_factory=dict)
    finished: bool = False


class NativeReader:
    """Reads the events of one answer into its `assembler`."""

    def __init__(self, model: str) -> None:
        self.assembler = Assembler(model)
        self._status = _NO_STATUS
        self._choices: dict[int, _Choice] = {}
        self._usage: dict[int, Usage] = {}

    def read_comment(self, comment: str) -> None:
        """The status of the event around it: `HTTP_STATUS/400`."""
        if comment.startswith(_STATUS_COMMENT):
            status = comment[len(_STATUS_COMMENT) :].strip()
            self._status = int(status) if len(status) == 3 and status.isascii() and status.isdigit() else _NO_STATUS

    def read_chunk(self, chunk: Mapping[str, object], event: str) -> None:
        """One event, or one whole answer."""
        if event == "error" or holds_error(chunk):
            self._end(classify(chunk, WireResponse(self._status, {}, b"", 0)))
            return
        self.assembler.identify(id=read_str(chunk, "request_id"))
        choices = _choices(chunk)
        # As the vendor's own SDK counts them, where none says which it is.
        by_place = len(choices) > 1 and all("index" not in choice for choice in choices)
        for place, choice in enumerate(choices):
            self._read_choice(choice, place if by_place else read_int(choice, "index") or 0)
        usage = read_map(chunk, "usage")
        if usage:
            self._read_usage(usage, choices)

    def _end(self, failed: Failure) -> None:
        """An error ends the answer; what a doubtful piece added was said before it."""
        for index, choice in self._choices.items():
            if failed.kind is FailureKind.CONTENT_FILTER and not choice.finished:
                for text in choice.text.new("", last=True):
                    self.assembler.text(text, index)
        self.assembler.fail(failed)

    def _read_choice(self, source: Mapping[str, object], index: int) -> None:
        choice = self._choices.setdefault(index, _Choice())
        message = read_map(source, "message") or read_map(source, "delta")
        word = read_str(source, "finish_reason")
        ends = bool(word) and word != "null"
        calls = read_list(message, "tool_calls")
        # Thinking needs incremental output, so that reasoning text is never repeated.
        reasoning = read_str(message, "reasoning_content") or ""
        self.assembler.reasoning(reasoning, index)
        texts = choice.text.new(read_text(message.get("content")), last=ends or bool(calls))
        self.assembler.text(texts[0] if texts else "", index, read_map(source, "logprobs") or None)
        for text in texts[1:]:
            self.assembler.text(text, index)
        for entry in calls:
            self._read_call(as_map(entry), index, choice, ends)
        if ends and word:
            choice.finished = True
            self.assembler.finish(_FINISH.get(word, "other"), index, None if word in _FINISH else word[:100])

    def _read_call(self, source: Mapping[str, object], index: int, choice: _Choice, ends: bool) -> None:
        function = read_map(source, "function")
        arguments = arguments_text(function.get("arguments"))
        if arguments is None:
            self.assembler.fail(Failure(FailureKind.MALFORMED, "the provider's tool call is nested too deeply"))
            return
        place, id = read_int(source, "index"), read_str(source, "id") or ""
        if place is not None:
            call = choice.calls.get(place)
            if call is None or (id and call.id and id != call.id):
                call = choice.calls[place] = _Call(id, Increments(proof=1))
            call.id = call.id or id
            arguments = "".join(call.arguments.new(arguments, last=ends))
        name, empty = read_str(function, "name"), function.get("arguments") == {}
        self.assembler.tool_call(arguments, choice=index, index=place, id=id, name=name, empty=empty)

    def _read_usage(self, source: Mapping[str, object], choices: list[Mapping[str, object]]) -> None:
        """Counts are cumulative; with several choices, an event of one choice counts that choice's output alone."""
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
    """The counts; a missing one is 0."""
    of_prompt = read_map(source, "prompt_tokens_details")
    return Usage(
        prompt_tokens=read_count(source, "input_tokens"),
        completion_tokens=read_count(source, "output_tokens"),
        cached_tokens=read_count(of_prompt if "cached_tokens" in of_prompt else source, "cached_tokens"),
        reasoning_tokens=read_count(read_map(source, "output_tokens_details"), "reasoning_tokens"),
    )
