"""The bound of a call's input, the cap of its output, and its worst cost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.model.deployment import Deployment
from gateway.usage.hold_size import affordable_output, input_bound, most_output, worst_cost
from providers.catalogue.prices import Price, Rates
from providers.chat import (
    AssistantMessage,
    ChatRequest,
    ImagePart,
    SystemMessage,
    TextPart,
    Texts,
    Tool,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from providers.openai_json.plain_request import plain_request
from tests.kit.configs import BASE, table_of


def deployment(**facts: Any) -> Deployment:
    one = next(iter(table_of(BASE).deployments.values()))
    return replace(one, target=replace(one.target, facts=replace(one.target.facts, **facts)))


def price(**more: Any) -> Price:
    return Price(Rates(2, 8, **more.pop("rates", {})), "USD", None, "test", **more)


@pytest.mark.parametrize(
    ("messages", "more", "expected"),
    [
        ((UserMessage("abcd"),), {}, 64 + 16 + 4),
        ((SystemMessage("ab"), UserMessage("中文")), {}, 64 + 32 + 2 + 6),
        ((UserMessage((TextPart("ab"), ImagePart("data:image/png;base64,AA"))),), {}, 64 + 16 + 2 + 16_384),
        ((UserMessage((TextPart("ab"), TextPart("cd"), TextPart("e"))),), {}, 64 + 16 + 5 + 2 * 2),
        ((UserMessage("ab", name="bob"),), {}, 64 + 16 + 2 + 3),
        (
            (
                UserMessage("a"),
                AssistantMessage(None, tool_calls=(ToolCall("id", "get", "{}"),)),
                ToolMessage("id", "done"),
            ),
            {},
            64 + 48 + 1 + (16 + 2 + 3 + 2) + (2 + 4),
        ),
        ((UserMessage("a"),), {"tools": (Tool("f", "does", {"type": "object"}),)}, 1024 + 16 + 1 + 16 + 1 + 4 + 17),
    ],
)
def test_input_is_bounded_by_its_bytes(messages: tuple[Any, ...], more: dict[str, Any], expected: int) -> None:
    assert input_bound(ChatRequest("a", messages, **more)) == expected


def test_cap_is_that_of_the_request_for_each_choice() -> None:
    request = ChatRequest("a", (UserMessage("a"),), max_tokens=100, n=3)
    assert most_output(request, deployment(), 100) == 300


def test_output_of_one_choice_is_its_cap() -> None:
    request = ChatRequest("a", (UserMessage("a"),))
    assert most_output(request, deployment(), 1000) == 1000


def test_thinking_comes_on_top_where_the_cap_does_not_limit_it() -> None:
    request = ChatRequest("a", (UserMessage("a"),), max_tokens=100, reasoning_effort="high")
    one = deployment(output_tokens=1000)
    capabilities = one.capabilities
    one = replace(one, capabilities=replace(capabilities, limits_thinking=True))
    apart = replace(one, capabilities=replace(capabilities, limits_thinking=False))
    assert most_output(request, one, 100) == 100
    assert most_output(request, apart, 100) == 1100


def test_worst_cost_uses_the_highest_rates_of_the_tier() -> None:
    assert worst_cost(10, 5, price()) == 10 * 2 + 5 * 8
    assert worst_cost(10, 5, price(rates={"cache_write": 3, "reasoning": 9})) == 10 * 3 + 5 * 9
    tiered = price(above=((100, Rates(4, 16)),))
    assert worst_cost(100, 1, tiered) == 100 * 2 + 8
    assert worst_cost(101, 1, tiered) == 101 * 4 + 16


def test_affordable_output_is_the_most_that_the_amount_pays() -> None:
    one = price(above=((100, Rates(4, 16)),))
    for bound in (50, 100, 101):
        for amount in range(0, 1000, 7):
            output = affordable_output(amount, bound, one)
            assert output is not None
            assert output < 0 or worst_cost(bound, output, one) <= amount
            assert worst_cost(bound, output + 1, one) > amount
    assert affordable_output(100, 50, Price(Rates(2, 0), "USD", None, "test")) is None


@pytest.mark.parametrize("text", ["hello", "", "grüße 你好 🙂", "x" * 1000])
def test_plain_messages_have_the_bound_of_the_same_messages_in_another_form(text: str) -> None:
    entries = [{"role": "system", "content": text}, {"role": "user", "content": text[::-1]}]
    plain = plain_request({"model": "m", "messages": entries}, 10)
    assert plain is not None
    assert type(plain.messages) is Texts
    assert input_bound(plain) == input_bound(ChatRequest("m", (*plain.messages,)))
