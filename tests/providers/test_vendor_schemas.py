"""The requests of the adapters of OpenAI, Anthropic, Gemini and Bedrock fit their vendors' schemas and rules.

The schemas of OpenAI and Bedrock are development tools. Those of Anthropic and Gemini come with `make install-sdks`;
without them the fast suite checks the rules alone, and `make ci` checks both.
"""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.adapter import Capabilities, Target
from providers.chat import ChatRequest
from providers.conformance.cases import ODD_HISTORIES, question, request_cases
from providers.conformance.subject import Subject, incoming_of, subjects_of
from providers.failures import ProviderError
from providers.json_values import dumps, loads
from providers.matching.capability_matching import (
    match_capabilities,
    parameters_of,
    with_supported_choice,
    without_parameters,
)
from providers.matching.requirements import requirements_of
from providers.registry import load_registry
from providers.testkit.simulator import load_simulators
from providers.wire import WireRequest
from tests.kit.chat_strategies import requests, unhurried
from tests.kit.vendor_checks import CHECKED_VENDORS, request_errors
from tests.kit.vendor_checks.schemas import has_schema


def _models_of(vendor: str) -> list[Subject]:
    """Return the subjects of a vendor without the kit's invented model, about which a vendor has no rules."""
    subjects = subjects_of(load_registry().adapters[vendor], load_simulators().simulators[vendor])
    return [one for one in subjects if not one.is_invented] or list(subjects)


SUBJECTS = {name: _models_of(name) for name in CHECKED_VENDORS}
# The most capable model of an adapter comes first; the others run with `make ci`.
EVERY_SUBJECT = [
    pytest.param(one, id=str(one), marks=[pytest.mark.slow] if number else [])
    for subjects in SUBJECTS.values()
    for number, one in enumerate(subjects)
]
_MOST_CANDIDATES = 8


def errors_of(subject: Subject, wire: WireRequest) -> list[str]:
    return request_errors(subject.simulator.name, incoming_of(wire))


def requests_of_the_kit(subject: Subject) -> Iterator[tuple[str, ChatRequest]]:
    for case in request_cases(subject):
        yield case.name, case.request
    yield from ODD_HISTORIES.items()
    for name in sorted(subject.parameters & {"temperature", "top_p", "seed"}):
        yield f"{name} of 0", replace(question(), **{name: 0})


@pytest.mark.parametrize("subject", EVERY_SUBJECT)
def test_requests_of_the_kit_are_accepted(subject: Subject) -> None:
    built = 0
    for name, request in requests_of_the_kit(subject):
        for form in (request, replace(request, stream=True, folded=True)):
            try:
                wire = subject.build(form)
            except ProviderError:
                assert name in ODD_HISTORIES
                continue
            built += 1
            assert not errors_of(subject, wire), f"{name}: {wire.body!r}"
    assert built > 2 * len(list(request_cases(subject)))


@pytest.mark.parametrize("subject", EVERY_SUBJECT)
def test_pinned_values_are_accepted(subject: Subject) -> None:
    for site in subject.adapter.sites.values():
        if site.pins and site.scopes and site.residency_of(subject.model) is site.residency:
            continue
        target = Target(subject.model, site.base_path, subject.facts, site.pins)
        assert not errors_of(subject, subject.adapter.build_request(question(), target))


def _is_sound(request: ChatRequest) -> bool:
    """Return whether the client's own data is valid, because it reaches the vendor unchanged."""
    written = repr(request)
    names = [tool.name for tool in request.tools]
    return (
        "aGk_-" not in written  # not base64
        and "x-m4a" not in written
        and len(set(names)) == len(names)
        and (request.n or 1) <= _MOST_CANDIDATES
        and type(request.extra.get("top_k", 1)) in (int, float)
    )


def as_sent(subject: Subject, request: ChatRequest) -> WireRequest | None:
    """Return the request that a deployment of this model gets, or None if it gets none."""
    capabilities = Capabilities(subject.features, parameters_of(subject.adapter.capabilities, subject.facts))
    match = match_capabilities(requirements_of(request), capabilities, subject.facts)
    if match.missing or match.moving:
        return None
    try:
        return subject.build(with_supported_choice(without_parameters(request, match.unsupported), capabilities))
    except ProviderError:
        return None


@unhurried
@given(request=requests().filter(_is_sound), number=st.integers(0, 99))
def test_requests_of_any_client_are_accepted(request: ChatRequest, number: int) -> None:
    for subjects in SUBJECTS.values():
        subject = subjects[number % len(subjects)]
        wire = as_sent(subject, request)
        assert wire is None or not errors_of(subject, wire), f"{subject}: {wire.body!r}"


# --- the checks themselves ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("vendor", CHECKED_VENDORS)
def test_every_schema_is_installed(vendor: str) -> None:
    assert has_schema(vendor)


@pytest.mark.parametrize("vendor", CHECKED_VENDORS)
def test_schema_refuses_unknown_fields_and_wrong_types_at_any_depth(vendor: str) -> None:
    if not has_schema(vendor):
        pytest.skip("needs make install-sdks")
    subject = SUBJECTS[vendor][0]
    tools = dict(requests_of_the_kit(subject))["tool_parallel"]
    wire = subject.build(tools)
    assert not errors_of(subject, wire)
    body = loads(wire.body)
    # The version at Vertex AI and Bedrock is written by their clients, so the schema of the SDK does not have it.
    changed = [(place, it) for place, it in _with_mistakes(body) if place != ".anthropic_version"]
    assert len(changed) > 20
    for place, mistaken in changed:
        assert errors_of(subject, replace(wire, body=dumps(mistaken))), f"{place}: {mistaken}"


# The client's own data, which the vendor does not check: arguments of calls and schemas of tools.
_OWN = frozenset({"parameters", "parametersJsonSchema", "input_schema", "inputSchema", "args", "input", "response"})


def _with_mistakes(value: object, place: str = "") -> Iterator[tuple[str, object]]:
    """Yield the value with one error at each position: a new member in an object, or an object instead of a text."""
    if isinstance(value, dict):
        yield f"{place}.x_new", {**value, "x_new": 1}
        for name, member in value.items():
            if name not in _OWN or (name == "input" and isinstance(member, list)):
                for where, changed in _with_mistakes(member, f"{place}.{name}"):
                    yield where, {**value, name: changed}
    elif isinstance(value, list):
        for position, entry in enumerate(value):
            for where, changed in _with_mistakes(entry, f"{place}[{position}]"):
                yield where, [*value[:position], changed, *value[position + 1 :]]
    elif isinstance(value, str):
        yield place, {"x_new": 1}
