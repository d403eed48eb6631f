"""What an adapter sends: the same each time, to the right path, and with the meaning of the canonical request."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace

import pytest

from providers.adapter import STREAM_OPTIONS, AsksForUsage, Target, known_models
from providers.conformance.cases import ODD_CALLS, ODD_HISTORIES, RequestCase, feature_requests, question, rich_answer
from providers.conformance.checks import check_wire
from providers.conformance.meaning import conversation, is_absent, parameters, tools_asked
from providers.conformance.subject import Subject
from providers.failures import ProviderError, UnsupportedFeature
from providers.json_values import as_map, dumps, loads
from providers.matching.capability_matching import ANSWERS_ITSELF
from providers.matching.requirements import FEATURES, PARAMETERS
from providers.testkit.simulator import RequestRejected

_TUNING = (
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "stop",
    "logit_bias",
    "user",
    "logprobs",
    "top_logprobs",
    "response_format",
)
"""What has a default of the provider's own. How hard to think, and whether calls come one by one, is left out: vendors
differ in what they do unasked, and an adapter may say it to make them alike."""

_HOSTILE = (
    "a?b#c",
    "../x",
    "..",
    ".",
    "../../../v1/files",
    "a/../../b",
    "//evil.example",
    "https://evil.example/v1",
    "@evil.example",
    ":443@evil.example",
    "\\\\evil.example\\x",
    "a\r\nHost: evil.example",
    "a\nb",
    "a b",
    "a%2e%2e%2fb",
    "%2e%2e",
    "a%zz",
    "modèle",
    "模型",
    "a\u2028b",
    "a\x00b",
    "a:streamGenerateContent?key=x",
    "x" * 5000,
)


def test_build_is_deterministic_and_leaves_its_input_alone(asking: RequestCase) -> None:
    request, target = deepcopy(asking.request), asking.subject.target
    before = repr((request, target))
    first, again = (asking.subject.adapter.build_request(request, target) for _ in range(2))
    assert repr((request, target)) == before, "build_request changed the request or the target that it was given"
    assert again == first, "the same request was built in two ways"


def test_path_and_headers(asking: RequestCase) -> None:
    wire = asking.subject.build(asking.request)
    check_wire(wire, asking.subject.target.base_path)
    assert as_map(loads(wire.body)), "the body is no JSON object"


def test_the_provider_understands_the_same(asking: RequestCase) -> None:
    sent, wanted = asking.subject.asked(asking.request), asking.request
    assert sent.model == asking.subject.model, "the provider's model is `target.model`; `request.model` is the client's"
    for read in (conversation, tools_asked, lambda one: parameters(one, wanted)):
        asked, understood = read(wanted), read(sent)
        assert understood == asked, f"asked was\n{asked!r}\nand the provider understands\n{understood!r}"
    # A model that only streams may be asked for a stream where JSON is wanted: either form of answer can be read.
    assert sent.stream or not wanted.stream


def test_nothing_is_asked_for_that_nobody_said(asking: RequestCase) -> None:
    """A setting of the adapter's own makes another answer of the same question, and no client can tell why."""
    sent, wanted = asking.subject.asked(asking.request), asking.request
    for name in _TUNING:
        if is_absent(getattr(wanted, name)):
            value = getattr(sent, name)
            assert is_absent(value), f"{name} of {value!r} is sent, and the request has none"


def test_no_limit_of_its_own_is_sent_where_none_is_needed(subject: Subject) -> None:
    """An answer that ends too early looks like the model's fault. Some vendors want a limit: their dialect refuses a
    request without one."""
    wire = subject.build(question())
    limit = subject.read(wire).max_tokens
    if limit is not None:
        asked = replace(wire, body=dumps(_without(limit, loads(wire.body))))
        with pytest.raises(RequestRejected):
            pytest.fail(f"max_tokens of {limit} is sent, and the provider understands {subject.read(asked)} without it")


def test_a_folded_stream_is_asked_for_what_one_json_would_say(asking: RequestCase) -> None:
    """Nothing but the form may differ: a model that thinks only in streams must not begin to think by it."""
    json_body = replace(asking.request, stream=False, include_usage=False)
    whole, folded = (asking.subject.asked(one) for one in (json_body, replace(json_body, stream=True, folded=True)))
    assert folded.stream
    assert replace(folded, stream=whole.stream, include_usage=whole.include_usage) == whole


@pytest.mark.parametrize("model", _HOSTILE, ids=lambda name: ascii(name[:40]))
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_no_model_name_leads_elsewhere(subject: Subject, model: str, stream: bool) -> None:
    target = replace(subject.target, model=model)
    try:
        wire = subject.adapter.build_request(replace(question(), stream=stream), target)
    except ProviderError:
        return
    check_wire(wire, target.base_path)


@pytest.mark.parametrize("base_path", ["", "/v1", "/a/b/c"])
def test_the_base_path_is_the_target_s(subject: Subject, base_path: str) -> None:
    wire = subject.adapter.build_request(question(), replace(subject.target, base_path=base_path))
    check_wire(wire, base_path)


def test_every_feature_is_a_word_that_is_known(family: Subject) -> None:
    unknown = sorted(family.adapter.capabilities.features - FEATURES)
    assert not unknown, f"no request asks for {', '.join(unknown)}; the features are {', '.join(sorted(FEATURES))}"


