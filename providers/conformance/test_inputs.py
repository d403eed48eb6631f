"""Test embeddings and moderations of an adapter that has them: through its simulator, and against any bytes."""

from __future__ import annotations

import struct
from array import array
from copy import deepcopy
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from providers.adapter import Target
from providers.chat import Usage
from providers.conformance.subject import ORIGIN, Subject
from providers.failures import ProviderFailed
from providers.inputs.embeddings.contract import EmbeddingFormat
from providers.inputs.embeddings.values import EmbeddingAnswer, EmbeddingRequest, check_answer
from providers.inputs.uses import INPUTS
from providers.json_values import JsonError, dumps, loads
from providers.moderations.contract import Moderates, ModerationFormat
from providers.moderations.values import ModerationAnswer, ModerationRequest, verdict_of
from providers.testkit.simulator import RequestRejected, SimulatesInputs, SimulatesModerations
from providers.value import replace
from providers.wire import WireResponse

_FormatT = TypeVar("_FormatT")
_MODEL = "some-embedding-model"
_VECTORS = (array("f", [0.5, -0.25, 1.0]), array("f", [0.0, 3.5, -1.0]))
thorough = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.generate],
)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


def needed(found: _FormatT | None, lack: str) -> _FormatT:
    """Return a format of the adapter. Skips the test if it has none."""
    if found is None:
        pytest.skip(f"the adapter {lack}")
    return found


@pytest.fixture
def embeddings(subject: Subject) -> EmbeddingFormat:
    found: EmbeddingFormat = needed(INPUTS["embeddings"].format_of(subject.adapter), "has no embeddings")
    return found


@pytest.fixture
def simulator(subject: Subject) -> SimulatesInputs:
    """The simulator of the adapter, which must have embeddings too."""
    simulator = subject.simulator
    assert isinstance(simulator, SimulatesInputs), "add `read_input` and `write_embeddings` to the simulator"
    return simulator


def _target(subject: Subject) -> Target:
    return change_model(subject.target, _MODEL)


def change_model(target: Target, model: str) -> Target:
    """Return the target with another model."""
    return Target(model, target.base_path, target.facts)


def test_texts_arrive_and_vectors_return_in_order(
    subject: Subject, embeddings: EmbeddingFormat, simulator: SimulatesInputs
) -> None:
    request = EmbeddingRequest("assistant", ("one", "zwei \N{SNOWMAN}"))
    incoming = subject.incoming(embeddings.build_request(request, _target(subject)))
    read = simulator.read_input(incoming)
    assert isinstance(read, EmbeddingRequest), "the simulator does not know the path of embeddings"
    assert (read.model, read.inputs) == (_MODEL, request.inputs), (
        "the provider must get the model of the target and the inputs unchanged"
    )
    response = simulator.write_embeddings(EmbeddingAnswer(_VECTORS, Usage(prompt_tokens=5)), incoming)
    answer = check_answer(embeddings.parse_response(response, _target(subject)), request, None)
    assert [vector.tolist() for vector in answer.vectors] == [vector.tolist() for vector in _VECTORS], (
        "the vectors must be those that were sent, in the order of the inputs"
    )
    assert answer.usage in (Usage(prompt_tokens=5), None), (
        "the usage must be the provider's count, or None if it has none"
    )


@pytest.mark.parametrize("option", ["dimensions", "tokens", "user"])
def test_option_arrives_if_the_facts_have_it(
    subject: Subject, embeddings: EmbeddingFormat, simulator: SimulatesInputs, option: str
) -> None:
    facts = embeddings.facts(_MODEL)
    request = EmbeddingRequest("assistant", ("one",))
    wanted = {
        "dimensions": (facts.shortens, replace(request, dimensions=8)),
        "tokens": (facts.takes_tokens, replace(request, inputs=((1, 2, 3),))),
        "user": (facts.takes_user, replace(request, user="u-1")),
    }
    has_it, request = wanted[option]
    if not has_it:
        pytest.skip(f"the provider has no {option}")
    read = simulator.read_input(subject.incoming(embeddings.build_request(request, _target(subject))))
    assert read == replace(request, model=_MODEL), "an option that the facts list must arrive at the provider"


def test_one_input_too_many_is_refused_and_the_limit_is_accepted(
    subject: Subject, embeddings: EmbeddingFormat, simulator: SimulatesInputs
) -> None:
    most = embeddings.facts(_MODEL).most_inputs
    whole = EmbeddingRequest("assistant", ("x",) * most)
    assert simulator.read_input(subject.incoming(embeddings.build_request(whole, _target(subject)))) is not None, (
        "a request with as many inputs as the facts allow must be built"
    )
    if subject.simulator.name != subject.adapter.name:
        return  # a server of the operator's own: the limit is the adapter's, and the simulated vendor has another
    more = replace(whole, inputs=("x",) * (most + 1))
    with pytest.raises(RequestRejected):
        simulator.read_input(subject.incoming(embeddings.build_request(more, _target(subject))))


