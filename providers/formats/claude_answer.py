"""Read answers in the form of Anthropic's Messages, which Bedrock's are when their members have Anthropic's names.

A whole message is read as the events of a stream, so that the same rules apply to both.

Source: anthropic 2.10.0 (Message, RawMessageStreamEvent, StopReason, Usage), platform.claude.com on streaming; read
2026-11-20.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from providers.adapter import Target
from providers.chat import Usage
from providers.failures import Failure, FailureKind
from providers.formats.reasoning_state import Thought, ThoughtCollector
from providers.json_values import (
    JsonError,
    are_counts,
    as_map,
    dumps_text,
    read_count,
    read_int,
    read_list,
    read_map,
    read_str,
)
from providers.reading.assembler import Assembler
from providers.reading.finishes import ending_of, failed_by

_OF_INPUT = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_NO_ZEROS: Mapping[str, int] = {}
_SAME_AS_OURS = frozenset({"end_turn", "stop_sequence", "tool_use", "max_tokens"})
_MAX_BLOCKS = 1024


@dataclass(slots=True)
class _Block:
    """The known part of a content block."""

    kind: str
    text: list[str] = field(default_factory=list)
    """The pieces of a thought, and `signature` those of its signature."""
    signature: list[str] = field(default_factory=list)
    redacted: list[str] = field(default_factory=list)
    """The pieces of an encrypted thought."""
    call: int = 0
    """The index of a tool call."""
    input: str = ""
    """The arguments in the block's start, as JSON text."""
    has_pieces: bool = False
    """Whether arguments arrived as deltas."""


