"""Streams as the decoder of Apple's `ChatCompletionsLanguageModel` reads them, from the simulator of each provider.

Source: apple/foundation-models-utilities, `ChatCompletionsLanguageModel.swift` at 2aa12937, read 2026-11-30.
"""

import json
from collections.abc import Iterator

import pytest

from gateway.api.dialects.openai_chat import ChunkEncoder
from gateway.api.errors import ApiError
from gateway.execution.exchange import AnswerStyle
from gateway.model.record import Record
from providers.chat import Failed
from providers.conformance.cases import rich_answer
from providers.conformance.subject import subjects_of
from providers.failures import Failure, FailureKind
from providers.registry import load_registry
from providers.testkit.simulator import load_simulators
from tests.kit.case_files import cases

STYLE = AnswerStyle(include_usage=True)


def faults(data: bytes) -> Iterator[str]:
    """Yield what this decoder refuses, loses or repeats."""
    named: set[int] = set()
    for line in filter(None, data.decode().split("\n")):
        if not line.startswith("data: "):
            yield f"not an event with data: {line}"
        elif line != "data: [DONE]":
            chunk = json.loads(line.removeprefix("data: "))
            if "error" in chunk:
                error = chunk["error"]
                if not isinstance(error["message"], str):
                    yield f"an error without a message: {line}"
                if any(not isinstance(error.get(name), str | None) for name in ("type", "param", "code")):
                    yield f"an error with a member that is no text: {line}"
                continue
            if not (isinstance(chunk["id"], str) and isinstance(chunk["model"], str)):
                yield f"no id or model: {line}"
            counts = chunk.get("usage")
            if counts is not None and not all(
                isinstance(counts[it], int) for it in ("prompt_tokens", "completion_tokens")
            ):
                yield f"usage without whole numbers: {line}"
            for delta in [choice["delta"] for choice in chunk["choices"]]:
                calls = delta.get("tool_calls")
                if calls is not None and delta.get("content"):
                    yield f"a text next to a call, which is lost: {line}"
                for call in calls or ():
                    again = call.get("id") or call["function"].get("name")
                    if call["index"] in named and again:
                        yield f"an id or a name that is appended to the first: {line}"
                    if call["index"] not in named and not (call.get("id") and call["function"].get("name")):
                        yield f"a call without an id and a name: {line}"
                    named.add(call["index"])


@pytest.mark.parametrize("provider", sorted(load_simulators().simulators))
def test_stream_of_every_provider_is_read_whole(provider: str) -> None:
    subject = subjects_of(load_registry().adapters[provider], load_simulators().simulators[provider])[-1]
    events = subject.events(*subject.stream(*rich_answer(subject)))
    data = ChunkEncoder(STYLE, Record("req-1", 0.0, "t")).encode(events)
    assert b'"content"' in data
    assert [*faults(data)] == []


def test_error_in_a_stream_is_read() -> None:
    encoder = ChunkEncoder(STYLE, Record("req-1", 0.0, "t"))
    data = encoder.encode((Failed(Failure(FailureKind.INTERRUPTED, "broke")),))
    data += encoder.encode_failure(ApiError("overloaded", "why", retry_after_s=1))
    assert (data.count(b'"error"'), [*faults(data)]) == (2, [])


@cases("line")
def test_checker_finds_what_the_decoder_cannot_read(line: str) -> None:
    assert len([*faults(line.encode())]) == 1