def test_request_is_written_without_change_of_its_input(subject: Subject, embeddings: EmbeddingFormat) -> None:
    extra = {"passed": {"a": [1]}}
    request = EmbeddingRequest("assistant", ("one",), extra=extra)
    first = embeddings.build_request(request, _target(subject))
    assert first == embeddings.build_request(deepcopy(request), _target(subject)), (
        "the same request must be built the same way each time"
    )
    assert extra == {"passed": {"a": [1]}}, "`build_request` must not change the request that it gets"
    assert b'"passed"' in first.body, "send the fields of `extra`"
    assert first.path.startswith(subject.target.base_path), "the path must begin with the base path of the target"
    assert ORIGIN not in first.path, "the path must not contain the origin"


@given(body=any_json)
@thorough
def test_any_json_is_an_answer_or_a_failure(subject: Subject, embeddings: EmbeddingFormat, body: object) -> None:
    _parse(embeddings, subject, dumped({"data": body, "output": {"embeddings": body}, "embeddings": body}))
    _parse(embeddings, subject, dumped(body))


@given(body=st.binary(max_size=64))
@thorough
def test_any_bytes_are_an_answer_or_a_failure(subject: Subject, embeddings: EmbeddingFormat, body: bytes) -> None:
    _parse(embeddings, subject, body)


def dumped(value: object) -> bytes:
    try:
        return dumps(value)
    except TypeError:  # integers above 64 bits
        return b"null"


def _parse(embeddings: EmbeddingFormat, subject: Subject, body: bytes) -> None:
    response = WireResponse(200, {"content-type": "application/json"}, body, 0)
    try:
        answer = embeddings.parse_response(response, _target(subject))
        check_answer(answer, EmbeddingRequest("assistant", ("one",)), None)
    except ProviderFailed:
        return
    assert struct.pack(f"<{len(answer.vectors[0])}f", *answer.vectors[0]), (
        "a vector must have finite numbers: raise `ProviderFailed` for anything else"
    )


def test_vector_with_a_hole_is_a_failure(
    subject: Subject, embeddings: EmbeddingFormat, simulator: SimulatesInputs
) -> None:
    request = EmbeddingRequest("assistant", ("one", "two"))
    incoming = subject.incoming(embeddings.build_request(request, _target(subject)))
    answer = EmbeddingAnswer((array("f", [0.5, float("nan")]), _VECTORS[0][:2]), None)
    response = simulator.write_embeddings(answer, incoming)
    with pytest.raises(ProviderFailed):
        embeddings.parse_response(response, _target(subject))


# --- moderations ----------------------------------------------------------------------------------


@pytest.fixture
def moderations(subject: Subject) -> ModerationFormat:
    return needed(subject.adapter.moderations if isinstance(subject.adapter, Moderates) else None, "has no moderations")


def test_verdicts_return_in_order(subject: Subject, moderations: ModerationFormat, simulator: SimulatesInputs) -> None:
    assert isinstance(simulator, SimulatesModerations), "add `write_moderations` to the simulator"
    request = ModerationRequest("assistant", ("one", "two"))
    target = change_model(subject.target, "omni-moderation-latest")
    incoming = subject.incoming(moderations.build_request(request, target))
    assert simulator.read_input(incoming) == replace(request, model=target.model), (
        "the provider must get the inputs unchanged, and the model of the target"
    )
    results = (verdict_of(frozenset(), flagged=False), verdict_of(frozenset({"hate"}), flagged=True))
    response = simulator.write_moderations(ModerationAnswer(results), incoming)
    assert [one.flagged for one in moderations.parse_response(response, target).results] == [False, True], (
        "the verdicts must be in the order of the inputs"
    )


@given(body=any_json)
@thorough
def test_any_json_is_a_verdict_or_a_failure(subject: Subject, moderations: ModerationFormat, body: object) -> None:
    data = dumped({"results": body})
    try:
        parsed = loads(data)
        answer = moderations.parse_response(WireResponse(200, {}, data, 0), subject.target)
    except (ProviderFailed, JsonError):
        return
    assert isinstance(parsed, dict), "only a JSON object may be a verdict: raise `ProviderFailed` for anything else"
    assert all(type(one.flagged) is bool for one in answer.results), (
        "`flagged` must be true or false: raise `ProviderFailed` for anything else"
    )
