"""Sealed reasoning state: only the vendor, site and model that made it get it back."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.deployment import Deployment
from gateway.policy.reasoning_seal import has_state, seal_of
from providers import chat
from tests.kit.configs import BASE, table_of

KEY, OTHER_KEY = b"k" * 32, b"x" * 32
DEPLOYMENT: Deployment = next(iter(table_of(BASE).deployments.values()))
SEAL = seal_of((KEY,), DEPLOYMENT)


def request_with(*signatures: str | None) -> chat.ChatRequest:
    calls = tuple(chat.ToolCall(f"c{place}", "look", "{}", each) for place, each in enumerate(signatures))
    results = (chat.ToolMessage(call.id, "seen") for call in calls)
    return chat.ChatRequest(
        "assistant", (chat.UserMessage("Hi"), chat.AssistantMessage(None, tool_calls=calls), *results)
    )


def signatures_of(request: chat.ChatRequest) -> list[str | None]:
    message = request.messages[1]
    assert isinstance(message, chat.AssistantMessage)
    return [call.signature for call in message.tool_calls]


@given(st.text(min_size=1))
def test_sealed_state_is_unsealed_for_the_same_deployment(state: str) -> None:
    assert SEAL.unseal(SEAL.seal(state)) == state


@pytest.mark.parametrize(
    "other",
    [
        seal_of((OTHER_KEY,), DEPLOYMENT),
        seal_of((KEY,), replace(DEPLOYMENT, provider="another")),
        seal_of((KEY,), replace(DEPLOYMENT, site="another")),
        seal_of((KEY,), replace(DEPLOYMENT, origin="https://another.example")),
        seal_of((KEY,), replace(DEPLOYMENT, model="another")),
    ],
    ids=["cell", "vendor", "site", "origin", "model"],
)
def test_state_of_another_deployment_is_left_out(other: object) -> None:
    assert SEAL.unseal(other.seal("state")) is None  # type: ignore[attr-defined]


def test_state_of_the_former_key_is_unsealed_while_the_key_is_replaced() -> None:
    rotated = seal_of((OTHER_KEY, KEY), DEPLOYMENT)
    assert rotated.unseal(SEAL.seal("state")) == "state"
    assert rotated.seal("state") == seal_of((OTHER_KEY,), DEPLOYMENT).seal("state")
    assert SEAL.unseal(rotated.seal("state")) is None


@given(st.text())
def test_unsealed_state_is_left_out_without_an_error(state: str) -> None:
    assert SEAL.unseal(state) is None


def test_changed_state_is_left_out() -> None:
    sealed = SEAL.seal("state")
    assert SEAL.unseal(sealed[:-1] + "f") is None


def test_request_keeps_own_state_and_loses_foreign_state() -> None:
    request = request_with(SEAL.seal("mine"), "theirs", None)
    assert has_state(request)
    assert signatures_of(SEAL.unseal_request(request)) == ["mine", None, None]
    assert not SEAL.unseals_all(request)
    assert SEAL.unseals_all(request_with(SEAL.seal("mine"), None))


def test_request_without_state_needs_no_seal() -> None:
    assert not has_state(request_with(None, None))
    assert not has_state(chat.ChatRequest("assistant", (chat.UserMessage("Hi"),)))


def test_answers_and_streams_are_sealed_alike() -> None:
    call = chat.ToolCall("c", "look", "{}", "state")
    completion = chat.ChatCompletion(
        "i", "m", 0, (chat.Choice(chat.AssistantMessage(None, tool_calls=(call,)), "tool_calls"),)
    )
    whole = SEAL.seal_completion(completion).choices[0].message.tool_calls[0].signature
    text = chat.TextDelta("Hi")
    batch = SEAL.seal_events((text, chat.ToolCallDelta(0, "", "c", "look", "state"), chat.ToolCallDelta(0, "{}")))
    assert batch[0] is text
    assert batch[1] == chat.ToolCallDelta(0, "", "c", "look", whole)
    assert whole == SEAL.seal("state")


def test_answers_without_state_are_returned_unchanged() -> None:
    completion = chat.ChatCompletion("i", "m", 0, (chat.Choice(chat.AssistantMessage("Hi"), "stop"),))
    events = (chat.TextDelta("Hi"), chat.ToolCallDelta(0, "{}"))
    assert SEAL.seal_completion(completion) is completion
    assert SEAL.seal_events(events) is events
