"""The bound of a call's input, the cap of its output, and its worst cost."""

from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from gateway.model.deployment import Deployment
from gateway.usage import worst_cost as module
from gateway.usage.amounts import ExchangeRates
from gateway.usage.worst_cost import LEAST_CAP_SENT, CallFacts, input_bound, largest_cap, worst_cost
from providers import chat
from providers.catalogue.prices import Price, Rates
from providers.chat import ChatRequest, TextPart, UserMessage
from providers.openai_json.plain_request import plain_request
from tests.kit.configs import BASE, table_of

RATES = ExchangeRates("USD")
CALL = chat.AssistantMessage(None, tool_calls=(chat.ToolCall("id", "get", "{}"),))
TOOL = chat.Tool("f", "does", {"type": "object"})


def deployment(**facts: Any) -> Deployment:
    one = next(iter(table_of(BASE).deployments.values()))
    return replace(one, target=replace(one.target, facts=replace(one.target.facts, **facts)))


def price(**more: Any) -> Price:
    return Price(Rates(2, 8, **more.pop("rates", {})), "USD", None, "test", **more)


@pytest.mark.parametrize(
    ("messages", "more", "expected"),
    [
        ((UserMessage("abcd"),), {}, 64 + 16 + 4),
        ((chat.SystemMessage("ab"), UserMessage("中文")), {}, 64 + 32 + 2 + 6),
        ((UserMessage((TextPart("ab"), chat.ImagePart("data:image/png;base64,AA"))),), {}, 64 + 16 + 2 + 16_384),
        ((UserMessage((TextPart("ab"), TextPart("cd"), TextPart("e"))),), {}, 64 + 16 + 5 + 2 * 2),
        ((UserMessage("ab", name="bob"),), {}, 64 + 16 + 2 + 3),
        ((UserMessage("a"), CALL, chat.ToolMessage("id", "done")), {}, 64 + 48 + 1 + (16 + 2 + 3 + 2) + (2 + 4)),
        ((UserMessage("a"),), {"tools": (TOOL,)}, 1024 + 16 + 1 + 16 + 1 + 4 + 17),
    ],
)
def test_input_is_bounded_by_its_bytes(messages: tuple[Any, ...], more: dict[str, Any], expected: int) -> None:
    assert input_bound(ChatRequest("a", messages, **more)) == expected


def facts(request: ChatRequest, one: Deployment | None = None) -> CallFacts:
    return module.facts_of(request, one or deployment(), RATES, 0)


def priced(bound: int, one: Price, tools: int = 0, choices: int = 1, thinking: int = 0) -> CallFacts:
    """The facts of a call with this bound and price."""
    called = {"search": tools} if tools else None
    return CallFacts(ChatRequest("a", ()), deployment(), RATES, one, called, bound, choices, thinking)


def nano_of(call: CallFacts, cap: int) -> int:
    return worst_cost(call, cap)[1].own_nano


@pytest.mark.parametrize(
    ("fields", "cap", "output"),
    [({"max_tokens": 100, "n": 3}, 100, 300), ({}, 1000, 1000), ({}, 1, LEAST_CAP_SENT)],
    ids=["each choice", "one choice", "a cap that is smaller than any vendor takes"],
)
def test_output_is_the_cap_of_each_choice(fields: dict[str, int], cap: int, output: int) -> None:
    assert worst_cost(facts(ChatRequest("a", (UserMessage("a"),), **fields)), cap)[0] == output


def test_thinking_comes_on_top_where_the_cap_does_not_limit_it() -> None:
    request = ChatRequest("a", (UserMessage("a"),), max_tokens=100, reasoning_effort="high")
    one = deployment(output_tokens=1000)
    for limits_thinking, output in ((True, 100), (False, 1100)):
        capabilities = replace(one.capabilities, limits_thinking=limits_thinking)
        assert worst_cost(facts(request, replace(one, capabilities=capabilities)), 100)[0] == output


def test_worst_cost_uses_the_highest_rates_of_the_tier() -> None:
    assert nano_of(priced(10_000, price()), 5_000) == 10 * 2 + 5 * 8
    assert nano_of(priced(10_000, price(rates={"cache_write": 3, "reasoning": 9})), 5_000) == 10 * 3 + 5 * 9
    tiered = price(above=((10_000, Rates(4, 16)),))
    assert nano_of(priced(10_000, tiered), 1_000) == 10 * 2 + 8
    assert nano_of(priced(11_000, tiered), 1_000) == 11 * 4 + 16


def test_call_without_a_price_has_no_amount() -> None:
    unknown = replace(deployment(), price=None)
    call = facts(ChatRequest("a", (UserMessage("a"),)), unknown)
    assert (worst_cost(call, 100)[1], largest_cap(call, nano=10**9), call.is_priced) == (None, -1, False)


@given(
    bound=st.integers(0, 300_000),
    amount=st.integers(0, 10**7),
    choices=st.integers(1, 4),
    thinking=st.sampled_from([0, 1_000]),
    above=st.sampled_from([(), ((100_000, Rates(4, 16)),)]),
    fee=st.sampled_from([0, 10_000]),
)
def test_largest_cap_is_the_most_that_an_amount_pays(
    bound: int, amount: int, choices: int, thinking: int, above: tuple[tuple[int, Rates], ...], fee: int
) -> None:
    call = priced(bound, price(above=above, tool_calls=(("search", fee),)), fee and 1, choices, thinking)
    cap = largest_cap(call, nano=amount)
    assert cap < LEAST_CAP_SENT or nano_of(call, cap) <= amount
    assert cap < LEAST_CAP_SENT - 1 or nano_of(call, cap + 1) > amount
    cap = largest_cap(call, tokens=amount)
    assert cap < LEAST_CAP_SENT or bound + worst_cost(call, cap)[0] <= amount
    assert cap < LEAST_CAP_SENT - 1 or bound + worst_cost(call, cap + 1)[0] > amount


def test_output_that_costs_nothing_is_paid_without_a_limit() -> None:
    free = Price(Rates(2, 0), "USD", None, "test")
    assert largest_cap(priced(50_000, free), nano=100) == module.UNLIMITED
    assert largest_cap(priced(50_000, free), nano=99) < 0


@pytest.mark.parametrize("text", ["hello", "", "grüße 你好 🙂", "x" * 1000])
def test_plain_messages_have_the_bound_of_the_same_messages_in_another_form(text: str) -> None:
    entries = [{"role": "system", "content": text}, {"role": "user", "content": text[::-1]}]
    plain = plain_request({"model": "m", "messages": entries}, 10)
    assert type(plain.messages) is chat.Texts
    assert input_bound(plain) == input_bound(ChatRequest("m", (*plain.messages,)))
