"""The work to read an answer of embeddings, a rerank, moderations or a transcript grows no faster than the answer.

The readers are those of the registry, so that a new one is measured too, or fails by its name.
"""

import json
from array import array
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from providers.adapter import Adapter, Target
from providers.conformance.subject import Subject, subjects_of
from providers.inputs.audio.values import TranscriptionRequest
from providers.inputs.decisions.values import DecisionQuestion, DecisionRequest, Option, SentDecisions
from providers.inputs.embeddings.values import EmbeddingAnswer, EmbeddingRequest
from providers.inputs.rerank.values import RerankAnswer, RerankRequest
from providers.inputs.uses import INPUTS
from providers.moderations.contract import Moderates
from providers.moderations.values import ModerationAnswer, ModerationRequest, verdict_of
from providers.registry import load_registry
from providers.testkit.simulated_audio import sample
from providers.testkit.simulator import IncomingRequest, load_simulators
from providers.value import replace
from providers.wire import WireResponse
from tests.kit.growth import MOST_GROWTH, growth

_SIZE = 64
_TIMED = {"start": 0.5, "end": 1.0, "text": "word", "word": "word", "speaker": "A"}


def _moderations_of(adapter: Adapter) -> Any:
    return adapter.moderations if isinstance(adapter, Moderates) else None


def _longer(value: Any, count: int) -> Any:
    """Return a JSON value whose outermost lists are as much longer."""
    if isinstance(value, dict):
        return {name: _longer(item, count) for name, item in value.items()}
    return value * count if isinstance(value, list) else value


def _transcript(simulator: Any, count: int, incoming: IncomingRequest) -> WireResponse:
    answer: WireResponse = simulator.answer_audio(incoming)
    body = {"segments": [_TIMED], "words": [_TIMED], **json.loads(answer.body)}
    return replace(answer, body=json.dumps(_longer(body, count)).encode())


def _decisions(simulator: Any, count: int, incoming: IncomingRequest) -> WireResponse:
    answer = {"type": "score", "score": 0.5, "probabilities": {"0": 0.5, "1": 0.5}}
    is_list = isinstance(json.loads(incoming.body)["questions"], list)
    body = {"answers": [answer] * count if is_list else {f"{number}": answer for number in range(1, count + 1)}}
    return WireResponse(200, {"content-type": "application/json"}, json.dumps(body).encode(), 0)


READERS: Mapping[str, tuple[Callable[[Adapter], Any], Any, Callable[[Any, int, IncomingRequest], WireResponse]]] = {
    "embeddings": (
        INPUTS["embeddings"].format_of,
        EmbeddingRequest("assistant", ("a",)),
        lambda simulator, n, incoming: simulator.write_embeddings(EmbeddingAnswer((array("f", [0.5]),) * n), incoming),
    ),
    "rerank": (
        INPUTS["rerank"].format_of,
        RerankRequest("assistant", "q", ("a",)),
        lambda simulator, n, incoming: simulator.write_rerank(
            RerankAnswer(tuple(at / n for at in range(n)), search_units=1), incoming
        ),
    ),
    "moderations": (
        _moderations_of,
        ModerationRequest("assistant", ("a",)),
        lambda simulator, n, incoming: simulator.write_moderations(
            ModerationAnswer((verdict_of(frozenset(), flagged=False),) * n), incoming
        ),
    ),
    "decisions": (
        INPUTS["decisions"].format_of,
        DecisionRequest("assistant", "a", (DecisionQuestion("predicate", "q"),)),
        _decisions,
    ),
    "transcripts": (
        INPUTS["transcription"].format_of,
        TranscriptionRequest("assistant", memoryview(sample()), "wav", response_format="verbose_json"),
        _transcript,
    ),
}


def _cases() -> Iterator[tuple[str, str]]:
    for name, adapter in sorted(load_registry().adapters.items()):
        yield from ((name, kind) for kind, (reader_of, _, _) in READERS.items() if reader_of(adapter) is not None)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [*_cases()])
def test_work_to_read_an_answer(name: str, kind: str) -> None:
    adapter, (reader_of, request, write) = load_registry().adapters[name], READERS[kind]
    subject = _subject(name, adapter)
    reader, target = reader_of(adapter), Target("some-model", subject.target.base_path, subject.target.facts)
    incoming = subject.incoming(reader.build_request(request, target))

    def answer(count: int) -> WireResponse:
        return write(subject.simulator, count, incoming)

    assert growth(answer, lambda one: reader.parse_response(one, target), _SIZE) <= MOST_GROWTH


@pytest.mark.slow
@pytest.mark.parametrize("by_text", [False, True])
def test_work_to_compare_an_answer_with_its_questions(by_text: bool) -> None:
    def asked(count: int) -> tuple[DecisionRequest, SentDecisions]:
        options = tuple(Option(f"{place}") for place in range(count))
        request = DecisionRequest("assistant", "a", (DecisionQuestion("choice", "q", options),))
        shares = [{"value": option.value, "probability": 1 / count} for option in options]
        sent = {"type": "choice", "choice": "0", "probabilities": shares}
        return request, SentDecisions({"1": sent}, by_text=by_text)

    assert growth(asked, lambda one: one[0].checked(one[1], None), _SIZE) <= MOST_GROWTH
    assert growth(asked, lambda one: one[0].needs(), _SIZE) <= MOST_GROWTH


def _subject(name: str, adapter: Adapter) -> Subject:
    simulators = load_simulators().simulators
    assert name in simulators, f"the work of {name} is not measured: it has no simulator"
    return subjects_of(adapter, simulators[name])[0]
