"""Test the scores of an adapter that has them: through its simulator, and against any bytes."""

from __future__ import annotations

from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.adapter import Target
from providers.chat import Usage
from providers.conformance.subject import ORIGIN, Subject
from providers.conformance.test_inputs import any_json, change_model, dumped, needed, thorough
from providers.failures import ProviderFailed
from providers.inputs.rerank.contract import RerankFormat
from providers.inputs.rerank.values import RerankAnswer, RerankRequest
from providers.inputs.uses import INPUTS
from providers.testkit.simulator import RequestRejected, SimulatesRerank
from providers.value import replace
from providers.wire import WireResponse

_REQUEST = RerankRequest("assistant", "query \N{SNOWMAN}", ("one", "zwei", "three"))
_SCORES = (0.25, 0.75, 0.5)


@pytest.fixture
def rerank(subject: Subject) -> RerankFormat:
    found: RerankFormat = needed(INPUTS["rerank"].format_of(subject.adapter), "has no rerank")
    return found


@pytest.fixture
def scorer(subject: Subject) -> SimulatesRerank:
    """The simulator of the adapter, which must have rerank too."""
    simulator = subject.simulator
    assert isinstance(simulator, SimulatesRerank), "add `read_rerank` and `write_rerank` to the simulator"
    return simulator


def _target_of(subject: Subject) -> Target:
    return change_model(subject.target, "some-rerank-model")


def test_documents_arrive_and_scores_return_in_their_order(
    subject: Subject, rerank: RerankFormat, scorer: SimulatesRerank
) -> None:
    target = _target_of(subject)
    incoming = subject.incoming(rerank.build_request(_REQUEST, target))
    read = scorer.read_rerank(incoming)
    assert read is not None, "the simulator does not know the path of rerank"
    assert (read.query, read.documents) == (_REQUEST.query, _REQUEST.documents), (
        "the provider must get the query and the documents unchanged"
    )
    answer = rerank.parse_response(scorer.write_rerank(RerankAnswer(_SCORES, Usage(prompt_tokens=5)), incoming), target)
    assert answer.scores == _SCORES, "the best comes first: put the scores into the order of the documents"
    assert answer.usage in (Usage(prompt_tokens=5), None), (
        "the usage must be the provider's count, or None if it has none"
    )


def test_one_document_too_many_is_refused_and_the_limit_is_accepted(
    subject: Subject, rerank: RerankFormat, scorer: SimulatesRerank
) -> None:
    target = _target_of(subject)
    most = rerank.facts(target.model).most_documents
    whole = replace(_REQUEST, documents=("x",) * most)
    assert scorer.read_rerank(subject.incoming(rerank.build_request(whole, target))) is not None, (
        "a request with as many documents as the facts allow must be built"
    )
    if subject.simulator.name != subject.adapter.name:
        return  # a server of the operator's own: the limit is the adapter's, and the simulated vendor has another
    more = replace(whole, documents=("x",) * (most + 1))
    with pytest.raises(RequestRejected):
        scorer.read_rerank(subject.incoming(rerank.build_request(more, target)))


def test_cut_of_documents_arrives_if_the_facts_have_it(
    subject: Subject, rerank: RerankFormat, scorer: SimulatesRerank
) -> None:
    target = _target_of(subject)
    if not rerank.facts(target.model).cuts_documents:
        pytest.skip("the provider cuts no documents")
    request = replace(_REQUEST, max_tokens_per_doc=64)
    read = scorer.read_rerank(subject.incoming(rerank.build_request(request, target)))
    assert read is not None, "the simulator does not read the request as a rerank"
    assert read.max_tokens_per_doc == 64, "`max_tokens_per_doc` must arrive at the provider if the facts list it"


def test_rerank_is_written_without_change_of_its_input(subject: Subject, rerank: RerankFormat) -> None:
    extra = {"passed": {"a": [1]}}
    request, target = replace(_REQUEST, extra=extra), _target_of(subject)
    first = rerank.build_request(request, target)
    assert first == rerank.build_request(deepcopy(request), target), (
        "the same request must be built the same way each time"
    )
    assert extra == {"passed": {"a": [1]}}, "`build_request` must not change the request that it gets"
    assert b'"passed"' in first.body, "send the fields of `extra`"
    assert first.path.startswith("/"), "the path must begin with a slash"
    assert ORIGIN not in first.path, "the path must not contain the origin"


@given(body=any_json)
@thorough
def test_any_json_is_scores_or_a_failure(subject: Subject, rerank: RerankFormat, body: object) -> None:
    _check_answer(rerank, subject, dumped({"results": body, "output": {"results": body}, "meta": body, "usage": body}))
    _check_answer(rerank, subject, dumped(body))


@given(body=st.binary(max_size=64))
@thorough
def test_any_bytes_are_scores_or_a_failure(subject: Subject, rerank: RerankFormat, body: bytes) -> None:
    _check_answer(rerank, subject, body)


def _check_answer(rerank: RerankFormat, subject: Subject, body: bytes) -> None:
    response = WireResponse(200, {"content-type": "application/json"}, body, 0)
    try:
        answer = rerank.parse_response(response, _target_of(subject))
    except ProviderFailed:
        return
    assert answer.scores, "an answer without scores is a failure"
    assert all(isinstance(score, float) and abs(score) < float("inf") for score in answer.scores), (
        "a score must be a finite number: raise `ProviderFailed` for anything else"
    )