def test_nothing_is_dropped_in_silence(subject: Subject) -> None:
    # A model that answers a last message of the assistant's needs no word for it.
    understood = {"prefill"} if ANSWERS_ITSELF in subject.facts.flags else set()
    for feature, requests in feature_requests().items():
        if feature in subject.adapter.capabilities.features | understood:
            continue
        for name, request in requests.items():
            with pytest.raises(UnsupportedFeature):
                pytest.fail(f"{name} was sent as {subject.build(request)}, though '{feature}' is not claimed")


@pytest.mark.parametrize("history", ODD_HISTORIES)
def test_an_odd_history_is_sent_or_refused(subject: Subject, history: str) -> None:
    """Clients send what a model has said, and models write what is no JSON: who can't send that says so by a
    `ProviderError`, and the client is told its mistake. Any other exception is the gateway's own fault to it."""
    if "tools" not in subject.features and history in ODD_CALLS:
        return
    try:
        wire = subject.build(ODD_HISTORIES[history])
    except ProviderError:
        return
    check_wire(wire, subject.target.base_path)
    assert as_map(loads(wire.body))


def test_an_effort_makes_a_difference(family: Subject) -> None:
    """Of those that the model knows; where none are known, of the usual ones."""
    if "reasoning_effort" not in family.parameters:
        return
    efforts = family.facts.efforts or (() if known_models(family.adapter) else ("low", "medium", "high"))
    built = [family.build(replace(question(), reasoning_effort=effort)) for effort in efforts]
    assert not built or len(efforts) == 1 or any(one != family.build(question()) for one in built), (
        "`reasoning_effort` is claimed and makes no difference"
    )


def test_usage_is_not_asked_for_where_the_server_has_no_field_for_it(subject: Subject) -> None:
    adapter = subject.adapter
    if not isinstance(adapter, AsksForUsage) or not adapter.asks_for_usage:
        return
    completion, request = rich_answer(subject)
    asked = replace(request, stream=True, include_usage=True)
    without = replace(subject, facts=replace(subject.facts, without=subject.facts.without | {STREAM_OPTIONS}))
    said, unsaid = (as_map(loads(one.build(asked).body)) for one in (subject, without))
    assert unsaid == {name: value for name, value in said.items() if name != STREAM_OPTIONS}
    answer = without.folded(*without.stream(completion, asked))
    assert replace(answer, usage=None) == replace(subject.folded(*subject.stream(completion, asked)), usage=None)


def test_zero_is_a_value(family: Subject) -> None:
    """What is 0 was said: it is no absent one. A vendor that takes no 0 is sent the least that it takes."""
    for name, most in (("temperature", 0.1), ("top_p", 0.1), ("seed", 1)):
        if name in family.parameters:
            sent = getattr(family.asked(replace(question(), **{name: 0})), name)  # type: ignore[arg-type]
            assert sent is not None, f"{name} of 0 is lost"
            assert sent <= most, f"{name} of 0 became {sent}"


def test_what_the_operator_lets_through_is_sent(subject: Subject) -> None:
    target = replace(subject.target, passthrough=frozenset({"x_extra"}))
    body = loads(subject.adapter.build_request(replace(question(), extra={"x_extra": "client"}), target).body)
    assert list(_values_at("x_extra", body)) == ["client"], "`request.extra` goes into the body"


def test_the_provider_s_own_parameters_are_sent(family: Subject) -> None:
    """What is claimed beyond the canonical parameters arrives in `request.extra`, by its name."""
    plain = family.build(question())
    for name in sorted(family.adapter.capabilities.parameters - PARAMETERS - family.facts.without):
        built = [family.build(replace(question(), extra={name: value})) for value in (7, True, False)]
        assert any(one != plain for one in built), f"{name} is claimed and makes no difference"


def test_what_a_site_pins_is_written_last(subject: Subject) -> None:
    asked = replace(question(), extra={"x_pinned": "client"})
    target = replace(subject.target, pins={"x_pinned": "site"}, passthrough=frozenset({"x_pinned"}))
    body = loads(subject.adapter.build_request(asked, target).body)
    assert list(_values_at("x_pinned", body)) == ["site"], (
        "`target.pins` goes into the body last, behind `request.extra`"
    )


def test_the_pins_of_every_site_are_understood(family: Subject) -> None:
    for site in family.adapter.sites.values():
        if site.pins and site.scopes and site.residency_of(family.model) is site.residency:
            # What a site pins may be a word that only the models of its scopes know.
            continue
        target = Target(family.model, site.base_path, family.facts, site.pins)
        wire = family.adapter.build_request(question(), target)
        assert conversation(family.read(wire)) == conversation(question())


def _without(limit: int, value: object) -> object:
    """The JSON value without the members that are this number."""
    if isinstance(value, dict):
        return {
            name: _without(limit, member)
            for name, member in value.items()
            if type(member) is not int or member != limit
        }
    return [_without(limit, member) for member in value] if isinstance(value, list) else value


def _values_at(key: str, value: object) -> Iterator[object]:
    """What stands at this key, anywhere in a JSON value: each format has its own place for what it is told."""
    for name, member in as_map(value).items():
        if name == key:
            yield member
        yield from _values_at(key, member)
