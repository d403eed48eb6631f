"""Test an adapter's requests: deterministic, with the right path, and with the meaning of the canonical request."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy

import pytest

from providers.adapter import STREAM_OPTIONS, AsksForUsage, CountsTokens, EmulatesFeatures, Target
from providers.chat import ChatRequest
from providers.conformance import cases
from providers.conformance.checks import check_wire
from providers.conformance.meaning import callable_tools, conversation, is_absent, parameters
from providers.conformance.subject import Subject
from providers.failures import ProviderError, UnsupportedFeature
from providers.inputs.embeddings.values import EmbeddingRequest
from providers.inputs.uses import INPUTS
from providers.json_values import as_map, dumps, loads
from providers.matching.capability_matching import ANSWERS_ITSELF
from providers.matching.requirements import ATTRIBUTION, FEATURES, PARAMETERS
from providers.moderations.contract import Moderates
from providers.moderations.values import ModerationRequest
from providers.openai_json import encode_request
from providers.reading.json_object import JSON_OBJECT
from providers.testkit.simulator import RequestRejected, SimulatesCounts
from providers.value import replace
from providers.wire import WireRequest

_TUNING = tuple(
    "temperature top_p presence_penalty frequency_penalty seed stop logit_bias user logprobs top_logprobs "
    "response_format".split()
)
"""Parameters for which the provider's own default must apply. Reasoning effort and parallel tool calls are left out:
the defaults of vendors differ there, and an adapter may send a value to make the vendors alike."""

_PLACE = re.compile("/(?:projects|locations|regions)/[^/]*")
_QUOTED_CHARACTERS = 5
"""Shorter texts of a conversation, such as `{}`, also occur in messages that quote nothing."""

_HOSTILE = (*cases.HOSTILE_NAMES, "x" * 5000)


def test_build_request_is_deterministic_and_does_not_change_its_input(request_case: cases.RequestCase) -> None:
    request, target = deepcopy(request_case.request), request_case.subject.target
    before = repr((request, target))
    first, again = (request_case.subject.adapter.build_request(request, target) for _ in range(2))
    assert repr((request, target)) == before, "`build_request` changed its argument `request` or `target`"
    assert again == first, "`build_request` gave two results for the same request"


def test_path_and_headers_are_valid(request_case: cases.RequestCase) -> None:
    wire = request_case.subject.build(request_case.request)
    check_wire(wire, request_case.subject.target.base_path)
    assert as_map(loads(wire.body)), "the body is not a JSON object, or is empty"


def test_provider_receives_the_same_request(request_case: cases.RequestCase) -> None:
    sent = request_case.subject.received(request_case.request)
    wanted = request_case.subject.worded(request_case.request)
    assert sent.model == request_case.subject.model, (
        f"model: send `target.model` ({request_case.subject.model!r}), not {sent.model!r}; `request.model` is the "
        "client's name for it"
    )
    for read in (conversation, callable_tools, lambda one: parameters(one, wanted)):
        expected, received = read(wanted), read(sent)
        assert received == expected, f"the client sent\n{expected!r}\nand the provider receives\n{received!r}"
    # For a model that only streams, the adapter may request a stream when the client wants JSON: both can be read.
    assert sent.stream or not wanted.stream, "a request for a stream must ask the provider for a stream"


def test_no_parameter_is_added(request_case: cases.RequestCase) -> None:
    """An adapter must not send parameters of its own: they change the answer, and the client cannot see them."""
    sent, wanted = request_case.subject.received(request_case.request), request_case.request
    for name in _TUNING:
        if is_absent(getattr(wanted, name)):
            value = getattr(sent, name)
            assert is_absent(value), f"{name}={value!r} is sent, but the request does not set it"


def test_no_unneeded_max_tokens_is_sent(subject: Subject) -> None:
    """An adapter may add `max_tokens` only if the vendor requires it, so that its simulator refuses a request without.

    Without this rule, answers would be cut off, and the model would seem to be the cause.
    """
    wire = subject.build(cases.question())
    limit = subject.read(wire).max_tokens
    if limit is not None:
        without_limit = replace(wire, body=dumps(_without(limit, loads(wire.body))))
        with pytest.raises(RequestRejected):
            pytest.fail(
                f"max_tokens={limit} is sent, but the provider also accepts the request without it: "
                f"{subject.read(without_limit)}"
            )


def test_folded_stream_request_differs_only_in_its_form(request_case: cases.RequestCase) -> None:
    """Only the form may differ: a model that reasons only in streams must not start to reason.

    A vendor may have no stream for an answer of this form.
    """
    json_body = replace(request_case.request, stream=False, include_usage=False)
    whole, folded = (
        request_case.subject.received(one) for one in (json_body, replace(json_body, stream=True, folded=True))
    )
    streamed = request_case.subject.received(replace(json_body, stream=True))
    assert folded.stream == streamed.stream, "a whole answer of a model that only streams must be asked for as a stream"
    assert replace(folded, stream=whole.stream, include_usage=whole.include_usage) == whole, (
        "a folded stream must be asked for as a whole answer is, but for its form"
    )


def test_every_request_stays_at_the_location_of_its_site(subject: Subject) -> None:
    """A chat, a count of its tokens, embeddings and moderations go to the place that the site's facts are about.

    The caller adds the origin of the site, so an adapter can leave it only by the path.
    """
    base_paths = [site.base_path for site in subject.adapter.sites.values()] or [subject.target.base_path]
    for base_path in {*base_paths, "/of/projects/p/locations/here/v1"}:
        target = replace(subject.target, base_path=base_path, counts=True)
        requests, wires = [cases.question(), replace(cases.question(), stream=True)], []
        wires += [subject.adapter.build_request(request, target) for request in requests]
        if (embeddings := INPUTS["embeddings"].format_of(subject.adapter)) is not None:
            wires.append(embeddings.build_request(EmbeddingRequest("assistant", ("one",)), target))
        if isinstance(subject.adapter, Moderates) and (moderations := subject.adapter.moderations) is not None:
            wires.append(moderations.build_request(ModerationRequest("assistant", ("one",)), target))
        for wire in wires:
            check_wire(wire, base_path)
        if (counted := _count_request(subject, target)) is not None:
            # The API of a count may have a version of its own, below the path of the server.
            check_wire(counted, base_path.removesuffix("/v1"))
            wires.append(counted)
        for wire in wires:
            assert _PLACE.findall(wire.path) == _PLACE.findall(base_path), (
                f"path {wire.path!r}: leads to another project or location than {base_path!r}"
            )


def test_count_reaches_the_simulator(subject: Subject) -> None:
    target, simulator = replace(subject.target, counts=True), subject.simulator
    if (wire := _count_request(subject, target)) is None:
        return
    assert isinstance(simulator, SimulatesCounts), "add `read_count` and `write_count` to the simulator"
    read = simulator.read_count(subject.incoming(wire))
    assert read is not None, "the simulator does not know the path of counts"
    assert conversation(read) == conversation(cases.question()), (
        "the count must be asked for with the same conversation"
    )
    assert simulator.read_count(subject.incoming(subject.adapter.build_request(cases.question(), target))) is None, (
        "the simulator takes a chat for a count of tokens"
    )


def _count_request(subject: Subject, target: Target) -> WireRequest | None:
    adapter = subject.adapter
    return adapter.count_request(cases.question(), target) if isinstance(adapter, CountsTokens) else None


@pytest.mark.parametrize("model", _HOSTILE, ids=lambda name: ascii(name[:40]))
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_model_name_cannot_change_the_destination(subject: Subject, model: str, stream: bool) -> None:
    target = replace(subject.target, model=model)
    try:
        wire = subject.adapter.build_request(replace(cases.question(), stream=stream), target)
    except ProviderError:
        return
    check_wire(wire, target.base_path)


@pytest.mark.parametrize("base_path", ["", "/v1", "/a/b/c"])
def test_base_path_of_the_target_is_used(subject: Subject, base_path: str) -> None:
    wire = subject.adapter.build_request(cases.question(), replace(subject.target, base_path=base_path))
    check_wire(wire, base_path)


def test_claimed_features_are_known(family: Subject) -> None:
    unknown = sorted(family.adapter.capabilities.features - FEATURES)
    assert not unknown, f"unknown features {', '.join(unknown)}; known features: {', '.join(sorted(FEATURES))}"


def test_emulated_features_are_claimed(family: Subject) -> None:
    """Only `json_object` can be emulated, because the reader of answers checks no other feature."""
    adapter = family.adapter
    if not isinstance(adapter, EmulatesFeatures):
        return
    unknown = sorted(adapter.emulated - {JSON_OBJECT})
    assert not unknown, f"`emulated` has {', '.join(unknown)}: only {JSON_OBJECT} can be emulated"
    unclaimed = sorted(adapter.emulated - adapter.capabilities.features)
    assert not unclaimed, f"add the emulated features {', '.join(unclaimed)} to `capabilities.features`"


def test_unclaimed_feature_is_refused(subject: Subject) -> None:
    # A model with this flag continues a last message of the assistant, so the adapter need not claim `prefill`.
    implied = {"prefill"} if ANSWERS_ITSELF in subject.facts.flags else set()
    for feature, requests in cases.feature_requests().items():
        if feature in subject.adapter.capabilities.features | implied:
            continue
        for name, request in requests.items():
            with pytest.raises(UnsupportedFeature) as refused:
                pytest.fail(
                    f"the request {name!r} needs the feature '{feature}', which the adapter does not claim: raise "
                    f"UnsupportedFeature instead of sending {subject.build(request)}"
                )
            _check_quotes_no_prompt(refused.value, request)


@pytest.mark.parametrize("history", cases.ODD_HISTORIES)
def test_unusual_history_is_sent_or_refused(subject: Subject, history: str) -> None:
    """Clients send models' earlier answers back, and models write tool arguments that are not JSON.

    An adapter that cannot send such a history raises a `ProviderError`, which becomes a client error. Any other
    exception becomes an internal error of the gateway.
    """
    if "tools" not in subject.features and history in cases.ODD_CALLS:
        return
    try:
        wire = subject.build(cases.ODD_HISTORIES[history])
    except ProviderError as refused:
        _check_quotes_no_prompt(refused, cases.ODD_HISTORIES[history])
        return
    check_wire(wire, subject.target.base_path)
    assert as_map(loads(wire.body)), "the body of a request must be a JSON object with members"


def test_reasoning_effort_changes_the_request(family: Subject) -> None:
    """Each effort that the model knows changes the request, or each usual effort if none is known."""
    if "reasoning_effort" not in family.parameters:
        return
    efforts = family.facts.efforts or (cases.USUAL_EFFORTS if family.is_invented else ())
    built = [family.build(replace(cases.question(), reasoning_effort=effort)) for effort in efforts]
    assert not built or len(efforts) == 1 or any(one != family.build(cases.question()) for one in built), (
        "the adapter claims `reasoning_effort`, but it does not change the request"
    )


def test_stream_options_are_omitted_when_unsupported(subject: Subject) -> None:
    adapter = subject.adapter
    if not isinstance(adapter, AsksForUsage) or not adapter.asks_for_usage:
        return
    completion, request = cases.rich_answer(subject)
    streamed = replace(request, stream=True, include_usage=True)
    unsupported = replace(subject, facts=replace(subject.facts, without=subject.facts.without | {STREAM_OPTIONS}))
    with_options, without_options = (as_map(loads(one.build(streamed).body)) for one in (subject, unsupported))
    assert without_options == {name: value for name, value in with_options.items() if name != STREAM_OPTIONS}, (
        "without `stream_options` the body must be the same but for this member"
    )
    answer = unsupported.folded(*unsupported.stream(completion, streamed))
    assert replace(answer, usage=None) == replace(subject.folded(*subject.stream(completion, streamed)), usage=None), (
        "without `stream_options` a stream must be read as before, but for its usage"
    )


def test_zero_is_sent_as_a_value(family: Subject) -> None:
    """0 must not be read as absent. If a vendor does not accept 0, the adapter sends the smallest accepted value."""
    for name, most in (("temperature", 0.1), ("top_p", 0.1), ("seed", 1)):
        if name in family.parameters:
            sent = getattr(family.received(replace(cases.question(), **{name: 0})), name)  # type: ignore[arg-type]
            assert sent is not None, f"{name}=0 is not sent"
            assert sent <= most, f"{name}=0 is sent as {sent}"


def test_passthrough_parameter_is_sent(subject: Subject) -> None:
    target = replace(subject.target, passthrough=frozenset({"x_extra"}))
    body = loads(subject.adapter.build_request(replace(cases.question(), extra={"x_extra": "client"}), target).body)
    assert list(_values_at("x_extra", body)) == ["client"], "write the members of `request.extra` into the body"


def test_claimed_vendor_parameters_are_sent(family: Subject) -> None:
    """A claimed parameter that is not canonical arrives in `request.extra` under its name."""
    plain = family.build(cases.question())
    for name in sorted(family.adapter.capabilities.parameters - PARAMETERS - {ATTRIBUTION} - family.facts.without):
        built = [family.build(replace(cases.question(), extra={name: value})) for value in (7, True, False)]
        assert any(one != plain for one in built), f"the adapter claims `{name}`, but it does not change the request"


def test_pinned_value_overrides_the_client(subject: Subject) -> None:
    request = replace(cases.question(), extra={"x_pinned": "client"})
    target = replace(subject.target, pins={"x_pinned": "site"}, passthrough=frozenset({"x_pinned"}))
    body = loads(subject.adapter.build_request(request, target).body)
    assert list(_values_at("x_pinned", body)) == ["site"], (
        "write `target.pins` into the body last, after `request.extra`, so that they override it"
    )


def test_pins_of_every_site_are_accepted(family: Subject) -> None:
    for site in family.adapter.sites.values():
        if site.pins and site.scopes and site.residency_of(family.model) is site.residency:
            # A pinned value may be one that only the models of the site's scopes know.
            continue
        target = Target(family.model, site.base_path, family.facts, site.pins)
        wire = family.adapter.build_request(cases.question(), target)
        assert conversation(family.read(wire)) == conversation(cases.question()), (
            "the pins of a site must leave the conversation as it is"
        )


@pytest.mark.parametrize("parameter", cases.PARAMETER_BOUNDS)
def test_parameter_at_its_bounds_is_accepted(family: Subject, parameter: str) -> None:
    """OpenAI's bounds must reach the provider, or the nearest values that it accepts.

    Only an adapter that knows the bounds of its vendor can adjust a value, because the gateway does not.
    """
    if parameter not in family.parameters:
        return
    low, middle, high = (_sent_value(family, parameter, value) for value in cases.PARAMETER_BOUNDS[parameter])
    for name, value in (("lowest", low), ("highest", high)):
        assert value is not None, f"the {name} value of `{parameter}` is not sent"
    if all(isinstance(value, int | float) for value in (low, middle, high)) and parameter != "seed":
        assert low <= middle <= high, (  # type: ignore[operator]
            f"{cases.PARAMETER_BOUNDS[parameter]!r} as `{parameter}` is sent as {low}, {middle} and {high}: send the "
            "nearest value that the vendor accepts"
        )
        assert low < high, f"each value of `{parameter}` is sent as {low}"  # type: ignore[operator]


def _sent_value(subject: Subject, parameter: str, value: object) -> object:
    """Return the value that the provider receives. An adapter may refuse a value with UnsupportedFeature."""
    value = tuple(value) if isinstance(value, list) else value
    request = replace(cases.question(), **{parameter: value})  # type: ignore[arg-type]
    try:
        wire = subject.build(request)
    except UnsupportedFeature:
        return value
    try:
        received: object = getattr(subject.read(wire), parameter)
    except RequestRejected as error:
        pytest.fail(f"{parameter}={value!r} is sent, and the provider refuses it ({error}): send the nearest value")
    if isinstance(value, tuple | dict):
        assert received == value, f"{parameter}={value!r} is sent as {received!r}"
    return received


def _check_quotes_no_prompt(refused: Exception, request: ChatRequest) -> None:
    """Assert that the message of a refusal has no text of the conversation. It is logged, and prompts are not."""
    for text in _texts_in(encode_request(request, "")["messages"]):
        assert len(text) < _QUOTED_CHARACTERS or text not in str(refused), (
            f"the message {str(refused)!r} repeats a text of the conversation: name the field or the position instead"
        )


def _texts_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, member in value.items():
            yield from () if name in ("type", "role", "name") else _texts_in(member)
    elif isinstance(value, list):
        for member in value:
            yield from _texts_in(member)


def _without(limit: int, value: object) -> object:
    """Return the JSON value without the members that equal `limit`."""
    if isinstance(value, dict):
        return {
            name: _without(limit, member)
            for name, member in value.items()
            if type(member) is not int or member != limit
        }
    return [_without(limit, member) for member in value] if isinstance(value, list) else value


def _values_at(key: str, value: object) -> Iterator[object]:
    """Yield the values under a key anywhere in a JSON value. The place of a parameter differs between formats."""
    for name, member in as_map(value).items():
        if name == key:
            yield member
        yield from _values_at(key, member)
