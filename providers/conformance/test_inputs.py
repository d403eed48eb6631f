"""Test the uses of an adapter whose answer is one JSON body: through its simulator, and against any bytes.

A use is a row of `ROUND_TRIPS`, and of `ANSWERS` too, which has what any bytes must not be read as.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.adapter import Target
from providers.chat import Usage
from providers.conformance.checks import THOROUGH
from providers.conformance.subject import ORIGIN, Subject
from providers.failures import ProviderFailed
from providers.inputs.embeddings.values import EmbeddingAnswer, EmbeddingRequest
from providers.inputs.rerank.values import RerankAnswer, RerankRequest
from providers.json_values import dumps
from providers.moderations.values import ModerationAnswer, ModerationRequest, verdict_of
from providers.testkit.simulator import RequestRejected
from providers.value import replace
from providers.wire import WireResponse

_VECTORS = (array("f", [0.5, -0.25, 1.0]), array("f", [0.0, 3.5, -1.0]))
_VERDICTS = (verdict_of(frozenset(), flagged=False), verdict_of(frozenset({"hate"}), flagged=True))
thorough = settings(THOROUGH, max_examples=60)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


class UseCase(NamedTuple):
    """A request of one use with its answer, and how the simulator reads and writes them."""

    model: str
    request: Any
    answer: Any
    read: str
    write: str
    results: Callable[[Any], object]
    """Returns the results of an answer, which must be those that were sent, in the order of the inputs."""
    most: tuple[str, str] | None = None
    """The name of the fact with the most inputs of a call, and of the field with them; None if there is no such."""
    options: Mapping[str, Mapping[str, object]] = {}
    """By the name of a fact, the fields that arrive if a model has it."""


ROUND_TRIPS = {
    "embeddings": UseCase(
        "some-embedding-model",
        EmbeddingRequest("assistant", ("one", "zwei \N{SNOWMAN}")),
        EmbeddingAnswer(_VECTORS, Usage(prompt_tokens=5)),
        "read_input",
        "write_embeddings",
        lambda answer: [vector.tolist() for vector in answer.vectors],
        ("most_inputs", "inputs"),
        {"shortens": {"dimensions": 8}, "takes_tokens": {"inputs": ((1, 2, 3),)}, "takes_user": {"user": "u-1"}},
    ),
    "rerank": UseCase(
        "some-rerank-model",
        RerankRequest("assistant", "query \N{SNOWMAN}", ("one", "zwei", "three")),
        RerankAnswer((0.25, 0.75, 0.5), Usage(prompt_tokens=5)),
        "read_rerank",
        "write_rerank",
        lambda answer: answer.scores,
        ("most_documents", "documents"),
        {"cuts_documents": {"max_tokens_per_doc": 64}},
    ),
    "moderations": UseCase(
        "omni-moderation-latest",
        ModerationRequest("assistant", ("one", "two")),
        ModerationAnswer(_VERDICTS),
        "read_input",
        "write_moderations",
        lambda answer: [result.flagged for result in answer.results],
    ),
}
ANSWERS: Mapping[str, tuple[Callable[[object], object], Callable[[Any], bool], str]] = {
    "embeddings": (
        lambda body: {"data": body, "output": {"embeddings": body}, "embeddings": body},
        lambda answer: bool(answer.vectors) and all(math.isfinite(sum(vector)) for vector in answer.vectors),
        "a vector must have finite numbers",
    ),
    "rerank": (
        lambda body: {"results": body, "output": {"results": body}, "meta": body, "usage": body},
        lambda answer: bool(answer.scores) and all(type(it) is float and math.isfinite(it) for it in answer.scores),
        "there must be scores, which are finite numbers",
    ),
    "moderations": (
        lambda body: {"results": body},
        lambda answer: bool(answer.results) and all(type(it.flagged) is bool for it in answer.results),
        "there must be verdicts, which are true or false",
    ),
    "decisions": (
        lambda body: {"answers": body, "usage": body, "prompt_feedback": body},
        lambda answer: all(hasattr(it, "get") for it in answer.answers.values()),
        "there must be answers by the number of their question, which are objects",
    ),
    "transcription": (
        lambda body: {"text": body, "usage": body, "segments": body, "output": body},
        lambda answer: isinstance(answer.text, str),
        "`text` of a transcript must be a text",
    ),
}
"""By use: any JSON where results are expected, what holds of an answer, and the same in words."""


def needed(subject: Subject, use: str) -> Any:
    """Return the wire format of an adapter for a use. Skips the test if it has none."""
    if (found := getattr(subject.adapter, use, None)) is None:
        pytest.skip(f"the adapter has no {use}")
    return found


def target_of(subject: Subject, model: str) -> Target:
    """Return the target of the subject with another model."""
    return Target(model, subject.target.base_path, subject.target.facts)


class Trip(NamedTuple):
    """A round trip through the adapter and the simulator of a subject."""

    subject: Subject
    form: Any
    case: UseCase

    @property
    def target(self) -> Target:
        return target_of(self.subject, self.case.model)

    def read(self, request: object) -> Any:
        """Return a request as the simulator reads it."""
        read = getattr(self.subject.simulator, self.case.read, None)
        assert read is not None, f"add `{self.case.read}` and `{self.case.write}` to the simulator"
        found = read(self.subject.incoming(self.form.build_request(request, self.target)))
        assert type(found) is type(request), f"the simulator does not know the path of {type(request).__name__}"
        return found

    def answered(self, request: object, answer: object) -> Any:
        """Return an answer of the simulator as the adapter reads it."""
        incoming = self.subject.incoming(self.form.build_request(request, self.target))
        response = getattr(self.subject.simulator, self.case.write)(answer, incoming)
        return self.form.parse_response(response, self.target)


@pytest.fixture(params=ROUND_TRIPS)
def trip(subject: Subject, request: pytest.FixtureRequest) -> Trip:
    return Trip(subject, needed(subject, request.param), ROUND_TRIPS[request.param])


def test_inputs_arrive_and_results_return_in_order(trip: Trip) -> None:
    request, answer = trip.case.request, trip.case.answer
    read = trip.read(request)
    assert replace(read, model="") == replace(request, model=""), "the provider must get the inputs unchanged"
    assert read.model == trip.target.model or "model" not in str(trip.form.build_request(request, trip.target)), (
        "the provider must get the model of the target"
    )
    found = trip.answered(request, answer)
    assert trip.case.results(found) == trip.case.results(answer), (
        "the results must be those that were sent, in the order of the inputs"
    )
    assert found.usage in (answer.usage, None), "the usage must be the provider's count, or None if it has none"


def test_option_arrives_if_the_facts_have_it(trip: Trip) -> None:
    for fact, fields in trip.case.options.items():
        if getattr(trip.form.facts(trip.target.model), fact):
            asked = replace(trip.case.request, **fields)
            assert replace(trip.read(asked), model="") == replace(asked, model=""), (
                f"an option that the facts list must arrive at the provider: {', '.join(fields)}"
            )


def test_one_input_too_many_is_refused_and_the_limit_is_accepted(trip: Trip) -> None:
    if trip.case.most is None:
        return
    fact, field = trip.case.most
    most = getattr(trip.form.facts(trip.target.model), fact)
    whole: dict[str, object] = {field: ("x",) * most}
    trip.read(replace(trip.case.request, **whole))
    if trip.subject.simulator.name != trip.subject.adapter.name:
        return  # a server of the operator's own: the limit is the adapter's, and the simulated vendor has another
    more: dict[str, object] = {field: ("x",) * (most + 1)}
    with pytest.raises(RequestRejected):
        trip.read(replace(trip.case.request, **more))


def test_input_is_written_without_change_of_the_request(trip: Trip) -> None:
    extra = {"passed": {"a": [1]}}
    request = replace(trip.case.request, extra=extra)
    first = trip.form.build_request(request, trip.target)
    assert first == trip.form.build_request(deepcopy(request), trip.target), (
        "the same request must be built the same way each time"
    )
    assert extra == {"passed": {"a": [1]}}, "`build_request` must not change the request that it gets"
    assert b'"passed"' in first.body, "send the fields of `extra`"
    assert first.path.startswith("/"), "the path must begin with a slash"
    assert ORIGIN not in first.path, "the path must not contain the origin"


@pytest.mark.parametrize("use", ANSWERS)
@given(body=any_json)
@thorough
def test_any_json_is_an_answer_or_a_failure(subject: Subject, use: str, body: object) -> None:
    _parse(subject, use, _dumped(ANSWERS[use][0](body)))
    _parse(subject, use, _dumped(body))


@pytest.mark.parametrize("use", ANSWERS)
@given(body=st.binary(max_size=300))
@thorough
def test_any_bytes_are_an_answer_or_a_failure(subject: Subject, use: str, body: bytes) -> None:
    _parse(subject, use, body)


def _dumped(value: object) -> bytes:
    try:
        return dumps(value)
    except TypeError:  # integers above 64 bits
        return b"null"


def _parse(subject: Subject, use: str, body: bytes) -> None:
    _, holds, rule = ANSWERS[use]
    form, response = needed(subject, use), WireResponse(200, {"content-type": "application/json"}, body, 0)
    try:
        answer = form.parse_response(response, target_of(subject, f"some-{use}-model"))
    except ProviderFailed:
        return
    assert holds(answer), f"{rule}: raise `ProviderFailed` for anything else"


def test_vector_with_a_hole_is_a_failure(subject: Subject) -> None:
    case = ROUND_TRIPS["embeddings"]
    answer = EmbeddingAnswer((array("f", [0.5, float("nan")]), _VECTORS[0][:2]), None)
    with pytest.raises(ProviderFailed):
        Trip(subject, needed(subject, "embeddings"), case).answered(case.request, answer)
