"""The requirements of a request, those that a deployment lacks, and the request without dropped parameters."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.adapter import Capabilities
from providers.catalogue.models import UNKNOWN_MODEL, ModelFacts
from providers.chat import (
    AllowedTools,
    AssistantMessage,
    AudioPart,
    ChatRequest,
    FilePart,
    ImagePart,
    JsonObjectFormat,
    JsonSchemaFormat,
    Message,
    NamedTool,
    Part,
    SystemMessage,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    ToolMessage,
    UserMessage,
)
from providers.matching.capability_matching import (
    THINKS_BY_RESPONSES,
    CapabilityMatch,
    has_effects_there,
    match_capabilities,
    parameters_of,
    reasons_unseen,
    with_supported_choice,
    without_parameters,
)
from providers.matching.requirements import (
    FEATURE_PARAMS,
    FEATURES,
    IMPLIED,
    PARAMETERS,
    Requirements,
    moves_data,
    requirements_of,
    why_it_moves,
)
from tests.kit.case_files import cases
from tests.kit.chat_strategies import requests, unhurried

EVERYTHING = Capabilities(FEATURES, PARAMETERS)
CALL = AssistantMessage(None, tool_calls=(ToolCall("c", "f", "{}"),))


def ask(*messages: Message, **fields: Any) -> ChatRequest:
    return ChatRequest("m", (*messages, UserMessage("hi")), **fields)


def showing(part: Part) -> ChatRequest:
    return ask(UserMessage((TextPart("look"), part)))


def needs(
    features: set[str] | None = None, parameters: set[str] | None = None, moving: set[str] | None = None
) -> Requirements:
    return Requirements(frozenset(features or ()), frozenset(parameters or ()), frozenset(moving or ()))


@cases("flags", "features", "anew", "missing")
def test_last_assistant_message_is_accepted_by_models_that_answer_it(
    flags: set[str], features: set[str], anew: bool, missing: set[str]
) -> None:
    asked = replace(needs(features), anew=anew)
    capabilities = Capabilities(frozenset({"tools"}), PARAMETERS)
    assert match_capabilities(asked, capabilities, ModelFacts(flags=frozenset(flags))).missing == missing


@pytest.mark.parametrize(
    ("request_", "features"),
    [
        (ask(), set()),
        (ask(SystemMessage("be")), set()),
        (ask(UserMessage((TextPart("a"),))), set()),
        (ask(tools=(Tool("f"),)), {"tools"}),
        (ask(CALL, ToolMessage("c", "ok")), {"tools"}),
        (ask(AssistantMessage("said before")), set()),
        (ChatRequest("m", (UserMessage("a"), AssistantMessage("b"))), {"prefill"}),
        (ask(tools=(Tool("f"),), tool_choice="auto"), {"tools"}),
        (ask(tools=(Tool("f"),), tool_choice="none"), {"tools"}),
        (ask(tools=(Tool("f"),), tool_choice="required"), {"tools", "tool_choice_required"}),
        (ask(tools=(Tool("f"),), tool_choice=NamedTool("f")), {"tools", "tool_choice_named"}),
        (ask(tools=(Tool("f"),), tool_choice=AllowedTools("required", ("f",))), {"tools", "tool_choice_required"}),
        (ask(tools=(Tool("f"),), tool_choice=AllowedTools("auto", ("f",))), {"tools"}),
        (showing(ImagePart("data:image/png;base64,aGk=")), {"vision"}),
        (showing(ImagePart("DATA:image/png;base64,aGk=")), {"vision"}),
        (showing(ImagePart("https://example.com/a.png")), {"vision", "image_url"}),
        (showing(ImagePart("http://[2606:4700::1111]/a.png")), {"vision", "image_url"}),
        (showing(AudioPart("aGk=", "wav")), {"audio"}),
        (showing(FilePart("data:application/pdf;base64,aGk=")), {"file"}),
        (ask(response_format=JsonObjectFormat()), {"json_object"}),
        (ask(response_format=JsonSchemaFormat("n", {})), {"json_schema"}),
        (ask(n=1), set()),
        (ask(n=2), {"n"}),
        (ask(logprobs=True, top_logprobs=3), {"logprobs"}),
        (ask(logprobs=False), set()),
        (ask(reasoning_effort="high"), set()),
    ],
)
def test_request_has_the_expected_required_features(request_: ChatRequest, features: set[str]) -> None:
    assert requirements_of(request_).features == features


_ONE, _TWO = (Tool("f"),), (Tool("f"), Tool("g"))
_BOTH, _NAME, _MUST = {"tool_choice_named", "tool_choice_required"}, {"tool_choice_named"}, {"tool_choice_required"}


@pytest.mark.parametrize(
    ("tools", "choice", "can", "missing", "sent_choice"),
    [
        (_ONE, "required", _NAME, set(), NamedTool("f")),
        (_ONE, NamedTool("f"), _MUST, set(), "required"),
        (_ONE, "required", _BOTH, set(), "required"),
        (_ONE, NamedTool("f"), _BOTH, set(), NamedTool("f")),
        (_ONE, "required", set(), _MUST, None),
        (_ONE, NamedTool("f"), set(), _NAME, None),
        (_ONE, "auto", set(), set(), "auto"),
        (_TWO, "required", _NAME, _MUST, None),
        (_TWO, NamedTool("f"), _MUST, _NAME, None),
        (_ONE, AllowedTools("required", ("f",)), _NAME, _MUST, None),
    ],
)
def test_tool_choice_of_a_single_tool_is_converted_between_named_and_required(
    tools: tuple[Tool, ...], choice: ToolChoice, can: set[str], missing: set[str], sent_choice: ToolChoice | None
) -> None:
    """`sent_choice` is the choice that such a wire format gets, or None if the request does not fit."""
    request = ask(tools=tools, tool_choice=choice)
    capabilities = Capabilities(frozenset({"tools"} | can), frozenset())
    assert match_capabilities(requirements_of(request), capabilities, ModelFacts()).missing == missing
    if sent_choice is not None:
        assert with_supported_choice(request, capabilities) == replace(request, tool_choice=sent_choice)


def test_effort_with_a_named_tool_is_reported_as_unsupported() -> None:
    thinks = ModelFacts(efforts=("low",), flags=frozenset({"thinking"}))
    capabilities = Capabilities(frozenset({"tools", "tool_choice_named", "reasoning"}), frozenset({"reasoning_effort"}))
    request = ask(tools=_ONE, tool_choice="required", reasoning_effort="low")
    assert match_capabilities(requirements_of(request), capabilities, thinks) == CapabilityMatch(
        frozenset(), frozenset({"reasoning_effort"}), frozenset()
    )


@pytest.mark.parametrize("fields", [{"extra": {"a name": 1}}, {"unread": frozenset({"a name"})}])
def test_needs_are_kept_but_not_by_a_name_that_a_client_made_up(fields: dict[str, Any]) -> None:
    """A name may be as long as a body, so it must not be cached."""
    assert requirements_of(ask(seed=1)) is requirements_of(ask(seed=2))
    made_up = requirements_of(ask(**fields))
    assert made_up.parameters | made_up.unread == {"a name"}
    assert made_up is not requirements_of(ask(**fields))


@pytest.mark.parametrize(
    ("fields", "parameters"),
    [
        ({}, set()),
        ({"temperature": 0.0}, {"temperature"}),
        ({"seed": 0, "top_p": 1.0, "user": ""}, {"seed", "top_p", "user"}),
        ({"stop": ()}, set()),
        ({"stop": ("END",)}, {"stop"}),
        ({"stop": ("END", "\n")}, {"stop", "blank_stop"}),
        ({"parallel_tool_calls": False}, {"parallel_tool_calls"}),
        ({"max_tokens": 5, "logit_bias": {}}, {"max_tokens", "logit_bias"}),
        ({"tools": (Tool("f"), Tool("g", strict=False))}, set()),
        ({"tools": (Tool("f"), Tool("g", strict=True))}, {"strict_tools"}),
        ({"extra": {"top_k": 3, "store": False}}, {"top_k", "store"}),
        ({"unread": frozenset({"messages.cache_control"})}, set()),
    ],
)
def test_request_has_the_expected_parameters(fields: dict[str, Any], parameters: set[str]) -> None:
    assert requirements_of(ask(**fields)).parameters == parameters


@cases("extra", "moving")
def test_field_moves_data_only_if_it_is_switched_on(extra: dict[str, Any], moving: set[str]) -> None:
    assert requirements_of(ask(extra=extra)).moving == moving


def test_fields_that_the_design_names_move_data() -> None:
    assert {"store", "server_url", "data_sources", "inference_geo", "enable_search"} <= moves_data()
    assert not moves_data() & PARAMETERS


@unhurried
@given(requests(inner=True))
def test_requirements_contain_known_names_only(request: ChatRequest) -> None:
    found = requirements_of(request)
    assert found.features <= FEATURES - {"reasoning"}
    assert found.parameters <= PARAMETERS | IMPLIED.keys() | request.extra.keys()
    assert {name.rpartition(".")[2] for name in found.moving} <= moves_data()
    assert {name.partition(".")[0] for name in found.moving} <= request.extra.keys()


# --- the difference -------------------------------------------------------------------------------

WORDS = ("tools", "vision", "n", "reasoning", "temperature", "reasoning_effort", "top_k", "store", "plugins")
some = st.sets(st.sampled_from(WORDS)).map(frozenset)


@unhurried
@given(some, some, some, some, some, some, some)
def test_the_difference_is_set_arithmetic(
    features: frozenset[str],
    parameters: frozenset[str],
    moving: frozenset[str],
    has: frozenset[str],
    knows: frozenset[str],
    passthrough: frozenset[str],
    allowed: frozenset[str],
) -> None:
    found = match_capabilities(
        Requirements(features, parameters, moving), Capabilities(has, knows), ModelFacts(), passthrough, allowed
    )
    assert found.missing == features - has
    assert found.moving == moving - allowed
    expressed = knows | passthrough | allowed
    if "reasoning_effort" in parameters and "reasoning" not in has:
        expressed -= {"reasoning_effort"}
    assert found.unsupported == parameters - expressed


def test_passed_through_field_does_not_include_data_moving_fields() -> None:
    asked = requirements_of(ask(extra={"more": {"mcp_servers": [{"url": "https://elsewhere.example"}]}}))
    found = match_capabilities(asked, EVERYTHING, UNKNOWN_MODEL, passthrough={"more"})
    assert found.moving == {"more.mcp_servers"}
    assert why_it_moves("more.mcp_servers") == "connects the model to servers elsewhere"
    assert not match_capabilities(
        asked, EVERYTHING, UNKNOWN_MODEL, passthrough={"more"}, allowed_moves={"mcp_servers"}
    ).moving
    dropped = match_capabilities(asked, EVERYTHING, UNKNOWN_MODEL)
    assert (dropped.unsupported, dropped.moving) == ({"more"}, frozenset())


def test_field_allowed_by_a_site_allows_no_other() -> None:
    asked = requirements_of(ask(extra={"search_options": {"mcp_servers": [{"url": "https://elsewhere.example"}]}}))
    found = match_capabilities(asked, EVERYTHING, UNKNOWN_MODEL, allowed_moves={"search_options"})
    assert (found.unsupported, found.moving) == (frozenset(), {"search_options.mcp_servers"})


def test_dropped_field_has_no_effects() -> None:
    asked = requirements_of(ask(extra={"more": {"store": True}}))
    assert not has_effects_there(asked, EVERYTHING)
    assert has_effects_there(asked, EVERYTHING, {"more"}, {"store"})
    assert has_effects_there(requirements_of(ask(extra={"store": True})), EVERYTHING, allowed_moves={"store"})


@cases("flags", "features", "takes_effect")
def test_an_effort_that_can_take_no_effect_is_unsupported(
    flags: set[str], features: set[str], takes_effect: bool
) -> None:
    facts = ModelFacts(flags=frozenset(flags))
    found = match_capabilities(needs(features, {"reasoning_effort"}), EVERYTHING, facts)
    assert found.missing == frozenset()
    assert found.unsupported == (frozenset() if takes_effect else {"reasoning_effort"})


@pytest.mark.parametrize(
    ("flag", "choice", "fits"),
    [
        ("json_without_tools", None, False),
        ("json_without_tools", "none", True),
        ("json_without_tools", "required", False),
        ("json_without_forced_tools", "auto", True),
        ("json_without_forced_tools", "required", False),
        ("json_without_forced_tools", NamedTool("look"), False),
    ],
)
def test_json_with_tools_that_may_be_called(flag: str, choice: ToolChoice | None, fits: bool) -> None:
    asked = requirements_of(ask(tools=(Tool("look"),), tool_choice=choice, response_format=JsonObjectFormat()))
    found = match_capabilities(asked, EVERYTHING, ModelFacts(flags=frozenset({flag})))
    assert found.missing == (frozenset() if fits else {"json_object"})


# --- dropped fields -------------------------------------------------------------------------------


@unhurried
@given(requests(inner=True), st.data())
def test_request_without_dropped_parameters_keeps_other_requirements(request: ChatRequest, data: st.DataObject) -> None:
    before = requirements_of(request)
    dropped = data.draw(st.sets(st.sampled_from(sorted(PARAMETERS | before.parameters))))
    after = without_parameters(request, dropped)
    found = requirements_of(after)
    gone = dropped | ({"blank_stop"} if "stop" in dropped else set())
    if "blank_stop" in dropped and not any(map(str.strip, request.stop)):
        # No stop sequence remains.
        gone.add("stop")
    assert found.parameters == before.parameters - gone
    assert found.features == before.features
    assert (after.model, after.stream) == (request.model, request.stream)
    if not dropped & {"message_name", "image_detail"}:
        assert after.messages == request.messages
    assert without_parameters(after, dropped) == after


def test_request_without_dropped_fields_is_the_same_object() -> None:
    request = ask(temperature=1.0)
    assert without_parameters(request, frozenset()) is request


def test_message_name_and_image_detail_are_dropped_separately() -> None:
    image = ImagePart("https://example.com/a.png", "low")
    request = ask(SystemMessage("be", name="s"), UserMessage((TextPart("a"), image), "u"), CALL, ToolMessage("c", "ok"))
    assert requirements_of(request).parameters == {"message_name", "image_detail"}
    assert requirements_of(showing(replace(image, detail="auto"))).parameters == set()
    plain = replace(image, detail=None)
    nameless = without_parameters(request, {"message_name"}).messages
    assert nameless[:2] == (SystemMessage("be"), UserMessage((TextPart("a"), image)))
    assert without_parameters(request, {"image_detail"}).messages[1] == UserMessage((TextPart("a"), plain), "u")
    assert nameless[2:] == request.messages[2:]


def test_a_dropped_strictness_leaves_the_tool() -> None:
    tools = (Tool("f", "d", {"type": "object"}, True), Tool("g"))
    assert without_parameters(ask(tools=tools), {"strict_tools"}).tools == (
        Tool("f", "d", {"type": "object"}),
        Tool("g"),
    )


@pytest.mark.parametrize(
    ("flags", "fields", "lacks"),
    [
        ({"tools_think_by_responses", "thinking_default"}, {"tools": (Tool("f"),)}, True),
        ({"tools_think_by_responses", "thinking_default"}, {}, False),
        ({"tools_think_by_responses", "thinking_default"}, {"tools": (Tool("f"),), "reasoning_effort": "none"}, False),
        ({"tools_think_by_responses"}, {"tools": (Tool("f"),)}, False),
        ({"tools_think_by_responses"}, {"tools": (Tool("f"),), "reasoning_effort": "low"}, True),
        ({"thinking_default"}, {"tools": (Tool("f"),), "reasoning_effort": "low"}, False),
    ],
)
def test_parameters_missing_in_the_responses_api_are_dropped_or_refused(
    flags: set[str], fields: dict[str, object], lacks: bool
) -> None:
    facts = ModelFacts(features=FEATURES, flags=frozenset(flags))
    asked = ask(stop=("x",), seed=7, max_tokens=5, n=2, **fields)
    found = match_capabilities(requirements_of(asked), EVERYTHING, facts)
    assert found.missing == ({"n"} if lacks else frozenset())
    assert found.unsupported == ({"stop", "seed"} if lacks else frozenset())


def test_a_stop_of_blanks_goes_where_stop_goes_unless_the_model_is_without_it() -> None:
    wire = Capabilities(frozenset(), frozenset({"stop", "seed"}))
    assert parameters_of(wire, ModelFacts()) == {"stop", "seed", "blank_stop"}
    assert parameters_of(wire, ModelFacts(without=frozenset({"blank_stop"}))) == {"stop", "seed"}
    assert parameters_of(Capabilities(frozenset(), frozenset({"seed"})), ModelFacts()) == {"seed"}
    asked = ask(stop=("\n", "END", " "))
    assert without_parameters(asked, {"blank_stop"}).stop == ("END",)
    assert without_parameters(asked, {"blank_stop", "stop"}).stop == ()


def test_one_of_two_exclusive_parameters_is_dropped() -> None:
    able = Capabilities(frozenset(), frozenset({"temperature", "top_p"}))
    facts = ModelFacts(flags=frozenset({"temperature_or_top_p"}))
    for parameters in ({"temperature": 0.0}, {"top_p": 0.5}):
        assert match_capabilities(requirements_of(ask(**parameters)), able, facts) == match_capabilities(
            requirements_of(ask()), able, facts
        )
    both = requirements_of(ask(temperature=0.0, top_p=0.5))
    assert match_capabilities(both, able, facts).unsupported == {"top_p"}
    assert match_capabilities(both, able, ModelFacts()).unsupported == frozenset()


def test_model_that_always_reasons_is_matched_with_the_responses_api() -> None:
    able = Capabilities(frozenset({"tools", "n", "reasoning"}), frozenset({"stop", "reasoning_effort"}))
    asked = requirements_of(ask(tools=(Tool("f"),), reasoning_effort="none", n=2))
    always, free = (
        ModelFacts(flags=frozenset({THINKS_BY_RESPONSES, "thinking_default"}), efforts=efforts)
        for efforts in (("low",), ("none", "low"))
    )
    assert match_capabilities(asked, able, always).missing == {"n"}
    assert match_capabilities(asked, able, free).missing == frozenset()


@cases("efforts", "effort", "long")
def test_model_without_a_low_effort_reasons_long_at_any_effort(
    efforts: tuple[str, ...], effort: str | None, long: bool
) -> None:
    assert reasons_unseen(ask(reasoning_effort=effort), ModelFacts(efforts=efforts)) is long


def test_field_named_like_a_feature_is_not_that_feature() -> None:
    # No name is both a feature and a parameter.
    assert FEATURES.isdisjoint(PARAMETERS | IMPLIED.keys())
    named = ask(extra={"vision": True, "unthinking": True}, unread=frozenset({"prefill"}))
    assert requirements_of(named) == replace(needs(parameters={"vision", "unthinking"}), unread=frozenset({"prefill"}))


def test_each_feature_has_the_field_that_an_error_names() -> None:
    """A feature without one would be an internal error when a deployment lacks it."""
    assert FEATURE_PARAMS.keys() >= FEATURES, "providers/matching/requirements.py"