class MessageReader:
    """Read one answer into its `assembler`. `classify` returns the failure of an event that is an error."""

    def __init__(self, target: Target, classify: Callable[[Mapping[str, object]], Failure]) -> None:
        self._classify = classify
        self.assembler = Assembler(target.model)
        self._target = target
        self._blocks: dict[int, _Block] = {}
        self._thoughts = ThoughtCollector(self.assembler, target.model)
        self._calls = self._prompt = 0
        self._zeros = _NO_ZEROS

    def read_message(self, message: Mapping[str, object]) -> None:
        self._start(message)
        for index, entry in enumerate(read_list(message, "content")):
            self._start_block(index, as_map(entry))
            self._stop_block(index)
        self._finish(message)
        self._count(message)
        self.assembler.complete(is_whole=True)

    def read_event(self, event: Mapping[str, object], name: str) -> None:
        """Read one event of a stream. An unknown event is a heartbeat."""
        index = read_int(event, "index") or 0
        kind = "error" if name == "error" or event.get("error") else read_str(event, "type")
        match kind:
            case "message_start":
                self._start(read_map(event, "message"))
            case "content_block_start":
                self._start_block(index, read_map(event, "content_block"))
            case "content_block_delta":
                self._extend_block(index, read_map(event, "delta"))
            case "content_block_stop":
                self._stop_block(index)
            case "message_delta":
                self._finish(read_map(event, "delta"))
                self._count(event)
            case "message_stop":
                self.assembler.complete()
            case "message" if not self.assembler.opened:
                # The whole answer although a stream was requested. (Some servers also send it at a stream's end.)
                self.read_message(event)
            case "error":
                self.assembler.fail(self._classify(event))
            case _:
                self.assembler.heartbeat()

    def _start(self, message: Mapping[str, object]) -> None:
        self.assembler.identify(id=read_str(message, "id"), model=read_str(message, "model"))
        tier = read_str(read_map(message, "usage"), "service_tier")
        self.assembler.describe(service_tier=tier, system_fingerprint=None)
        self._count(message)

    def _start_block(self, index: int, source: Mapping[str, object]) -> None:
        block = self._blocks[index] = _Block(read_str(source, "type") or "")
        if len(self._blocks) > _MAX_BLOCKS:
            self.assembler.fail(
                Failure(FailureKind.TOO_LARGE, f"the provider's answer has more than {_MAX_BLOCKS} open blocks")
            )
            return
        match block.kind:
            case "text":
                self.assembler.text(read_str(source, "text") or "")
            case "thinking":
                self._think(block, read_str(source, "thinking") or "")
                self._thoughts.append(block.signature, read_str(source, "signature") or "")
            case "redacted_thinking":
                self._thoughts.append(block.redacted, read_str(source, "data") or "")
            case "tool_use":
                self._start_call(block, source)

    def _start_call(self, block: _Block, source: Mapping[str, object]) -> None:
        block.call, self._calls = self._calls, self._calls + 1
        try:
            block.input = dumps_text(arguments) if (arguments := read_map(source, "input")) else ""
        except JsonError:
            self.assembler.fail(Failure(FailureKind.MALFORMED, "the provider's tool call is nested too deeply"))
            return
        signature = self._thoughts.take()
        self.assembler.tool_call(
            index=block.call, id=read_str(source, "id"), name=read_str(source, "name"), signature=signature
        )

    def _extend_block(self, index: int, delta: Mapping[str, object]) -> None:
        block = self._blocks.get(index) or _Block("")
        match read_str(delta, "type"):
            case "text_delta":
                self.assembler.text(read_str(delta, "text") or "")
            case "thinking_delta":
                self._think(block, read_str(delta, "thinking") or "")
            case "signature_delta":
                self._thoughts.append(block.signature, read_str(delta, "signature") or "")
            case "redacted_delta":
                self._thoughts.append(block.redacted, read_str(delta, "data") or "")
            case "input_json_delta" if block.kind == "tool_use":
                if piece := read_str(delta, "partial_json"):
                    block.has_pieces = True
                    self.assembler.tool_call(piece, index=block.call)

    def _think(self, block: _Block, text: str) -> None:
        self.assembler.reasoning(text)
        self._thoughts.append(block.text, text)

    def _stop_block(self, index: int) -> None:
        block = self._blocks.pop(index, None)
        if block is None:
            return
        if block.kind in ("thinking", "redacted_thinking"):
            self._thoughts.add(Thought("".join(block.text), "".join(block.signature), "".join(block.redacted)))
        elif block.kind == "tool_use" and not block.has_pieces:
            # Emitted here and not at the answer's end: clients consider a call complete when the next one begins.
            self.assembler.tool_call(block.input or "{}", index=block.call)

    def _finish(self, source: Mapping[str, object]) -> None:
        if reason := read_str(source, "stop_reason"):
            if isinstance(ending := ending_of(reason, {}), FailureKind):
                self.assembler.fail(failed_by(reason, ending))
                return
            raw = None if reason in _SAME_AS_OURS else reason[:100]
            stop = read_str(source, "stop_sequence") if reason == "stop_sequence" else None
            self.assembler.finish(ending, raw=raw, stop_sequence=stop)

    def _count(self, source: Mapping[str, object]) -> None:
        """Read usage: counts are cumulative, and later reports contain only changes. Check the place of inference."""
        if not (usage := read_map(source, "usage")):
            return
        prompt = _usage(usage).prompt_tokens
        if 0 < self._prompt <= prompt:
            # The whole input is stated anew, so that its zeros count: what was to be written to a cache was read there.
            self._zeros = {name: 0 for name in _OF_INPUT if usage.get(name) == 0}
        self._prompt = max(prompt, self._prompt)
        self.assembler.report(usage, partial(_usage, zeros=self._zeros))
        wanted, actual = self._target.pins.get("inference_geo"), read_str(usage, "inference_geo")
        if wanted is not None and actual is not None and actual != wanted:
            # The request is not repeated there: the deployment is put into cooldown, and the next step is tried.
            message = f"the provider computed the answer in {actual[:100]!r}, but this site promises {wanted!r}"
            self.assembler.fail(Failure(FailureKind.GEO_REFUSED, message, code="inference_geo"))


def _usage(source: Mapping[str, object], zeros: Mapping[str, int] = _NO_ZEROS) -> Usage:
    """Return the counts, with those of `zeros`; a missing one is 0. The prompt is 0 if one is invalid.

    `input_tokens` excludes tokens read from or written to the cache.
    """
    source = {**source, **zeros}
    cached = read_count(source, "cache_read_input_tokens")
    written = read_count(source, "cache_creation_input_tokens")
    prompt = read_count(source, "input_tokens") + cached + written
    split = read_map(source, "cache_creation")
    return Usage(
        prompt_tokens=prompt if are_counts(source, "output_tokens", *_OF_INPUT) else 0,
        completion_tokens=read_count(source, "output_tokens"),
        cached_tokens=cached,
        reasoning_tokens=read_count(read_map(source, "output_tokens_details"), "thinking_tokens"),
        cache_write_tokens=written,
        cache_write_1h_tokens=min(written, read_count(split, "ephemeral_1h_input_tokens")) if split else None,
    )
